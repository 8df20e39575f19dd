"""Types that users' payloads have, and values of each: as arguments, results and events."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, TypedDict
from uuid import UUID

import attrs
import msgspec

from pwf import Context, Event, Next, Service, emit, publish, result
from pwf_core import failures

__all__ = ["KINDS", "show", "write"]


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Point(TypedDict):
    x: int
    y: float


@dataclasses.dataclass
class Line:
    start: Point
    end: Point | None = None


@attrs.frozen
class Order:
    number: int
    item: str
    price: Decimal
    at: datetime
    lines: list[Line]
    colour: Colour = Colour.RED
    note: str | None = None


class Parcel(msgspec.Struct, tag=True):
    order: Order
    weights: dict[str, float]
    seal: bytes = b""


class Letter(msgspec.Struct, tag=True):
    text: str


ORDER = Order(
    number=2**63,
    item="Größe 🎉\x00",
    price=Decimal("12.50"),
    at=datetime(2020, 1, 1, 12, 30, 0, 5, tzinfo=UTC),
    lines=[Line({"x": -1, "y": 0.5}), Line({"x": 1, "y": -1e300}, {"x": 0, "y": 0.0})],
)
PARCEL = Parcel(ORDER, {"net": 1.5, "gross": 2.0}, b"\x00\xff")

work = Service("values")
sent = Event("sent", Parcel | Letter)


@work.task
def take_order(ctx: Context, order: Order, level: Level, *, when: date, gap: timedelta) -> Next:
    return emit(sent, PARCEL)


@work.task
def take_parcel(parcel: Parcel | Letter, ids: tuple[UUID, ...] = ()) -> Next:
    return result(parcel)


@work.task
def take_anything(value: Any) -> Next:
    return result(value)


_UUID = UUID("12345678123456781234567812345678")
_MORE = {"added_later": [1, {"a": None}]}


def _arguments(address: str) -> Callable[[bytes], object]:
    return work.tasks[address].decode


def _value(type_: Any) -> Callable[[bytes], object]:
    return lambda body: msgspec.msgpack.decode(body, type=type_)


KINDS: dict[str, Callable[[bytes], object]] = {
    **{f"arguments of {address}": _arguments(address) for address in work.tasks},
    "parcel": _value(Parcel | Letter),
    "order": _value(Order),
    "anything": _value(Any),
    "failure": failures.reason_in,
}
"""What a body may be, and what decodes it."""


def show(value: object) -> str:
    """Return what a value looks like; two that look alike are alike."""
    return repr(value)


def write() -> object:
    """Return bodies of every kind, and what each shows."""
    raw = msgspec.to_builtins(ORDER, builtin_types=(bytes, datetime)) | _MORE
    pack = msgspec.msgpack.encode
    given: Any = {"level": Level.HIGH, "when": date(2020, 2, 29), "gap": timedelta(seconds=-1.5)}
    by_name = publish(take_order, ORDER, **given)
    parcel = publish(take_parcel, PARCEL, (_UUID,))
    mixed = publish("values.take_order", ORDER, Level.HIGH, when=given["when"], gap=given["gap"])
    bodies = {
        "by name": ("arguments of values.take_order", by_name.body),
        "by address": ("arguments of values.take_order", mixed.body),
        "by position": ("arguments of values.take_parcel", publish(parcel.address, PARCEL).body),
        "by default": ("arguments of values.take_parcel", publish(take_parcel, Letter("hi")).body),
        "of a tuple": ("arguments of values.take_parcel", parcel.body),
        "untyped": ("arguments of values.take_anything", publish(take_anything, [ORDER, 1]).body),
        "result": ("parcel", result(PARCEL).payload),
        "event": ("parcel", emit(sent, Letter("hi")).payload),
        "order": ("order", pack(ORDER)),
        "order of a later version": ("order", pack(raw)),
        "arguments of a later version": (
            "arguments of values.take_order",
            pack(msgspec.msgpack.decode(by_name.body) | {"order": raw}),
        ),
        "nothing": ("anything", result(None).payload),
        "failure": ("failure", failures.encode("shop.order (abc): it broke")),
    }
    return {
        name: {"kind": kind, "body": body.hex(), "shows": show(KINDS[kind](body))}
        for name, (kind, body) in bodies.items()
    }
