"""Failures: retried, dead-lettered, requeued; and messages that nobody here can run."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from pwf_core.context import Context
from pwf_core.directives import Next, emit, gather, publish, result
from pwf_core.errors import RunFailedError
from pwf_core.retries import Retry
from pwf_core.service import Service
from pwf_core.testing.harness import PATIENCE, WorkflowHarness, behaviour
from pwf_core.testing.workflows._waiting import eventually
from pwf_core.views import CallView, Phase, Status

_QUICKLY = Retry(attempts=3, base=timedelta(milliseconds=5))


@behaviour()
async def test_retry_succeeds(harness: WorkflowHarness[Any]) -> None:
    """A handler that fails for a while is run again until it does not, with the same call id."""
    work = Service("work")
    seen: list[tuple[int, str]] = []

    @work.task(retry=_QUICKLY)
    async def flaky(ctx: Context) -> Next:
        seen.append((ctx.attempt, ctx.call_id))
        if ctx.attempt < 3:
            raise ValueError(ctx.attempt)
        return result(ctx.attempt)

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(flaky))

        assert 3 == await run.result(int, timeout=PATIENCE)
    assert [1, 2, 3] == [attempt for attempt, _ in seen]
    assert 1 == len({call_id for _, call_id in seen})


@behaviour()
async def test_handler_that_always_raises(harness: WorkflowHarness[Any]) -> None:
    """After its attempts a call is a dead letter with its traceback; requeued, it runs again."""
    work = Service("work")
    broken = [True]

    @work.task(retry=_QUICKLY)
    def stubborn(value: str) -> Next:
        if broken[0]:
            raise ValueError(f"no {value}")
        return result(value)

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(stubborn, "größe"))
        with pytest.raises(RunFailedError, match="no größe") as caught:
            await run.result(timeout=PATIENCE)
        (letter,) = await client.dead_letters("work")

        assert run.id == caught.value.run_id
        assert ("work.stubborn", 3, run.id) == (letter.address, letter.attempts, letter.run_id)
        assert "Traceback" in letter.reason
        assert "in stubborn" in letter.reason
        assert letter.reason.endswith("ValueError: no größe\n")
        assert [letter] == await client.dead_letters()
        assert [] == await client.dead_letters("other")
        broken[0] = False
        assert await client.requeue(letter)
        assert await client.requeue(letter) is False
        assert "größe" == await run.result(str, timeout=PATIENCE)
        assert [] == await client.dead_letters()


@behaviour()
async def test_discarded_letter(harness: WorkflowHarness[Any]) -> None:
    """A dead letter that is discarded is gone, and its run has failed for good."""
    work = Service("work")

    @work.task(retry=Retry(attempts=1))
    async def broken() -> None:
        raise ValueError("no")

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(broken))
        await run.wait(timeout=PATIENCE)
        (letter,) = await client.dead_letters()

        assert await client.discard(letter)
        assert await client.discard(letter) is False
        assert await client.requeue(letter) is False
        assert [] == await client.dead_letters()
        assert Status.FAILED is await run.status()


@behaviour()
async def test_policy_decides_what_is_worth_a_retry(harness: WorkflowHarness[Any]) -> None:
    """Errors that the policy does not name, or gives up on, end the call at once."""
    work = Service("work")

    @work.task(retry=Retry(attempts=5, on=OSError, give_up_on=PermissionError))
    async def fails(kind: str) -> None:
        raise {"other": ValueError, "forbidden": PermissionError}[kind](kind)

    client = await harness.client()
    async with harness.worker(client, work):
        runs = await client.start_many([publish(fails, "other"), publish(fails, "forbidden")])
        for run in runs:
            with pytest.raises(RunFailedError):
                await run.result(timeout=PATIENCE)
        letters = await client.dead_letters()

    assert [1, 1] == [letter.attempts for letter in letters]


@behaviour()
async def test_wrong_return_value(harness: WorkflowHarness[Any]) -> None:
    """A handler that returns no directive fails once, with an error that says what to return."""
    work = Service("work")

    @work.task
    async def wrong() -> Any:
        return 42

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(wrong))
        with pytest.raises(RunFailedError, match=r"result\(value\)"):
            await run.result(timeout=PATIENCE)
        (letter,) = await client.dead_letters()

    assert 1 == letter.attempts


@behaviour()
async def test_process_errors_stop_no_worker(harness: WorkflowHarness[Any]) -> None:
    """SystemExit and the like end an attempt as any error does; the worker goes on."""
    work = Service("work")

    @work.task(retry=Retry(attempts=1))
    def leave() -> None:
        raise SystemExit(3)

    @work.task(retry=Retry(attempts=1))
    async def recurse() -> None:
        await recurse.fn()

    @work.task(retry=Retry(attempts=1))
    def stop() -> None:
        next(iter(()))

    @work.task
    async def fine() -> Next:
        return result("fine")

    client = await harness.client()
    async with harness.worker(client, work):
        runs = await client.start_many([publish(leave), publish(recurse), publish(stop)])
        for run, error in zip(runs, ("SystemExit", "RecursionError", "StopIteration"), strict=True):
            with pytest.raises(RunFailedError, match=error):
                await run.result(timeout=PATIENCE)
        run = await client.start(publish(fine))

        assert "fine" == await run.result(str, timeout=PATIENCE)


@behaviour()
async def test_oversized_decision(harness: WorkflowHarness[Any]) -> None:
    """A handler that returns more than a MiB is not tried again: it would do the same."""
    work = Service("work")
    attempts: list[str] = []

    @work.task(retry=_QUICKLY)
    async def large(what: str) -> Next:
        attempts.append(what)
        value = "x" * 1024 * 1024
        match what:
            case "result":
                return result(value)
            case "event":
                return emit("done", value)
        return publish(large, value)

    client = await harness.client()
    async with harness.worker(client, work):
        kinds = ["result", "event", "publish"]
        runs = await client.start_many([publish(large, kind) for kind in kinds])
        for run in runs:
            with pytest.raises(RunFailedError, match="PayloadTooLargeError"):
                await run.result(timeout=PATIENCE)

    assert kinds == sorted(attempts, key=kinds.index)


@behaviour()
async def test_timed_out_handler(harness: WorkflowHarness[Any]) -> None:
    """A handler that takes too long is cancelled, and has failed that attempt; the next may do better."""
    work, ends = Service("work"), list[int]()

    @work.task(retry=_QUICKLY, timeout=timedelta(milliseconds=100))
    async def slow(ctx: Context) -> Next:
        try:
            if ctx.attempt == 1:
                await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            ends.append(ctx.attempt)
            raise
        return result(ctx.attempt)

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(slow))

        assert 2 == await run.result(int, timeout=PATIENCE)
    assert [1] == ends


@behaviour()
async def test_timed_out_sync_handler(harness: WorkflowHarness[Any]) -> None:
    """One that cannot be stopped is told; what it returns in the end is dropped."""
    work, told = Service("work"), threading.Event()

    @work.task(retry=_QUICKLY, timeout=timedelta(milliseconds=100))
    def slow(ctx: Context) -> Next:
        deadline = time.monotonic() + PATIENCE
        while ctx.attempt == 1 and not ctx.cancelled and time.monotonic() < deadline:
            time.sleep(0.005)  # as one that looks now and then would
        if ctx.cancelled:
            told.set()
        return result(ctx.attempt)

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(slow))

        assert 2 == await run.result(int, timeout=PATIENCE)
        assert await asyncio.to_thread(told.wait, PATIENCE)
    assert 2 == await run.result(int, timeout=PATIENCE)


@behaviour()
async def test_hung_handlers_hold_up_nobody(harness: WorkflowHarness[Any]) -> None:
    """Sync handlers cannot be stopped; those that hang beyond their time-out take no one's place."""
    work = Service("work")
    release = threading.Event()

    @work.task(retry=Retry(attempts=1), timeout=timedelta(milliseconds=100))
    def hang() -> None:
        release.wait(PATIENCE)

    @work.task
    def fine() -> Next:
        return result("fine")

    client = await harness.client()
    async with harness.worker(client, work, threads=1):
        for _ in range(3):
            run = await client.start(publish(hang))
            with pytest.raises(RunFailedError, match=r"did not finish within 0:00:00\.1"):
                await run.result(timeout=PATIENCE)
        run = await client.start(publish(fine))

        assert "fine" == await run.result(str, timeout=PATIENCE)
        release.set()


