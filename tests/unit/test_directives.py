"""Directives: frozen values, checked where they are made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pwf_core.directives import Emit, Gather, Join, emit, gather, join, publish, result
from pwf_core.errors import CodecError, DefinitionError, DirectiveError, PayloadTooLargeError
from pwf_core.events import Event
from pwf_core.service import Service

work = Service("work")
paid = Event("paid", int)
done = Event("done")
outside = Event("outside", str, external=True)


@work.task
def add(one: int, two: int = 2) -> None: ...


def test_publish_is_a_value():
    """The same call is equal, typed or by address, and cannot be changed."""
    call = publish(add, 1, two=3)

    assert publish(add, 1, 3) == call
    assert "work.add" == call.address
    assert ([1, 3], {}) == add.decode(call.body)
    with pytest.raises(AttributeError):
        call.address = "x"  # type: ignore[misc]


def test_publish_checks_arguments():
    """A wrong argument fails where it is published; an address can only check what is encodable."""
    with pytest.raises(CodecError, match=r"\$\.one"):
        publish(add, "x")  # type: ignore[arg-type]
    with pytest.raises(CodecError):
        publish(add)  # type: ignore[call-arg]
    with pytest.raises(CodecError):
        publish("work.add", object())
    with pytest.raises(DefinitionError):
        publish("work", 1)
    for other in (7, None, print, publish(add, 1)):
        with pytest.raises(DirectiveError, match=r"publish\(\) takes a task"):
            publish(other)  # type: ignore[call-overload]


def test_delays_replace_each_other():
    """The last word on when to run counts."""
    call = publish(add, 1)
    when = datetime(2030, 1, 1, tzinfo=UTC)

    assert (timedelta(hours=1), None) == (
        call.at(when).after(timedelta(hours=1)).delay,
        call.at(when).after(timedelta(hours=1)).when,
    )
    assert (None, when) == (
        call.after(timedelta(hours=1)).at(when).delay,
        call.after(timedelta(hours=1)).at(when).when,
    )
    assert (None, None) == (call.delay, call.when)


@pytest.mark.parametrize("delay", [timedelta(seconds=-1), timedelta.max, 5, None, "1h"])
def test_impossible_delays_are_refused(delay):
    """A delay is a timedelta from zero to a century."""
    with pytest.raises(DirectiveError, match="timedelta"):
        publish(add, 1).after(delay)


@pytest.mark.parametrize("when", [datetime(2030, 1, 1), 5, None])  # noqa: DTZ001 -- that is the point
def test_naive_moments_are_refused(when):
    """A moment without a time zone would be another one on another machine."""
    with pytest.raises(DirectiveError, match="time zone"):
        publish(add, 1).at(when)


def test_emit_checks_the_payload():
    """A payload is of the event's type; an event by name takes anything with a form."""
    assert Emit("paid", b"\x07") == emit(paid, 7)
    assert Emit("done", b"\xc0") == emit(done)
    assert Emit("paid", b"\xc0") == emit("paid")
    assert Emit("any.name", b"\xa1x") == emit("any.name", "x")
    with pytest.raises(CodecError, match="'paid'"):
        emit(paid, "x")  # type: ignore[arg-type]
    with pytest.raises(CodecError):
        emit("paid", object())
    with pytest.raises(DefinitionError):
        emit("")
    with pytest.raises(DirectiveError, match=r"emit\(\) takes an Event or its name, not 7"):
        emit(7)  # type: ignore[call-overload]


def test_join_takes_distinct_events():
    """Events by value or name, in the order given, the same one once; external ones are marked."""
    then = publish(add, 1)

    assert Join(("paid", "done"), then) == join(paid, done, paid, "done", then=then)
    assert Join(("paid", "outside"), then, ("outside",)) == join(paid, outside, then=then)


def test_join_needs_events_and_a_call():
    """A join without events, or with something else to run, is refused."""
    with pytest.raises(DirectiveError, match="publish it"):
        join(then=publish(add, 1))
    with pytest.raises(DirectiveError, match="then="):
        join(paid, then=add)  # type: ignore[arg-type]
    with pytest.raises(DirectiveError, match=r"join\(\) takes an Event or its name, not 7"):
        join(7, then=publish(add, 1))  # type: ignore[arg-type]


def test_gather_takes_calls():
    """Any iterable of calls will do, the empty one as well."""
    then, calls = publish(add, 0), [publish(add, number) for number in range(3)]

    assert Gather(tuple(calls), then) == gather(iter(calls), then=then)
    assert Gather((), then) == gather([], then=then)
    with pytest.raises(DirectiveError, match="gather"):
        gather([add], then=then)  # type: ignore[list-item]
    with pytest.raises(DirectiveError, match="then="):
        gather([], then=None)  # type: ignore[arg-type]


def test_gather_takes_calls_in_order():
    """A single call is no list; and a set has another order in another process."""
    one = publish(add, 1)
    for members in (one, 5, None, {one}, frozenset({one})):
        with pytest.raises(DirectiveError, match="in an order that stays"):
            gather(members, then=one)  # type: ignore[arg-type]


def test_result_is_bounded():
    """A result has a form, and a limit."""
    assert b"\xc0" == result(None).payload
    with pytest.raises(CodecError):
        result(object())
    with pytest.raises(PayloadTooLargeError):
        result("x" * 1024 * 1024)


def test_reprs_read_as_written():
    """A directive in a log reads as the code that made it, shortened."""
    assert "publish('work.add', one=1)" == repr(publish(add, 1))
    shown = repr(publish("work.add", 1, two="x" * 500).after(timedelta(hours=1)))
    assert shown.startswith("publish('work.add', 1, two='xxx")
    assert shown.endswith("….after(datetime.timedelta(seconds=3600))") or "…)" in shown
    assert "emit('paid', 7)" == repr(emit(paid, 7))
    assert "result([1])" == repr(result([1]))
