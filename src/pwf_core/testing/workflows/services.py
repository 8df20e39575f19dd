"""Services: shared by workers, addressed by name, patient while nobody serves them, purged."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from pwf_core.context import Context
from pwf_core.directives import Next, gather, publish, result
from pwf_core.errors import RunFailedError
from pwf_core.service import Service
from pwf_core.testing.harness import PATIENCE, WorkflowHarness, behaviour
from pwf_core.testing.workflows._waiting import eventually
from pwf_core.views import Phase, Status


@behaviour()
async def test_workers_share(harness: WorkflowHarness[Any]) -> None:
    """Two workers of one service do its work between them, each call once."""
    ran: list[tuple[str, int]] = []
    both = asyncio.Event()
    loop = asyncio.get_running_loop()

    def service(name: str) -> Service:
        work = Service("work")

        @work.task
        async def note(number: int) -> Next:
            ran.append((name, number))
            if len({one for one, _ in ran}) == 2:
                loop.call_soon_threadsafe(both.set)
            # Until both have some: no worker can do it all.
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(both.wait(), loop))
            return result(number)

        return work

    clients = [await harness.client() for _ in range(3)]
    async with (
        harness.worker(clients[0], service("one"), concurrency=8),
        harness.worker(clients[1], service("two"), concurrency=8),
    ):
        runs = await clients[2].start_many([publish("work.note", number) for number in range(60)])
        results = await asyncio.gather(*(run.result(int, timeout=PATIENCE) for run in runs))

    assert list(range(60)) == results
    assert list(range(60)) == sorted(number for _, number in ran)


@behaviour()
async def test_slow_work_is_shared(harness: WorkflowHarness[Any]) -> None:
    """A worker that is busy hoards nothing: what it has no room for goes to those that have."""
    began: set[str] = set()
    everybody = asyncio.Event()
    loop = asyncio.get_running_loop()
    names = ("one", "two", "three")

    def service(name: str) -> Service:
        work = Service("work")

        @work.task
        async def slow() -> None:
            began.add(name)
            if len(began) == len(names):
                loop.call_soon_threadsafe(everybody.set)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(everybody.wait(), loop))

        @work.task
        async def spread() -> Next:
            return gather([publish("work.slow") for _ in range(4)], then=publish("work.done"))

        @work.task
        async def done() -> Next:
            return result("done")

        return work

    async with AsyncExitStack() as stack:
        for name in names:
            client = await harness.client()
            await stack.enter_async_context(
                harness.worker(client, service(name), concurrency=1, threads=1),
            )
        client = await harness.client()
        run = await client.start(publish("work.spread"))

        assert "done" == await run.result(str, timeout=PATIENCE)


@behaviour()
async def test_several_services_in_one_worker(harness: WorkflowHarness[Any]) -> None:
    """One worker may serve many services, which know each other's tasks as functions."""
    one, two, three = Service("one"), Service("two"), Service("three")

    @one.task
    async def first(trail: list[str]) -> Next:
        return publish(second, [*trail, "first"])

    @two.task
    def second(trail: list[str]) -> Next:
        return publish(third, [*trail, "second"])

    @three.task
    async def third(trail: list[str]) -> Next:
        return result([*trail, "third"])

    client = await harness.client()
    async with harness.worker(client, one, two, three):
        run = await client.start(publish(first, []))

        assert ["first", "second", "third"] == await run.result(timeout=PATIENCE)


@behaviour()
async def test_service_that_is_down_keeps_its_messages(harness: WorkflowHarness[Any]) -> None:
    """Calls to a service wait for its first worker, and again for its next one."""
    up, down = Service("up"), Service("down")

    @up.task
    async def ask(number: int) -> Next:
        return publish("down.answer", number)

    @down.task
    async def answer(number: int) -> Next:
        return result(-number)

    client = await harness.client()
    async with harness.worker(client, up):
        for round_ in range(2):
            runs = await client.start_many([publish(ask, number) for number in range(5)])

            async def all_wait(runs: Any = runs) -> bool:
                views = [await run.view() for run in runs]
                return {"down.answer"} == {one.address for view in views for one in view.calls}

            await eventually(all_wait)
            assert [Status.RUNNING] * 5 == [await run.status() for run in runs], round_
            async with harness.worker(client, down):
                results = [await run.result(int, timeout=PATIENCE) for run in runs]
            assert [-number for number in range(5)] == results


