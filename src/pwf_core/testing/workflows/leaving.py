"""Workers that leave, die or lose their lease: nothing waits for them longer than it must."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from pwf_core.context import Context
from pwf_core.directives import Next, publish, result
from pwf_core.service import Service
from pwf_core.testing.cable import Cable
from pwf_core.testing.harness import PATIENCE, WorkflowHarness, behaviour
from pwf_core.views import Phase

_NEVER = timedelta(hours=1)  # a lease that no test waits out


class _Gate:
    """Where a handler waits, in whatever thread and loop it runs, until it is let through."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._open = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def passing(self) -> None:
        """Wait here, as the handler."""
        self._loop.call_soon_threadsafe(self.reached.set)
        waiting = asyncio.run_coroutine_threadsafe(self._open.wait(), self._loop)
        await asyncio.wrap_future(waiting)

    def open(self) -> None:
        """Let everybody through."""
        self._open.set()

    async def until_reached(self) -> None:
        """Wait for a handler, as the test."""
        async with asyncio.timeout(PATIENCE):
            await self.reached.wait()


def _service(gate: _Gate, seen: list[int]) -> Service:
    work = Service("work")

    @work.task
    async def wait(ctx: Context) -> Next:
        seen.append(ctx.attempt)
        await gate.passing()
        return result("one")

    return work


def _quick(seen: list[int]) -> Service:
    work = Service("work")

    @work.task
    async def wait(ctx: Context) -> Next:
        seen.append(ctx.attempt)
        return result("two")

    return work


@behaviour()
async def test_close_hands_unfinished_work_back(harness: WorkflowHarness[Any]) -> None:
    """A worker that leaves gives its calls back at once: the next one does not wait for a lease."""
    gate, seen = _Gate(), list[int]()
    client, other = await harness.client(), await harness.client()
    run = await other.start(publish("work.wait"))
    async with harness.worker(client, _service(gate, seen), lease=_NEVER, grace=timedelta(0)):
        await gate.until_reached()
    await client.close()
    (call,) = (await run.view()).calls

    assert Phase.LEASED is not call.phase
    assert 0 == call.attempts
    async with harness.worker(other, _quick(seen)):
        assert "two" == await run.result(str, timeout=PATIENCE)
    assert [1, 1] == seen
    gate.open()


@behaviour()
async def test_close_hands_back_what_comes_just_then(harness: WorkflowHarness[Any]) -> None:
    """A worker that leaves while it is given a call leaves it to others, as one that never ran."""
    client, seen = await harness.client(), list[int]()
    for number in range(8):
        async with harness.worker(client, _quick([]), lease=_NEVER) as leaving:
            closing = asyncio.create_task(asyncio.sleep(number / 2000))
            run, _ = await asyncio.gather(client.start(publish("work.wait")), closing)
            await leaving.close()
        async with harness.worker(client, _quick(seen), lease=_NEVER):
            assert "two" == await run.result(str, timeout=PATIENCE)
    assert {1} >= set(seen)


@behaviour()
async def test_close_lets_handlers_finish(harness: WorkflowHarness[Any]) -> None:
    """Within its grace a leaving worker finishes what it runs, and takes nothing new."""
    gate, seen = _Gate(), list[int]()
    client = await harness.client()
    worker = harness.worker(
        client, _service(gate, seen), lease=_NEVER, grace=timedelta(seconds=PATIENCE)
    )
    async with worker as inside:
        run = await client.start(publish("work.wait"))
        await gate.until_reached()
        leaving = asyncio.create_task(inside.close())
        await asyncio.sleep(0.05)
        later = await client.start(publish("work.wait"))
        gate.open()
        async with asyncio.timeout(PATIENCE):
            await leaving

        assert "one" == await run.result(str, timeout=PATIENCE)
        (call,) = (await later.view()).calls
        assert 0 == call.attempts
    assert [1] == seen


@behaviour()
async def test_dead_worker_is_followed_by_another(harness: WorkflowHarness[Any]) -> None:
    """Calls of a worker whose connection died run elsewhere once the lease is over."""
    gate, seen = _Gate(), list[int]()
    client, other = await harness.client(doomed=True), await harness.client()
    lease = timedelta(milliseconds=5 * harness.tick)
    async with harness.worker(client, _service(gate, seen), lease=lease, grace=timedelta(0)):
        run = await other.start(publish("work.wait"))
        await gate.until_reached()
        await harness.crash(client)
        async with harness.worker(other, _quick(seen), lease=lease):
            assert "two" == await run.result(str, timeout=PATIENCE)
        gate.open()
    assert [1, 2] == seen


@behaviour()
async def test_worker_that_lost_its_lease_commits_nothing(harness: WorkflowHarness[Any]) -> None:
    """A worker that stood still past its lease is too late: what it returns is dropped."""
    gate, seen, cable = _Gate(), list[int](), Cable(drops_renewals=True)
    client, other = await harness.client(cable), await harness.client()
    lease = timedelta(milliseconds=5 * harness.tick)
    alone = harness.worker(client, _service(gate, seen), lease=lease, concurrency=1)
    async with alone:  # with no room to take the same call again
        run = await other.start(publish("work.wait"))
        await gate.until_reached()
        async with harness.worker(other, _quick(seen), lease=lease):
            assert "two" == await run.result(str, timeout=PATIENCE)
        gate.open()
    assert "two" == await run.result(str, timeout=PATIENCE)
    assert [1, 2] == seen


@behaviour()
async def test_long_handler_keeps_its_lease(harness: WorkflowHarness[Any]) -> None:
    """A handler that takes many leases is run once: its worker renews."""
    gate, seen = _Gate(), list[int]()
    client, other = await harness.client(), await harness.client()
    lease = timedelta(milliseconds=10 * harness.tick)
    async with (
        harness.worker(client, _service(gate, seen), lease=lease),
        harness.worker(other, _service(gate, seen), lease=lease),
    ):
        run = await client.start(publish("work.wait"))
        await gate.until_reached()
        deadline = time.monotonic() + 2.2 * lease.total_seconds()
        while time.monotonic() < deadline:
            (call,) = (await run.view()).calls
            assert (Phase.LEASED, 1, 0) == (call.phase, call.attempts, call.lost)
            await asyncio.sleep(0.05)
        gate.open()

        assert "one" == await run.result(str, timeout=PATIENCE)
    assert [1] == seen
