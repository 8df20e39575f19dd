"""Gathers: a scope fires once all its members and all their descendants are done."""

from __future__ import annotations

from pwf_core.commands import Answer, Bury, Collect, Drop, Granted, Page, Requeue
from pwf_core.decisions import NewCall
from pwf_core.testing.bench import Bench, open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import LEASE, call, commit, decision, gather, join
from pwf_core.views import Phase, Status


async def _gather(bench: Bench, count: int, *, then: NewCall | None = None) -> list[Granted]:
    """Begin a run with a gather of *count* members, and return those, taken, in order."""
    root = await bench.begin()
    members = [call("work.member") for _ in range(count)]
    await bench.commit(root, gathers=[gather(*members, then=then or call("work.then"))])
    return _in_order(members, await bench.take(count))


def _in_order(calls: list[NewCall], grants: list[Granted]) -> list[Granted]:
    order = {one.call_id: number for number, one in enumerate(calls)}
    return sorted(grants, key=lambda one: order[one.call_id])


@behaviour()
async def test_gather_of_none_fires_at_once(harness: Harness[object]) -> None:
    """A gather without members has an empty list of results."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, gathers=[gather(then=call("work.then"))])

    then = await bench.take_one("work.then")
    assert ([], {}) == (then.results, then.events)
    await bench.commit(then)
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_gather_of_one(harness: Harness[object]) -> None:
    """A gather of one fires after that one, with its result."""
    bench = await open_bench(harness)
    (member,) = await _gather(bench, 1)

    await bench.nothing()
    await bench.commit(member, result=b"\x01")
    then = await bench.take_one("work.then")
    assert [b"\x01"] == then.results


@behaviour()
async def test_results_come_in_the_members_order(harness: Harness[object]) -> None:
    """One result per member, in the order of the members, whoever was done first."""
    bench = await open_bench(harness)
    members = await _gather(bench, 20)
    for number, member in reversed(list(enumerate(members))):
        await bench.commit(member, result=bytes([number]))

    then = await bench.take_one("work.then")
    assert [bytes([number]) for number in range(20)] == then.results


@behaviour()
async def test_member_without_a_result(harness: Harness[object]) -> None:
    """A member that gave no result counts as None."""
    bench = await open_bench(harness)
    first, second, third = await _gather(bench, 3)
    await bench.commit(second, result=b"\xc0")
    await bench.commit(first)
    await bench.commit(third, result=b"\x03")

    then = await bench.take_one("work.then")
    assert [None, b"\xc0", b"\x03"] == then.results


@behaviour()
async def test_gather_waits_for_descendants(harness: Harness[object]) -> None:
    """A member is done when all that follows from it is; its value may come from any of that."""
    bench = await open_bench(harness)
    first, second = await _gather(bench, 2)
    await bench.commit(second, result=b"\x02")
    await bench.commit(first, calls=[call("work.child"), call("work.child")])
    children = await bench.take(2)
    await bench.commit(children[0], calls=[call("work.grandchild")])
    grandchild = await bench.take_one("work.grandchild")
    await bench.commit(children[1])

    await bench.nothing()
    await bench.commit(grandchild, result=b"\x01")
    then = await bench.take_one("work.then")
    assert [b"\x01", b"\x02"] == then.results


@behaviour()
async def test_first_result_of_a_member_stands(harness: Harness[object]) -> None:
    """Of two results within one member the first write counts."""
    bench = await open_bench(harness)
    (member,) = await _gather(bench, 1)
    await bench.commit(member, result=b"\x01", calls=[call("work.child")])
    child = await bench.take_one("work.child")
    await bench.commit(child, result=b"\x02")

    then = await bench.take_one("work.then")
    assert [b"\x01"] == then.results


@behaviour()
async def test_results_of_members_are_not_the_runs(harness: Harness[object]) -> None:
    """What a member gives goes to its gather; the run's value comes from outside of it."""
    bench = await open_bench(harness)
    (member,) = await _gather(bench, 1)
    await bench.commit(member, result=b"\x01")
    then = await bench.take_one("work.then")

    assert (await bench.outcome(then.run_id)).result is None
    await bench.commit(then, result=b"\x02")
    outcome = await bench.outcome(then.run_id)
    assert (Status.FINISHED, b"\x02") == (outcome.status, outcome.result)


