"""Decisions in parts: what is put down, and what the commit says of it."""

from __future__ import annotations

from msgspec.structs import replace

from pwf_core.commands import Commit, Stage
from pwf_core.decisions import Decision, NewCall, NewGather, NewJoin, StagedCall
from pwf_core.ids import CallId, ClaimId, RunId
from pwf_core.staging import MOST_BYTES, MOST_CALLS, in_parts, weight_of


def _call(number: int, size: int = 0) -> NewCall:
    return NewCall(CallId(f"{number}"), "work.task", b"x" * size)


def _commit(decision: Decision) -> Commit:
    return Commit(RunId("r"), CallId("c"), ClaimId("w:1"), decision)


def test_what_is_small_goes_whole() -> None:
    """Up to the limits a decision is one step."""
    members = tuple(_call(number) for number in range(100, 100 + MOST_CALLS - 1))
    whole = _commit(Decision(calls=(_call(0),), gathers=(NewGather(_call(1), members),)))

    assert [whole] == list(in_parts(whole))
    assert MOST_CALLS == weight_of(whole)
    large = _commit(Decision(calls=(_call(0, MOST_BYTES),)))
    assert [large] == list(in_parts(large))


def test_parts_hold_every_call_once_and_in_order() -> None:
    """Each knows its gather and its member; the commit says how many there are, and where."""
    gathers = (
        NewGather(_call(1), tuple(_call(number) for number in range(10, 13)), tolerated=2),
        NewGather(_call(2), ()),
        NewGather(_call(3), (_call(20),)),
    )
    join = NewJoin(_call(4), ("e",))
    whole = Decision((_call(5), _call(6)), (("e", b""),), (join,), gathers, b"\x01")
    *parts, last = in_parts(_commit(whole), 4)

    assert [0, 1] == [part.number for part in parts if isinstance(part, Stage)]
    assert [4, 2] == [weight_of(part) for part in parts]
    assert [
        StagedCall(_call(5)),
        StagedCall(_call(6)),
        StagedCall(_call(10), 0, 0),
        StagedCall(_call(11), 0, 1),
        StagedCall(_call(12), 0, 2),
        StagedCall(_call(20), 2, 0),
    ] == [one for part in parts if isinstance(part, Stage) for one in part.calls]
    rest = replace(
        whole,
        calls=(),
        gathers=tuple(
            replace(one, members=(), staged=size)
            for one, size in zip(gathers, (3, 0, 1), strict=True)
        ),
        chunks=2,
        staged=2,
    )
    assert _commit(rest) == last
    assert 1 == weight_of(last)


def test_large_bodies_make_small_parts() -> None:
    """A part holds no more than its bytes; one call that is larger is a part of its own."""
    sizes = [MOST_BYTES // 2, MOST_BYTES // 2, 1, 2 * MOST_BYTES, 5]
    calls = tuple(_call(number, size) for number, size in enumerate(sizes))
    *parts, _ = in_parts(_commit(Decision(calls)))

    assert [["0", "1"], ["2"], ["3"], ["4"]] == [
        [one.call.call_id for one in part.calls] for part in parts if isinstance(part, Stage)
    ]
