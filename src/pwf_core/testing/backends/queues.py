"""Queues behind a backend: one per service, shared by its workers, patient while nobody serves."""

from __future__ import annotations

import asyncio

import pytest

from pwf_core.commands import Answer, Emit, Granted, Postponement, Requeue
from pwf_core.ports import Backend
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import PATIENCE, Harness, behaviour
from pwf_core.testing.making import call, commit, decision, message, postpone, start
from pwf_core.views import Phase, Status


@behaviour()
async def test_workers_share(harness: Harness[Backend]) -> None:
    """Workers of one service get each call once between them."""
    bench = await open_bench(harness)
    benches = [bench, await bench.another(), await bench.another()]
    starts = [start() for _ in range(60)]
    await bench.do(*starts)
    seen: list[Granted] = []

    async def work(number: int) -> None:
        mine = benches[number]
        while len(seen) < len(starts):
            grants = await mine.grants(limit=4)
            seen.extend(grants)
            if grants:
                assert {Answer.DONE} == set(await mine.do(*(commit(one) for one in grants)))
            else:
                await mine.wait("work")

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(work(number) for number in range(3)))
    assert sorted(one.run_id for one in starts) == sorted(one.run_id for one in seen)
    assert {1} == {one.attempt for one in seen}


@behaviour()
async def test_service_that_is_down_keeps_its_calls(harness: Harness[Backend]) -> None:
    """Calls to a service that nobody serves wait there, in the order they came where claimed."""
    bench = await open_bench(harness)
    root = await bench.begin()
    calls = [call("down.task", bytes([0x91, number])) for number in range(10)]
    await bench.commit(root, calls=calls)

    await bench.nothing()
    later = await bench.another()
    grants = await later.take(10, "down")
    bodies = [one.body for one in grants]
    expected = [one.body for one in calls]
    if bench.port.capabilities.ordered:
        assert expected == bodies
    else:
        assert expected == sorted(bodies)


@behaviour()
async def test_services_are_kept_apart(harness: Harness[Backend]) -> None:
    """A worker gets calls of the services that it names, and of no others."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, calls=[call(f"service-{number}.task") for number in range(5)])
    some = await bench.take(2, "service-1", "service-3")

    assert {"service-1.task", "service-3.task"} == {one.address for one in some}
    await bench.nothing("service-1", "service-3")
    rest = await bench.take(3, "service-0", "service-2", "service-4")
    assert 3 == len({one.address for one in rest})


@behaviour()
async def test_no_service_starves(harness: Harness[Backend]) -> None:
    """A service with a long queue does not keep its worker from the others."""
    bench = await open_bench(harness)
    await bench.do(*(start(call("busy.task")) for _ in range(200)))
    await bench.do(start(call("rare.task")))
    seen: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while "rare.task" not in seen:
            grants = await bench.grants("busy", "rare", limit=8)
            seen += [one.address for one in grants]
            await bench.do(*(commit(one) for one in grants))

    assert len(seen) < 200


@pytest.mark.parametrize(
    "service",
    [
        pytest.param("x" * 100, id="100"),
        pytest.param("größe-日本語-🎉", id="unicode"),
        pytest.param("*[a-z]?#{x}:/%41 '\"\\", id="wildcards"),
    ],
)
@behaviour()
async def test_service_may_have_any_allowed_name(harness: Harness[Backend], service: str) -> None:
    """Every name that the core allows is a service of its own, timers and lists included."""
    bench = await open_bench(harness)
    address = f"{service}.task-é"
    root = await bench.begin(call(address))
    await bench.commit(root, calls=[call(address, delay_ms=harness.tick)])
    await bench.elapse(harness.tick)

    grant = await bench.take_one(address)
    assert root.run_id == grant.run_id
    await bench.commit(grant)
    await bench.nothing(service)


@behaviour()
async def test_order_of_one_worker(harness: Harness[Backend]) -> None:
    """One worker gets a service's calls in the order of their commits, where that is claimed."""
    bench = await open_bench(harness)
    starts = [start() for _ in range(50)]
    for first in range(0, 50, 7):
        await bench.do(*starts[first : first + 7])

    grants = await bench.take(50)
    if bench.port.capabilities.ordered:
        assert [one.run_id for one in starts] == [one.run_id for one in grants]
    else:
        assert {one.run_id for one in starts} == {one.run_id for one in grants}


@behaviour()
async def test_many_starts_at_once(harness: Harness[Backend]) -> None:
    """Many clients start at once over one connection; nothing is lost and nothing doubled."""
    bench = await open_bench(harness)
    starts = [start() for _ in range(100)]
    answers = await asyncio.gather(*(bench.port.apply([one]) for one in starts))

    assert [one.run_id for one in starts] == [reply.run_id for (reply,) in answers]
    grants = await bench.take(100)
    assert {one.run_id for one in starts} == {one.run_id for one in grants}


@behaviour()
async def test_wide_decision(harness: Harness[Backend]) -> None:
    """A decision with a thousand calls is delivered whole."""
    bench = await open_bench(harness)
    root = await bench.begin()
    calls = [call(body=b"\xd9\x20" + b"x" * 32) for _ in range(1000)]

    assert [Answer.DONE] == await bench.do(commit(root, decision(calls=calls)))
    grants = await bench.take(1000)
    assert {one.call_id for one in calls} == {one.call_id for one in grants}
    for first in range(0, 1000, 250):
        await bench.do(*(commit(one) for one in grants[first : first + 250]))
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_worker_that_vanished_holds_nothing_for_ever(harness: Harness[Backend]) -> None:
    """Calls that a worker had when its connection died go to another once their leases are over."""
    bench = await open_bench(harness, doomed=True)
    other = await bench.another()
    starts = [start() for _ in range(5)]
    await bench.do(*starts)
    taken = await bench.take(3, lease_ms=10 * harness.tick)
    await harness.crash(bench.port)
    await other.elapse(10 * harness.tick)

    again = await other.take(5)
    assert {one.run_id for one in starts} == {one.run_id for one in again}
    lost = {one.run_id for one in taken}
    assert {one.run_id for one in again if one.attempt == 2} == lost
    assert {Answer.LOST} == set(await other.do(*(commit(one) for one in taken)))
    assert {Answer.DONE} == set(await other.do(*(commit(one) for one in again)))


@behaviour()
async def test_handed_back_call_is_there_at_once(harness: Harness[Backend]) -> None:
    """A worker that leaves gives its calls back: the next one need not wait for their leases."""
    bench = await open_bench(harness)
    other = await bench.another()
    grant = await bench.begin()
    await bench.do(postpone(grant, Postponement.HAND_BACK))
    await bench.port.close()

    again = await other.take_one()
    assert (grant.call_id, 1, 0) == (again.call_id, again.attempt, again.failures)
    seen = await other.call(grant.run_id)
    assert (Phase.LEASED, 1) == (seen.phase, seen.attempts)


@behaviour()
async def test_unknown_names_are_answered(harness: Harness[Backend]) -> None:
    """Commands for runs that never were are answered in their place, and read as None."""
    bench = await open_bench(harness)
    ghost = message()

    assert [Answer.ENDED] * 2 == await bench.do(
        Emit(ghost.run_id, "e", b"\x01"), Requeue(ghost.run_id, ghost.call_id)
    )
    assert [None, None] == await bench.port.read([ghost.run_id, ghost.run_id])
    assert [] == await bench.port.read([])
    assert [] == await bench.do()