@behaviour()
async def test_gathers_nest(harness: Harness[object]) -> None:
    """An inner gather hands its value outwards, as the value of the member that opened it."""
    bench = await open_bench(harness)
    first, second = await _gather(bench, 2)
    inner = [call("work.inner") for _ in range(3)]
    await bench.commit(first, gathers=[gather(*inner, then=call("work.inner-then"))])
    await bench.commit(second, result=b"\x02")
    grants = _in_order(inner, await bench.take(3))
    for number, grant in enumerate(grants):
        await bench.nothing()
        await bench.commit(grant, result=bytes([10 + number]))

    inner_then = await bench.take_one("work.inner-then")
    assert [b"\x0a", b"\x0b", b"\x0c"] == inner_then.results
    await bench.nothing()
    await bench.commit(inner_then, result=b"\x01")
    then = await bench.take_one("work.then")
    assert [b"\x01", b"\x02"] == then.results
    await bench.commit(then)
    assert Status.FINISHED is await bench.status(then.run_id)


@behaviour()
async def test_gathers_nest_deeply(harness: Harness[object]) -> None:
    """Nesting has no end: values come out of the innermost, one level after the other."""
    bench = await open_bench(harness)
    root = await bench.begin()
    depth = 12
    grant = root
    for level in range(depth):
        await bench.commit(
            grant, gathers=[gather(call(f"work.m{level}"), then=call(f"work.t{level}"))]
        )
        grant = await bench.take_one(f"work.m{level}")
    await bench.commit(grant, result=b"\x00")
    for level in reversed(range(depth)):
        then = await bench.take_one(f"work.t{level}")

        assert [bytes([depth - 1 - level])] == then.results
        await bench.commit(then, result=bytes([depth - level]))
    outcome = await bench.outcome(root.run_id)
    assert (Status.FINISHED, bytes([depth])) == (outcome.status, outcome.result)


@behaviour()
async def test_empty_gather_in_a_member(harness: Harness[object]) -> None:
    """An inner gather without members still holds the outer one until its call is done."""
    bench = await open_bench(harness)
    (member,) = await _gather(bench, 1)
    await bench.commit(member, gathers=[gather(then=call("work.inner-then"))])
    inner_then = await bench.take_one("work.inner-then")

    await bench.nothing()
    await bench.commit(inner_then, result=b"\x01")
    then = await bench.take_one("work.then")
    assert [b"\x01"] == then.results


@behaviour()
async def test_two_gathers_in_one_decision(harness: Harness[object]) -> None:
    """Each gather has members and results of its own, the same task or not."""
    bench = await open_bench(harness)
    root = await bench.begin()
    left, right = call("work.left"), call("work.right")
    await bench.commit(
        root,
        gathers=[
            gather(left, then=call("work.then-left")),
            gather(right, then=call("work.then-right")),
        ],
        calls=[call("work.beside")],
    )
    grants = {grant.address: grant for grant in await bench.take(3)}
    await bench.commit(grants["work.right"], result=b"\x02")
    assert [b"\x02"] == (await bench.take_one("work.then-right")).results
    await bench.commit(grants["work.beside"], result=b"\x03")
    await bench.commit(grants["work.left"], result=b"\x01")

    assert [b"\x01"] == (await bench.take_one("work.then-left")).results
    assert b"\x03" == (await bench.outcome(root.run_id)).result


@behaviour()
async def test_join_holds_its_gather(harness: Harness[object]) -> None:
    """A join that a member registered is something still to come, and so is its call."""
    bench = await open_bench(harness)
    first, second = await _gather(bench, 2)
    await bench.commit(first, joins=[join("a", then=call("work.joined"))])
    await bench.nothing()
    await bench.commit(second, emits=[("a", b"\x01")], result=b"\x02")
    joined = await bench.take_one("work.joined")

    await bench.nothing()
    await bench.commit(joined, result=b"\x01")
    then = await bench.take_one("work.then")
    assert [b"\x01", b"\x02"] == then.results


@behaviour()
async def test_delayed_member_holds_its_gather(harness: Harness[object]) -> None:
    """A member that waits for its time, or for a retry, is not done."""
    bench = await open_bench(harness)
    root = await bench.begin()
    member = call("work.member", delay_ms=harness.tick)
    then = call("work.then", delay_ms=harness.tick)
    await bench.commit(root, gathers=[gather(member, then=then)])

    assert Phase.TIMED is (await bench.call(root.run_id)).phase
    await bench.elapse(harness.tick)
    grant = await bench.take_one("work.member")
    await bench.commit(grant, result=b"\x01")
    assert Phase.TIMED is (await bench.call(root.run_id, "work.then")).phase
    await bench.elapse(harness.tick)
    assert [b"\x01"] == (await bench.take_one("work.then")).results


