"""Decisions: what directives come to, with every id derived."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwf_core.decide import decide, directives_in, new_call
from pwf_core.decisions import Decision
from pwf_core.directives import Directive, emit, gather, join, publish, result
from pwf_core.errors import DirectiveError
from pwf_core.ids import CallId, derive_call_id

CALL = CallId("c" * 32)


def a(number: int = 0) -> Directive:
    return publish("work.a", number)


def b() -> Directive:
    return publish("work.b")


def made(*directives: Directive) -> Decision:
    return decide(CALL, "work.decider", directives)


@pytest.mark.parametrize(
    ("returned", "count"),
    [(None, 0), ((), 0), ([], 0), (a(), 1), ([a(), b()], 2), ((a(),), 1), (iter([a(), b()]), 2)],
)
def test_handlers_return_directives(returned, count):
    """Nothing, one directive, or any iterable of them."""
    assert count == len(directives_in("work.task", returned))


@pytest.mark.parametrize(
    "returned",
    [42, "x", "", b"x", bytearray(), {"a": 1}, {}, [a(), 42], [None], object(), [[a()]]],
)
def test_anything_else_is_an_error_that_helps(returned):
    """Other values are refused, with the task's name and what to return instead."""
    with pytest.raises(DirectiveError, match=r"work\.task.*result\(value\)"):
        directives_in("work.task", returned)


@pytest.mark.parametrize("returned", [set(), {a()}, frozenset({a(), b()})])
def test_sets_are_refused(returned):
    """Another attempt would find another order, and derive other ids."""
    with pytest.raises(DirectiveError, match=r"work\.task.*Return a list"):
        directives_in("work.task", returned)


def test_ids_count_by_kind_and_address():
    """The ordinal counts the directives of one kind to one address."""
    decision = made(a(), b(), a(1), join("e", then=a()))

    ids = [call.call_id for call in decision.calls]
    assert [
        derive_call_id(CALL, "publish", "work.a", 0),
        derive_call_id(CALL, "publish", "work.b", 0),
        derive_call_id(CALL, "publish", "work.a", 1),
    ] == ids
    assert derive_call_id(CALL, "join", "work.a", 0) == decision.joins[0].then.call_id


def test_adding_a_publish_moves_no_other_id():
    """One more publish to one task changes no id of another."""
    before = {call.address: call.call_id for call in made(a(), publish("work.z")).calls}
    after = {call.address: call.call_id for call in made(a(), b(), publish("work.z")).calls}

    assert before == {address: after[address] for address in before}


def test_members_derive_from_their_gather():
    """Members of two gathers differ, though they look the same."""
    decision = made(*(gather([a(), a()], then=b()) for _ in range(2)))

    ids = [call.call_id for one in decision.gathers for call in (one.then, *one.members)]
    assert 6 == len(set(ids))
    (first, _) = decision.gathers
    assert derive_call_id(first.then.call_id, "member", "work.a", 1) == first.members[1].call_id


@given(st.lists(st.sampled_from([a(), a(1), b(), join("e", then=a()), gather([a()], then=b())])))
def test_same_directives_same_decision(directives):
    """A crash and a re-run that returns the same decides the same, and no two ids are equal."""
    decision = made(*directives)
    ids = [call.call_id for call in decision.calls]
    ids += [one.then.call_id for one in (*decision.joins, *decision.gathers)]
    ids += [call.call_id for one in decision.gathers for call in one.members]

    assert made(*directives) == decision
    assert len(ids) == len(set(ids))
    assert not set(ids) & {
        call.call_id for call in decide(CallId("d" * 32), "work.decider", directives).calls
    }


def test_emits_and_results_are_kept():
    """Emits stay in their order; there is one result, and a second is an error."""
    decision = made(emit("x", 1), result(2), emit("x", 3))

    assert ((("x", b"\x01"), ("x", b"\x03")), b"\x02") == (decision.emits, decision.result)
    with pytest.raises(DirectiveError, match="two results"):
        made(result(1), result(None))


def test_delays_become_numbers():
    """Delays are whole milliseconds, rounded up; moments are counted from the epoch."""
    call = publish("work.a")
    when = datetime(2030, 1, 1, tzinfo=UTC)

    assert 1 == new_call(CALL, call.after(timedelta(microseconds=1))).delay_ms
    assert 1_893_456_000_000 == new_call(CALL, call.at(when)).due_ms
    assert 1 == new_call(CALL, call.at(datetime(1950, 1, 1, tzinfo=UTC))).due_ms
    assert (0, 0) == (new_call(CALL, call).delay_ms, new_call(CALL, call).due_ms)
