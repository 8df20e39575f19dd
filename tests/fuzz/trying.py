"""Tries bytes on everything that decodes what comes from outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import Enum
from typing import Any, TypedDict

import attrs
from tests.fuzz.bytes import SERVICE, SIGNER

from pwf_core import values
from pwf_core.errors import CodecError
from pwf_core.failures import reason_in
from pwf_core.wire import decode_messages
from pwf_rabbit.envelopes import unpack

__all__ = ["DECODERS", "SLOW", "Found", "attempt"]

SLOW = 0.5
"""Seconds that no decoding may take; 1 MiB takes some milliseconds."""


class _Colour(Enum):
    RED = "red"


class _Typed(TypedDict):
    a: int
    b: dict[str, None]


@attrs.frozen
class _Order:
    a: int
    at: datetime | None = None
    colour: _Colour = _Colour.RED


def _value_of(type_: Any) -> Callable[[bytes], object]:
    return lambda body: values.decode(body, type_, "argument 1")


_TYPES = (Any, int, float, str, bytes, list[int], dict[str, Any], dict[Any, Any], datetime)
DECODERS: dict[str, Callable[[bytes], object]] = {
    "messages": decode_messages,
    "signed messages": lambda body: decode_messages(body, SIGNER, SERVICE),
    "envelope": unpack,
    "failure": reason_in,
    **{f"value of {type_}": _value_of(type_) for type_ in (*_TYPES, _Typed, _Order)},
}


@attrs.define
class Found:
    """What came of it.

    Attributes:
        bodies: How many were tried, each on every decoder.
        values: How many decodings gave a value.
        refused: How many raised `CodecError`.
        slowest: Seconds of the slowest decoding.
        wrong: What should not be, for people.
    """

    bodies: int = 0
    values: int = 0
    refused: int = 0
    slowest: float = 0.0
    wrong: list[str] = attrs.field(factory=list)


def attempt(some: Iterable[bytes]) -> Found:
    """Decode all of it by every decoder."""
    found = Found()
    for body in some:
        found.bodies += 1
        for name, decode in DECODERS.items():
            began = time.perf_counter()
            try:
                decode(body)
            except CodecError:
                found.refused += 1
            except Exception as error:  # noqa: BLE001 -- that is what is looked for
                found.wrong.append(f"{name} raised {error!r} for {body[:80]!r}")
            else:
                found.values += 1
            found.slowest = max(found.slowest, time.perf_counter() - began)
    return found
