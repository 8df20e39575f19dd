"""How both workers run handlers of every kind, on the memory backend."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import queue
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import pytest

from pwf import (
    BlockingWorker,
    ConfigurationError,
    Context,
    Directive,
    Health,
    Next,
    Retry,
    RunFailedError,
    Service,
    StoreUnavailableError,
    Worker,
    connect,
    connect_blocking,
    publish,
    result,
)
from pwf.logs import CallFilter
from pwf_core.directives import Publish

LIMIT = 10.0  # seconds; generous, and never waited for in full
ONCE = Retry(attempts=1)

Runner = Callable[..., Any]


def run_async(first: Publish, *services: Service, **options: Any) -> Any:
    async def main() -> Any:
        async with connect("memory://") as backend, Worker(backend, *services, **options):
            run = await backend.start(first)
            return await run.result(timeout=LIMIT)

    return asyncio.run(main())


def run_blocking(first: Publish, *services: Service, **options: Any) -> Any:
    with connect_blocking("memory://") as backend, BlockingWorker(backend, *services, **options):
        return backend.start(first).result(timeout=LIMIT)


@pytest.fixture(params=[run_async, run_blocking], ids=["asyncio", "threads"])
def run(request: pytest.FixtureRequest) -> Runner:
    runner: Runner = request.param
    return runner


def handlers_of_every_kind(service: Service) -> list[Any]:
    @service.task
    def returning(n: int) -> Next:
        return result(n)

    @service.task
    async def awaiting(n: int) -> Next:
        await asyncio.sleep(0)
        return result(n)

    @service.task
    def yielding(n: int) -> Iterator[Directive]:
        yield result(n)

    @service.task
    async def yielding_async(n: int) -> AsyncIterator[Directive]:
        await asyncio.sleep(0)
        yield result(n)

    @service.task
    def with_context(ctx: Context, n: int) -> Next:
        return result(n * ctx.attempt)

    return [returning, awaiting, yielding, yielding_async, with_context]


@pytest.mark.parametrize("kind", range(5))
def test_handler_of_any_kind_runs(run: Runner, kind: int) -> None:
    """Sync, async, yielding either way, with a context or without."""
    service = Service("kinds")
    task = handlers_of_every_kind(service)[kind]

    assert run(publish(task, 7), service) == 7


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), RecursionError("deep"), MemoryError(), ValueError("no")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_no_exception_of_a_handler_stops_the_worker(
    run: Runner,
    error: BaseException,
    is_async: bool,
) -> None:
    """Whatever a handler raises ends its attempt; the next call of the same worker runs."""
    service = Service("rough")

    def misbehave(ctx: Context) -> Next:
        if ctx.attempt == 1:
            raise error
        return result("again")

    async def misbehave_async(ctx: Context) -> Next:
        return misbehave(ctx)

    task = service.task(name="t", retry=Retry(base=timedelta(milliseconds=1)))(
        misbehave_async if is_async else misbehave,
    )

    assert run(publish(task), service) == "again"


def test_exhausted_call_fails_its_run_with_the_traceback(run: Runner) -> None:
    """The reason of a failed run is the last traceback of the call that died."""
    service = Service("failing")

    @service.task(retry=ONCE)
    def fail() -> Next:
        raise ValueError("the reason")

    with pytest.raises(RunFailedError, match="the reason") as failure:
        run(publish(fail), service)

    assert "in fail" in failure.value.reason


@pytest.mark.parametrize("give_up", [True, False])
def test_policy_says_which_errors_are_worth_another_attempt(run: Runner, give_up: bool) -> None:
    """`give_up_on` buries at once, `on` retries."""
    service = Service("policy")
    attempts: list[int] = []
    again = Retry(base=timedelta(milliseconds=1), on=ValueError)
    never = Retry(base=timedelta(milliseconds=1), give_up_on=ValueError)

    @service.task(retry=never if give_up else again)
    def fail(ctx: Context) -> Next:
        attempts.append(ctx.attempt)
        raise ValueError

    with pytest.raises(RunFailedError):
        run(publish(fail), service)

    assert attempts == ([1] if give_up else [1, 2, 3, 4, 5])


def test_slow_async_handler_is_cancelled(run: Runner) -> None:
    """A time-out counts as a failed attempt."""
    service = Service("slow")

    @service.task(retry=ONCE, timeout=timedelta(milliseconds=20))
    async def hang() -> Next:
        await asyncio.Event().wait()
        return None

    with pytest.raises(RunFailedError, match="TimeoutError"):
        run(publish(hang), service)


def test_slow_sync_handler_loses_its_call(run: Runner) -> None:
    """It runs on, knows that it is cancelled, and what it returns is dropped."""
    service = Service("slow")
    told = threading.Event()

    @service.task(
        retry=Retry(base=timedelta(milliseconds=1)),
        timeout=timedelta(milliseconds=20),
    )
    def hang(ctx: Context) -> Next:
        if ctx.attempt > 1:
            return result("second")
        while not ctx.cancelled:
            told.wait(0.001)
        told.set()
        return result("first")

    assert run(publish(hang), service) == "second"
    assert told.wait(10)


def test_resources_are_opened_once_and_closed(run: Runner) -> None:
    """Handlers find them by type; they are closed after the worker."""
    service = Service("pool")
    events: list[str] = []

    class Pool:
        pass

    @contextmanager
    def make_pool() -> Iterator[Pool]:
        events.append("open")
        yield Pool()
        events.append("close")

    @service.task
    def use(ctx: Context) -> Next:
        return result(type(ctx.resource(Pool)).__name__)

    assert run(publish(use), service, resources=[make_pool]) == "Pool"
    assert events == ["open", "close"]


def test_async_resource_needs_the_async_worker() -> None:
    """The blocking worker says so; the async one opens it."""
    service = Service("pool")

    @asynccontextmanager
    async def make_text() -> AsyncIterator[str]:
        yield "text"

    @service.task
    async def use(ctx: Context) -> Next:
        return result(ctx.resource(str))

    assert run_async(publish(use), service, resources=[make_text]) == "text"
    with pytest.raises(ConfigurationError, match="async context manager"):
        run_blocking(publish(use), service, resources=[make_text])


def test_missing_resource_is_named(run: Runner) -> None:
    """The error says what is open, and where to pass what is missing."""
    service = Service("pool")

    @service.task(retry=ONCE)
    def use(ctx: Context) -> Next:
        ctx.resource(dict)

    with pytest.raises(RunFailedError, match=r"No resource of type dict .* resources=\["):
        run(publish(use), service)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_log_records_carry_the_call(
    run: Runner,
    is_async: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Run id, call id and task reach the records that a handler writes, and only those."""
    service = Service("logging")
    caplog.handler.addFilter(CallFilter())
    caplog.set_level(logging.INFO, "user")

    def speak(ctx: Context) -> Next:
        logging.getLogger("user").info("in")
        return result([ctx.run_id, ctx.call_id])

    async def speak_async(ctx: Context) -> Next:
        return speak(ctx)

    task = service.task(name="speak")(speak_async if is_async else speak)
    ids = run(publish(task), service)
    logging.getLogger("user").info("out")
    inside, outside = (record for record in caplog.records if record.name == "user")

    assert [vars(inside)[name] for name in ("run_id", "call_id", "task")] == [*ids, "logging.speak"]
    assert vars(outside)["run_id"] == "-"


