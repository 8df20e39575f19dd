"""Events: named facts inside a run."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Generic, TypeVar, overload

from pwf_core import values
from pwf_core.names import check_event

__all__ = ["Event"]

T = TypeVar("T")

_NO_PAYLOAD = type(None)


class Event(Generic[T]):
    """A named fact with a payload, inside one run; the first write of it wins.

    Attributes:
        name: What the event is called; two events of one name are the same event.
        type_: Type of its payload; `type(None)` for an event without one.
        external: Whether it is emitted from outside the run (`backend.emit`). A run that only
            waits for such events is `waiting`, and not `stalled`.

    Raises:
        DefinitionError: If no event can have that name, or no payload that type.

    Example:
        >>> email_verified = Event("email_verified", str)
        >>> approved = Event("approved", bool, external=True)
        >>> paused = Event("paused")
    """

    __slots__ = ("external", "name", "type_")

    @overload
    def __init__(self: Event[None], name: str, *, external: bool = False) -> None: ...
    @overload
    def __init__(self, name: str, type_: type[T], *, external: bool = False) -> None: ...
    # A union is no `type[...]` to type checkers; say Event[str | None]("name", str | None) for it.
    @overload
    def __init__(self, name: str, type_: Any, *, external: bool = False) -> None: ...
    def __init__(self, name: str, type_: Any = _NO_PAYLOAD, *, external: bool = False) -> None:
        self.name = check_event(name)
        with suppress(NameError):  # its fields may name what comes later in the module
            values.decoder_for(type_)
        self.type_ = type_
        self.external = external

    def encode(self, payload: T) -> bytes:
        """Return *payload* as bytes, having checked that it is of the event's type.

        Raises:
            CodecError: If it is not, or has no encoding.
        """
        what = f"Payload of event {self.name!r}"
        data = values.encode(payload, what)
        values.decode(data, self.type_, what)
        return data

    def decode(self, data: bytes) -> T:
        """Return the payload that *data* holds.

        Raises:
            CodecError: If it is not of the event's type.
        """
        value: T = values.decode(data, self.type_, f"Payload of event {self.name!r}")
        return value

    def __repr__(self) -> str:
        type_name = getattr(self.type_, "__name__", repr(self.type_))
        return f"Event({self.name!r}, {type_name})"
