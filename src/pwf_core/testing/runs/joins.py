"""Joins: each fires once, after all its distinct events, whatever order things happen in."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from pwf_core.commands import Answer, Bury, Requeue
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import call, commit, decision, join
from pwf_core.views import Phase, Status

ONE, TWO, THREE = b"\x01", b"\x02", b"\x03"


@behaviour()
async def test_join_waits_for_its_events(harness: Harness[object]) -> None:
    """A join registered first fires with the last of its events, and its call sees all payloads."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, calls=[call(), call()], joins=[join("a", "b", then=call("work.then"))])
    first, second = await bench.take(2)
    await bench.commit(first, emits=[("b", TWO)])

    await bench.nothing()
    (waiting,) = (await bench.view(root.run_id)).joins
    assert ("work.then", ("a",)) == (waiting.address, waiting.missing)
    await bench.commit(second, emits=[("a", ONE)])
    then = await bench.take_one("work.then")
    assert [("a", ONE), ("b", TWO)] == list(then.events.items())
    assert then.results is None
    await bench.commit(then)
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_join_comes_after_its_events(harness: Harness[object]) -> None:
    """A join on what has happened fires at once."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, emits=[("a", ONE), ("b", TWO)], calls=[call("work.next")])
    follower = await bench.take_one("work.next")
    await bench.commit(follower, joins=[join("b", "a", then=call("work.then"))])

    then = await bench.take_one("work.then")
    assert [("b", TWO), ("a", ONE)] == list(then.events.items())


@behaviour()
async def test_join_comes_between_its_events(harness: Harness[object]) -> None:
    """Events before and after the registration count alike."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, emits=[("a", ONE)], calls=[call("work.next")])
    second = await bench.take_one("work.next")
    await bench.commit(
        second, joins=[join("a", "b", then=call("work.then"))], calls=[call("work.last")]
    )
    third = await bench.take_one("work.last")
    await bench.nothing()
    await bench.commit(third, emits=[("b", TWO)])

    then = await bench.take_one("work.then")
    assert {"a": ONE, "b": TWO} == then.events


@behaviour()
async def test_join_and_events_in_one_decision(harness: Harness[object]) -> None:
    """A decision may emit all that its own join waits for."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root, joins=[join("a", "b", then=call("work.then"))], emits=[("a", ONE), ("b", TWO)]
    )

    then = await bench.take_one("work.then")
    assert {"a": ONE, "b": TWO} == then.events
    await bench.nothing()


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(order, id="".join(order))
        for order in itertools.permutations(["a", "b", "J"])  # events, and where the join comes
    ],
)
@behaviour()
async def test_join_fires_once_in_any_order(
    harness: Harness[object],
    order: tuple[str, ...],
) -> None:
    """Whatever order events and registration come in, the join fires once."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, calls=[call(f"work.{step}") for step in order])
    grants = {grant.address[5:]: grant for grant in await bench.take(3)}
    for step in order:
        if step == "J":
            await bench.commit(grants["J"], joins=[join("a", "b", then=call("work.then"))])
        else:
            await bench.commit(grants[step], emits=[(step, step.encode())])

    then = await bench.take_one("work.then")
    assert {"a": b"a", "b": b"b"} == then.events
    await bench.nothing()
    await bench.commit(then)
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_same_event_twice_from_one_handler(harness: Harness[object]) -> None:
    """One handler that emits an event twice has emitted it once: a join on two waits on."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root,
        joins=[join("a", "b", then=call("work.then"))],
        emits=[("a", ONE), ("a", TWO)],
        calls=[call("work.next")],
    )
    follower = await bench.take_one("work.next")

    await bench.nothing()
    await bench.commit(follower, emits=[("b", THREE)])
    then = await bench.take_one("work.then")
    assert {"a": ONE, "b": THREE} == then.events


@behaviour()
async def test_same_event_from_two_emitters(harness: Harness[object]) -> None:
    """Two emitters of one event count once, and the first write stands."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root, joins=[join("a", "b", then=call("work.then"))], calls=[call() for _ in range(3)]
    )
    one, two, three = await bench.take(3)
    await bench.commit(one, emits=[("a", ONE)])
    await bench.commit(two, emits=[("a", TWO)])

    await bench.nothing()
    await bench.commit(three, emits=[("b", THREE)])
    then = await bench.take_one("work.then")
    assert {"a": ONE, "b": THREE} == then.events