def _run_many(first: Callable[[int], Publish], count: int, *services: Service) -> None:
    async def main() -> None:
        async with connect("memory://") as backend, Worker(backend, *services):
            for run in await backend.start_many([first(number) for number in range(count)]):
                await run.result(timeout=LIMIT)

    asyncio.run(main())


def test_handlers_share_no_context_variables() -> None:
    """What one sets, no other one sees, whether they wait or not; it stays over a wait."""
    work = Service("work")
    number = contextvars.ContextVar("number", default=-1)
    seen = []

    @work.task
    async def look(own: int) -> Next:
        seen.append(number.get())
        number.set(own)
        if own % 3 == 0:
            async with asyncio.timeout(LIMIT):
                await asyncio.sleep(0)
        assert own == number.get()
        return None

    _run_many(lambda own: publish(look, own), 100, work)
    assert [-1] * 100 == seen


def test_handler_that_waits_has_its_task_to_itself() -> None:
    """Libraries keep things by task: sessions, scopes. None of it reaches another handler."""
    work = Service("work")
    tasks = []

    @work.task
    async def wait() -> Next:
        mine = asyncio.current_task()
        tasks.append(mine)
        await asyncio.sleep(0)
        assert asyncio.current_task() is mine
        return None

    _run_many(lambda _: publish(wait), 20, work)
    assert 20 == len(set(tasks))


