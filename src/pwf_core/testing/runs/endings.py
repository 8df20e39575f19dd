"""How runs end: results, those who wait for them, and what stays for how long."""

from __future__ import annotations

import asyncio

from pwf_core.commands import Answer, Bury, Drop, Emit, Fire, Renew, Requeue
from pwf_core.ids import CallId
from pwf_core.state import Rules
from pwf_core.testing.bench import Bench, open_bench
from pwf_core.testing.harness import PATIENCE, Harness, behaviour
from pwf_core.testing.making import LEASE, call, commit, join, new_run_id, postpone
from pwf_core.views import Outcome, Status

_SHORT = Rules(retention_ms=100, dead_retention_ms=200)
_AT_ONCE = Rules(retention_ms=0)


@behaviour()
async def test_run_ends_with_its_last_call(harness: Harness[object]) -> None:
    """A run is finished once nothing is left to do, and not before."""
    bench = await open_bench(harness)
    root = await bench.begin()

    assert Status.RUNNING is await bench.status(root.run_id)
    await bench.commit(root, calls=[call("work.next")])
    assert Status.RUNNING is await bench.status(root.run_id)
    await bench.commit(await bench.take_one("work.next"))
    assert Outcome(Status.FINISHED) == await bench.outcome(root.run_id)


@behaviour()
async def test_first_result_stands(harness: Harness[object]) -> None:
    """Of several results of a run the first write counts, and it is seen before the end."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, calls=[call("work.next")], result=b"\x01")

    assert Outcome(Status.RUNNING, b"\x01") == await bench.outcome(root.run_id)
    await bench.commit(await bench.take_one("work.next"), result=b"\x02")
    assert Outcome(Status.FINISHED, b"\x01") == await bench.outcome(root.run_id)


@behaviour()
async def test_none_is_a_result(harness: Harness[object]) -> None:
    """A result of None is one, and the next does not count."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, calls=[call("work.next")], result=b"\xc0")
    await bench.commit(await bench.take_one("work.next"), result=b"\x02")

    assert b"\xc0" == (await bench.outcome(root.run_id)).result


async def _end(bench: Bench, *, wait: bool = True) -> Outcome | None:
    """Finish a run while somebody listens, and return what they heard."""
    root = await bench.begin()
    async with asyncio.timeout(PATIENCE), bench.port.watch(root.run_id) as watch:
        waiting = asyncio.create_task(watch.wait(PATIENCE)) if wait else None
        await asyncio.sleep(0)
        await bench.commit(root, result=b"\x2a")
        heard: Outcome | None = await (waiting or watch.wait(PATIENCE))
        return heard


@behaviour()
async def test_watcher_hears_the_end(harness: Harness[object]) -> None:
    """Who watches a run is told how it ended, with its result, while waiting and afterwards."""
    bench = await open_bench(harness)

    assert Outcome(Status.FINISHED, b"\x2a") == await _end(bench)
    assert Outcome(Status.FINISHED, b"\x2a") == await _end(bench, wait=False)


@behaviour()
async def test_watcher_hears_failure_and_stall(harness: Harness[object]) -> None:
    """Failing and stalling are told as finishing is."""
    bench = await open_bench(harness)
    dead, stalled = await bench.begin(), await bench.begin()
    async with (
        asyncio.timeout(PATIENCE),
        bench.port.watch(dead.run_id) as one,
        bench.port.watch(stalled.run_id) as two,
    ):
        await bench.do(Bury(dead.run_id, dead.call_id, dead.claim_id, "boom"))
        await bench.commit(stalled, joins=[join("a", then=call())])

        heard = await one.wait(PATIENCE)
        assert (Status.FAILED, True) == (heard.status, "boom" in heard.reason)
        assert Status.STALLED is (await two.wait(PATIENCE)).status


@behaviour()
async def test_many_watch_many(harness: Harness[object]) -> None:
    """Several watch the same run, others watch others, and each hears of its own."""
    bench = await open_bench(harness)
    other = await bench.another()
    one, two = await bench.begin(), await bench.begin()
    async with (
        asyncio.timeout(PATIENCE),
        bench.port.watch(one.run_id) as first,
        other.port.watch(one.run_id) as second,
        other.port.watch(two.run_id) as third,
    ):
        await bench.commit(one, result=b"\x01")
        await bench.commit(two, result=b"\x02")

        heard = await asyncio.gather(*(ear.wait(PATIENCE) for ear in (first, second, third)))
    assert [b"\x01", b"\x01", b"\x02"] == [outcome.result for outcome in heard]


