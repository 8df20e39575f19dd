"""Decisions and results that are too large for one step: put down, made and collected in parts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pwf_core.commands import Answer, Bury, Cancel, Collect, Command, Commit, Granted, Page, Stage
from pwf_core.decisions import StagedCall
from pwf_core.ids import CallId, ClaimId, RunId
from pwf_core.scopes import PAGE, PAGE_BYTES
from pwf_core.staging import MOST_CALLS, in_parts
from pwf_core.testing.bench import Bench, open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import call, commit, decision, gather, start
from pwf_core.views import Status


async def _do_all(bench: Bench, commands: list[Command]) -> None:
    for command in commands:
        assert [Answer.DONE] == await bench.do(command)


def _wide(grant: Granted, size: int, *, most: int = MOST_CALLS) -> list[Command]:
    members = [call(f"work.m{number}") for number in range(size)]
    made = decision(gathers=[gather(*members, then=call("work.then"))])
    return list(in_parts(commit(grant, made), most))


def _claimed(grant: Granted) -> tuple[RunId, CallId, ClaimId]:
    return grant.run_id, grant.call_id, grant.claim_id


async def _collected(bench: Bench, then: Granted) -> list[bytes | None]:
    results: list[bytes | None] = []
    while len(results) < then.uncollected:
        (page,) = await bench.do(Collect(then.run_id, then.call_id, then.claim_id, len(results)))
        assert isinstance(page, Page)
        assert page.results
        results += page.results
    return results


@behaviour()
async def test_parts_come_to_the_whole(harness: Harness[object]) -> None:
    """Members and plain calls of a decision in parts are all made, once each, in their scopes."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    made = decision(
        calls=[call(f"work.c{number}") for number in range(5)],
        gathers=[
            gather(*[call(f"work.a{n}") for n in range(4)], then=call("work.a")),
            gather(then=call("work.empty")),
            gather(*[call(f"work.b{n}") for n in range(3)], then=call("work.b")),
        ],
        result=b"\x07",
    )
    await _do_all(bench, list(in_parts(commit(grant, made), 3)))

    first = await bench.take(13)
    expected = [
        f"work.{kind}{n}" for kind, size in (("a", 4), ("b", 3), ("c", 5)) for n in range(size)
    ]
    assert sorted([*expected, "work.empty"]) == sorted(one.address for one in first)
    assert Status.RUNNING is await bench.status(grant.run_id)
    for one in first:
        await bench.commit(one, result=one.address.encode())
    thens = {one.address: one for one in await bench.take(2)}
    assert [b"work.a0", b"work.a1", b"work.a2", b"work.a3"] == thens["work.a"].results
    assert [b"work.b0", b"work.b1", b"work.b2"] == thens["work.b"].results
    for one in thens.values():
        await bench.commit(one)
    assert Status.FINISHED is await bench.status(grant.run_id)
    await bench.nothing()


@behaviour()
async def test_run_is_not_over_before_all_is_made(harness: Harness[object]) -> None:
    """Members that are done while others are still to be made do not let their gather fire."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await _do_all(bench, _wide(grant, 6, most=2))
    seen = []
    for _ in range(6):
        one = await bench.take_one()
        seen.append(one.address)
        assert Status.RUNNING is await bench.status(grant.run_id)
        await bench.commit(one)

    assert [f"work.m{number}" for number in range(6)] == sorted(seen)
    await bench.commit(await bench.take_one("work.then"))
    assert Status.FINISHED is await bench.status(grant.run_id)


@behaviour()
async def test_nothing_comes_of_parts_alone(harness: Harness[object]) -> None:
    """What was put down by an attempt that failed is forgotten; the next one decides anew."""
    bench = await open_bench(harness)
    await bench.do(start())
    grant = await bench.take_one(lease_ms=harness.tick)
    *parts, _ = _wide(grant, 6, most=2)
    await _do_all(bench, parts)
    await bench.elapse(harness.tick)
    again = await bench.take_one()
    await bench.commit(again, result=b"\x01")

    await bench.nothing()
    assert Status.FINISHED is await bench.status(grant.run_id)


@behaviour()
async def test_commit_without_all_parts_is_refused(harness: Harness[object]) -> None:
    """A store that has lost one says that the claim is lost, and changes nothing."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    first, second, third, whole = _wide(grant, 6, most=2)
    await _do_all(bench, [first])
    assert [Answer.LOST, Answer.LOST] == await bench.do(third, whole)
    await _do_all(bench, [second, third, whole])

    assert 6 == len(await bench.take(6))


