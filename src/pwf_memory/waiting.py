"""Waiting for what happens in `Tables`, by an event loop or by a thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import attrs

from pwf_core.ids import RunId
from pwf_core.views import Outcome
from pwf_memory.tables import Tables

__all__ = ["AsyncSignal", "ThreadSignal", "idle", "idle_blocking", "watch", "watch_blocking"]


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


async def idle(tables: Tables, services: Sequence[str], timeout: float) -> None:
    """See `Backend.idle`."""
    signal = AsyncSignal()
    with tables.on_work(services, signal.set):
        await signal.wait(timeout)


def idle_blocking(tables: Tables, services: Sequence[str], timeout: float) -> None:
    """See `Backend.idle`."""
    signal = ThreadSignal()
    with tables.on_work(services, signal.set):
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
async def watch(tables: Tables, run_id: RunId) -> AsyncIterator[_Watch]:
    """See `Backend.watch`."""
    heard, signal = _Heard(), AsyncSignal()
    with tables.on_end(run_id, _hear(heard, signal)):
        yield _Watch(heard, signal)


@contextmanager
def watch_blocking(tables: Tables, run_id: RunId) -> Iterator[_BlockingWatch]:
    """See `Backend.watch`."""
    heard, signal = _Heard(), ThreadSignal()
    with tables.on_end(run_id, _hear(heard, signal)):
        yield _BlockingWatch(heard, signal)


def _hear(heard: _Heard, signal: AsyncSignal | ThreadSignal) -> Callable[[Outcome], None]:
    def hear(outcome: Outcome) -> None:
        heard.outcomes.append(outcome)
        signal.set()

    return hear
