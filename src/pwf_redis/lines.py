"""One connection of an event loop, for round trips: commands out, replies in.

redis-py connects, logs in and finds masters. Then the stream that it reads from gives way to the protocol
below, which has nothing between socket and parser: streams, locks and time-outs of their own took as long
as the rest of a client's part in a round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from hiredis import Reader, pack_command
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import InvalidResponse

from pwf_redis.rounds import Command
from pwf_redis.target import Connection, transport_of

__all__ = ["Line", "pack"]

# In C; redis-py's own for asyncio is not.
pack: Callable[[Command], bytes] = pack_command  # type: ignore[assignment]  # takes longer tuples than it says

_CLOSED = "Connection closed by server."  # the driver's words


@attrs.define(eq=False)
class Line(asyncio.Protocol):
    """A connection with one round trip under way at a time.

    Attributes:
        connection: The driver's, which opens and closes it.
    """

    connection: Connection
    _transport: asyncio.Transport | None = attrs.field(default=None, init=False)
    _reader: Reader = attrs.field(factory=Reader, init=False)
    _replies: list[Any] = attrs.field(factory=list, init=False)
    _missing: int = attrs.field(default=0, init=False)
    _answer: asyncio.Future[list[Any]] | None = attrs.field(default=None, init=False)

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed from here."""
        return self.connection.is_connected

    async def open(self, deadline: float) -> None:
        """Connect and log in.

        Raises:
            TimeoutError: If that takes until *deadline*, by the loop's clock.
        """
        async with asyncio.timeout_at(deadline):
            await self.connection.connect()
        self._reader = Reader(protocolError=InvalidResponse, replyError=DefaultParser.parse_error)
        self._replies, self._missing = [], 0
        self._transport = transport_of(self.connection)
        self._transport.set_protocol(self)

    async def ask(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Send *commands* and return their replies, errors among them, as the driver's.

        Cancelled or failed, it leaves a line that has to be closed.

        Raises:
            DriverConnectionError: If the connection is lost, or the server gives it up.
            TimeoutError: If the answer takes until *deadline*, by the loop's clock.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise DriverConnectionError(_CLOSED)
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._missing = len(commands)
        late = loop.call_at(deadline, self._end, TimeoutError)
        try:
            transport.writelines([pack(one) for one in commands])
            return await self._answer
        finally:
            late.cancel()
            self._answer = None

    async def close(self) -> None:
        """Close it; who waits for an answer gets an error."""
        await self.connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Take in replies; the transport calls this."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except (DriverConnectionError, InvalidResponse) as error:
            self._end(error)

    def _take(self, reply: object) -> None:
        if isinstance(reply, DriverConnectionError):  # it is loading, or has too many clients
            raise reply
        if not self._missing:
            raise DriverConnectionError("The server says what nobody asked for.")
        self._replies.append(reply)
        self._missing -= 1
        if not self._missing:
            replies, self._replies = self._replies, []
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits; the transport calls this."""
        self._end(DriverConnectionError(str(exc or _CLOSED)))

    def _end(self, error: Exception | type[Exception]) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        if self._transport is not None:
            self._transport.abort()
