"""What aio-pika carries: confirmed publishes, acknowledged consumes, and both at once in chains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
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

FULL = 5000  # messages


class System:
    """The client's side, and the only one."""

    def __init__(self, publishing: AbstractConnection, consuming: AbstractConnection) -> None:
        self._publishing = publishing
        self._consuming = consuming

    async def figures(self, scale: float) -> dict[str, float]:
        """Return each limit, per second."""
        measures = {"publish": self._publish, "consume": self._consume, "relay": self._relay}
        return await figures(measures, int(FULL * scale))

    async def _publish(self, kind: str, count: int) -> int:
        channel = await self._publishing.channel(publisher_confirms=True)
        await declare(channel, kind, "plain")
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def one() -> None:
            async with gate:
                await send(channel, queue_name(kind, "plain"), BODY)

        await asyncio.gather(*(one() for _ in range(count)))
        await channel.close()
        return count

    async def _consume(self, kind: str, count: int) -> int:
        """Consume what `_publish` has put there."""
        channel = await self._consuming.channel()
        await channel.set_qos(PREFETCH)
        queue = await declare(channel, kind, "plain")
        done, seen = asyncio.Event(), 0

        async def on_message(message: AbstractIncomingMessage) -> None:
            nonlocal seen
            await message.ack()
            seen += 1
            if seen == count:
                done.set()

        await queue.consume(on_message)
        await done.wait()
        await channel.close()
        return count

    async def _relay(self, kind: str, count: int) -> int:
        """Run chains: each message is followed by another, and acknowledged once that is confirmed."""
        steps = max(STEPS * count // FULL, 2)
        publisher = await self._publishing.channel(publisher_confirms=True)
        consumer = await self._consuming.channel()
        await consumer.set_qos(PREFETCH)
        queue = await declare(consumer, kind, "relay")
        done, ended = asyncio.Event(), 0

        async def on_message(message: AbstractIncomingMessage) -> None:
            nonlocal ended
            left = message.body[0]
            if left > 1:
                await send(publisher, queue.name, bytes([left - 1]) + BODY)
            else:
                ended += 1
                if ended == CHAINS:
                    done.set()
            await message.ack()

        await queue.consume(on_message)
        await asyncio.gather(
            *(send(publisher, queue.name, bytes([steps]) + BODY) for _ in range(CHAINS))
        )
        await done.wait()
        await consumer.close()
        await publisher.close()
        return CHAINS * steps


async def declare(channel: AbstractChannel, kind: str, what: str) -> aio_pika.abc.AbstractQueue:
    """Declare a durable queue."""
    arguments: Any = {"x-queue-type": kind}
    return await channel.declare_queue(queue_name(kind, what), durable=True, arguments=arguments)


async def send(channel: AbstractChannel, queue: str, body: bytes) -> None:
    """Publish a persistent message, and wait until it is confirmed."""
    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await channel.default_exchange.publish(message, routing_key=queue, mandatory=True)


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect twice: to publish and to consume."""
    async with await aio_pika.connect(RABBIT) as one, await aio_pika.connect(RABBIT) as other:
        yield System(one, other)


def worker() -> None:
    """Be nothing: there is no worker."""


ABOUT = About(
    settings=f"Up to {IN_FLIGHT} confirms in flight, prefetch {PREFETCH}, one ack per message.",
    not_guaranteed="It is no system: only what client library and server carry.",
    packages=("aio-pika", "aiormq"),
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