@behaviour()
async def test_failing_member(harness: WorkflowHarness[Any]) -> None:
    """A gather waits for its dead member, and goes on when that was requeued and did its work."""
    work = Service("work")
    broken = [True]

    @work.task
    async def begin() -> Next:
        return gather([publish(member, 1), publish(member, 2)], then=publish(end))

    @work.task(retry=Retry(attempts=1))
    async def member(number: int) -> Next:
        if number == 1 and broken[0]:
            raise ValueError("no")
        return result(number)

    @work.task
    async def end(ctx: Context) -> Next:
        return result(ctx.results)

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(begin))

        assert Status.FAILED is await run.wait(timeout=PATIENCE)
        broken[0] = False
        (letter,) = await client.dead_letters()
        assert await client.requeue(letter)
        assert [1, 2] == await run.result(timeout=PATIENCE)


@behaviour()
async def test_unknown_task_is_parked(
    harness: WorkflowHarness[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that no worker knows is parked and visible, and runs once a worker knows it."""
    old, new = Service("work"), Service("work")

    @old.task
    async def known() -> None:
        return

    @new.task
    async def unheard(value: int) -> Next:
        return result(value)

    park_ms = _park_briefly(harness, monkeypatch)
    client = await harness.client()
    run = await client.start(publish("work.unheard", 7))

    async with harness.worker(client, old):
        call = await _parked(run)
        assert "work.unheard" == call.address
        assert 0 == call.attempts
        assert "knows" in call.reason
        assert Status.RUNNING is await run.status()
    await harness.elapse(park_ms)
    async with harness.worker(client, new):
        assert 7 == await run.result(int, timeout=PATIENCE)
    assert [] == await client.dead_letters()


@behaviour()
async def test_undecodable_arguments_are_parked(
    harness: WorkflowHarness[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments that are none of the task's are parked with the reason; others are not held up."""
    old, new = Service("work"), Service("work")

    @old.task(name="add")
    async def add_numbers(one: int, two: int) -> Next:
        return result(one + two)

    @new.task(name="add")
    async def add_anything(one: Any, two: Any) -> Next:
        return result([one, two])

    park_ms = _park_briefly(harness, monkeypatch)
    client = await harness.client()
    bad = await client.start(publish("work.add", "x", two=2))

    async with harness.worker(client, old):
        good = await client.start(publish("work.add", 1, 2))

        assert 3 == await good.result(int, timeout=PATIENCE)
        call = await _parked(bad)
        assert "$.one" in call.reason
        assert 0 == call.attempts
    await harness.elapse(park_ms)
    async with harness.worker(client, new):
        assert ["x", 2] == await bad.result(timeout=PATIENCE)


def _park_briefly(harness: WorkflowHarness[Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """Have parked calls come again soon; return after how many milliseconds."""
    park_ms = 5 * harness.tick
    monkeypatch.setattr("pwf_core.protocol.PARK_MS", park_ms)
    return park_ms


async def _parked(run: Any) -> CallView:
    """Wait until the only call of *run* is parked, and return it as it is then."""
    seen: list[CallView] = []

    async def is_parked() -> bool:
        seen[:] = (await run.view()).calls
        return [Phase.PARKED] == [call.phase for call in seen]

    await eventually(is_parked)
    return seen[0]