@behaviour()
async def test_emitter_that_ran_twice(harness: Harness[object]) -> None:
    """An emitter whose worker was lost and that ran again counts once."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root, joins=[join("a", "b", then=call("work.then"))], calls=[call("work.emitter")]
    )
    lost = await bench.take_one("work.emitter", lease_ms=harness.tick)
    await bench.elapse(harness.tick)
    again = await bench.take_one("work.emitter")
    late = commit(lost, decision(emits=[("b", TWO)]))

    assert [Answer.LOST] == await bench.do(late)
    await bench.commit(again, emits=[("a", ONE)])
    await bench.nothing()
    (waiting,) = (await bench.view(root.run_id)).joins
    assert ("b",) == waiting.missing


@behaviour()
async def test_identical_joins(harness: Harness[object]) -> None:
    """Two joins on the same events with the same call are two, and each fires once."""
    bench = await open_bench(harness)
    root = await bench.begin()
    joins = [join("a", "b", then=call("work.then", b"\x91\x07")) for _ in range(2)]
    await bench.commit(root, joins=joins, calls=[call("work.next")])
    follower = await bench.take_one("work.next")
    await bench.commit(follower, emits=[("a", ONE), ("b", TWO)])

    fired = await bench.take(2)
    assert {one.then.call_id for one in joins} == {one.call_id for one in fired}
    assert [b"\x91\x07"] * 2 == [one.body for one in fired]
    await bench.nothing()


@behaviour()
async def test_event_serves_many_joins(harness: Harness[object]) -> None:
    """One event fires every join that waited for nothing else, and those that come later."""
    bench = await open_bench(harness)
    root = await bench.begin()
    joins = [join("a", then=call("work.then")) for _ in range(40)]
    partial = join("a", "b", then=call("work.never"))
    await bench.commit(root, joins=[*joins, partial], calls=[call("work.next")])
    follower = await bench.take_one("work.next")
    late = join("a", then=call("work.then"))
    await bench.commit(follower, emits=[("a", ONE)], joins=[late])

    fired = await bench.take(41)
    assert {one.then.call_id for one in [*joins, late]} == {one.call_id for one in fired}
    await bench.nothing()


@behaviour()
async def test_join_on_many_events(harness: Harness[object]) -> None:
    """A join may wait for a hundred events, and its call sees them in the join's order."""
    bench = await open_bench(harness)
    root = await bench.begin()
    names = [f"event-{number}" for number in range(100)]
    await bench.commit(
        root, joins=[join(*names, then=call("work.then"))], calls=[call() for _ in names]
    )
    for grant, name in zip(await bench.take(100), reversed(names), strict=True):
        await bench.commit(grant, emits=[(name, name.encode())])

    then = await bench.take_one("work.then")
    assert [(name, name.encode()) for name in names] == list(then.events.items())


@behaviour()
async def test_last_events_at_once(harness: Harness[object]) -> None:
    """Events that come at the same time over several connections fire the join once."""
    bench = await open_bench(harness)
    others = [await bench.another() for _ in range(3)]
    for _ in range(5):
        root = await bench.begin()
        names = [f"e{number}" for number in range(6)]
        await bench.commit(
            root,
            joins=[join(*names, then=call("work.then"))],
            calls=[call("work.emitter") for _ in names],
        )
        grants = await bench.take(6)
        await asyncio.gather(
            *(
                others[number % 3].do(commit(grant, decision(emits=[(name, ONE)])))
                for number, (grant, name) in enumerate(zip(grants, names, strict=True))
            )
        )
        then = await bench.take_one("work.then")
        assert dict.fromkeys(names, ONE) == then.events
        await bench.nothing()


