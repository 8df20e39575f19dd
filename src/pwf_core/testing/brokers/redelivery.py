"""Acknowledging: what is not acked comes again, what is acked or rejected does not."""

from __future__ import annotations

import asyncio

from pwf_core.commands import Message
from pwf_core.ports import Broker
from pwf_core.testing.brokers._consumer import assert_empty, names, receive, receive_and_ack
from pwf_core.testing.harness import PATIENCE, Harness, behaviour
from pwf_core.testing.making import SERVICE, message


@behaviour()
async def test_unacked_comes_again_after_close(harness: Harness[Broker]) -> None:
    """What a consumer received and did not ack goes to another once it has closed."""
    first, second = await harness.connect(), await harness.connect()
    sent = [message() for _ in range(5)]
    await first.publish(sent)
    await receive(first, 5)
    await first.close()

    received = await receive_and_ack(second, 5)
    assert {one.call_id for one in sent} == {one.call_id for one in received}


@behaviour()
async def test_unacked_comes_again_after_crash(harness: Harness[Broker]) -> None:
    """What a consumer received and did not ack goes to another once its connection is gone."""
    first, second = await harness.connect(doomed=True), await harness.connect()
    sent = [message() for _ in range(5)]
    await first.publish(sent)
    await receive(first, 5)
    await harness.crash(first)

    received = await receive_and_ack(second, 5)
    assert {one.call_id for one in sent} == {one.call_id for one in received}


@behaviour()
async def test_prefetched_comes_again_after_crash(harness: Harness[Broker]) -> None:
    """What was on its way to a consumer that died is lost no more than what it had received."""
    first, second = await harness.connect(doomed=True), await harness.connect()
    sent = [message() for _ in range(50)]
    await second.publish(sent)
    deliveries = await receive(first, 1)
    await first.ack(deliveries)  # which may be lost with the connection
    seen = {one.call_id for one in names(deliveries)}
    await harness.crash(first)

    async with asyncio.timeout(PATIENCE):
        while not seen >= {one.call_id for one in sent}:
            seen |= {one.call_id for one in await receive_and_ack(second, 1)}


@behaviour()
async def test_acked_does_not_come_again(harness: Harness[Broker]) -> None:
    """An acked message is gone, whatever happens to its consumer."""
    first, second = await harness.connect(), await harness.connect()
    await first.publish([message() for _ in range(5)])
    await receive_and_ack(first, 5)
    await first.close()

    await assert_empty(second)


@behaviour()
async def test_only_the_unacked_comes_again(harness: Harness[Broker]) -> None:
    """Acks count one by one, in any order."""
    first, second = await harness.connect(), await harness.connect()
    sent = [message() for _ in range(6)]
    for one in sent:  # one by one: each is a delivery of its own
        await first.publish([one])
    deliveries = await receive(first, 6)
    kept = [deliveries[2], deliveries[4]]
    await first.ack([one for one in reversed(deliveries) if one not in kept])
    await first.close()

    received = await receive_and_ack(second, 2)
    assert {one.call_id for one in names(kept)} == {one.call_id for one in received}
    await assert_empty(second)


@behaviour()
async def test_ack_twice_is_fine(harness: Harness[Broker]) -> None:
    """A second ack does nothing, and takes nothing along with it."""
    broker = await harness.connect()
    await broker.publish([message()])
    deliveries = await receive(broker, 1)
    await broker.ack(deliveries)
    other = message()
    await broker.publish([other])
    (held,) = await receive(broker, 1)
    await broker.ack(deliveries)
    await broker.ack([])
    await broker.close()

    again = await harness.connect()
    assert list(held.messages) == await receive_and_ack(again, 1)
    await assert_empty(again)


@behaviour()
async def test_same_delivery_twice_in_one_ack(harness: Harness[Broker]) -> None:
    """An ack may name a delivery twice."""
    broker = await harness.connect()
    await broker.publish([message()])
    (delivery,) = await receive(broker, 1)
    await broker.ack([delivery, delivery])

    await assert_empty(broker)


@behaviour()
async def test_ack_of_another_connection_is_left(harness: Harness[Broker]) -> None:
    """A delivery of a connection that is gone cannot be acked any more: it comes again."""
    first, second = await harness.connect(doomed=True), await harness.connect()
    sent = message()
    await first.publish([sent])
    deliveries = await receive(first, 1)
    await harness.crash(first)
    await second.publish([message("other.task")])
    (mine,) = await receive(second, 1, "other")
    await second.ack([mine])

    assert [sent] == await receive_and_ack(second, 1)
    assert [sent] == names(deliveries)


@behaviour()
async def test_unacked_is_with_one_consumer_only(harness: Harness[Broker]) -> None:
    """While its consumer holds it, a message is delivered to nobody, that consumer included."""
    first, second = await harness.connect(), await harness.connect()
    sent = message()
    await first.publish([sent])
    held = await receive(first, 1)
    fences = [message(f"{SERVICE}.fence") for _ in range(40)]  # any consumer may get any of them
    for fence in fences:
        await first.publish([fence])
    seen: list[Message] = []
    async with asyncio.timeout(PATIENCE):
        while len(seen) < len(fences):
            for broker in (first, second):
                deliveries = await broker.receive([SERVICE], 10)
                await broker.ack(deliveries)
                seen += names(deliveries)
            await second.idle([SERVICE], 0.01)

    assert {one.call_id for one in fences} == {one.call_id for one in seen}
    await first.ack(held)


@behaviour()
async def test_rejected_is_set_aside(harness: Harness[Broker]) -> None:
    """A rejected message does not come again, to nobody; its neighbours are not touched."""
    first, second = await harness.connect(), await harness.connect()
    sent = [message() for _ in range(3)]
    for one in sent:
        await first.publish([one])
    deliveries = await receive(first, 3)
    (bad,) = [one for one in deliveries if sent[1] in one.messages]
    await first.reject([bad])
    await first.ack([one for one in deliveries if one is not bad])
    await first.close()

    await assert_empty(second)


@behaviour()
async def test_reject_twice_is_fine(harness: Harness[Broker]) -> None:
    """Rejecting again, or acking what was rejected, does nothing, and the consumer goes on."""
    broker = await harness.connect()
    await broker.publish([message()])
    deliveries = await receive(broker, 1)
    await broker.reject(deliveries)
    await broker.reject(deliveries)
    await broker.ack(deliveries)
    await broker.reject([])

    await assert_empty(broker)


@behaviour()
async def test_redelivered_can_be_acked(harness: Harness[Broker]) -> None:
    """A redelivery is a delivery like any other."""
    first, second, third = [await harness.connect() for _ in range(3)]
    sent = message()
    await first.publish([sent])
    await receive(first, 1)
    await first.close()
    await receive_and_ack(second, 1)
    await second.close()

    assert [] == await third.receive([SERVICE], 1)
    await assert_empty(third)
