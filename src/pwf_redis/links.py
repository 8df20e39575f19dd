"""Connections to one server, for an event loop and for threads: borrow one, one round trip, return it.

redis-py's connections do the talking; its clients and pools are not used, because they repeat
commands on their own. Here a round trip is repeated once, and only if it was lost on a connection
that had been lying idle: the server has most likely been restarted since. That is safe because
everything that this adapter sends may be sent twice.

A round trip that is cancelled or late takes its connection with it, so that no reply can ever reach
the wrong caller.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import attrs
from hiredis import pack_command
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as DriverTimeoutError

from pwf_core.errors import StoreClosedError, StoreUnavailableError
from pwf_redis.errors import is_demoted, translate
from pwf_redis.rounds import Command, Round
from pwf_redis.target import BlockingConnection, Connection, Target, hang_up

__all__ = ["MOST", "BlockingLinks", "Links", "closed", "raise_as_ours", "unwrap"]

# In C; redis-py's own for asyncio is not.
_pack: Callable[[Command], bytes] = pack_command  # type: ignore[assignment]  # takes longer tuples than it says

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
    _idle: list[Connection] = attrs.field(factory=list, init=False)
    _busy: set[Connection] = attrs.field(factory=set, init=False)
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

    async def perform(self, effect: Round) -> list[Any]:
        """Make a round trip."""
        return await self.ask(effect.commands)

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
        try:
            limit = self.target.timeout
            async with asyncio.timeout(min(patience or limit, limit)), self._room:
                return await self._ask(commands)
        except Exception as error:  # noqa: BLE001 -- raised again
            if _is_silence(error):
                await self._drop_idle()  # perhaps nobody hears them either
            raise_as_ours(error, self.target.where)

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        self.check_open()
        while self._idle:
            connection = self._idle.pop()
            if not self.target.is_current(connection):
                await connection.disconnect(nowait=True)
                continue
            try:
                return await self._talk(connection, commands)
            except DriverConnectionError:
                await self._drop_idle()  # they are of the same age
        return await self._talk(self.target.connection(), commands)

    def check_open(self) -> None:
        """Raise if this has been closed."""
        if self._is_closed:
            raise closed(self.target)

    async def _talk(
        self,
        connection: Connection,
        commands: Sequence[Command],
    ) -> list[Any]:
        self._busy.add(connection)
        try:
            try:
                await connection.connect()
                self.check_open()  # closed meanwhile, this connection was not seen
                packed = [_pack(one) for one in commands]
                await connection.send_packed_command(packed, check_health=False)
            except RuntimeError as error:  # uvloop's word for a socket that is closed
                raise DriverConnectionError(str(error)) from error
            replies = []
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
            if any(map(is_demoted, replies)):  # a new connection may lead elsewhere
                await self._drop_idle()
                await connection.disconnect(nowait=True)  # it connects anew when it is used
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        else:
            if self._is_closed:
                await connection.disconnect(nowait=True)
            else:
                self._idle.append(connection)
            return replies
        finally:
            self._busy.discard(connection)

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)

    async def close(self) -> None:
        """Close every connection; round trips under way fail."""
        self._is_closed = True
        if self._loop is not asyncio.get_running_loop():
            self._idle.clear()
            return
        await self._drop_idle()
        for connection in tuple(self._busy):
            await connection.disconnect(nowait=True)


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
    _idle: list[BlockingConnection] = attrs.field(factory=list, init=False)
    _busy: set[BlockingConnection] = attrs.field(factory=set, init=False)
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
        return self.ask(effect.commands)

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
        while (connection := self._borrow()) is not None:
            if not self.target.is_current(connection):
                connection.disconnect()
                continue
            try:
                return self._talk(connection, commands)
            except DriverConnectionError:
                self._drop_idle()  # they are of the same age
        return self._talk(self.target.blocking_connection(), commands)

    def check_open(self) -> None:
        """Raise if this has been closed."""
        if self._is_closed:
            raise closed(self.target)

    def _borrow(self) -> BlockingConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _talk(
        self,
        connection: BlockingConnection,
        commands: Sequence[Command],
    ) -> list[Any]:
        with self._in_use(connection):
            connection.connect()
            self.check_open()  # closed meanwhile, this connection was not seen
            packed = [_pack(one) for one in commands]
            connection.send_packed_command(packed, check_health=False)
            replies: list[Any] = []
            for _ in commands:
                try:
                    replies.append(connection.read_response())
                except ResponseError as error:
                    replies.append(error)
            if any(map(is_demoted, replies)):  # a new connection may lead elsewhere
                self._drop_idle()
                connection.disconnect()  # it connects anew when it is used
            return replies

    @contextmanager
    def _in_use(self, connection: BlockingConnection) -> Iterator[None]:
        with self._lock:
            self._busy.add(connection)
        try:
            yield
        except BaseException:
            connection.disconnect()
            with self._lock:
                self._busy.discard(connection)
            raise
        with self._lock:
            self._busy.discard(connection)
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.disconnect()

    def _drop_idle(self) -> None:
        while (connection := self._borrow()) is not None:
            connection.disconnect()

    def close(self) -> None:
        """Close every connection; round trips under way fail."""
        self._is_closed = True
        self._notice_fork()
        self._drop_idle()
        with self._lock:
            busy = tuple(self._busy)
        for connection in busy:
            hang_up(connection)
