"""Purge: a service's queue is emptied, and its runs stay consistent."""

from __future__ import annotations

from pwf_core.commands import Answer, Bury, Postponement
from pwf_core.ports import Backend
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import LEASE, call, commit, gather, postpone, start
from pwf_core.transition import OUTBOX_MS
from pwf_core.views import Status


@behaviour()
async def test_purge_takes_what_waits(harness: Harness[Backend]) -> None:
    """Queued, delayed, retried and parked calls go, and are counted; their runs fail and say why."""
    bench = await open_bench(harness)
    retried, parked = await bench.begin(), await bench.begin()
    await bench.do(
        postpone(retried, delay_ms=LEASE), postpone(parked, Postponement.PARK, delay_ms=LEASE)
    )
    queued, delayed = start(), start(call(delay_ms=LEASE))
    await bench.do(queued, delayed)

    assert 4 == await bench.port.purge("work")
    for run_id in (retried.run_id, parked.run_id, queued.run_id, delayed.run_id):
        view = await bench.view(run_id)
        assert (Status.FAILED, ()) == (view.outcome.status, view.calls)
        assert "purged" in view.outcome.reason
    await bench.nothing()


@behaviour()
async def test_purge_leaves_what_runs(harness: Harness[Backend]) -> None:
    """A call that is being run is not touched: its worker commits as if nothing had been."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await bench.do(start())

    assert 1 == await bench.port.purge("work")
    await bench.commit(grant, result=b"\x01")
    assert Status.FINISHED is await bench.status(grant.run_id)


@behaviour()
async def test_purge_leaves_other_services(harness: Harness[Backend]) -> None:
    """Purging one service takes nothing of another, not even of the same run."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root,
        calls=[call("work.here"), call("other.there"), call("other.later", delay_ms=harness.tick)],
    )

    assert 1 == await bench.port.purge("work")
    await bench.elapse(harness.tick)
    grants = await bench.take(2, "other")
    assert Status.RUNNING is await bench.status(root.run_id)
    await bench.do(*(commit(grant) for grant in grants))
    assert Status.FAILED is await bench.status(root.run_id)


@behaviour()
async def test_purge_of_nothing(harness: Harness[Backend]) -> None:
    """A service without calls purges to 0, twice as well, and so does one that never was."""
    bench = await open_bench(harness)
    await bench.do(start())

    assert 1 == await bench.port.purge("work")
    assert 0 == await bench.port.purge("work")
    assert 0 == await bench.port.purge("nobody")


@behaviour()
async def test_service_works_after_a_purge(harness: Harness[Backend]) -> None:
    """A purge empties a queue and breaks nothing: what comes next is delivered."""
    bench = await open_bench(harness)
    await bench.do(*(start() for _ in range(20)))

    assert 20 == await bench.port.purge("work")
    grant = await bench.begin()
    await bench.commit(grant)
    await bench.nothing()


@behaviour()
async def test_purge_of_many(harness: Harness[Backend]) -> None:
    """Queues longer than any batch are emptied whole."""
    bench = await open_bench(harness)
    for _ in range(3):
        await bench.do(*(start() for _ in range(150)))
        await bench.do(*(start(call(delay_ms=LEASE)) for _ in range(150)))

    assert 900 == await bench.port.purge("work")
    await bench.nothing()


@behaviour()
async def test_gather_does_not_outlive_its_purged_members(harness: Harness[Backend]) -> None:
    """The other members finish, the gather does not fire, and the run has failed."""
    bench = await open_bench(harness)
    root = await bench.begin()
    members = [call("work.member"), call("other.member")]
    await bench.commit(root, gathers=[gather(*members, then=call("other.then"))])
    (member,) = await bench.take(1, "other")

    assert 1 == await bench.port.purge("work")
    assert Status.RUNNING is await bench.status(root.run_id)
    await bench.commit(member, result=b"\x02")
    await bench.nothing("other")
    assert Status.FAILED is await bench.status(root.run_id)


@behaviour()
async def test_purge_leaves_what_follows_from_it(harness: Harness[Backend]) -> None:
    """A gather that bears the loss of its members goes on, in the service that was purged as well."""
    bench = await open_bench(harness)
    root = await bench.begin()
    members = [call("work.one"), call("work.two")]
    await bench.commit(root, gathers=[gather(*members, then=call("work.then"), tolerated=2)])

    assert 2 == await bench.port.purge("work")
    await bench.elapse(OUTBOX_MS)
    await bench.commit(await bench.take_one("work.then"))
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_purge_leaves_dead_letters(harness: Harness[Backend]) -> None:
    """Dead letters are for people to decide about."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await bench.do(Bury(grant.run_id, grant.call_id, grant.claim_id, "boom"))

    assert 0 == await bench.port.purge("work")
    (letter,) = await bench.port.dead_letters("work", 10)
    assert grant.call_id == letter.call_id


@behaviour()
async def test_purged_copies_run_nothing(harness: Harness[Backend]) -> None:
    """A worker that held a purged call's older claim commits nothing."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await bench.do(postpone(grant, delay_ms=LEASE))

    assert 1 == await bench.port.purge("work")
    assert [Answer.ENDED] == await bench.do(commit(grant))
