"""Connections to one server, for an event loop and for threads: borrow one, one round trip, return it.

redis-py's connections are used, each through a `Line`; its clients and pools are not, because
they repeat commands on their own. Here a round trip is repeated once, and only if it was lost on a connection
that had been lying idle: the server has most likely been restarted since. That is safe because
everything that this adapter sends may be sent twice.

A round trip that is cancelled or late takes its connection with it, so that no reply can ever reach
the wrong caller.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

import attrs
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as DriverTimeoutError

from pwf_core.errors import StoreClosedError, StoreUnavailableError
from pwf_redis.errors import is_demoted, translate
from pwf_redis.lines import BlockingLine, Line
from pwf_redis.rounds import Command, Round
from pwf_redis.target import Target

__all__ = ["MOST", "BlockingLinks", "Links", "closed", "raise_as_ours", "unwrap"]

# More than this many round trips at a time wait for each other. Batches, not connections, bring
# speed, and a server's connections are shared by all.
MOST = 16


def closed(target: Target) -> StoreClosedError:
    """Return what is raised from now on."""
    return StoreClosedError(f"The connection to Redis at {target.where} has been closed.")


def unwrap(replies: list[Any], where: str) -> list[Any]:
    """Return *replies* if none of them is an error, else raise the first one as ours."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise_as_ours(reply, where)
    return replies


def raise_as_ours(error: Exception, where: str) -> NoReturn:
    """Raise the core's error for one of the driver."""
    raised = translate(error, where)
    if raised is error:
        raise error
    raise raised from error


def _is_silence(error: Exception) -> bool:
    """Whether a connection has not answered: it may be one that only we know of."""
    return isinstance(error, TimeoutError | DriverTimeoutError)