def test_no_more_handlers_run_at_once_than_asked_for() -> None:
    """Also where calls are taken ahead, because handlers before them were quick."""
    work = Service("work")
    running, most = 0, 0

    @work.task
    async def run(quick: bool) -> Next:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if not quick:
            await asyncio.sleep(0.001)
        running -= 1
        return None

    async def main() -> None:
        async with connect("memory://") as backend, Worker(backend, work, concurrency=4):
            for quick in (True, False):
                runs = await backend.start_many([publish(run, quick) for _ in range(1000)])
                for one in runs:
                    await one.wait(timeout=LIMIT)
                assert (1 if quick else 4) == most

    asyncio.run(main())


def test_calls_wait_for_others_where_handlers_are_slow() -> None:
    """A worker that is busy holds no more calls than it runs."""
    work = Service("work")
    room, go_on = asyncio.Semaphore(4), asyncio.Event()
    is_full = asyncio.Event()

    @work.task
    async def wait() -> Next:
        await room.acquire()
        if room.locked():
            is_full.set()
        await go_on.wait()
        return None

    async def main() -> None:
        async with connect("memory://") as backend, Worker(backend, work, concurrency=4) as worker:
            runs = await backend.start_many([publish(wait) for _ in range(20)])
            await is_full.wait()
            assert 4 == worker.health().running
            go_on.set()
            for one in runs:
                room.release()
                await one.wait(timeout=LIMIT)

    asyncio.run(main())


@pytest.fixture(params=["asyncio", "threads"])
def listening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Return what runs a scenario with a worker, given what starts runs there, and *note*.

    That is told "idle" whenever the worker begins to listen for calls.
    """

    def run(
        scenario: Callable[[Runner], None], service: Service, note: Callable[[str], None]
    ) -> None:
        def patch(port: object) -> None:
            real = type(port).idle  # type: ignore[attr-defined]

            def idle(*args: Any) -> Any:  # awaitable where the real one is
                note("idle")
                return real(*args)

            monkeypatch.setattr(type(port), "idle", idle)

        async def main() -> None:
            async with connect("memory://") as backend:
                patch(backend.port)
                loop = asyncio.get_running_loop()

                def start(first: Publish) -> None:
                    asyncio.run_coroutine_threadsafe(backend.start(first), loop).result(LIMIT)

                async with Worker(backend, service):
                    await asyncio.to_thread(scenario, start)

        if request.param == "asyncio":
            asyncio.run(main())
        else:
            with connect_blocking("memory://") as backend:
                patch(backend.port)
                with BlockingWorker(backend, service):
                    scenario(backend.start)

    return run


def test_worker_does_not_begin_to_listen_between_quick_handlers(
    listening: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their exchanges look for calls anyway. Once nothing runs, it listens at once."""
    monkeypatch.setattr("pwf.worker.LISTEN_AFTER", 100 * LIMIT)
    monkeypatch.setattr("pwf.blocking_worker.LISTEN_AFTER", 100 * LIMIT)
    service, notes = Service("quick"), queue.SimpleQueue[str]()

    @service.task
    def step(left: int) -> Next:
        notes.put("step")
        return publish(step, left - 1) if left > 1 else None

    def scenario(start: Runner) -> None:
        assert notes.get(timeout=LIMIT) == "idle"
        start(publish(step, 3))

        assert [notes.get(timeout=LIMIT) for _ in range(4)] == ["step", "step", "step", "idle"]

    listening(scenario, service, notes.put)


