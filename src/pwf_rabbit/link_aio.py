"""Links through aio-pika, and the aiormq below it. Its robust connections are not used.

What aiormq does on its own that matters here: of the server's `basic.cancel`, most versions tell
nobody, but all forget the consumer's tag (so `is_consuming` looks there); it fails what is pending
with whatever closed the connection, be that a bare `Exception` or a `CancelledError`; it closes a
channel in which a question was given up; and it gives the number of a channel that the server has
closed to the next one, maybe before the server has heard that we know, which then ends the connection
("second 'channel.open' seen"). So numbers are given out here, each again as late as can be. While a
channel is being closed by us, it still sends acks on it, and one that the server reads after the close
ends the connection, too ("expected 'channel.open'"). So from then on a channel is not open here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from aiormq import spec
from aiormq.abc import DeliveredMessage

from pwf_core.errors import PwfError
from pwf_rabbit.errors import translate
from pwf_rabbit.ledger import Ack
from pwf_rabbit.link import MANDATORY, PERSISTENT, OnDelivery, Sent
from pwf_rabbit.options import Options
from pwf_rabbit.topology import Queue

__all__ = ["connect"]

# All that these say reaches our supervisor as errors, which says it once and not at every attempt.
_LOGGERS = ("aio_pika", "aiormq")

_CHANNELS = 65535  # as many as AMQP can number, for servers that set no limit


async def connect(options: Options, name: str) -> _AioLink:
    """Open a connection; see `Connect`."""
    for logger in map(logging.getLogger, _LOGGERS):
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)
    with _translated(options.where, connecting=True):
        try:
            connection = await _open(options, name)
        except aiormq.exceptions.InvalidFrameError as error:
            if "Connection.OpenOk" not in str(error):
                raise
            # aiormq drops what the server said instead of opening the virtual host. Its own words
            # have the address of an object, so that no two attempts would seem to fail alike.
            refused = f"NOT_ALLOWED - virtual host {options.vhost!r} cannot be opened"
            raise ConnectionError(refused) from None
    return _AioLink(connection, options.where)


async def _open(options: Options, name: str) -> AbstractConnection:
    connection = aio_pika.Connection(
        # No variable of ours holds it: it shows the password, and tracebacks may show variables.
        aio_pika.connection.make_url(
            host=options.host,
            port=options.port,
            login=options.username,
            password=options.password,
            virtualhost=options.vhost,
            ssl=options.tls,
            heartbeat=str(options.heartbeat),
        ),
        ssl_context=options.ssl_context(),
        client_properties={"connection_name": name},
    )
    try:
        await connection.connect()
    except BaseException:
        await connection.close()  # otherwise it would try to as garbage, maybe without a loop
        raise
    return connection


class _AioLink:
    def __init__(self, connection: AbstractConnection, where: str) -> None:
        self._connection = connection
        self._where = where
        self._last_number = 0
        self.lost = asyncio.Event()
        connection.close_callbacks.add(lambda *_: self.lost.set())

    @property
    def is_open(self) -> bool:
        return not self.lost.is_set()

    async def is_blocked(self) -> bool:
        transport = self._connection.transport
        if transport is None:
            return False
        try:
            async with asyncio.timeout(0):
                await transport.connection.ready()  # returns at once unless blocked
        except TimeoutError:
            return True
        return False

    async def channel(self, *, publishes: bool = False) -> _AioChannel:
        with _translated(self._where):
            channel = self._connection.channel(
                self._next_number(),
                publisher_confirms=publishes,
                on_return_raises=publishes,
            )
            await channel.initialize()
            underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, aiormq.Channel)
        return _AioChannel(channel, underlay, self._where)

    async def close(self) -> None:
        with _translated(self._where):
            await self._connection.close()
        self.lost.set()

    def _next_number(self) -> int | None:
        transport = self._connection.transport
        if transport is None:
            return None  # it is closed, and says so itself
        used = transport.connection.channels
        most = transport.connection.connection_tune.channel_max or _CHANNELS
        for step in range(1, most + 1):
            number = (self._last_number + step - 1) % most + 1
            if number not in used:
                self._last_number = number
                return number
        return None


class _AioChannel:
    def __init__(self, owner: object, channel: aiormq.Channel, where: str) -> None:
        self._owner = owner  # aio-pika's channel, whose end would be the end of its callbacks
        self._channel = channel
        self._where = where
        self._consumers: set[str | None] = set()
        self._published = 0
        self._is_leaving = False

    @property
    def is_open(self) -> bool:
        return not (self._is_leaving or self._channel.is_closed)

    @property
    def is_consuming(self) -> bool:
        return self.is_open and self._consumers.issubset(self._channel.consumers)

    async def declare(self, queue: Queue, *, passive: bool = False) -> None:
        with _translated(self._where, queue):
            await self._channel.queue_declare(
                queue.name,
                passive=passive,
                durable=True,
                arguments=None if passive else dict(queue.arguments),
            )

    async def consume(self, queue: Queue, prefetch: int, on_delivery: OnDelivery) -> None:
        async def deliver(message: DeliveredMessage) -> None:
            number = message.delivery_tag
            assert number is not None
            on_delivery(number, message.body)

        with _translated(self._where, queue):
            await self._channel.basic_qos(prefetch_count=prefetch)
            consuming = await self._channel.basic_consume(queue.name, deliver)
            self._consumers.add(consuming.consumer_tag)

    def publish(self, queue: str, body: bytes, headers: Mapping[str, str]) -> asyncio.Future[Sent]:
        self._published += 1
        # Without an id, aiormq would only log what the server returns.
        return asyncio.ensure_future(self._publish(queue, body, headers, str(self._published)))

    async def _publish(
        self, queue: str, body: bytes, headers: Mapping[str, str], message_id: str
    ) -> Sent:
        properties = spec.Basic.Properties(
            content_type="application/msgpack",
            delivery_mode=PERSISTENT,
            headers=dict(headers),
            message_id=message_id,
        )
        try:
            with _translated(self._where):
                await self._channel.basic_publish(
                    body,
                    routing_key=queue,
                    properties=properties,
                    mandatory=MANDATORY,
                    wait=False,
                )
        except PwfError as error:
            match error.__cause__:
                case aiormq.exceptions.PublishError():
                    return Sent.RETURNED
                case aiormq.exceptions.DeliveryError():
                    return Sent.REFUSED
                case _:
                    return Sent.UNKNOWN
        return Sent.CONFIRMED

    async def ack(self, acks: Sequence[Ack]) -> None:
        try:
            with _translated(self._where):
                for one in acks:
                    if self.is_open:
                        await self._channel.basic_ack(one.number, multiple=one.multiple, wait=False)
        except PwfError:
            pass  # they are of an epoch that is over, and come again

    async def get(self, queue: Queue) -> tuple[int, bytes] | None:
        with _translated(self._where, queue):
            message = await self._channel.basic_get(queue.name)
        if not isinstance(message.delivery, spec.Basic.GetOk):
            return None
        number = message.delivery_tag
        assert number is not None
        return number, message.body

    async def close(self) -> None:
        self._is_leaving = True
        with _translated(self._where):
            await self._channel.close()


@contextmanager
def _translated(
    where: str,
    queue: Queue | None = None,
    *,
    connecting: bool = False,
) -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # somebody cancelled us, and not the connection that ended
        lost = ConnectionError("the connection was closed")
        raise translate(lost, where, queue, connecting=connecting) from error
    except Exception as error:  # aiormq fails what is pending with bare ones, too
        raise translate(error, where, queue, connecting=connecting) from error