@behaviour()
async def test_join_is_delayed(harness: Harness[object]) -> None:
    """The delay of a joined call counts from the moment when the join fires."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root,
        joins=[join("a", then=call("work.then", delay_ms=harness.tick))],
        calls=[call("work.next")],
    )
    follower = await bench.take_one("work.next")
    await bench.elapse(2 * harness.tick)
    await bench.commit(follower, emits=[("a", ONE)])

    seen = await bench.call(root.run_id, "work.then")
    assert Phase.TIMED is seen.phase
    await bench.elapse(harness.tick)
    then = await bench.take_one("work.then")
    assert {"a": ONE} == then.events


@behaviour()
async def test_joined_call_is_retried_with_its_events(harness: Harness[object]) -> None:
    """A joined call sees its events in every attempt."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, joins=[join("a", then=call("work.then"))], emits=[("a", ONE)])
    await bench.take_one("work.then", lease_ms=harness.tick)
    await bench.elapse(harness.tick)

    again = await bench.take_one("work.then")
    assert (2, {"a": ONE}) == (again.attempt, again.events)


@behaviour()
async def test_joins_chain(harness: Harness[object]) -> None:
    """What a joined call emits fires the next join; events stay for all that come later."""
    bench = await open_bench(harness)
    root = await bench.begin()
    joins = [join(f"e{number}", "e0", then=call(f"work.then-{number}")) for number in range(1, 6)]
    await bench.commit(root, joins=joins, emits=[("e0", b"\x00"), ("e1", ONE)])
    for number in range(1, 6):
        then = await bench.take_one(f"work.then-{number}")

        assert {f"e{number}", "e0"} == set(then.events)
        await bench.commit(then, emits=[(f"e{number + 1}", ONE)])
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_events_stay_in_their_run(harness: Harness[object]) -> None:
    """An event of one run is none of another's."""
    bench = await open_bench(harness)
    waiting, emitting = await bench.begin(), await bench.begin()
    await bench.commit(
        waiting, joins=[join("a", then=call("work.then"))], calls=[call("work.next")]
    )
    follower = await bench.take_one("work.next")
    await bench.commit(emitting, emits=[("a", ONE)])

    await bench.nothing()
    await bench.commit(follower, emits=[("a", TWO)])
    then = await bench.take_one("work.then")
    assert {"a": TWO} == then.events


@behaviour()
async def test_join_that_can_never_fire(harness: Harness[object]) -> None:
    """When nothing is left that could fire a join the run is stalled, and says what is missing."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root,
        joins=[join("a", "b", then=call("work.then")), join("c", then=call("work.other"))],
        calls=[call("work.last")],
    )
    last = await bench.take_one("work.last")

    assert Status.RUNNING is await bench.status(root.run_id)
    await bench.commit(last, emits=[("a", ONE)])
    view = await bench.view(root.run_id)
    assert Status.STALLED is view.outcome.status
    assert f"work.last ({last.call_id})" in view.outcome.reason
    assert {("work.then", ("b",)), ("work.other", ("c",))} == {
        (one.address, one.missing) for one in view.joins
    }
    assert {"a"} == set(view.events)


@behaviour()
async def test_join_with_a_dead_emitter(harness: Harness[object]) -> None:
    """A join whose emitter is a dead letter waits for it; the run has failed, not stalled."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root, joins=[join("a", then=call("work.then"))], calls=[call("work.emitter")]
    )
    emitter = await bench.take_one("work.emitter")
    bury = Bury(root.run_id, emitter.call_id, emitter.claim_id, "boom")

    assert [Answer.DONE] == await bench.do(bury)
    assert Status.FAILED is await bench.status(root.run_id)
    assert [Answer.DONE] == await bench.do(Requeue(root.run_id, emitter.call_id))
    again = await bench.take_one("work.emitter")
    await bench.commit(again, emits=[("a", ONE)])
    then = await bench.take_one("work.then")
    await bench.commit(then)
    assert Status.FINISHED is await bench.status(root.run_id)