def test_worker_listens_beside_slow_handlers(listening: Runner) -> None:
    service, notes, gate = Service("slow"), queue.SimpleQueue[str](), threading.Event()

    @service.task
    def wait() -> None:
        notes.put("wait")
        gate.wait(LIMIT)

    def scenario(start: Runner) -> None:
        assert notes.get(timeout=LIMIT) == "idle"
        start(publish(wait))
        try:
            assert {notes.get(timeout=LIMIT) for _ in range(2)} == {"wait", "idle"}
        finally:
            gate.set()

    listening(scenario, service, notes.put)


def test_worker_tells_its_health() -> None:
    """It serves once the backend has answered, not without an answer for long, nor leaving."""
    service = Service("s")
    entered, leave = threading.Event(), threading.Event()

    @service.task
    def hold() -> Next:
        entered.set()
        leave.wait(LIMIT)
        return result(None)

    with connect_blocking("memory://") as backend:
        worker = BlockingWorker(backend, service)
        before = worker.health()
        with worker:
            run = backend.start(publish(hold))
            assert entered.wait(LIMIT)
            during = worker.health()
            leave.set()
            run.wait(timeout=LIMIT)
        after = worker.health()

    assert (before.is_serving, before.silence) == (False, math.inf)
    assert (during.is_serving, during.running, during.problem) == (True, 1, "")
    assert not after.is_serving


def test_worker_without_backend_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what is wrong at once, and after ten seconds that it does not serve."""
    service = Service("s")

    async def away(*_: object) -> None:
        raise StoreUnavailableError("gone fishing")

    async def main() -> tuple[Health, Health, Health]:
        async with connect("memory://") as backend, Worker(backend, service) as worker:
            while worker.health().silence == math.inf:  # noqa: ASYNC110 -- as a probe would
                await asyncio.sleep(0)
            good = worker.health()
            monkeypatch.setattr(type(backend.port), "exchange", away)
            while not worker.health().problem:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            bad = worker.health()
            later = time.monotonic() + 11
            with monkeypatch.context() as patched:
                patched.setattr(time, "monotonic", lambda: later)
                worst = worker.health()
            monkeypatch.undo()
        return good, bad, worst

    good, bad, worst = asyncio.run(main())
    assert (good.is_serving, good.problem) == (True, "")
    assert (bad.is_serving, bad.problem) == (True, "gone fishing")
    assert not worst.is_serving
    assert worst.silence > 10


@pytest.mark.parametrize("flavour", ["asyncio", "threads"])
def test_backend_that_is_set_up_otherwise_stops_the_worker(
    flavour: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It says so in one line, which calls it no bug; whoever leaves the worker gets the error."""
    service = Service("s")
    asked = threading.Event()

    def refuse(*_: object) -> None:
        asked.set()
        raise ConfigurationError("The queue is another one.")

    async def main() -> None:
        async with connect("memory://") as backend, Worker(backend, service):
            monkeypatch.setattr(type(backend.port), "exchange", refuse)
            assert await asyncio.to_thread(asked.wait, LIMIT)

    def serve() -> None:
        with connect_blocking("memory://") as backend:
            monkeypatch.setattr(type(backend.port), "exchange", refuse)
            with BlockingWorker(backend, service):
                assert asked.wait(LIMIT)

    with pytest.raises(ConfigurationError, match="another one"):
        asyncio.run(main()) if flavour == "asyncio" else serve()

    (said,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert said.getMessage() == "the worker stops: The queue is another one."
    assert said.exc_info is None


def test_options_that_cannot_be_are_refused() -> None:
    """Each error names the option and what it takes."""
    service = Service("s")
    client = connect("memory://")
    for options, message in [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"threads": True}, "threads"),
        ({"lease": timedelta(0)}, "lease"),
        ({"grace": 3}, "grace"),
        ({"threads": "many"}, "threads"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            Worker(client, service, **options)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ConfigurationError, match="at least one service"):
        Worker(client)
    with pytest.raises(ConfigurationError, match="same name"):
        Worker(client, service, Service("s"))
    with pytest.raises(ConfigurationError, match="connect"):
        Worker("memory://", service)  # type: ignore[arg-type]  # that is the test


