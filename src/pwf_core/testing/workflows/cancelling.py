"""Cancelled runs, tolerated failures and joins with a time-out, as users meet them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from pwf_core.context import Context
from pwf_core.directives import Next, emit, gather, join, publish, result, tolerate
from pwf_core.errors import RunCancelledError, RunFailedError, RunNotFoundError
from pwf_core.retries import Retry
from pwf_core.service import Service
from pwf_core.testing.harness import PATIENCE, WorkflowHarness, behaviour
from pwf_core.testing.workflows._waiting import eventually
from pwf_core.views import Status

_LEASE = timedelta(milliseconds=600)
_DELAY = timedelta(milliseconds=100)
_ONCE = Retry(attempts=1)


@behaviour()
async def test_cancel(harness: WorkflowHarness[Any]) -> None:
    """A cancelled run is over for all: who waits, who runs a call of it, and what was to come.

    What was to come has no worker until then, and calls of another run come after it.
    """
    work, rest = Service("work"), Service("rest")
    loop = asyncio.get_running_loop()
    began, stopped = asyncio.Event(), asyncio.Event()
    contexts: list[Context] = []
    ran: list[str] = []

    @work.task
    async def fork() -> Next:
        members = [publish(hold), publish(later, "queued"), publish(later, "timed").after(_DELAY)]
        return gather(members, then=publish(later, "then"))

    @work.task
    async def hold(ctx: Context) -> Next:
        contexts.append(ctx)
        loop.call_soon_threadsafe(began.set)
        try:
            while not ctx.cancelled:
                await asyncio.sleep(0.01)
        finally:
            loop.call_soon_threadsafe(stopped.set)
        return result("never seen")

    @rest.task
    async def later(name: str) -> None:
        ran.append(name)

    client = await harness.client()
    async with harness.worker(client, work, lease=_LEASE):
        run = await client.start(publish(fork))
        waiting = asyncio.create_task(run.result(timeout=PATIENCE))
        async with asyncio.timeout(PATIENCE):
            await began.wait()

        assert await run.cancel(reason="not needed")
        assert await run.cancel(reason="again")  # as when the first reply was lost
        with pytest.raises(RunCancelledError, match="was cancelled: not needed"):
            await waiting
        assert Status.CANCELLED is await run.status()
        assert not await client.emit(run.id, "e")
        async with asyncio.timeout(PATIENCE):
            await stopped.wait()
        assert contexts[0].cancelled
        async with harness.worker(client, rest):
            fences = [publish(later, "fence"), publish(later, "timed fence").after(_DELAY)]
            for one in await client.start_many(fences):
                await one.result(timeout=PATIENCE)
        assert ["fence", "timed fence"] == sorted(ran)
    with pytest.raises(RunCancelledError):
        await run.result(timeout=PATIENCE)


@behaviour()
async def test_cancel_of_a_finished_run(harness: WorkflowHarness[Any]) -> None:
    """It is too late, and says so."""
    client, work = await harness.client(), Service("work")

    @work.task
    async def quick() -> Next:
        return result(1)

    async with harness.worker(client, work):
        run = await client.start(publish(quick))
        assert 1 == await run.result(int, timeout=PATIENCE)
        assert not await run.cancel()
    assert Status.FINISHED is await run.status()


@behaviour()
async def test_cancel_of_an_unknown_run(harness: WorkflowHarness[Any]) -> None:
    """There is nothing to cancel."""
    client = await harness.client()
    with pytest.raises(RunNotFoundError):
        await client.run("0" * 32).cancel()


@behaviour()
async def test_collected_failures(harness: WorkflowHarness[Any]) -> None:
    """A gather that collects goes on without its failed members, and knows why they failed."""
    work = Service("work")

    @work.task
    async def begin() -> Next:
        return gather([publish(half, n) for n in range(4)], then=publish(end), on_failure="collect")

    @work.task(retry=_ONCE)
    async def half(number: int) -> Next:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return result(number)

    @work.task
    async def end(ctx: Context) -> Next:
        reasons = [ctx.failures[number].strip().rpartition("\n")[2] for number in ctx.failures]
        return result([ctx.results, reasons, ctx.results_as(int | None)])  # type: ignore[arg-type]

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(begin))

        values = [0, None, 2, None]
        reasons = ["ValueError: 1 is odd", "ValueError: 3 is odd"]
        assert [values, reasons, values] == await run.result(timeout=PATIENCE)
        assert [] == await client.dead_letters()


@behaviour()
async def test_tolerated_share(harness: WorkflowHarness[Any]) -> None:
    """A gather goes on as long as no more than a share of its members fails."""
    work = Service("work")

    @work.task
    async def begin(bad: int) -> Next:
        members = [publish(member, number < bad) for number in range(5)]
        return gather(members, then=publish(end), on_failure=tolerate(0.5))

    @work.task(retry=_ONCE)
    async def member(fails: bool) -> None:  # noqa: FBT001 -- the argument of a task
        if fails:
            raise ValueError("no")

    @work.task
    async def end(ctx: Context) -> Next:
        return result(len(ctx.failures))

    client = await harness.client()
    async with harness.worker(client, work):
        fine, failed = await client.start_many([publish(begin, 2), publish(begin, 3)])

        assert 2 == await fine.result(int, timeout=PATIENCE)
        with pytest.raises(RunFailedError, match="ValueError: no"):
            await failed.result(timeout=PATIENCE)
        assert 1 == len(await client.dead_letters())


@behaviour()
async def test_join_with_a_timeout(harness: WorkflowHarness[Any]) -> None:
    """When an event does not come in time, the other call runs, and sees what did come."""
    work = Service("work")

    @work.task
    async def ask() -> Next:
        wait = join(
            "asked",
            "answered",
            then=publish(done),
            timeout=timedelta(milliseconds=100),
            on_timeout=publish(late),
        )
        return [emit("asked", "whom"), wait]

    @work.task
    async def done() -> Next:
        return result("in time")

    @work.task
    async def late(ctx: Context) -> Next:
        return result(["late", dict.fromkeys(ctx.events), ctx.events["asked"]])

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(ask))

        assert ["late", {"asked": None}, "whom"] == await run.result(timeout=PATIENCE)


@behaviour()
async def test_waiting_for_a_timeout(harness: WorkflowHarness[Any]) -> None:
    """Until then the run waits, which is not to be stalled; an event from outside is in time."""
    work = Service("work")

    @work.task
    async def ask() -> Next:
        return join("answered", then=publish(done), timeout=timedelta(hours=1))

    @work.task
    async def done(ctx: Context) -> Next:
        return result(ctx.events["answered"])

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(ask))

        async def waits() -> bool:
            return await run.status() is Status.WAITING

        await eventually(waits)
        assert await client.emit(run.id, "answered", 42)
        assert 42 == await run.result(int, timeout=PATIENCE)
