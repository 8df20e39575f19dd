"""The worker on asyncio: drives an `Engine` against a backend, and runs handlers.

Lanes make round trips, each carrying all that was concluded meanwhile and asking for calls as long
as there is room: while one is under way, handlers run, and what they conclude goes out with the next.
Leases are kept by a thread of their own, so that a handler which blocks the loop loses no call, its own
or another's. How handlers run: `_runners.py`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from pwf._health import Health, Pulse
from pwf._ids import new_session
from pwf._leases import LeaseKeeper
from pwf._options import IDLE_RECHECK, LISTEN_AFTER, LISTEN_FOR, WorkerOptions, log_end, make_engine
from pwf._patience import Patience
from pwf._resources import Resources
from pwf._runners import Runners
from pwf.client import Client
from pwf_core.commands import Renew, Reply
from pwf_core.errors import ConfigurationError, StoreFullError, UnavailableError
from pwf_core.ports import Exchanged
from pwf_core.service import Service
from pwf_core.underway import Exchange

__all__ = ["Worker"]

logger = logging.getLogger("pwf")

# Round trips under way at a time: where one is a single step of one server, a third would only wait
# for it; a broker takes its time to confirm.
_LANES, _PAIRED_LANES = 2, 4


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
        self._runners: Runners
        self._idle: asyncio.Task[None] | None = None
        self._to_listen: asyncio.TimerHandle | None = None
        self._may_be_more = True  # calls to take
        # By the loop's clock: when a timer is due, and when calls were last looked for.
        self._due_at = math.inf
        self._looked_at = -math.inf

    async def __aenter__(self) -> Self:
        if self._main is not None:
            raise ConfigurationError("This worker has been started before; make another one.")
        self._port = self._client.port
        self._ready = asyncio.Event()
        self._hurry = asyncio.Event()
        self._runners = Runners(self._engine, self._options, self._ready.set)
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
        self._engine.stop()
        if self._idle is not None:
            self._idle.cancel()
        self._ready.set()
        limit = (self._options.grace if grace is None else grace).total_seconds()
        try:
            await _any_of(main, self._hurry.wait(), timeout=limit)
            if not main.done():
                self._runners.cancel(self._engine.hand_back())
                self._ready.set()
                # The backend may be away; then the leases end by themselves.
                await asyncio.wait([main], timeout=self._options.lease.total_seconds())
        finally:
            main.cancel()
            await asyncio.wait([main])
            self._runners.close()
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
            self._runners.stop()
            for lane in lanes:
                lane.cancel()
            if self._to_listen is not None:
                self._to_listen.cancel()
            if self._idle is not None:
                self._idle.cancel()

    async def _lane(self) -> None:
        while not (self._engine.stopping and self._engine.is_done):
            if self._is_time():
                self._take_in(*await self._exchange())
                await asyncio.sleep(0)  # what handlers conclude at once goes out with what has come
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
            or asyncio.get_running_loop().time()
            >= min(self._due_at, self._looked_at + IDLE_RECHECK)
        )

    async def _exchange(self) -> tuple[Exchange, Exchanged]:
        exchange = self._engine.next_exchange()
        if exchange.take.limit:
            self._may_be_more = False
        self._due_at = math.inf
        self._looked_at = asyncio.get_running_loop().time()
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
                return exchange, reply

    def _take_in(self, exchange: Exchange, reply: Exchanged) -> None:
        """Begin what an exchange has brought, and take note of what it says about the next one."""
        self._pulse.answered(reply.problem)
        self._patience.forget()
        self._runners.begin(self._engine.exchanged(exchange, reply))
        if reply.next_due_ms is not None:
            due = asyncio.get_running_loop().time() + reply.next_due_ms / 1000
            self._due_at = min(self._due_at, due)
        if exchange.take.limit and len(reply.grants) == exchange.take.limit:
            self._may_be_more = True
        elif not self._engine.running:
            self._begin_to_listen()
        elif self._to_listen is None:
            loop = asyncio.get_running_loop()
            self._to_listen = loop.call_later(LISTEN_AFTER, self._listen_if_quiet)
        self._ready.set()

    def _listen_if_quiet(self) -> None:
        """Begin to listen if no exchange has looked for calls lately; else see again later."""
        loop = asyncio.get_running_loop()
        quiet_at = self._looked_at + LISTEN_AFTER
        if loop.time() < quiet_at:
            self._to_listen = loop.call_at(quiet_at, self._listen_if_quiet)
        else:
            self._begin_to_listen()

    def _begin_to_listen(self) -> None:
        if self._to_listen is not None:
            self._to_listen.cancel()
            self._to_listen = None
        if self._engine.may_listen and (self._idle is None or self._idle.done()):
            self._idle = asyncio.create_task(self._listen(), name="pwf-idle")

    async def _pause(self) -> None:
        """Wait until there may be something to do."""
        look_at = (
            min(self._due_at, self._looked_at + IDLE_RECHECK)
            if self._engine.may_overlap
            else math.inf
        )
        timer = asyncio.get_running_loop().call_at(look_at, self._ready.set)
        await self._ready.wait()
        self._ready.clear()
        timer.cancel()

    async def _listen(self) -> None:
        if not self._engine.may_listen:
            return
        exchange = self._engine.listen()
        try:
            reply = await self._port.idle(exchange.take, LISTEN_FOR)
        except asyncio.CancelledError:
            self._engine.unheard(exchange)
            raise
        except Exception as error:
            self._engine.unheard(exchange)
            self._ready.set()
            await asyncio.sleep(IDLE_RECHECK)
            if isinstance(error, UnavailableError):
                return  # the exchange reports it
            raise
        self._idle = None
        if reply is not None:
            self._looked_at = asyncio.get_running_loop().time()
            self._take_in(exchange, reply)
        else:
            self._engine.withdrawn(exchange)
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
        self._runners.cancel(self._engine.renewed(renewals, replies))


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
