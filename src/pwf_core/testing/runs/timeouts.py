"""Joins that wait no longer than so long."""

from __future__ import annotations

from pwf_core.commands import Answer, Fire
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import LEASE, call, gather, join
from pwf_core.views import Status


@behaviour()
async def test_join_times_out(harness: Harness[object]) -> None:
    """When its time is over, the other call is made, with what has happened; events come too late."""
    bench = await open_bench(harness)
    root = await bench.begin()
    wait = join(
        "a",
        "b",
        then=call("work.then"),
        timeout_ms=harness.tick,
        late=call("work.late", b"\x91\x07"),
    )
    await bench.commit(root, joins=[wait], emits=[("a", b"\x01")])

    assert Status.WAITING is await bench.status(root.run_id)
    await bench.elapse(harness.tick)
    late = await bench.take_one("work.late")
    assert ({"a": b"\x01"}, b"\x91\x07", None) == (late.events, late.body, late.results)
    assert Answer.DONE is await bench.emit(root.run_id, "b")
    assert () == (await bench.view(root.run_id)).joins
    await bench.commit(late)
    await bench.nothing()
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_join_in_time(harness: Harness[object]) -> None:
    """A join that fired has no time-out any more."""
    bench = await open_bench(harness)
    root = await bench.begin()
    wait = join("a", then=call("work.then"), timeout_ms=harness.tick, late=call("work.late"))
    await bench.commit(root, joins=[wait])
    await bench.emit(root.run_id, "a")
    then = await bench.take_one("work.then")
    await bench.elapse(harness.tick)

    await bench.nothing()
    await bench.commit(then)
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_join_on_what_has_happened_has_no_timeout(harness: Harness[object]) -> None:
    """It fires when it is registered."""
    bench = await open_bench(harness)
    root = await bench.begin()
    wait = join("a", then=call("work.then"), timeout_ms=harness.tick, late=call("work.late"))
    await bench.commit(root, emits=[("a", b"\x01")], joins=[wait])
    then = await bench.take_one("work.then")
    await bench.elapse(harness.tick)
    await bench.commit(then)

    await bench.nothing()
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_timeout_without_another_call(harness: Harness[object]) -> None:
    """It is a failure that names the join and what it missed."""
    bench = await open_bench(harness)
    root = await bench.begin()
    wait = join("a", "b", then=call("work.then"), timeout_ms=harness.tick)
    await bench.commit(root, joins=[wait], emits=[("a", b"\x01")])
    await bench.elapse(harness.tick)

    await bench.nothing()
    outcome = await bench.outcome(root.run_id)
    assert Status.FAILED is outcome.status
    assert outcome.reason.startswith("work.then (")
    assert outcome.reason.endswith("its join timed out without b")


@behaviour()
async def test_timed_out_join_in_a_gather(harness: Harness[object]) -> None:
    """A join counts in its scope until it has fired or timed out, and its other call in its place."""
    bench = await open_bench(harness)
    root = await bench.begin()
    members = [call("work.one"), call("work.two")]
    await bench.commit(root, gathers=[gather(*members, then=call("work.then"), tolerated=1)])
    one, two = sorted(await bench.take(2), key=lambda grant: grant.address)
    await bench.commit(
        one,
        joins=[join("a", then=call("work.no"), timeout_ms=harness.tick, late=call("work.late"))],
    )
    await bench.commit(two, joins=[join("b", then=call("work.no"), timeout_ms=harness.tick)])
    await bench.nothing()
    await bench.elapse(harness.tick)
    late = await bench.take_one("work.late")
    await bench.commit(late, result=b"\x01")
    then = await bench.take_one("work.then")

    assert then.results is not None
    assert b"\x01" == then.results[0]
    assert b"timed out without b" in (then.results[1] or b"")
    await bench.commit(then)
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_timeout_fires_once_and_not_early(harness: Harness[object]) -> None:
    """A timer that fires early, or again, does nothing."""
    bench = await open_bench(harness)
    root = await bench.begin()
    early = join("a", then=call("work.then"), timeout_ms=LEASE)
    over = join("a", then=call("work.then"), timeout_ms=harness.tick, late=call("work.late"))
    await bench.commit(root, joins=[early, over])
    await bench.elapse(harness.tick)
    late = await bench.take_one("work.late")

    assert [Answer.STALE] * 2 == await bench.do(
        Fire(root.run_id, early.then.call_id), Fire(root.run_id, over.then.call_id)
    )
    await bench.emit(root.run_id, "a")
    then = await bench.take_one("work.then")
    assert early.then.call_id == then.call_id
    assert [Answer.ENDED] == await bench.do(Fire(root.run_id, over.then.call_id))
    await bench.commit(then)
    await bench.commit(late)
    assert Status.FINISHED is await bench.status(root.run_id)