@behaviour()
async def test_parts_may_be_repeated(harness: Harness[object]) -> None:
    """Their replies may be lost, like that of the commit; what was put down first stays."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    first, second, third, whole = _wide(grant, 6, most=2)
    assert isinstance(first, Stage)
    other = Stage(*_claimed(grant), 0, (StagedCall(call("work.other")),))
    await _do_all(bench, [first, first, other, second, first, third, second, third, whole])
    assert [Answer.ENDED] * 3 == await bench.do(whole, first, other)

    found = await bench.take(6)
    assert [f"work.m{number}" for number in range(6)] == sorted(one.address for one in found)
    await bench.nothing()


@behaviour()
async def test_stranger_puts_nothing_down(harness: Harness[object]) -> None:
    """Without the valid claim nothing is put down, and nothing collected."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    forged = replace(grant, claim_id=ClaimId("forged:1"))
    stage, *_ = _wide(forged, 6, most=2)
    collect = Collect(grant.run_id, grant.call_id, forged.claim_id, 0)

    assert [Answer.LOST] * 2 == await bench.do(stage, collect)
    await bench.commit(grant)
    assert [Answer.ENDED] * 2 == await bench.do(stage, collect)


@behaviour()
async def test_cancelled_while_parts_are_left(harness: Harness[object]) -> None:
    """What was still to be made never is."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await _do_all(bench, _wide(grant, 6, most=1))
    (one,) = await bench.take(1)
    assert [Answer.DONE] == await bench.do(Cancel(grant.run_id, "enough"))

    assert Status.CANCELLED is await bench.status(grant.run_id)
    await bench.nothing()
    assert [Answer.ENDED] == await bench.do(commit(one))


@behaviour()
async def test_wide_gather(harness: Harness[object]) -> None:
    """More members than one step bears: made in parts, and their results collected by pages."""
    bench = await open_bench(harness)
    size = 2 * PAGE + 7
    grant = await bench.begin()
    commands = _wide(grant, size)
    assert isinstance(commands[-1], Commit)
    assert 1 + -(-size // MOST_CALLS) == len(commands)
    await _do_all(bench, commands)
    members = await bench.take(size)
    for first in range(0, size, MOST_CALLS):
        batch = members[first : first + MOST_CALLS]
        replies = await bench.do(
            *(commit(one, decision(result=one.address.encode())) for one in batch)
        )
        assert {Answer.DONE} == set(replies)
    then = await bench.take_one("work.then")

    assert (None, size) == (then.results, then.uncollected)
    assert [f"work.m{number}".encode() for number in range(size)] == await _collected(bench, then)
    (beyond,) = await bench.do(Collect(then.run_id, then.call_id, then.claim_id, size))
    assert Page([]) == beyond
    await bench.commit(then, result=b"\x01")
    assert Status.FINISHED is await bench.status(grant.run_id)
    await bench.nothing()


@behaviour()
async def test_large_results_come_in_small_pages(harness: Harness[object]) -> None:
    """A page ends with the result that makes it large; members without one have None."""
    bench = await open_bench(harness)
    size, large = MOST_CALLS + 1, b"x" * (PAGE_BYTES // 2)
    grant = await bench.begin()
    await _do_all(bench, _wide(grant, size))
    members = sorted(
        await bench.take(size), key=lambda one: int(one.address.removeprefix("work.m"))
    )
    for number, one in enumerate(members):
        await bench.commit(one, result=large if number in {1, 3, 60} else None)
    then = await bench.take_one("work.then")
    (page,) = await bench.do(Collect(then.run_id, then.call_id, then.claim_id, 0))

    assert Page([None, large, None, large]) == page
    results = await _collected(bench, then)
    assert {1, 3, 60} == {number for number, one in enumerate(results) if one == large}
    assert size - 3 == results.count(None)


@pytest.mark.parametrize("tolerated", [0, 1])
@behaviour()
async def test_member_of_a_wide_gather_dies(harness: Harness[object], tolerated: int) -> None:
    """It keeps its gather and run waiting, or is a failure among the results."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    members = [call(f"work.m{number}") for number in range(4)]
    made = decision(gathers=[gather(*members, then=call("work.then"), tolerated=tolerated)])
    await _do_all(bench, list(in_parts(commit(grant, made), 1)))
    first, *others = await bench.take(4)
    assert [Answer.DONE] == await bench.do(Bury(*_claimed(first), "boom"))
    for one in others:
        await bench.commit(one)
    if not tolerated:
        assert Status.FAILED is await bench.status(grant.run_id)
        return
    await bench.commit(await bench.take_one("work.then"))
    assert Status.FINISHED is await bench.status(grant.run_id)
