"""How a worker on asyncio runs handlers: async ones in runners, sync ones in threads.

A runner is a task that runs one handler after the other until one has waited for something; meanwhile
another runner goes on with the rest. So a handler that waits has its task to itself, as libraries
expect that keep things by task, and one that does not wait costs none. Context variables are each
handler's own in any case.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from typing import Any

import attrs

from pwf._handlers import call_sync, gather_returned, is_async
from pwf._options import WorkerOptions
from pwf._threads import Threads
from pwf.logs import CurrentCall, current_call
from pwf_core.engine import Engine
from pwf_core.tasks import Task
from pwf_core.underway import RunningCall

__all__ = ["Runners"]

_TURN = 0.005  # seconds that handlers which do not wait may run before all else has its turn
# Calls taken ahead make batches larger, and are kept from other workers: at the most so many, and
# what is run within so many seconds.
_MOST_AHEAD = 192
_AHEAD = 0.005


@attrs.define
class Runners:
    """The handlers of one worker.

    Attributes:
        engine: Is told how each ended, and how many calls to take ahead.
        options: How many at once.
        tell: Called whenever the engine has been told something.
    """

    _engine: Engine
    _options: WorkerOptions
    _tell: Callable[[], None]
    _slots: asyncio.Semaphore = attrs.field(
        default=attrs.Factory(
            lambda self: asyncio.Semaphore(self._options.threads), takes_self=True
        ),
        init=False,
    )
    _threads: Threads = attrs.field(factory=Threads, init=False)
    _fresh: deque[RunningCall] = attrs.field(factory=deque, init=False)  # to be begun
    _runner: asyncio.Task[None] | None = attrs.field(default=None, init=False)  # by whom
    _tasks: dict[RunningCall, asyncio.Task[None]] = attrs.field(factory=dict, init=False)
    _pace: float = attrs.field(default=_AHEAD, init=False)  # seconds of this worker a handler takes

    def begin(self, calls: Iterable[RunningCall]) -> None:
        """Have these handlers run."""
        self._fresh += calls
        self._keep_running()

    def cancel(self, calls: Iterable[RunningCall]) -> None:
        """Stop these handlers, as far as they run and can be stopped."""
        for call in calls:
            task = self._tasks.get(call)
            if task is not None:
                task.cancel()

    def stop(self) -> None:
        """Begin nothing more, and stop all handlers."""
        self._fresh.clear()
        self.cancel(tuple(self._tasks))

    def close(self) -> None:
        """Let the threads go, once nobody waits for them."""
        self._threads.close()

    def _keep_running(self) -> None:
        """Have a runner ready as long as there are handlers to begin, and room for them."""
        if self._fresh and self._runner is None and len(self._tasks) < self._options.concurrency:
            self._runner = asyncio.create_task(self._run_handlers(), name="pwf-runner")

    async def _run_handlers(self) -> None:
        """Be a runner."""
        self._runner = None
        task = asyncio.current_task()
        assert task is not None
        clock = asyncio.get_running_loop().time
        now = clock()
        turn_ends = now + _TURN
        waited = False
        while self._fresh and not waited and not task.cancelling():
            call = self._fresh.popleft()
            if call.invoke is None:
                continue  # handed back meanwhile
            self._tasks[call] = task
            self._keep_running()
            began, waited = now, await self._handle(call)
            now = clock()
            del self._tasks[call]
            self._note_pace((now - began) / (self._options.concurrency if waited else 1))
            if now > turn_ends:
                await asyncio.sleep(0)
                now = clock()
                turn_ends = now + _TURN
        self._keep_running()

    def _note_pace(self, seconds: float) -> None:
        self._pace += (seconds - self._pace) / 64
        self._engine.ahead = min(int(_AHEAD / self._pace), _MOST_AHEAD)

    async def _handle(self, call: RunningCall) -> bool:
        """Run a handler; return whether it had to wait for something."""
        handler = _Apart(self._invoke(call))
        try:
            value = await handler
        except asyncio.CancelledError as error:
            self._engine.raised(call, error)
        except BaseException as error:  # noqa: BLE001 -- a handler's error ends its attempt, not us
            if call.context is not None:
                call.context.cancelled = True
            self._engine.raised(call, error)
        else:
            self._engine.returned(call, value)
        self._tell()
        return handler.waited

    async def _invoke(self, call: RunningCall) -> object:
        invoke, grant = call.invoke, call.grant
        assert invoke is not None
        current_call.set(CurrentCall(grant.run_id, grant.call_id, grant.address))
        fn, task = invoke.task.fn, invoke.task
        args = [invoke.context, *invoke.args] if task.takes_context else invoke.args
        if is_async(fn):
            self._limit(call)
            handler = gather_returned(fn(*args, **invoke.kwargs))
            # A coroutine more takes as long as many a handler.
            return await (handler if task.timeout is None else _within(task, handler))
        async with self._slots:  # the time-out starts with the handler, not with its wait
            self._limit(call)
            returned = await _within(task, self._in_thread(call_sync, fn, args, invoke.kwargs))
            return await gather_returned(returned)

    def _limit(self, call: RunningCall) -> None:
        """Keep the call's lease for no longer than its time-out, should the loop not end it."""
        assert call.invoke is not None
        timeout = call.invoke.task.timeout
        if timeout is not None:
            call.keep_until = time.monotonic() + (timeout + self._options.lease).total_seconds()

    def _in_thread(self, fn: Callable[..., object], *args: object) -> asyncio.Future[object]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        context = contextvars.copy_context()

        def job() -> None:
            try:
                conclude = functools.partial(future.set_result, context.run(fn, *args))
            except BaseException as error:  # noqa: BLE001 -- a handler's error ends its attempt
                conclude = functools.partial(future.set_exception, error)
            with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                loop.call_soon_threadsafe(lambda: future.done() or conclude())

        self._threads.run(job)
        return future


class _Apart:
    """Awaits a coroutine in a context of its own, as if it were a task.

    Attributes:
        waited: Whether it had to wait for something.
    """

    __slots__ = ("_coroutine", "waited")

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self._coroutine = coroutine
        self.waited = False

    def __await__(self) -> Generator[Any, Any, object]:
        context = contextvars.copy_context()
        step: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        while True:
            try:
                awaited = context.run(step, value)
            except StopIteration as stop:
                return stop.value
            self.waited = True
            try:
                step, value = self._coroutine.send, (yield awaited)
            except BaseException as error:  # noqa: BLE001 -- it is for the coroutine
                step, value = self._coroutine.throw, error


async def _within(task: Task[..., Any, Any], awaitable: Awaitable[object]) -> object:
    """Await a handler for as long as its task allows."""
    if task.timeout is None:
        return await awaitable
    limit = asyncio.timeout(task.timeout.total_seconds())
    try:
        async with limit:
            return await awaitable
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(f"{task.address} did not finish within {task.timeout}") from None
        raise  # the handler's own
