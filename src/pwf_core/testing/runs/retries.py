"""Retries, as a worker sees them: a new copy, later, and the older ones run nothing."""

from __future__ import annotations

import pytest

from pwf_core.commands import Answer, Bury, Command, Postponement, Renew
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import LEASE, call, commit, decision, postpone
from pwf_core.transition import MAX_LOST
from pwf_core.views import Phase, Status


@behaviour()
async def test_retry_comes_after_its_delay(harness: Harness[object]) -> None:
    """A failed call comes again after its wait, as a new generation, with its error on record."""
    bench = await open_bench(harness)
    grant = await bench.begin()

    assert [Answer.DONE] == await bench.do(postpone(grant, delay_ms=harness.tick, reason="no"))
    seen = await bench.call(grant.run_id)
    assert (Phase.TIMED, "no", 1, 1) == (seen.phase, seen.reason, seen.generation, seen.attempts)
    await bench.elapse(harness.tick)
    again = await bench.take_one()
    assert grant.call_id == again.call_id
    assert (1, 2, 1) == (again.generation, again.attempt, again.failures)
    await bench.commit(again)
    assert Status.FINISHED is await bench.status(grant.run_id)


@behaviour()
async def test_retry_does_not_come_early(harness: Harness[object]) -> None:
    """While a retry waits, nothing of the call runs, whatever copies are about."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await bench.do(postpone(grant, delay_ms=LEASE))

    await bench.nothing()
    assert Phase.TIMED is (await bench.call(grant.run_id)).phase


@behaviour()
async def test_retry_at_once(harness: Harness[object]) -> None:
    """A wait of 0 means at once, on a new copy."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await bench.do(postpone(grant))

    again = await bench.take_one()
    assert (1, 2) == (again.generation, again.attempt)
    await bench.nothing()


@behaviour()
async def test_retries_count_up(harness: Harness[object]) -> None:
    """Attempts and failures go up with every retry, generations as well."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    for number in range(1, 6):
        assert (number, number - 1, number - 1) == (
            grant.attempt,
            grant.failures,
            grant.generation,
        )
        await bench.do(postpone(grant))
        grant = await bench.take_one()


@pytest.mark.parametrize("kind", [Postponement.PARK, Postponement.HAND_BACK])
@behaviour()
async def test_what_was_not_run_does_not_count(
    harness: Harness[object],
    kind: Postponement,
) -> None:
    """Parking and handing back cost no attempt, however often it happens."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    for _ in range(3):
        await bench.do(postpone(grant, kind))
        grant = await bench.take_one()

        assert (1, 0) == (grant.attempt, grant.failures)
    assert 3 == grant.generation


@behaviour()
async def test_parked_call_is_visible(harness: Harness[object]) -> None:
    """A parked call says that it is parked, and why; its run goes on."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await bench.do(postpone(grant, Postponement.PARK, delay_ms=LEASE, reason="unknown task"))

    seen = await bench.call(grant.run_id)
    assert (Phase.PARKED, "unknown task", 0) == (seen.phase, seen.reason, seen.attempts)
    assert Status.RUNNING is await bench.status(grant.run_id)


@behaviour()
async def test_lost_worker_is_followed_by_another(harness: Harness[object]) -> None:
    """A call whose worker is gone comes again after its lease; the first one then does nothing."""
    bench = await open_bench(harness)
    (reply,) = [await bench.begin()]
    await bench.commit(reply, calls=[call("work.next")])
    first = await bench.take_one("work.next", lease_ms=harness.tick)
    await bench.elapse(harness.tick)
    second = await bench.take_one("work.next")

    assert (1, 2, 0) == (second.generation, second.attempt, second.failures)
    late: list[Command] = [
        commit(first, decision(result=b"\x01")),
        Renew(first.run_id, first.call_id, first.claim_id, LEASE),
        postpone(first),
        Bury(first.run_id, first.call_id, first.claim_id, "boom"),
    ]
    assert [Answer.LOST] * 4 == await bench.do(*late)
    await bench.commit(second, result=b"\x02")
    assert [Answer.ENDED] * 4 == await bench.do(*late)
    assert b"\x02" == (await bench.outcome(second.run_id)).result


@behaviour()
async def test_renewed_call_stays(harness: Harness[object]) -> None:
    """As long as its worker renews, a call is nobody else's."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, calls=[call("work.next")])
    grant = await bench.take_one("work.next", lease_ms=10 * harness.tick)

    for _ in range(3):
        renew = Renew(grant.run_id, grant.call_id, grant.claim_id, LEASE)
        assert [Answer.DONE] == await bench.do(renew)
        await bench.elapse(4 * harness.tick)
    await bench.nothing()
    await bench.commit(grant)


@behaviour()
async def test_call_that_kills_workers_dies(harness: Harness[object]) -> None:
    """A call that is lost with its worker each time becomes a dead letter, and says why."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, calls=[call("work.next")])
    for number in range(1, MAX_LOST + 1):
        grant = await bench.take_one("work.next", lease_ms=harness.tick)

        assert (number, 0) == (grant.attempt, grant.failures)
        await bench.elapse(harness.tick)
    await bench.nothing()
    (letter,) = await bench.port.dead_letters("work", 10)
    assert (root.run_id, MAX_LOST) == (letter.run_id, letter.attempts)
    assert Status.FAILED is await bench.status(root.run_id)


@behaviour()
async def test_delayed_call_waits_for_its_time(harness: Harness[object]) -> None:
    """A delayed call is there once its time has come, and then at once."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root,
        calls=[
            call("work.later", delay_ms=LEASE),
            call("work.soon", delay_ms=harness.tick),
            call("work.past", due_ms=1),
        ],
    )

    assert "work.past" == (await bench.take_one()).address
    await bench.elapse(harness.tick)
    assert "work.soon" == (await bench.take_one()).address
    await bench.nothing()
    seen = await bench.call(root.run_id, "work.later")
    assert (Phase.TIMED, 0) == (seen.phase, seen.attempts)
