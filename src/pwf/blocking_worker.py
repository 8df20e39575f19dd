"""The worker on threads: drives the same `Engine` for programs without an event loop.

One thread makes the round trips, one listens for work, one keeps the leases, and others run the
handlers. The engine is shared under a lock; nothing waits while holding it.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any, Self

from pwf._handlers import call_anywhere
from pwf._health import Health, Pulse
from pwf._ids import new_session
from pwf._leases import LeaseKeeper
from pwf._options import IDLE_RECHECK, LISTEN_AFTER, LISTEN_FOR, WorkerOptions, log_end, make_engine
from pwf._patience import Patience
from pwf._resources import Resources
from pwf._threads import Threads
from pwf.blocking import BlockingClient
from pwf.logs import CurrentCall, current_call
from pwf_core.commands import Renew, Reply
from pwf_core.errors import ConfigurationError, StoreFullError, UnavailableError
from pwf_core.ports import Exchanged
from pwf_core.service import Service
from pwf_core.underway import Exchange, RunningCall

__all__ = ["BlockingWorker"]

logger = logging.getLogger("pwf")


class BlockingWorker:
    """Blocking twin of `Worker`: runs handlers in threads; use it as a context manager, or `run` it.

    Takes and raises what `Worker` does, but *concurrency*: as many calls run at once as there are
    *threads*. An async handler runs in an event loop of its own, in one of the threads.

    Example:
        >>> with connect_blocking("memory://") as backend, BlockingWorker(backend, users):
        ...     run = backend.start(publish(register, user))
    """

    def __init__(
        self,
        client: BlockingClient,
        /,
        *services: Service,
        threads: int = WorkerOptions().threads,
        lease: timedelta = WorkerOptions().lease,
        grace: timedelta = WorkerOptions().grace,
        resources: Sequence[Callable[[], Any]] = (),
    ) -> None:
        if not isinstance(client, BlockingClient):
            raise ConfigurationError(
                f"BlockingWorker takes what connect_blocking() returns, not {client!r}.",
            )
        self._client = client
        self._options = WorkerOptions(
            concurrency=threads,
            threads=threads,
            lease=lease,
            grace=grace,
        )
        self._resources = Resources(resources)
        self._pulse = Pulse()
        self._patience = Patience(budget=None)
        self._engine = make_engine(services, self._options, new_session(), self._resources.find)
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._listen = threading.Event()
        self._closed = threading.Event()
        self._pool = Threads()
        self._stops: dict[RunningCall, Callable[[], None]] = {}
        self._stack = ExitStack()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        if self._threads:
            raise ConfigurationError("This worker has been started before; make another one.")
        self._port = self._client.port
        with ExitStack() as stack:
            self._resources.open(stack)
            self._stack = stack.pop_all()
        self._keeper = LeaseKeeper(
            self._port.leases(),
            self._options.lease.total_seconds(),
            self._engine.renewals,
            self._renewed,
        )
        for work in (self._serve, self._idle):
            thread = threading.Thread(
                target=self._guard, args=(work,), name=f"pwf{work.__name__}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish what runs and return; in the main thread.

        A second signal hands everything back at once.
        """
        leave, now = threading.Event(), threading.Event()

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            (now if leave.is_set() else leave).set()

        before = {one: signal.signal(one, on_signal) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            with self:
                serving = self._threads[0]
                while not leave.is_set() and serving.is_alive():
                    leave.wait(IDLE_RECHECK)
                logger.info("leaving: finishing what runs, for up to %s", self._options.grace)
                self._stop_taking()
                deadline = time.monotonic() + self._options.grace.total_seconds()
                while serving.is_alive() and not now.is_set() and time.monotonic() < deadline:
                    serving.join(IDLE_RECHECK / 10)
                self.close(grace=timedelta(0))
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def close(self, *, grace: timedelta | None = None) -> None:
        """See `Worker.close`; a sync handler cannot be stopped: its call is handed back while it
        runs on, and what it returns is dropped.
        """  # noqa: D205 -- two promises, one sentence
        if not self._threads:
            return
        serving = self._threads[0]
        self._stop_taking()
        limit = (self._options.grace if grace is None else grace).total_seconds()
        serving.join(limit)
        if serving.is_alive():
            with self._lock:
                interrupted = self._engine.hand_back()
            self._stop(*interrupted)
            self._ready.set()
            # The backend may be away; then the leases end by themselves.
            serving.join(self._options.lease.total_seconds())
        self._closed.set()
        self._keeper.close()
        self._listen.set()
        self._pool.close()
        self._stack.close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def health(self) -> Health:
        """See `Worker.health`."""
        leaving = self._engine.stopping or self._closed.is_set() or self._failure is not None
        return self._pulse.health(running=len(self._engine.running), leaving=leaving)

    def _stop_taking(self) -> None:
        with self._lock:
            self._engine.stop()
        self._ready.set()

    # -- the threads ------------------------------------------------------------------------------

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- kept for whoever leaves the worker
            log_end(error)
            self._failure = error
            self._stop_taking()  # nobody would hear what becomes of it

    def _serve(self) -> None:
        while not self._closed.is_set():
            if self._is_through():
                return
            exchange, reply = self._exchange()
            if reply is None:
                return
            with self._lock:
                calls = self._engine.exchanged(exchange, reply)
                busy = self._engine.has_conclusions
            for call in calls:
                self._start(call)
            if not busy and not self._is_through():
                self._pause(exchange, reply)

    def _is_through(self) -> bool:
        with self._lock:
            return self._engine.stopping and self._engine.is_done

    def _exchange(self) -> tuple[Exchange, Exchanged | None]:
        refused = True  # by a full store each time
        with self._lock:
            exchange = self._engine.next_exchange()
        while not self._closed.is_set():
            try:
                reply = self._port.exchange(exchange.commands, exchange.take)
            except UnavailableError as error:
                self._pulse.failed(error)
                self._patience.report(logger, error)
                self._closed.wait(self._patience.next_pause())
                refused &= isinstance(error, StoreFullError)
                if refused:
                    with self._lock:
                        exchange = self._engine.next_exchange(exchange)
            else:
                self._pulse.answered(reply.problem)
                self._patience.forget()
                return exchange, reply
        return exchange, None

    def _pause(self, exchange: Exchange, reply: Exchanged) -> None:
        with self._lock:
            room, running = self._engine.room, bool(self._engine.running)
        if exchange.take.limit and len(reply.grants) == exchange.take.limit:
            if room:
                return  # there may be more
        elif room and not (running and self._ready.wait(LISTEN_AFTER)):
            self._listen.set()
        due = reply.next_due_ms
        self._ready.wait(IDLE_RECHECK if due is None else min(due / 1000, IDLE_RECHECK))
        self._ready.clear()

    def _idle(self) -> None:
        while True:
            self._listen.wait()
            if self._closed.is_set():
                return
            self._listen.clear()
            with self._lock:
                exchange = self._engine.listen() if self._engine.may_listen else None
            if exchange is not None:
                self._hear(exchange)

    def _hear(self, exchange: Exchange) -> None:
        engine = self._engine
        try:
            reply = self._port.idle(exchange.take, LISTEN_FOR)
        except UnavailableError:
            with self._lock:
                engine.unheard(exchange)
            self._ready.set()
            self._closed.wait(IDLE_RECHECK)  # the exchange reports it
            return
        calls = []
        with self._lock:
            if reply is not None:
                calls = engine.exchanged(exchange, reply)
            else:
                engine.withdrawn(exchange)
            is_time = (
                reply is None
                or len(calls) == exchange.take.limit
                or engine.has_conclusions
                or (reply.next_due_ms is not None and reply.next_due_ms < 1000 * IDLE_RECHECK)
            )
        for call in calls:
            self._start(call)
        if is_time:
            self._ready.set()
        elif not calls or not self._closed.wait(LISTEN_AFTER):
            self._listen.set()

    def _renewed(self, renewals: Sequence[Renew], replies: Sequence[Reply]) -> None:
        with self._lock:
            lost = self._engine.renewed(renewals, replies)
        self._stop(*lost)

    # -- handlers ---------------------------------------------------------------------------------

    def _start(self, call: RunningCall) -> None:
        if call.invoke is None:
            return  # handed back or lost just now
        timer = None
        grant, timeout = call.grant, call.invoke.task.timeout
        if timeout is not None:
            limit = timeout.total_seconds()
            error = TimeoutError(f"{grant.address} did not finish within {timeout}")
            timer = threading.Timer(limit, self._time_out, (call, error))
            timer.daemon = True
            timer.start()
        context = contextvars.Context()
        self._pool.run(lambda: context.run(self._handle, call, timer))

    def _handle(self, call: RunningCall, timer: threading.Timer | None) -> None:
        invoke, grant = call.invoke, call.grant
        if invoke is None:
            return  # timed out or handed back while it waited for a thread
        current_call.set(CurrentCall(grant.run_id, grant.call_id, grant.address))
        task = invoke.task
        args = [invoke.context, *invoke.args] if task.takes_context else invoke.args
        try:
            value = call_anywhere(
                task.fn, args, invoke.kwargs, functools.partial(self._stops.__setitem__, call)
            )
        except BaseException as error:  # noqa: BLE001 -- a handler's error ends its attempt, not us
            self._raised(call, error)
        else:
            with self._lock:
                self._engine.returned(call, value)
            self._ready.set()
        finally:
            self._stops.pop(call, None)
            if timer is not None:
                timer.cancel()

    def _time_out(self, call: RunningCall, error: TimeoutError) -> None:
        self._raised(call, error)
        self._stop(call)

    def _stop(self, *calls: RunningCall) -> None:
        """Cancel those handlers that can be: the async ones."""
        for call in calls:
            stop = self._stops.get(call)
            if stop is not None:
                stop()

    def _raised(self, call: RunningCall, error: BaseException) -> None:
        with self._lock:
            if call.context is not None:
                call.context.cancelled = True
            self._engine.raised(call, error)
        self._ready.set()