@behaviour()
async def test_declared_task_lives_elsewhere(harness: WorkflowHarness[Any]) -> None:
    """A declared task gives a typed address to what another code base serves."""
    here, there = Service("there"), Service("there")

    @here.declare
    def shout(text: str) -> None: ...

    @there.task(name="shout")
    async def shout_loudly(text: str) -> Next:
        return result(text.upper())

    client = await harness.client()
    async with harness.worker(client, there):
        run = await client.start(publish(shout, "x"))

        assert "X" == await run.result(str, timeout=PATIENCE)


@behaviour()
async def test_service_may_have_any_allowed_name(harness: WorkflowHarness[Any]) -> None:
    """Long names and names of any script work from end to end."""
    for name in ("x" * 64, "größe-日本語-🎉", "*[a-z]?#{x}:/%41 '\"\\"):
        work = Service(name)

        @work.task
        async def wait(number: int) -> Next:
            return result(number)

        client = await harness.client()
        async with harness.worker(client, work):
            run = await client.start(publish(wait, 7))

            assert 7 == await run.result(int, timeout=PATIENCE)


@behaviour()
async def test_purge(harness: WorkflowHarness[Any]) -> None:
    """A purge drops what is queued or delayed, leaves what runs, and the service works on."""
    work = Service("work")
    go, began = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    @work.task
    async def hold() -> Next:
        loop.call_soon_threadsafe(began.set)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go.wait(), loop))
        return result("held")

    @work.task
    async def echo(value: int) -> Next:
        return result(value)

    client = await harness.client()
    queued = await client.start_many([publish("other.task", number) for number in range(5)])
    delayed = await client.start(publish(echo, 1).after(timedelta(hours=1)))
    async with harness.worker(client, work):
        held = await client.start(publish(hold))
        async with asyncio.timeout(PATIENCE):
            await began.wait()

        assert 5 == await client.purge("other")
        assert 1 == await client.purge("work")
        assert 0 == await client.purge("work")
        for run in [*queued, delayed]:
            with pytest.raises(RunFailedError, match="purged"):
                await run.result(timeout=PATIENCE)
        go.set()
        assert "held" == await held.result(str, timeout=PATIENCE)
        again = await client.start(publish(echo, 2))
        assert 2 == await again.result(int, timeout=PATIENCE)


@behaviour()
async def test_resources(harness: WorkflowHarness[Any]) -> None:
    """A worker opens its resources once, hands them to handlers, and closes them when it leaves."""
    work = Service("work")
    log: list[str] = []

    class Pool:
        def name(self) -> str:
            return "pool"

    class make_pool:  # noqa: N801 -- used as a function
        def __enter__(self) -> Pool:
            log.append("open")
            return Pool()

        def __exit__(self, *_: object) -> None:
            log.append("close")

    @work.task
    async def use(ctx: Context) -> Next:
        return result(ctx.resource(Pool).name())

    client = await harness.client()
    async with harness.worker(client, work, resources=[make_pool]):
        runs = await client.start_many([publish(use) for _ in range(3)])

        assert ["pool"] * 3 == [await run.result(str, timeout=PATIENCE) for run in runs]
        assert ["open"] == log
    assert ["open", "close"] == log


@behaviour()
async def test_view_shows_what_is_open(harness: WorkflowHarness[Any]) -> None:
    """A run shows its open calls: which task, in which phase, how often tried."""
    client = await harness.client()
    run = await client.start(publish("work.later").after(timedelta(hours=1)))
    (call,) = (await run.view()).calls

    assert ("work.later", Phase.TIMED, 0) == (call.address, call.phase, call.attempts)