@attrs.define
class Links:
    """Connections of one event loop; used with another loop, it starts afresh.

    Attributes:
        target: The server.
        most: How many round trips may be under way at a time.
    """

    target: Target
    most: int = MOST
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    _room: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(0), init=False)
    _idle: list[Line] = attrs.field(factory=list, init=False)
    _busy: set[Line] = attrs.field(factory=set, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    def open(self) -> None:
        """Allow use, also after a close."""
        self._is_closed = False

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send *commands* in one round trip and return their replies.

        Raises:
            UnavailableError: If the server does not answer.
            PwfError: If one of the replies is an error.
        """
        return unwrap(await self.ask_each(commands), self.target.where)

    async def ask_at(self, slot: int, commands: Sequence[Command]) -> list[Any]:
        """Do the same in a slot, all of which are at this server."""
        return await self.ask(commands)

    async def perform(self, effect: Round, patience: float | None = None) -> list[Any]:
        """Make a round trip; *patience* as in `ask_each`."""
        return unwrap(await self.ask_each(effect.commands, patience), self.target.where)

    async def ask_each(
        self, commands: Sequence[Command], patience: float | None = None
    ) -> list[Any]:
        """Do the same, but return those replies that are errors, too, as the driver's.

        After *patience*, in seconds, the server counts as away, if that is before its time-out.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._room = loop, asyncio.Semaphore(self.most)
            self._idle.clear()
        limit = self.target.timeout
        deadline = loop.time() + min(patience or limit, limit)
        room = self._room
        try:
            if room.locked():
                async with asyncio.timeout_at(deadline), room:
                    return await self._ask(commands, deadline)
            async with room:
                return await self._ask(commands, deadline)
        except Exception as error:  # noqa: BLE001 -- raised again
            if _is_silence(error):
                await self._drop_idle()  # perhaps nobody hears them either
            raise_as_ours(error, self.target.where)

    async def _ask(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        self.check_open()
        line = await self._next_idle()
        if line is not None:
            try:
                return await self._talk(line, commands, deadline)
            except DriverConnectionError:
                await self._drop_idle()  # they are of the same age
        return await self._talk(Line(self.target.connection()), commands, deadline)

    async def _next_idle(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.is_open and self.target.is_current(line.connection):
                return line
            await line.close()
        return None

    def check_open(self) -> None:
        """Raise if this has been closed."""
        if self._is_closed:
            raise closed(self.target)

    async def locate(self) -> None:
        """See `ClusterLinks.locate`: each connection to one server finds it."""

    async def _talk(self, line: Line, commands: Sequence[Command], deadline: float) -> list[Any]:
        self._busy.add(line)
        try:
            if not line.is_open:
                await line.open(deadline)
                self.check_open()  # closed meanwhile, this connection was not seen
            replies = await line.ask(commands, deadline)
            if any(map(is_demoted, replies)):  # a new connection may lead elsewhere
                await self._drop_idle()
                await line.close()
        except BaseException:
            await line.close()
            raise
        else:
            if line.is_open and not self._is_closed:
                self._idle.append(line)
            else:
                await line.close()
            return replies
        finally:
            self._busy.discard(line)

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def close(self) -> None:
        """Close every connection; round trips under way fail."""
        self._is_closed = True
        if self._loop is not asyncio.get_running_loop():
            self._idle.clear()
            return
        await self._drop_idle()
        for line in tuple(self._busy):
            await line.close()


@attrs.define
class BlockingLinks:
    """Connections of one process, for any thread; a fork starts afresh.

    Attributes:
        target: The server.
        most: How many round trips may be under way at a time.
    """

    target: Target
    most: int = MOST
    _process: int = attrs.field(factory=os.getpid, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _room: threading.Semaphore = attrs.field(
        default=attrs.Factory(lambda self: threading.Semaphore(self.most), takes_self=True),
        init=False,
    )
    _idle: list[BlockingLine] = attrs.field(factory=list, init=False)
    _busy: set[BlockingLine] = attrs.field(factory=set, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    def open(self) -> None:
        """Allow use, also after a close."""
        self._is_closed = False

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """See `Links.ask`."""
        return unwrap(self.ask_each(commands), self.target.where)

    def ask_at(self, slot: int, commands: Sequence[Command]) -> list[Any]:
        """See `Links.ask_at`."""
        return self.ask(commands)

    def perform(self, effect: Round) -> list[Any]:
        """Make a round trip."""
        return unwrap(self.ask_each(effect.commands), self.target.where)

    def ask_each(self, commands: Sequence[Command]) -> list[Any]:
        """See `Links.ask_each`."""
        self._notice_fork()
        if not self._room.acquire(timeout=self.target.timeout):
            raise StoreUnavailableError(
                f"Redis at {self.target.where} keeps all {self.most} connections waiting.",
            )
        try:
            return self._ask(commands)
        except Exception as error:  # noqa: BLE001 -- raised again
            if _is_silence(error):
                self._drop_idle()  # perhaps nobody hears them either
            raise_as_ours(error, self.target.where)
        finally:
            self._room.release()

    def _notice_fork(self) -> None:
        if self._process != os.getpid():
            # The parent goes on using its sockets: they are let go, not closed by a farewell.
            self._process = os.getpid()
            self._lock, self._room = threading.Lock(), threading.Semaphore(self.most)
            self._idle, self._busy = [], set()

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        self.check_open()
        line = self._next_idle()
        if line is not None:
            try:
                return self._talk(line, commands)
            except DriverConnectionError:
                self._drop_idle()  # they are of the same age
        return self._talk(BlockingLine(self.target.blocking_connection()), commands)

    def _next_idle(self) -> BlockingLine | None:
        while (line := self._borrow()) is not None:
            if self.target.is_current(line.connection):
                return line
            line.close()
        return None

    def check_open(self) -> None:
        """Raise if this has been closed."""
        if self._is_closed:
            raise closed(self.target)

    def locate(self) -> None:
        """See `Links.locate`."""

    def _borrow(self) -> BlockingLine | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _talk(self, line: BlockingLine, commands: Sequence[Command]) -> list[Any]:
        with self._lock:
            self._busy.add(line)
        try:
            if not line.is_open:
                line.open()
                self.check_open()  # closed meanwhile, this connection was not seen
            replies = line.ask(commands)
            if any(map(is_demoted, replies)):  # a new connection may lead elsewhere
                self._drop_idle()
                line.close()
        except BaseException:
            line.close()
            with self._lock:
                self._busy.discard(line)
            raise
        with self._lock:
            self._busy.discard(line)
            is_kept = line.is_open and not self._is_closed
            if is_kept:
                self._idle.append(line)
        if not is_kept:
            line.close()
        return replies

    def _drop_idle(self) -> None:
        while (line := self._borrow()) is not None:
            line.close()

    def close(self) -> None:
        """Close every connection; round trips under way fail."""
        self._is_closed = True
        self._notice_fork()
        self._drop_idle()
        with self._lock:
            busy = tuple(self._busy)
        for line in busy:
            line.hang_up()