@behaviour()
async def test_dead_member_holds_its_gather(harness: Harness[object]) -> None:
    """A dead member decides nothing yet: requeued, it gives its result as if nothing had been."""
    bench = await open_bench(harness)
    first, second = await _gather(bench, 2)
    await bench.commit(second, result=b"\x02")
    bury = Bury(first.run_id, first.call_id, first.claim_id, "boom")

    assert [Answer.DONE] == await bench.do(bury)
    await bench.nothing()
    assert Status.FAILED is await bench.status(first.run_id)
    assert [Answer.DONE] == await bench.do(Requeue(first.run_id, first.call_id))
    again = await bench.take_one("work.member")
    await bench.commit(again, result=b"\x01")
    then = await bench.take_one("work.then")
    assert [b"\x01", b"\x02"] == then.results


@behaviour()
async def test_gather_that_lost_a_member_does_not_fire(harness: Harness[object]) -> None:
    """Its call would work with a hole in its results; the others finish, and the run fails."""
    bench = await open_bench(harness)
    first, second = await _gather(bench, 2)
    await bench.do(Bury(first.run_id, first.call_id, first.claim_id, "boom"))
    drop = Drop(first.run_id, first.call_id, dead=True, reason="discarded")

    assert [Answer.DONE, Answer.ENDED] == await bench.do(drop, drop)
    assert Status.RUNNING is await bench.status(first.run_id)
    await bench.commit(second, result=b"\x02", calls=[call("work.child")])
    await bench.commit(await bench.take_one("work.child"))
    await bench.nothing()
    view = await bench.view(first.run_id)
    assert (Status.FAILED, ()) == (view.outcome.status, view.calls)
    assert "discarded" in view.outcome.reason


@behaviour()
async def test_loss_reaches_outer_gathers(harness: Harness[object]) -> None:
    """An inner gather that cannot fire is a loss for the outer one; what is beside them goes on."""
    bench = await open_bench(harness)
    root = await bench.begin()
    large = b"\xc4" + bytes([255]) * 2000
    outer, beside = call("work.outer"), call("work.beside")
    gathers = [
        gather(outer, then=call("work.lost", large)),
        gather(beside, then=call("work.then")),
    ]
    await bench.commit(root, gathers=gathers)
    grants = {grant.address: grant for grant in await bench.take(2)}
    inner = [call("work.inner"), call("work.inner", delay_ms=LEASE)]
    await bench.commit(
        grants["work.outer"], gathers=[gather(*inner, then=call("work.lost", large))]
    )
    await bench.commit(await bench.take_one("work.inner"), result=b"\x01")
    drop = Drop(root.run_id, inner[1].call_id, dead=False, reason="purged")

    assert [Answer.DONE] == await bench.do(drop)
    await bench.commit(grants["work.beside"], result=b"\x07")
    then = await bench.take_one("work.then")
    assert [b"\x07"] == then.results
    await bench.commit(then)
    await bench.nothing()
    view = await bench.view(root.run_id)
    assert (Status.FAILED, ()) == (view.outcome.status, view.calls)


@behaviour()
async def test_gathered_call_is_retried_with_its_results(harness: Harness[object]) -> None:
    """A gathered call sees its results in every attempt."""
    bench = await open_bench(harness)
    (member,) = await _gather(bench, 1)
    await bench.commit(member, result=b"\x01")
    await bench.take_one("work.then", lease_ms=harness.tick)
    await bench.elapse(harness.tick)

    again = await bench.take_one("work.then")
    assert (2, [b"\x01"]) == (again.attempt, again.results)


@behaviour()
async def test_repeated_commit_counts_a_member_once(harness: Harness[object]) -> None:
    """A member's commit that is sent twice takes one place in its gather, not two."""
    bench = await open_bench(harness)
    first, second = await _gather(bench, 2)
    made = commit(first, decision(result=b"\x01"))

    assert [Answer.DONE, Answer.ENDED, Answer.ENDED] == await bench.do(made, made, made)
    await bench.nothing()
    await bench.commit(second)
    assert [b"\x01", None] == (await bench.take_one("work.then")).results


@behaviour()
async def test_large_gather(harness: Harness[object]) -> None:
    """Hundreds of members are fine, done in batches of any size."""
    bench = await open_bench(harness)
    members = await _gather(bench, 300)
    commits = [
        commit(member, decision(result=number.to_bytes(2, "big")))
        for number, member in enumerate(members)
    ]
    for first in range(0, 300, 64):
        assert {Answer.DONE} == set(await bench.do(*commits[first : first + 64]))

    then = await bench.take_one("work.then")
    assert (None, 300) == (then.results, then.uncollected)  # too many to be brought along
    (page,) = await bench.do(Collect(then.run_id, then.call_id, then.claim_id, 0))
    assert Page([number.to_bytes(2, "big") for number in range(300)]) == page
