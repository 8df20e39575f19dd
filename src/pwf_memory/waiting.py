"""Waiting for what happens in `Tables`, by an event loop or by a thread, until a port is closed."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import Protocol, TypeVar

import attrs

from pwf_core.errors import UnavailableError
from pwf_core.ids import RunId
from pwf_core.views import Outcome
from pwf_memory.tables import Tables

__all__ = ["Door", "idle", "idle_blocking", "watch", "watch_blocking"]

Signal = TypeVar("Signal", "AsyncSignal", "ThreadSignal")


class Place(Protocol):
    """Where work arrives."""

    def on_work(
        self, services: Sequence[str], wake: Callable[[], None], /
    ) -> AbstractContextManager[None]:
        """Have *wake* called when there is work."""
        ...


class AsyncSignal:
    """An event that any thread may set, and that one loop waits for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake the waiter; from any thread, also after its loop has closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, timeout: float) -> None:
        """Wait until it is set, or *timeout* seconds are over; then it is clear again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()
        self._event.clear()


class ThreadSignal:
    """The same for threads."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Wake the waiter."""
        self._event.set()

    def wait(self, timeout: float) -> None:
        """Wait until it is set, or *timeout* seconds are over; then it is clear again."""
        self._event.wait(timeout)
        self._event.clear()


@attrs.define
class Door:
    """Whether a port is open; what waits behind it is woken when it closes.

    Attributes:
        error: What a closed one raises.
    """

    error: type[UnavailableError]
    _is_closed: bool = attrs.field(default=False, init=False)
    _waiting: set[AsyncSignal | ThreadSignal] = attrs.field(factory=set, init=False)

    def open(self) -> None:
        """Let through."""
        self._is_closed = False

    def close(self) -> None:
        """Let nobody through any more."""
        self._is_closed = True
        for signal in tuple(self._waiting):
            signal.set()

    def check(self) -> None:
        """Raise if it is closed."""
        if self._is_closed:
            raise self.error("This connection has been closed.")

    @contextmanager
    def behind(self, signal: Signal) -> Iterator[Signal]:
        """Give out *signal*, which is also set when the door closes."""
        self.check()
        self._waiting.add(signal)
        try:
            yield signal
        finally:
            self._waiting.discard(signal)


async def idle(door: Door, place: Place, services: Sequence[str], timeout: float) -> None:
    """See `Backend.idle` and `Broker.idle`."""
    with door.behind(AsyncSignal()) as signal, place.on_work(services, signal.set):
        await signal.wait(timeout)


def idle_blocking(door: Door, place: Place, services: Sequence[str], timeout: float) -> None:
    """See `Backend.idle` and `Broker.idle`."""
    with door.behind(ThreadSignal()) as signal, place.on_work(services, signal.set):
        signal.wait(timeout)


@attrs.define
class _Heard:
    """Outcomes that were heard and not yet asked for; only the last one still counts."""

    outcomes: deque[Outcome] = attrs.field(factory=lambda: deque(maxlen=1))

    def take(self) -> Outcome | None:
        return self.outcomes.popleft() if self.outcomes else None


@attrs.define
class _Watch:
    _heard: _Heard
    _signal: AsyncSignal

    async def wait(self, timeout: float) -> Outcome | None:
        if not self._heard.outcomes:
            await self._signal.wait(timeout)
        return self._heard.take()


@attrs.define
class _BlockingWatch:
    _heard: _Heard
    _signal: ThreadSignal

    def wait(self, timeout: float) -> Outcome | None:
        if not self._heard.outcomes:
            self._signal.wait(timeout)
        return self._heard.take()


@asynccontextmanager
async def watch(door: Door, tables: Tables, run_id: RunId) -> AsyncIterator[_Watch]:
    """See `Backend.watch`."""
    heard = _Heard()
    with door.behind(AsyncSignal()) as signal, tables.on_end(run_id, _hear(heard, signal)):
        yield _Watch(heard, signal)


@contextmanager
def watch_blocking(door: Door, tables: Tables, run_id: RunId) -> Iterator[_BlockingWatch]:
    """See `Backend.watch`."""
    heard = _Heard()
    with door.behind(ThreadSignal()) as signal, tables.on_end(run_id, _hear(heard, signal)):
        yield _BlockingWatch(heard, signal)


def _hear(heard: _Heard, signal: AsyncSignal | ThreadSignal) -> Callable[[Outcome], None]:
    def hear(outcome: Outcome) -> None:
        heard.outcomes.append(outcome)
        signal.set()

    return hear
