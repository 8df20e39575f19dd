"""Payloads: Python values to msgpack bytes and back, typed, bounded, and with one error.

Never pickle. attrs classes, dataclasses, msgspec structs, TypedDicts, enums, datetimes and builtins
work as they are. Bytes made here travel unchanged: they are decoded by the handler's side only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from pwf_core.errors import CodecError, DefinitionError, PayloadTooLargeError

__all__ = ["MAX_PAYLOAD", "NONE", "check_size", "decode", "decoder_for", "encode"]

T = TypeVar("T")

MAX_PAYLOAD = 1024 * 1024  # bytes; below every broker's own limit (RabbitMQ 4: 16 MiB)
NONE = b"\xc0"  # msgpack nil

_encoder = msgspec.msgpack.Encoder()

# What the codec raises for values it cannot take: unknown types, numbers over 64 bits, lone
# surrogates, nesting without end.
_ENCODE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
_DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)


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
        raise CodecError(what, f"{error} (value of type {type(value).__name__})") from error
    return check_size(data, what)


def check_size(data: bytes, what: str) -> bytes:
    """Return *data* if it is within `MAX_PAYLOAD`.

    Raises:
        PayloadTooLargeError: If it is not.
    """
    if len(data) > MAX_PAYLOAD:
        raise PayloadTooLargeError(what, len(data), MAX_PAYLOAD)
    return data


def decode(data: bytes, type_: Any, what: str) -> Any:
    """Return the value of *type_* that *data* holds; `Any` gives builtins.

    Raises:
        CodecError: If *data* is not msgpack, or not of that type (with the path of what is wrong).
    """
    try:
        return decoder_for(type_).decode(data)
    except _DECODE_ERRORS as error:
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
