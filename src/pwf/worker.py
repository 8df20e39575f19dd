"""The worker on asyncio: drives an `Engine` against a backend, and runs handlers.

Lanes make round trips, each carrying all that was concluded meanwhile and asking for calls as long
as there is room: while one is under way, handlers run, and what they conclude goes out with the next.
Async handlers run in a few runners, sync ones in threads. Leases are kept by a thread of their own, so
that a handler which blocks the loop loses no call, its own or another's.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import math
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from pwf._handlers import call_sync, gather_returned, is_async
from pwf._health import Health, Pulse
from pwf._ids import new_session
from pwf._leases import LeaseKeeper
from pwf._options import IDLE_RECHECK, WorkerOptions, log_end, make_engine
from pwf._patience import Patience
from pwf._resources import Resources
from pwf._threads import Threads
from pwf.client import Client
from pwf.logs import CurrentCall, current_call
from pwf_core.commands import Renew, Reply
from pwf_core.engine import Exchange, RunningCall
from pwf_core.errors import ConfigurationError, StoreFullError, UnavailableError
from pwf_core.ports import Exchanged
from pwf_core.service import Service
from pwf_core.tasks import Task

__all__ = ["Worker"]

logger = logging.getLogger("pwf")

# Round trips under way at a time: where one is a single step of one server, a third would only wait
# for it; a broker takes its time to confirm.
_LANES, _PAIRED_LANES = 2, 4
_TURN = 0.005  # seconds that handlers which do not wait may run before all else has its turn
# Calls taken ahead make batches larger, and are kept from other workers: at the most so many, and
# what is run within so many seconds.
_MOST_AHEAD = 192
_AHEAD = 0.005


class Worker:
    """Runs the calls of one or more services; use it as an async context manager, or `run` it.

    Args:
        client: An open connection to the backend.
        services: Whose calls to run.
        concurrency: Calls run at once; 64 by default.
        threads: Sync handlers run at once; 16 by default. One that hangs beyond its time-out keeps
            a thread more, and holds up neither the others nor the end of the process.
        lease: How long a call waits for this worker should it die; 5 seconds by default.
        grace: How long closing waits for handlers before their calls are handed back; 10 seconds
            by default.
        resources: Callables that return a context manager (sync or async) each; entered once when
            the worker starts, found in handlers by `ctx.resource(Type)`.

    Raises:
        ConfigurationError: If an option cannot be.
        DefinitionError: If a task has an annotation that cannot be resolved.

    Example:
        >>> async with connect("memory://") as backend, Worker(backend, users):
        ...     run = await backend.start(publish(register, user))
    """

    def __init__(
        self,
        client: Client,
        /,
        *services: Service,
        concurrency: int = WorkerOptions().concurrency,
        threads: int = WorkerOptions().threads,
        lease: timedelta = WorkerOptions().lease,
        grace: timedelta = WorkerOptions().grace,
        resources: Sequence[Callable[[], Any]] = (),
    ) -> None:
        if not isinstance(client, Client):
            raise ConfigurationError(f"Worker takes what connect() returns, not {client!r}.")
        self._client = client
        self._options = WorkerOptions(
            concurrency=concurrency,
            threads=threads,
            lease=lease,
            grace=grace,
        )
        self._resources = Resources(resources)
        self._pulse = Pulse()
        self._patience = Patience(budget=None)
        self._engine = make_engine(
            services,
            self._options,
            new_session(),
            self._resources.find,
            lanes=_LANES if client.capabilities.fused else _PAIRED_LANES,
        )
        self._stack = AsyncExitStack()
        self._main: asyncio.Task[None] | None = None
        self._ready: asyncio.Event
        self._hurry: asyncio.Event
        self._slots: asyncio.Semaphore
        self._threads = Threads()
        self._fresh: deque[RunningCall] = deque()  # whose handlers have not begun
        self._runner: asyncio.Task[None] | None = None  # who is going to begin them
        self._tasks: dict[RunningCall, asyncio.Task[None]] = {}  # the runner of each handler
        self._idle: asyncio.Task[None] | None = None
        self._pace = _AHEAD  # seconds of this worker that a handler takes, on average
        self._may_be_more = True  # calls to take
        self._look_at = 0.0  # by the loop's clock: when a timer is due, or may be

    async def __aenter__(self) -> Self:
        if self._main is not None:
            raise ConfigurationError("This worker has been started before; make another one.")
        self._port = self._client.port
        self._ready = asyncio.Event()
        self._hurry = asyncio.Event()
        self._slots = asyncio.Semaphore(self._options.threads)
        async with AsyncExitStack() as stack:
            await self._resources.open_async(stack)
            self._stack = stack.pop_all()
        self._main = asyncio.create_task(self._serve(), name="pwf-worker")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish what runs and return.

        A second signal hands everything back at once.
        """
        loop = asyncio.get_running_loop()
        leave = asyncio.Event()

        def on_signal() -> None:
            (self._hurry if leave.is_set() else leave).set()

        signals = (signal.SIGTERM, signal.SIGINT)
        for one in signals:
            loop.add_signal_handler(one, on_signal)
        try:
            async with self:
                assert self._main is not None
                await _any_of(leave.wait(), self._main)
                logger.info("leaving: finishing what runs, for up to %s", self._options.grace)
        finally:
            for one in signals:
                loop.remove_signal_handler(one)

    async def close(self, *, grace: timedelta | None = None) -> None:
        """Stop taking calls, let handlers finish, hand back what does not; again is fine.

        Args:
            grace: How long handlers may still take; the worker's own by default.
        """
        main = self._main
        if main is None:
            return
        self._engine.stopping = True
        self._ready.set()
        limit = (self._options.grace if grace is None else grace).total_seconds()
        try:
            await _any_of(main, self._hurry.wait(), timeout=limit)
            if not main.done():
                for call in self._engine.hand_back():
                    self._cancel(call)
                self._ready.set()
                # The backend may be away; then the leases end by themselves.
                await asyncio.wait([main], timeout=self._options.lease.total_seconds())
        finally:
            main.cancel()
            await asyncio.wait([main])
            self._threads.close()
            await self._stack.aclose()
        if not main.cancelled():
            main.result()  # raises what stopped it, if it did not end by itself

    def health(self) -> Health:
        """Return whether this worker takes calls; from any thread, also while a handler blocks."""
        ended = self._main is not None and self._main.done()
        leaving = self._engine.stopping or ended
        return self._pulse.health(running=len(self._engine.running), leaving=leaving)

    # -- the loop ---------------------------------------------------------------------------------

    async def _serve(self) -> None:
        keeper = LeaseKeeper(
            self._port.leases(),
            self._options.lease.total_seconds(),
            lambda: self._engine.renewals(time.monotonic()),
            functools.partial(self._tell_loop, asyncio.get_running_loop()),
        )
        lanes = [
            asyncio.create_task(self._lane(), name="pwf-lane") for _ in range(self._engine.lanes)
        ]
        try:
            await asyncio.gather(*lanes)
        except Exception as error:
            log_end(error)
            raise
        finally:
            keeper.close()
            self._fresh.clear()
            for task in (*lanes, *self._tasks.values()):
                task.cancel()
            if self._idle is not None:
                self._idle.cancel()

    async def _lane(self) -> None:
        while not (self._engine.stopping and self._engine.is_done):
            if self._is_time():
                exchange, reply = await self._exchange()
                self._start(self._engine.exchanged(exchange, reply))
                self._note(exchange, reply)
            else:
                await self._pause()
        self._ready.set()  # the other lanes are done, too

    def _is_time(self) -> bool:
        """Whether there is a reason for an exchange, and nothing against it."""
        engine = self._engine
        if not engine.may_overlap:
            return False
        return (
            engine.has_conclusions
            or (self._may_be_more and engine.room > 0)
            or asyncio.get_running_loop().time() >= self._look_at
        )

    async def _exchange(self) -> tuple[Exchange, Exchanged]:
        exchange = self._engine.next_exchange()
        if exchange.take.limit:
            self._may_be_more = False
        self._look_at = asyncio.get_running_loop().time() + IDLE_RECHECK
        refused = True  # by a full store each time
        while True:
            try:
                reply = await self._port.exchange(exchange.commands, exchange.take)
            except UnavailableError as error:
                self._pulse.failed(error)
                pause = self._patience.next_pause()
                assert pause is not None
                self._patience.report(logger, error)
                await asyncio.sleep(pause)
                refused &= isinstance(error, StoreFullError)
                if refused:
                    exchange = self._engine.next_exchange(exchange)
            else:
                self._pulse.answered(reply.problem)
                self._patience.forget()
                return exchange, reply

    def _note(self, exchange: Exchange, reply: Exchanged) -> None:
        """Take note of what an exchange says about the next one."""
        if reply.next_due_ms is not None:
            due = asyncio.get_running_loop().time() + reply.next_due_ms / 1000
            self._look_at = min(self._look_at, due)
        if exchange.take.limit and len(reply.grants) == exchange.take.limit:
            self._may_be_more = True
        elif self._engine.room and (self._idle is None or self._idle.done()):
            self._idle = asyncio.create_task(self._listen(), name="pwf-idle")
        self._ready.set()

    async def _pause(self) -> None:
        """Wait until there may be something to do."""
        look_at = self._look_at if self._engine.may_overlap else math.inf
        timer = asyncio.get_running_loop().call_at(look_at, self._ready.set)
        await self._ready.wait()
        self._ready.clear()
        timer.cancel()

    async def _listen(self) -> None:
        try:
            await self._port.idle(self._engine.services, IDLE_RECHECK)
        except UnavailableError:
            await asyncio.sleep(IDLE_RECHECK)  # the exchange reports it
        self._may_be_more = True
        self._ready.set()

    def _tell_loop(
        self,
        loop: asyncio.AbstractEventLoop,
        renewals: Sequence[Renew],
        replies: Sequence[Reply],
    ) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            loop.call_soon_threadsafe(self._renewed, renewals, replies)

    def _renewed(self, renewals: Sequence[Renew], replies: Sequence[Reply]) -> None:
        for call in self._engine.renewed(renewals, replies):
            self._cancel(call)

    # -- handlers ---------------------------------------------------------------------------------

    def _start(self, calls: Sequence[RunningCall]) -> None:
        self._fresh += calls
        self._keep_running()

    def _keep_running(self) -> None:
        """Have a runner ready as long as there are handlers to begin, and room for them."""
        if self._fresh and self._runner is None and len(self._tasks) < self._options.concurrency:
            self._runner = asyncio.create_task(self._run_handlers(), name="pwf-runner")

    async def _run_handlers(self) -> None:
        """Run handlers, one after the other, until one has waited.

        While it waits, another runner goes on with the rest. So a handler that waits has its task to
        itself, from there on, and one that does not wait costs none.
        """
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

    def _cancel(self, call: RunningCall) -> None:
        task = self._tasks.get(call)
        if task is not None:
            task.cancel()

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
        self._ready.set()
        return handler.waited

    async def _invoke(self, call: RunningCall) -> object:
        invoke, grant = call.invoke, call.grant
        assert invoke is not None
        current_call.set(CurrentCall(grant.run_id, grant.call_id, grant.address))
        fn, task = invoke.task.fn, invoke.task
        args = [invoke.context, *invoke.args] if task.takes_context else invoke.args
        if is_async(fn):
            self._limit(call)
            return await _within(task, gather_returned(fn(*args, **invoke.kwargs)))
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


async def _any_of(
    task: Awaitable[object],
    *others: Awaitable[object],
    timeout: float | None = None,
) -> None:
    """Wait until one of these is done; those that were made for this wait are cancelled then."""
    awaitables = (task, *others)
    futures = [asyncio.ensure_future(one) for one in awaitables]
    try:
        await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future, one in zip(futures, awaitables, strict=True):
            if future is not one:
                future.cancel()
