"""The arguments of a call: from what `publish` was given to bytes, and to what the handler takes.

A task knows its parameters, so its arguments travel as a msgpack map from names to values; code that
publishes by address only knows positions, so there they travel as an array, or as a map whose
integer keys are positions. The consumer takes all three.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

import msgspec

from pwf_core import values
from pwf_core.context import Context
from pwf_core.errors import CodecError, DefinitionError, PayloadTooLargeError

__all__ = ["SHOWN", "Parameters", "check_named", "encode_untyped", "show"]

SHOWN = 60  # characters of a value in a repr: enough to know it again, too few to flood a log
_KINDS = inspect.Parameter


class Parameters:
    """The parameters of one handler, without its Context.

    Args:
        address: The task, for errors.
        fn: The handler.
        skip: How many leading parameters are not arguments (1 for a Context).

    Raises:
        DefinitionError: If there is a `*args`, `**kwargs`, or an annotation that msgpack has no
            form for.
    """

    def __init__(self, address: str, fn: Callable[..., object], *, skip: int) -> None:
        self._address = address
        self._what = f"Arguments of {address}"
        hints = _hints(address, fn)
        check_named(address, fn)
        parameters = list(inspect.signature(fn).parameters.values())[skip:]
        self._signature = inspect.Signature(parameters)
        self._names = [parameter.name for parameter in parameters]
        self._positional = [
            parameter.name for parameter in parameters if parameter.kind is not _KINDS.KEYWORD_ONLY
        ]
        # Fields are called by position: a parameter may have a name that a struct field may not.
        fields = [
            (f"p{number}", hints.get(parameter.name, Any), *_default(parameter))
            for number, parameter in enumerate(parameters)
        ]
        struct = msgspec.defstruct(
            "Arguments",
            fields,
            rename={f"p{number}": name for number, name in enumerate(self._names)},
            forbid_unknown_fields=True,
            kw_only=True,
        )
        self._read = [f"p{number}" for number in range(len(parameters))]
        try:
            self._decoder = msgspec.msgpack.Decoder(struct)
        except TypeError as error:
            raise DefinitionError(
                f"Task {address!r} has a parameter that cannot travel in a message: {error}",
            ) from error

    def encode(self, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
        """Return the arguments as bytes, having checked each against its annotation.

        Raises:
            CodecError: If one is missing, unknown, of another type or without an encoding.
            PayloadTooLargeError: If they are too large together.
        """
        if args and isinstance(args[0], Context):
            raise CodecError(self._what, "leave the Context out: the worker makes it")
        if kwargs or len(args) > len(self._positional):
            try:
                given: Mapping[str, object] = self._signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                raise CodecError(self._what, str(error)) from error
        else:
            given = dict(zip(self._names, args, strict=False))
        try:
            body = values.encode(given, self._what)
        except PayloadTooLargeError:
            for name, value in given.items():  # say which one it is
                values.encode(value, f"Argument {name!r} of {self._address}")
            raise
        self._decode(body)  # instances are only checked from their bytes
        return body

    def decode(self, body: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Return what to call the handler with: positional and keyword arguments.

        Raises:
            CodecError: If the bytes are not arguments of this task.
        """
        found = self._decode(body if _is_named(body) else self._name(body))
        count = len(self._positional)
        args = [getattr(found, field) for field in self._read[:count]]
        if count == len(self._names):
            return args, {}
        rest = zip(self._names[count:], self._read[count:], strict=True)
        return args, {name: getattr(found, field) for name, field in rest}

    def _decode(self, body: bytes) -> Any:
        try:
            return self._decoder.decode(body)
        except values.DECODE_ERRORS as error:
            raise CodecError(self._what, str(error)) from error

    def _name(self, body: bytes) -> bytes:
        """Turn positions into names."""
        found = values.decode(body, list[msgspec.Raw] | dict[int | str, msgspec.Raw], self._what)
        if isinstance(found, list):
            found = dict(enumerate(found))
        named: dict[str, msgspec.Raw] = {}
        for key, value in found.items():
            if isinstance(key, int) and not 0 <= key < len(self._positional):
                count = len(self._positional)
                raise CodecError(self._what, f"takes {count} positional arguments, got {key + 1}")
            name = self._positional[key] if isinstance(key, int) else key
            if name in named:
                raise CodecError(self._what, f"got two values for {name!r}")
            named[name] = value
        return msgspec.msgpack.encode(named)


def check_named(address: str, fn: Callable[..., object]) -> None:
    """Check that *fn* names all its parameters; what their annotations mean is left open.

    Raises:
        DefinitionError: If there is a `*args` or `**kwargs`, or Python does not know.
    """
    try:
        parameters = inspect.signature(fn).parameters.values()
    except NameError:
        return  # Python 3.14 looks at annotations, and one names what comes later in the module
    except ValueError as error:
        raise DefinitionError(
            f"Task {address!r} has a handler whose parameters are not known ({error}). "
            "Write a function around it.",
        ) from error
    for parameter in parameters:
        if parameter.kind in {_KINDS.VAR_POSITIONAL, _KINDS.VAR_KEYWORD}:
            raise DefinitionError(
                f"Task {address!r} takes {parameter}: a task names its parameters, so that a "
                "message can be checked against them. For several values, take one list or dict.",
            )


def encode_untyped(address: str, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
    """Return arguments for a task of which only the address is known.

    Raises:
        CodecError: If one has no encoding.
        PayloadTooLargeError: If they are too large together.
    """
    what = f"Arguments of {address}"
    if not kwargs:
        return values.encode(args, what)
    if not args:
        return values.encode(kwargs, what)
    mixed: dict[int | str, object] = dict(enumerate(args))
    mixed.update(kwargs)
    return values.encode(mixed, what)


def show(body: bytes) -> list[str]:
    """Return the arguments as they would be written in a call, shortened; for people."""
    found = msgspec.msgpack.decode(body)
    if not isinstance(found, dict):
        found = dict(enumerate(found))
    return [
        ("" if isinstance(name, int) else f"{name}=") + _short(value)
        for name, value in found.items()
    ]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _default(parameter: inspect.Parameter) -> tuple[Any, ...]:
    if parameter.default is _KINDS.empty:
        return ()
    default = parameter.default
    # A struct refuses mutable defaults; a handler gets the very object that its signature has.
    return (msgspec.field(default_factory=lambda: default),)


def _is_named(body: bytes) -> bool:
    """Whether the bytes are a map whose first key is a string (a map is not mixed otherwise)."""
    if not body:
        return True  # the decoder says what is wrong with it
    head = body[0]
    start = {0xDE: 3, 0xDF: 5}.get(head, 1)
    if head not in {0xDE, 0xDF} and not 0x80 <= head <= 0x8F:  # noqa: PLR2004 -- msgpack's maps
        return not (0x90 <= head <= 0x9F or head in {0xDC, 0xDD})  # noqa: PLR2004 -- its arrays
    if len(body) <= start:
        return True
    key = body[start]
    return not (key <= 0x7F or 0xCC <= key <= 0xCF)  # noqa: PLR2004 -- its unsigned integers


def _hints(address: str, fn: Callable[..., object]) -> dict[str, Any]:
    try:
        return get_type_hints(fn, include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"Task {address!r} has an annotation that cannot be resolved: {error}. "
            "Import or define the name at module level, outside of functions and `if TYPE_CHECKING`.",
        ) from error
