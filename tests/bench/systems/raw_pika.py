"""What pika carries, by its event-driven connection: confirmed publishes, acknowledged consumes, both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from tests.bench.systems.raw_rabbit import (
    BODY,
    CHAINS,
    IN_FLIGHT,
    PREFETCH,
    STEPS,
    figures,
    queue_name,
)
from tests.bench.systems.speaking import RABBIT, About, main

FULL = 10_000  # messages
PERSISTENT = pika.BasicProperties(delivery_mode=2)


async def called_back(begin: Callable[[Callable[[Any], None]], Any]) -> Any:
    """Return what the callback that is handed to *begin* is called with."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def called(value: Any) -> None:
        if not future.done():
            future.set_result(value)

    begin(called)
    return await future


class Confirming:
    """A channel that says which of its publishes are confirmed, in order of their numbers."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self._sent = 0
        self._waiting: dict[int, Callable[[], None]] = {}
        self._lowest = 1

    async def open(self) -> None:
        """Ask for confirms."""
        await called_back(lambda done: self.channel.confirm_delivery(self._on_confirm, done))

    @property
    def in_flight(self) -> int:
        """How many publishes wait for their confirmation."""
        return len(self._waiting)

    def send(self, queue: str, body: bytes, confirmed: Callable[[], None]) -> None:
        """Publish; *confirmed* is called once the server has it."""
        self._sent += 1
        self._waiting[self._sent] = confirmed
        self.channel.basic_publish("", queue, body, PERSISTENT, mandatory=True)

    def _on_confirm(self, frame: Any) -> None:
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        for number in range(self._lowest, tag + 1) if multiple else (tag,):
            if confirmed := self._waiting.pop(number, None):
                confirmed()
        if multiple:
            self._lowest = tag + 1


class System:
    """The client's side, and the only one."""

    def __init__(self, publishing: AsyncioConnection, consuming: AsyncioConnection) -> None:
        self._publishing = publishing
        self._consuming = consuming

    async def figures(self, scale: float) -> dict[str, float]:
        """Return each limit, per second."""
        measures = {"publish": self._publish, "consume": self._consume, "relay": self._relay}
        return await figures(measures, int(FULL * scale))

    async def _publish(self, kind: str, count: int) -> int:
        channel = await open_channel(self._publishing)
        queue = await declare(channel, kind, "plain")
        sender, done = Confirming(channel), asyncio.Event()
        await sender.open()
        sent = confirmed = 0

        def go_on() -> None:
            nonlocal sent
            while sent < count and sender.in_flight < IN_FLIGHT:
                sent += 1
                sender.send(queue, BODY, on_confirm)

        def on_confirm() -> None:
            nonlocal confirmed
            confirmed += 1
            if confirmed == count:
                done.set()
            go_on()

        go_on()
        await done.wait()
        channel.close()
        return count

    async def _consume(self, kind: str, count: int) -> int:
        """Consume what `_publish` has put there."""
        channel = await open_channel(self._consuming)
        await called_back(lambda then: channel.basic_qos(prefetch_count=PREFETCH, callback=then))
        queue = await declare(channel, kind, "plain")
        done, seen = asyncio.Event(), 0

        def on_message(_: Any, method: Any, __: Any, ___: bytes) -> None:
            nonlocal seen
            channel.basic_ack(method.delivery_tag)
            seen += 1
            if seen == count:
                done.set()

        channel.basic_consume(queue, on_message)
        await done.wait()
        channel.close()
        return count

    async def _relay(self, kind: str, count: int) -> int:
        """Run chains: each message is followed by another, and acknowledged once that is confirmed."""
        steps = max(STEPS * count // FULL, 2)
        sender, receiver = Confirming(await open_channel(self._publishing)), None
        await sender.open()
        receiver = await open_channel(self._consuming)
        await called_back(lambda then: receiver.basic_qos(prefetch_count=PREFETCH, callback=then))
        queue = await declare(receiver, kind, "relay")
        done, ended = asyncio.Event(), 0

        def look() -> None:
            # A message may arrive before it is confirmed, and only then is the one before it settled.
            if ended == CHAINS and not sender.in_flight:
                done.set()

        def settle(tag: int) -> None:
            receiver.basic_ack(tag)
            look()

        def on_message(_: Any, method: Any, __: Any, body: bytes) -> None:
            nonlocal ended
            if body[0] > 1:
                follower = bytes([body[0] - 1]) + BODY
                sender.send(queue, follower, partial(settle, method.delivery_tag))
                return
            ended += 1
            settle(method.delivery_tag)

        receiver.basic_consume(queue, on_message)
        for _ in range(CHAINS):
            sender.send(queue, bytes([steps]) + BODY, look)
        await done.wait()
        receiver.close()
        sender.channel.close()
        return CHAINS * steps


async def open_channel(connection: AsyncioConnection) -> Any:
    """Open a channel."""
    return await called_back(lambda done: connection.channel(on_open_callback=done))


async def declare(channel: Any, kind: str, what: str) -> str:
    """Declare a durable queue, and return its name."""
    name, arguments = queue_name(kind, what), {"x-queue-type": kind}
    await called_back(
        lambda done: channel.queue_declare(name, durable=True, arguments=arguments, callback=done)
    )
    return name


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect twice: to publish and to consume."""
    connections = [
        await called_back(
            lambda done: AsyncioConnection(pika.URLParameters(RABBIT), on_open_callback=done)
        )
        for _ in range(2)
    ]
    try:
        yield System(*connections)
    finally:
        for connection in connections:
            await called_back(partial(close, connection))


def close(connection: AsyncioConnection, done: Callable[[Any], None]) -> None:
    """Close a connection; *done* is called once it is."""
    connection.add_on_close_callback(lambda _, reason: done(reason))
    connection.close()


def worker() -> None:
    """Be nothing: there is no worker."""


ABOUT = About(
    settings=f"Up to {IN_FLIGHT} confirms in flight, prefetch {PREFETCH}, one ack per message.",
    not_guaranteed="It is no system: only what client library and server carry.",
    packages=("pika",),
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