def test_closing_a_worker_hands_its_calls_back_at_once() -> None:
    """Another worker gets the call without waiting for the lease, and no attempt is counted."""
    service = Service("s")
    started = asyncio.Event

    async def main() -> Any:
        began = started()

        @service.task
        async def work(ctx: Context) -> Next:
            if not began.is_set():
                began.set()
                await asyncio.Event().wait()
            return result(ctx.attempt)

        lease = timedelta(hours=1)
        async with connect("memory://") as backend:
            first = Worker(backend, service, lease=lease)
            async with first:
                run = await backend.start(publish(work))
                await began.wait()
                await first.close(grace=timedelta(0))
                await first.close()
            async with Worker(backend, service, lease=lease):
                return await run.result(timeout=LIMIT)

    assert asyncio.run(main()) == 1


def test_closing_a_blocking_worker_hands_its_calls_back_at_once() -> None:
    """The same for threads: the handler runs on, its call runs elsewhere."""
    service = Service("s")
    began, leave = threading.Event(), threading.Event()

    @service.task
    def work(ctx: Context) -> Next:
        if not began.is_set():
            began.set()
            leave.wait(LIMIT)
        return result(ctx.attempt)

    lease = timedelta(hours=1)
    with connect_blocking("memory://") as backend:
        first = BlockingWorker(backend, service, lease=lease)
        with first:
            run = backend.start(publish(work))
            began.wait(LIMIT)
            first.close(grace=timedelta(0))
            first.close()
        with BlockingWorker(backend, service, lease=lease):
            attempt = run.result(timeout=LIMIT)
        leave.set()

    assert attempt == 1


@pytest.mark.parametrize("flavour", ["async", "blocking"])
def test_process_ends_beside_a_hung_handler(flavour: str) -> None:
    """A sync handler that never returns keeps neither `close` nor the interpreter."""
    program = f"""
import asyncio, threading
from datetime import timedelta
from pwf import BlockingWorker, Service, Worker, connect, connect_blocking, publish

work, began = Service("work"), threading.Event()

@work.task
def hang():
    began.set()
    threading.Event().wait()

async def main():
    async with connect("memory://") as backend:
        worker = Worker(backend, work)
        async with worker:
            await backend.start(publish(hang))
            await asyncio.to_thread(began.wait)
            await worker.close(grace=timedelta(0))

if {flavour!r} == "async":
    asyncio.run(main())
else:
    with connect_blocking("memory://") as backend:
        worker = BlockingWorker(backend, work)
        with worker:
            backend.start(publish(hang))
            began.wait()
            worker.close(grace=timedelta(0))
print("closed")
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, timeout=LIMIT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("closed\n", "")


def hold_up_the_loop(timeout: timedelta | None, name: str) -> tuple[Any, list[int]]:
    """Run a handler that blocks its loop for many leases, beside a worker that would take over."""
    service, lease = Service("held"), timedelta(seconds=0.5)
    attempts, gate = list[int](), threading.Event()

    @service.task(timeout=timeout, retry=Retry(attempts=5, base=timedelta(milliseconds=1)))
    async def block(ctx: Context) -> Next:
        attempts.append(ctx.attempt)
        if len(attempts) == 1:
            gate.wait(LIMIT)
        return result(ctx.attempt)

    async def first() -> None:
        async with connect(f"memory://{name}") as backend, Worker(backend, service, lease=lease):
            await (await backend.start(publish(block), key="it")).wait(timeout=LIMIT)

    with connect_blocking(f"memory://{name}") as backend:
        thread = threading.Thread(target=asyncio.run, args=(first(),))
        thread.start()
        run = backend.start(publish(block), key="it")
        with BlockingWorker(backend, service, lease=lease):
            deadline = time.monotonic() + 3 * lease.total_seconds()
            while time.monotonic() < deadline and len(attempts) < 2:
                run.status()
            gate.set()
            value = run.result(timeout=LIMIT)
            thread.join(LIMIT)
    return value, attempts


def test_handler_that_blocks_the_loop_keeps_its_lease() -> None:
    """Leases are renewed by a thread, so nobody else takes the call meanwhile."""
    assert hold_up_the_loop(None, "kept") == (1, [1])


def test_handler_that_blocks_the_loop_beyond_its_time_out_is_taken_over() -> None:
    """Its own loop cannot end it, so its lease is let go."""
    assert hold_up_the_loop(timedelta(milliseconds=50), "let-go") == (2, [1, 2])
