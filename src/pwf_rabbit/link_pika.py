"""Links through pika's event-driven connection, on the running event loop.

pika calls back; each question becomes a future here, which fails when its channel closes. While a
connection is being closed, none of its channels can be used, but they end only with the server's answer
or, if that server is gone without a word, with the heartbeat. It ships no types, so everything of it is
`Any`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import pika
from pika import spec
from pika.adapters.asyncio_connection import AsyncioConnection

from pwf_core.errors import PwfError
from pwf_rabbit.confirms import Confirms
from pwf_rabbit.errors import translate
from pwf_rabbit.ledger import Ack
from pwf_rabbit.link import MANDATORY, PERSISTENT, OnDelivery, Sent
from pwf_rabbit.options import Options
from pwf_rabbit.topology import Queue

__all__ = ["connect"]

_ABORTING = 1.0  # seconds that pika has to end an attempt to connect

_Done: TypeAlias = Callable[[Any], None]  # how a question gets its answer


async def connect(options: Options, name: str) -> _PikaLink:
    """Open a connection; see `Connect`."""
    # All that pika says reaches our supervisor as errors, which says it once per outage.
    logger = logging.getLogger("pika")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
    with _translated(options.where, connecting=True):
        link = _PikaLink(_parameters(options, name), options.where)
        try:
            await link.opened
        except asyncio.CancelledError:
            with suppress(TimeoutError):
                async with asyncio.timeout(_ABORTING):
                    await link.close()
            raise
    return link


def _parameters(options: Options, name: str) -> Any:
    context = options.ssl_context()
    return pika.ConnectionParameters(
        host=options.host,
        port=options.port,
        virtual_host=options.vhost,
        credentials=pika.PlainCredentials(options.username, options.password),
        ssl_options=pika.SSLOptions(context, options.host) if context is not None else None,
        heartbeat=options.heartbeat,
        connection_attempts=1,  # who tries again is the supervisor
        socket_timeout=options.timeout,
        stack_timeout=options.timeout,
        client_properties={"connection_name": name},
    )


class _PikaLink:
    def __init__(self, parameters: Any, where: str) -> None:
        loop = asyncio.get_running_loop()
        self._where = where
        self._is_blocked = False
        self.opened: asyncio.Future[None] = loop.create_future()
        self.lost = asyncio.Event()
        self._ended = asyncio.Event()  # pika's own end; a supervisor may give up before that
        self._connection: Any = AsyncioConnection(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_open_error,
            on_close_callback=self._on_close,
            custom_ioloop=loop,
        )
        self._connection.add_on_connection_blocked_callback(self._on_blocked)
        self._connection.add_on_connection_unblocked_callback(self._on_unblocked)

    @property
    def is_open(self) -> bool:
        return not self.lost.is_set()

    async def is_blocked(self) -> bool:
        return self._is_blocked

    async def channel(self, *, publishes: bool = False) -> _PikaChannel:
        with _translated(self._where):
            channel = _PikaChannel(self._where)
            await channel.open(self._connection, publishes=publishes)
            return channel

    async def close(self) -> None:
        with _translated(self._where):
            if not (self._connection.is_closing or self._connection.is_closed):
                self._connection.close()
            await self._ended.wait()

    def _on_open(self, _connection: Any) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def _on_open_error(self, _connection: Any, error: BaseException) -> None:
        self._on_close()
        if not self.opened.done():
            self.opened.set_exception(error)

    def _on_close(self, *_: object) -> None:
        self._ended.set()
        self.lost.set()

    def _on_blocked(self, *_: object) -> None:
        self._is_blocked = True

    def _on_unblocked(self, *_: object) -> None:
        self._is_blocked = False


class _PikaChannel:
    def __init__(self, where: str) -> None:
        self._where = where
        self._channel: Any = None
        self._is_open = False
        self._consumers: set[str] = set()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._got: _Done = _ignore
        self._confirms = Confirms()

    async def open(self, connection: Any, *, publishes: bool) -> None:
        def start(done: _Done) -> None:
            self._channel = connection.channel(on_open_callback=done)
            self._channel.add_on_close_callback(self._on_close)

        await self._ask(start)
        self._is_open = True
        self._channel.add_callback(self._on_get_empty, [spec.Basic.GetEmpty], one_shot=False)
        if publishes:
            self._channel.add_on_return_callback(self._on_return)
            await self._ask(lambda done: self._channel.confirm_delivery(self._on_confirm, done))

    @property
    def is_open(self) -> bool:
        return self._is_open and bool(self._channel.is_open)

    @property
    def is_consuming(self) -> bool:
        # pika forgets the tag of a consumer that the server has cancelled.
        return self.is_open and self._consumers.issubset(self._channel.consumer_tags)

    async def declare(self, queue: Queue, *, passive: bool = False) -> None:
        with _translated(self._where, queue):
            await self._ask(
                lambda done: self._channel.queue_declare(
                    queue.name,
                    passive=passive,
                    durable=True,
                    arguments=None if passive else dict(queue.arguments),
                    callback=done,
                )
            )

    async def consume(self, queue: Queue, prefetch: int, on_delivery: OnDelivery) -> None:
        def deliver(_channel: Any, method: Any, _properties: Any, body: bytes) -> None:
            on_delivery(method.delivery_tag, body)

        def start(done: _Done) -> None:
            self._consumers.add(self._channel.basic_consume(queue.name, deliver, callback=done))

        with _translated(self._where, queue):
            await self._ask(lambda done: self._channel.basic_qos(0, prefetch, callback=done))
            await self._ask(start)

    def publish(self, queue: str, body: bytes, headers: Mapping[str, str]) -> asyncio.Future[Sent]:
        number, future = self._confirms.expect()
        properties = pika.BasicProperties(
            content_type="application/msgpack",
            delivery_mode=PERSISTENT,
            headers=dict(headers),
            message_id=str(number),
        )
        if not self.is_open:
            _settle(future, Sent.UNKNOWN)  # nobody need wait for what was never sent
            return future
        try:
            with _translated(self._where):
                self._channel.basic_publish("", queue, body, properties, mandatory=MANDATORY)
        except PwfError:
            # The server counts one less than we do, so its confirms would be for others.
            self._abandon()
            self._confirms.lost()
        return future

    async def ack(self, acks: Sequence[Ack]) -> None:
        with _translated(self._where):
            for one in acks:
                if self.is_open:  # else they are of an epoch that is over, and come again
                    self._channel.basic_ack(one.number, multiple=one.multiple)

    async def get(self, queue: Queue) -> tuple[int, bytes] | None:
        def start(done: _Done) -> None:
            self._got = done
            self._channel.basic_get(queue.name, self._on_get)

        with _translated(self._where, queue):
            got: tuple[int, bytes] | None = await self._ask(start)
            return got

    async def close(self) -> None:
        if not self.is_open:
            return
        with _translated(self._where):
            closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._channel.add_on_close_callback(lambda *_: _settle(closed))
            self._is_open = False
            self._channel.close()
            await closed

    async def _ask(self, start: Callable[[_Done], None]) -> Any:
        """Return the answer to what *start* sends; fail with what closes the channel instead."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(answer)
        try:
            start(functools.partial(_settle, answer))
            return await answer
        except asyncio.CancelledError:
            # Who asked has given up. A late answer would be taken for that of the next question.
            self._abandon()
            raise
        finally:
            self._waiting.discard(answer)

    def _abandon(self) -> None:
        self._is_open = False
        channel = self._channel
        # One that is still opening is closed, too: its late answer would have it stay for nobody.
        if channel is not None and not (channel.is_closing or channel.is_closed):
            channel.close()

    def _on_close(self, _channel: Any, reason: BaseException) -> None:
        self._is_open = False
        self._confirms.lost()
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(reason)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        accepted = isinstance(method, spec.Basic.Ack)
        self._confirms.confirmed(method.delivery_tag, multiple=method.multiple, accepted=accepted)

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        self._confirms.returned(int(properties.message_id))

    def _on_get(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        self._got((method.delivery_tag, body))

    def _on_get_empty(self, _frame: Any) -> None:
        self._got(None)


def _ignore(_said: Any) -> None:
    pass


def _settle(future: asyncio.Future[Any], said: Any = None) -> None:
    if not future.done():
        future.set_result(said)


@contextmanager
def _translated(
    where: str,
    queue: Queue | None = None,
    *,
    connecting: bool = False,
) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise translate(error, where, queue, connecting=connecting) from error
