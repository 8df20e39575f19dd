"""Connections: opened, shared, closed, lost; and what they have in common."""

from __future__ import annotations

import asyncio

import pytest

from pwf_core.commands import Answer, Started
from pwf_core.errors import UnavailableError
from pwf_core.ids import ClaimId
from pwf_core.ports import Backend, Take
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import PATIENCE, Harness, behaviour
from pwf_core.testing.making import LEASE, SERVICE, commit, decision, start
from pwf_core.views import Status


@behaviour()
async def test_close_twice_is_fine(harness: Harness[Backend]) -> None:
    """Closing what is closed does nothing."""
    backend = await harness.connect()
    await backend.apply([start()])
    await backend.close()
    await backend.close()


@behaviour()
async def test_close_lets_go_who_waits(harness: Harness[Backend]) -> None:
    """Closing ends every wait; who waited sees at most that the connection is gone."""
    backend = await harness.connect()
    first = start()
    await backend.apply([first])

    async def watch() -> None:
        async with backend.watch(first.run_id) as one:
            entered.set()
            assert await one.wait(2 * PATIENCE) is None

    entered = asyncio.Event()
    waiting = [
        asyncio.create_task(watch()),
        asyncio.create_task(backend.idle(Take(("idle",), 1, ClaimId("s:1"), LEASE), 2 * PATIENCE)),
    ]
    async with asyncio.timeout(PATIENCE):
        await entered.wait()
        await backend.close()
        ends = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(one is None or isinstance(one, UnavailableError) for one in ends)


@behaviour()
async def test_closed_backend_does_nothing(harness: Harness[Backend]) -> None:
    """It says that it is closed, and neither takes nor gives anything."""
    backend, other = await harness.connect(), await open_bench(harness)
    first = start()
    await other.do(first)
    await backend.close()

    async def watch() -> None:
        async with backend.watch(first.run_id):
            pass

    for attempt in (
        lambda: backend.apply([start()]),
        lambda: backend.exchange([], Take((SERVICE,), 1, ClaimId("s:1"), LEASE)),
        lambda: backend.idle(Take((SERVICE,), 1, ClaimId("s:1"), LEASE), PATIENCE),
        lambda: backend.read([first.run_id]),
        lambda: backend.dead_letters(None, 1),
        lambda: backend.purge(SERVICE),
        watch,
    ):
        with pytest.raises(UnavailableError):
            await attempt()
    assert first.run_id == (await other.take_one()).run_id


@behaviour()
async def test_close_after_crash_is_fine(harness: Harness[Backend]) -> None:
    """A backend whose connection is gone closes in good time, and without an error."""
    backend = await harness.connect(doomed=True)
    await backend.apply([start()])
    await harness.crash(backend)
    async with asyncio.timeout(PATIENCE):
        await backend.close()


@behaviour()
async def test_closed_backend_opens_again(harness: Harness[Backend]) -> None:
    """A backend may be opened anew after it was closed: blocking clients do that."""
    bench = await open_bench(harness)
    await harness.connect()  # where runs live no longer than their connections, one stays
    grant = await bench.begin()
    await bench.port.close()
    await bench.port.open()

    await bench.commit(grant)
    await bench.begin()


@behaviour()
async def test_work_outlives_its_connection(harness: Harness[Backend]) -> None:
    """What was started over one connection is there for another after it has closed."""
    first, second = await harness.connect(), await open_bench(harness)
    root = start()
    await first.apply([root])
    await first.close()

    grant = await second.take_one()
    assert root.run_id == grant.run_id
    await second.commit(grant, result=b"\x01")
    assert Status.FINISHED is await second.status(root.run_id)


@behaviour()
async def test_close_keeps_what_is_queued(harness: Harness[Backend]) -> None:
    """A worker that closes with calls still on their way to it leaves them to the next."""
    bench = await open_bench(harness)
    other = await bench.another()
    starts = [start() for _ in range(30)]
    await bench.do(*starts)
    taken = await bench.take(1)
    assert [Answer.DONE] == await bench.do(commit(taken[0]))
    await bench.port.close()

    rest = await other.take(29)
    assert {one.run_id for one in starts} == {one.run_id for one in [*taken, *rest]}


@behaviour()
async def test_namespaces_are_kept_apart(harness: Harness[Backend]) -> None:
    """Two deployments on one server share no run, no key, no queue and no dead letter."""
    bench = await open_bench(harness)
    there = await harness.elsewhere()
    mine, yours = (bench.start(key="k", fingerprint=one) for one in "fg")

    assert [Started(mine.run_id, created=True)] == await bench.do(mine)
    assert [Started(yours.run_id, created=True)] == await there.apply([yours])
    assert [None] == await there.read([mine.run_id])
    grant = await bench.take_one()
    assert mine.run_id == grant.run_id
    await bench.nothing()
    assert [Answer.ENDED] == await there.apply([commit(grant, decision(result=b"\x01"))])
    assert 1 == await there.purge("work")
    await bench.commit(grant)
    assert Status.FINISHED is await bench.status(mine.run_id)