@behaviour()
async def test_watching_ends_with_its_time(harness: Harness[object]) -> None:
    """While nothing happens a watcher gets None after the time-out, also for a run unknown."""
    bench = await open_bench(harness)
    root = await bench.begin()
    async with bench.port.watch(root.run_id) as watch:
        assert await watch.wait(0.05) is None
        assert await watch.wait(0.01) is None
        await bench.commit(root)
        assert (await watch.wait(PATIENCE)).status is Status.FINISHED
    async with bench.port.watch(new_run_id()) as watch:
        assert await watch.wait(0.05) is None


@behaviour(rules=_SHORT)
async def test_ended_run_is_deleted_after_its_retention(harness: Harness[object]) -> None:
    """A finished run stays readable for its retention, then it is gone, with all its parts."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, emits=[("e", b"\x01")], result=b"\x01")

    assert Status.FINISHED is await bench.status(root.run_id)
    await bench.elapse(_SHORT.retention_ms)
    await bench.grants()
    assert await bench.find(root.run_id) is None


@behaviour(rules=_AT_ONCE)
async def test_without_retention_the_run_is_gone_at_once(harness: Harness[object]) -> None:
    """With a retention of 0 nothing stays, and those who wait still hear the result."""
    bench = await open_bench(harness)
    root = await bench.begin()
    async with asyncio.timeout(PATIENCE), bench.port.watch(root.run_id) as watch:
        await bench.commit(root, result=b"\x2a")

        assert Outcome(Status.FINISHED, b"\x2a") == await watch.wait(PATIENCE)
    assert await bench.find(root.run_id) is None


@behaviour(rules=_AT_ONCE)
async def test_nothing_raises_a_deleted_run(harness: Harness[object]) -> None:
    """Whatever comes late for a run that is gone says so, and creates nothing."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root)
    name = (root.run_id, root.call_id)

    replies = await bench.do(
        commit(root),
        postpone(root),
        Renew(*name, root.claim_id, LEASE),
        Bury(*name, root.claim_id, "boom"),
        Emit(root.run_id, "e", b"\x01"),
        Fire(*name),
        Fire(root.run_id, CallId("")),
        Requeue(*name),
        Drop(*name, dead=False, reason="x"),
    )
    assert [Answer.ENDED] * 9 == replies
    assert await bench.find(root.run_id) is None
    await bench.nothing()


@behaviour(rules=_SHORT)
async def test_live_runs_never_expire(harness: Harness[object]) -> None:
    """A run that is running or waiting stays, however long it takes."""
    bench = await open_bench(harness)
    running, waiting = await bench.begin(), await bench.begin()
    await bench.commit(waiting, joins=[join("a", then=call(), external=("a",))])
    await bench.elapse(2 * _SHORT.dead_retention_ms)
    await bench.grants()

    assert Status.RUNNING is await bench.status(running.run_id)
    assert Status.WAITING is await bench.status(waiting.run_id)
    await bench.commit(running)


@behaviour(rules=_SHORT)
async def test_dead_letters_have_a_retention_of_their_own(harness: Harness[object]) -> None:
    """A failed or stalled run stays as long as somebody may still want to revive it."""
    bench = await open_bench(harness)
    dead, stalled = await bench.begin(), await bench.begin()
    await bench.do(Bury(dead.run_id, dead.call_id, dead.claim_id, "boom"))
    await bench.commit(stalled, joins=[join("a", then=call())])
    if harness.virtual:
        await bench.elapse(_SHORT.dead_retention_ms - 1)
        await bench.grants()

        assert await bench.find(dead.run_id) is not None
        assert await bench.find(stalled.run_id) is not None
    await bench.elapse(_SHORT.dead_retention_ms)
    await bench.grants()
    assert await bench.find(dead.run_id) is None
    assert await bench.find(stalled.run_id) is None
    assert [] == await bench.port.dead_letters(None, 10)


@behaviour(rules=_SHORT)
async def test_revived_run_is_not_deleted(harness: Harness[object]) -> None:
    """What was requeued or moved on by an event lives on, past the time it had been given."""
    bench = await open_bench(harness)
    dead, stalled = await bench.begin(), await bench.begin()
    await bench.do(Bury(dead.run_id, dead.call_id, dead.claim_id, "boom"))
    await bench.commit(stalled, joins=[join("a", then=call("work.then"))])
    await bench.do(Requeue(dead.run_id, dead.call_id))
    await bench.emit(stalled.run_id, "a")
    await bench.elapse(2 * _SHORT.dead_retention_ms)
    grants = await bench.take(2)

    assert {dead.run_id, stalled.run_id} == {grant.run_id for grant in grants}
    for grant in grants:
        await bench.commit(grant)
