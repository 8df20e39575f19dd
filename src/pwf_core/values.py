"""Payloads: Python values to msgpack bytes and back, typed, bounded, and with one error.

Never pickle. attrs classes, dataclasses, msgspec structs, TypedDicts, enums, datetimes and builtins
work as they are. Bytes made here travel unchanged: they are decoded by the handler's side only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

import attrs
import msgspec

from pwf_core.errors import CodecError, DefinitionError, PayloadTooLargeError

__all__ = [
    "DECODE_ERRORS",
    "MAX_PAYLOAD",
    "NONE",
    "check_size",
    "decode",
    "decoder_for",
    "encode",
]

T = TypeVar("T")

MAX_PAYLOAD = 1024 * 1024  # bytes; below every broker's own limit (RabbitMQ 4: 16 MiB)
NONE = b"\xc0"  # msgpack nil

_encoder = msgspec.msgpack.Encoder()

# What the codec raises for values it cannot take: unknown types, numbers over 64 bits, lone
# surrogates, nesting without end.
_ENCODE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
_ADVICE = ". Payloads are attrs classes, dataclasses, msgspec structs and builtins."
# And for bytes: a TypeError is what msgspec before 0.22 says of a map with keys like no Python key.
DECODE_ERRORS = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)


def encode(value: object, what: str) -> bytes:
    """Return *value* as msgpack.

    Args:
        value: What to encode.
        what: How to call it in an error.

    Raises:
        CodecError: If it has no msgpack form.
        PayloadTooLargeError: If the bytes are more than `MAX_PAYLOAD`.
    """
    try:
        data = _encoder.encode(value)
    except _ENCODE_ERRORS as error:
        raise CodecError(what, _explain(value, error)) from error
    return check_size(data, what)


def check_size(data: bytes, what: str) -> bytes:
    """Return *data* if it is within `MAX_PAYLOAD`.

    Raises:
        PayloadTooLargeError: If it is not.
    """
    if len(data) > MAX_PAYLOAD:
        raise PayloadTooLargeError(what, len(data), MAX_PAYLOAD)
    return data


def _explain(value: object, error: Exception) -> str:
    """Return why *value* has no form, and where in it the reason lies, as decoding says it."""
    path = "$"
    while not isinstance(error, RecursionError):  # else it may have no end
        inner = ((step, one, _failure(one)) for step, one in _parts(value))
        found = next((one for one in inner if one[2] is not None), None)
        if found is None:
            break
        step, value, reason = found
        assert reason is not None
        path, error = path + step, reason
    where = f" - at `{path}`" * (path != "$")
    return f"{error}{where}{_ADVICE * isinstance(error, TypeError)}"


def _failure(value: object) -> Exception | None:
    try:
        _encoder.encode(value)
    except _ENCODE_ERRORS as error:
        return error
    return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """Yield what *value* is made of, with the step of a path that leads there."""
    match value:
        case dict():
            for key, one in value.items():
                named = isinstance(key, str) and key.isidentifier()
                yield f".{key}" if named else f"[{key!r:.60}]", one
        case list() | tuple():
            yield from ((f"[{number}]", one) for number, one in enumerate(value))
        case set() | frozenset():
            yield from (("[...]", one) for one in value)
        case _:
            for name in _fields(type(value)):
                yield f".{name}", getattr(value, name, None)


def _fields(type_: Any) -> Iterable[str]:
    if attrs.has(type_):
        return [one.name for one in attrs.fields(type_)]
    if dataclasses.is_dataclass(type_):
        return [one.name for one in dataclasses.fields(type_)]
    return type_.__struct_fields__ if issubclass(type_, msgspec.Struct) else ()


def decode(data: bytes, type_: Any, what: str) -> Any:
    """Return the value of *type_* that *data* holds; `Any` gives builtins.

    Raises:
        CodecError: If *data* is not msgpack, or not of that type (with the path of what is wrong).
    """
    try:
        return decoder_for(type_).decode(data)
    except DECODE_ERRORS as error:
        raise CodecError(what, str(error)) from error


def decoder_for(type_: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return a decoder for *type_*, made once per type.

    Raises:
        DefinitionError: If values of that type cannot be told from msgpack.
    """
    try:
        return _cached_decoder(type_)
    except TypeError as error:
        raise DefinitionError(f"{type_!r} cannot be a payload type: {error}") from error


@lru_cache(maxsize=1024)
def _cached_decoder(type_: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(type_)
