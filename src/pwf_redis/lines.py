"""Connections for round trips: commands out, replies in; one for event loops, one for threads.

redis-py connects, logs in and finds masters. From then on there is nothing between its socket and the
parser: on an event loop, its streams, locks and time-outs took as long as the rest of a client's part in a
round trip.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from hiredis import Reader, pack_command
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import InvalidResponse

from pwf_redis.rounds import Command
from pwf_redis.target import BlockingConnection, Connection, hang_up, socket_of, transport_of

__all__ = ["BlockingLine", "Line"]

# In C; redis-py's own for asyncio is not.
_pack: Callable[[Command], bytes] = pack_command  # type: ignore[assignment]  # takes longer tuples than it says

_CLOSED = "Connection closed by server."  # the driver's words
_UNASKED = "The server says what nobody asked for."
_READ = 65536  # bytes at a time


@attrs.define(eq=False)
class _Replies:
    """The replies of one round trip after the other, out of whatever pieces they come in."""

    _reader: Reader = attrs.field(
        factory=lambda: Reader(protocolError=InvalidResponse, replyError=DefaultParser.parse_error)
    )
    _found: list[Any] = attrs.field(factory=list)
    _missing: int = 0

    def expect(self, count: int) -> None:
        """Begin with the next round trip."""
        self._missing = count

    def feed(self, data: bytes) -> list[Any] | None:
        """Return all replies once the last of them is there; errors among them are the driver's.

        Raises:
            DriverConnectionError: If the server gives the connection up, or says what nobody asked for.
            InvalidResponse: If it does not speak as Redis does.
        """
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, DriverConnectionError):  # it is loading, or has too many clients
                raise reply
            if not self._missing:
                raise DriverConnectionError(_UNASKED)
            self._found.append(reply)
            self._missing -= 1
        if self._missing:
            return None
        found, self._found = self._found, []
        return found


@attrs.define(eq=False)
class Line(asyncio.Protocol):
    """A connection of an event loop, with one round trip under way at a time.

    Attributes:
        connection: The driver's, which opens and closes it.
    """

    connection: Connection
    _transport: asyncio.Transport | None = attrs.field(default=None, init=False)
    _replies: _Replies = attrs.field(factory=_Replies, init=False)
    _answer: asyncio.Future[list[Any]] | None = attrs.field(default=None, init=False)

    @property
    def is_open(self) -> bool:
        """Whether it may be asked."""
        return self._transport is not None and not self._transport.is_closing()

    async def open(self, deadline: float) -> None:
        """Connect and log in; once. Closed meanwhile, it is not open.

        Raises:
            TimeoutError: If that takes until *deadline*, by the loop's clock.
        """
        async with asyncio.timeout_at(deadline):
            await self.connection.connect()
        if self.connection.is_connected:
            self._transport = transport_of(self.connection)
            self._transport.set_protocol(self)

    async def ask(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Send *commands* and return their replies, errors among them, as the driver's.

        Cancelled or failed, it leaves a line that has to be closed.

        Raises:
            DriverConnectionError: If the connection is lost, or the server gives it up.
            TimeoutError: If the answer takes until *deadline*, by the loop's clock.
        """
        if self._transport is None or self._transport.is_closing():
            raise DriverConnectionError(_CLOSED)
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._replies.expect(len(commands))
        late = loop.call_at(deadline, self._fail, TimeoutError)
        try:
            self._transport.writelines([_pack(one) for one in commands])
            return await self._answer
        finally:
            late.cancel()
            self._answer = None

    async def close(self) -> None:
        """Close it, for good; who waits for an answer gets an error."""
        self._abort()
        await self.connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Take in replies; the transport calls this."""
        if self._answer is None or self._answer.done():
            self._fail(DriverConnectionError(_UNASKED))
            return
        try:
            replies = self._replies.feed(data)
        except Exception as error:  # noqa: BLE001 -- the driver's parser trips over what is no Redis
            self._fail(error)
        else:
            if replies is not None:
                self._answer.set_result(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits; the transport calls this."""
        self._transport = None
        self._fail(DriverConnectionError(str(exc or _CLOSED)))

    def _fail(self, error: Exception | type[Exception]) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self._abort()

    def _abort(self) -> None:
        """Close it at once: what was not sent yet is not worth waiting for."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()


@attrs.define(eq=False)
class BlockingLine:
    """A connection of one thread at a time.

    Attributes:
        connection: The driver's, which opens and closes it, and whose time-out the socket has.
    """

    connection: BlockingConnection
    _socket: socket.socket | None = attrs.field(default=None, init=False)
    _replies: _Replies = attrs.field(factory=_Replies, init=False)

    @property
    def is_open(self) -> bool:
        """Whether it may be asked."""
        return self._socket is not None

    def open(self) -> None:
        """Connect and log in; once."""
        self.connection.connect()
        self._socket = socket_of(self.connection)

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """See `Line.ask`; its time-out is for each part of the answer."""
        if self._socket is None:
            raise DriverConnectionError(_CLOSED)
        self._replies.expect(len(commands))
        try:
            self._socket.sendall(b"".join(map(_pack, commands)))
            replies = None
            while replies is None:
                data = self._socket.recv(_READ)
                if not data:
                    raise DriverConnectionError(_CLOSED)
                replies = self._replies.feed(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise DriverConnectionError(str(error)) from error
        return replies

    def close(self) -> None:
        """Close it, for good; for the thread that uses it."""
        self._socket = None
        self.connection.disconnect()

    def hang_up(self) -> None:
        """End what another thread waits for."""
        hang_up(self.connection)
