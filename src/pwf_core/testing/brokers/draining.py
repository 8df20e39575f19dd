"""Draining: how `purge` gets at what waits in a queue."""

from __future__ import annotations

import asyncio

from pwf_core.commands import Message
from pwf_core.ports import Broker
from pwf_core.testing.brokers._consumer import assert_empty, names, receive, receive_and_ack
from pwf_core.testing.harness import PATIENCE, Harness, behaviour
from pwf_core.testing.making import SERVICE, message


async def _drain(broker: Broker, count: int, limit: int = 100) -> list[Message]:
    found: list[Message] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            deliveries = await broker.drain(SERVICE, limit)
            found += names(deliveries)
            await broker.ack(deliveries)
    return found


@behaviour()
async def test_drain_empties_the_queue(harness: Harness[Broker]) -> None:
    """Draining gives what waits; acked, it is gone for everybody."""
    broker = await harness.connect()
    sent = [message() for _ in range(30)]
    await broker.publish(sent)

    drained = await _drain(broker, 30, limit=7)
    assert {one.call_id for one in sent} == {one.call_id for one in drained}
    assert [] == await broker.drain(SERVICE, 10)
    await assert_empty(broker)


@behaviour()
async def test_drain_of_nothing_is_empty(harness: Harness[Broker]) -> None:
    """An empty queue drains empty, and so does one that there is not."""
    broker = await harness.connect()
    await broker.publish([message()])
    await receive_and_ack(broker, 1)

    assert [] == await broker.drain(SERVICE, 10)
    assert [] == await broker.drain("nobody", 10)


@behaviour()
async def test_drain_leaves_other_services(harness: Harness[Broker]) -> None:
    """Draining one service takes nothing of another."""
    broker = await harness.connect()
    other = message("other.task")
    await broker.publish([message(), other])
    await _drain(broker, 1)

    assert [other] == await receive_and_ack(broker, 1, "other")


@behaviour()
async def test_drained_and_unacked_comes_again(harness: Harness[Broker]) -> None:
    """What was drained and not acked is delivered again after a close."""
    first, second = await harness.connect(), await harness.connect()
    sent = message()
    await first.publish([sent])
    async with asyncio.timeout(PATIENCE):
        while not await first.drain(SERVICE, 10):
            await asyncio.sleep(0.01)
    await first.close()

    assert [sent] == await receive_and_ack(second, 1)


@behaviour()
async def test_drain_takes_nothing_from_a_consumer(harness: Harness[Broker]) -> None:
    """What a consumer holds is not in the queue."""
    first, second = await harness.connect(), await harness.connect()
    sent = message()
    await first.publish([sent])
    (held,) = await receive(first, 1)

    assert [] == await second.drain(SERVICE, 10)
    await first.ack([held])
