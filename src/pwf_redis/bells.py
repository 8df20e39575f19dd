"""Waiting for tokens at several lists of a cluster at once: a command can wait in one slot alone.

Who is woken by one list goes on waiting at the others, and has that at once when he waits again. A token
that comes while nobody waits is put back: it is for somebody else.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeAlias

import attrs

from pwf_core.errors import PwfError
from pwf_redis.cluster_links import BlockingClusterLinks, ClusterLinks
from pwf_redis.keys import MOST_PARTITIONS
from pwf_redis.links import BlockingLinks, Links
from pwf_redis.rounds import wait_in

__all__ = ["Bells", "BlockingBells", "Tokens"]

Tokens: TypeAlias = Mapping[int, Sequence[str]]
"""Lists, by slot; a token in one of them says that there is work."""

_Bell: TypeAlias = tuple[int, tuple[str, ...]]


@attrs.define(eq=False)
class Bells:
    """For an event loop.

    Attributes:
        links: Connections of their own: each that waits takes one.
        rung: Told in which slot a token has come.
    """

    links: Links | ClusterLinks
    rung: Callable[[int], None]
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    _tasks: dict[_Bell, asyncio.Task[bool]] = attrs.field(factory=dict, init=False)
    _listeners: int = attrs.field(default=0, init=False)

    async def wait(self, tokens: Tokens, seconds: float) -> bool:
        """Wait until a token comes; say whether one did."""
        if len(tokens) == 1:
            ((slot, names),) = tokens.items()
            return await self._wait_at(slot, names, seconds)
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._listeners = asyncio.get_running_loop(), 0
            self._tasks.clear()
        bells = [(slot, tuple(names)) for slot, names in tokens.items()]
        for bell in bells:
            if bell not in self._tasks or self._tasks[bell].done():
                self._tasks[bell] = asyncio.create_task(self._listen(bell, seconds))
        if not bells:
            await asyncio.sleep(seconds)
            return False
        self._listeners += 1
        try:
            listening = [self._tasks[bell] for bell in bells]
            done, _ = await asyncio.wait(
                listening, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            self._listeners -= 1
        return any(not task.cancelled() and task.result() for task in done)

    async def _wait_at(self, slot: int, names: Sequence[str], seconds: float) -> bool:
        (token,) = await self.links.ask_at(slot, [wait_in(names, seconds)])
        if token is not None:
            self.rung(slot)
        return token is not None

    async def _listen(self, bell: _Bell, seconds: float) -> bool:
        slot, names = bell
        try:
            (token,) = await self.links.ask_at(slot, [wait_in(names, seconds)])
            if token is not None and not self._listeners:
                await self.links.ask_at(slot, [("LPUSH", token[0], token[1])])
                return False
        except PwfError:  # the exchange reports it
            await asyncio.sleep(seconds)
            return False
        if token is not None:
            self.rung(slot)
        return token is not None

    def close(self) -> None:
        """Stop waiting."""
        for task in self._tasks.values():
            if not task.done() and task.get_loop() is self._loop:
                task.cancel()
        self._tasks.clear()


@attrs.define(eq=False)
class BlockingBells:
    """For threads; a fork starts afresh.

    Attributes:
        links: Connections of their own: each that waits takes one.
        rung: Told in which slot a token has come; from any thread.
    """

    links: BlockingLinks | BlockingClusterLinks
    rung: Callable[[int], None]
    _process: int = attrs.field(factory=os.getpid, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _threads: ThreadPoolExecutor | None = attrs.field(default=None, init=False)
    _futures: dict[_Bell, Future[bool]] = attrs.field(factory=dict, init=False)
    _listeners: int = attrs.field(default=0, init=False)

    def wait(self, tokens: Tokens, seconds: float) -> bool:
        """See `Bells.wait`."""
        if len(tokens) == 1:
            ((slot, names),) = tokens.items()
            (token,) = self.links.ask_at(slot, [wait_in(names, seconds)])
            if token is not None:
                self.rung(slot)
            return token is not None
        if not tokens:
            time.sleep(seconds)
            return False
        with self._lock_here():
            self._listeners += 1
            if self._threads is None:
                self._threads = ThreadPoolExecutor(MOST_PARTITIONS, "pwf_redis bells")
            listening = []
            for slot, names in tokens.items():
                bell = slot, tuple(names)
                if bell not in self._futures or self._futures[bell].done():
                    self._futures[bell] = self._threads.submit(self._listen, bell, seconds)
                listening.append(self._futures[bell])
        try:
            done, _ = wait(listening, timeout=seconds, return_when=FIRST_COMPLETED)
        finally:
            with self._lock:
                self._listeners -= 1
        return any(not future.cancelled() and future.result() for future in done)

    def _lock_here(self) -> threading.Lock:
        if self._process != os.getpid():
            self._process, self._lock = os.getpid(), threading.Lock()
            self._threads, self._futures, self._listeners = None, {}, 0
        return self._lock

    def _listen(self, bell: _Bell, seconds: float) -> bool:
        slot, names = bell
        try:
            (token,) = self.links.ask_at(slot, [wait_in(names, seconds)])
            if token is not None and not self._listeners:
                self.links.ask_at(slot, [("LPUSH", token[0], token[1])])
                return False
        except PwfError:
            time.sleep(seconds)
            return False
        if token is not None:
            self.rung(slot)
        return token is not None

    def close(self) -> None:
        """Stop waiting, now that the links are closed."""
        with self._lock_here():
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
            self._futures.clear()
