"""Delivery: what is published arrives, whole, at who receives of its service."""

from __future__ import annotations

import asyncio

import pytest

from pwf_core.commands import Message
from pwf_core.ports import Broker
from pwf_core.testing.brokers._consumer import (
    assert_empty,
    names,
    receive,
    receive_and_ack,
    receive_some,
)
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import SERVICE, message


@behaviour()
async def test_message_makes_the_round_trip(harness: Harness[Broker]) -> None:
    """What was published arrives as it was, and names the service whose queue it came from."""
    broker = await harness.connect()
    sent = message(generation=3)

    assert [True] == await broker.publish([sent])
    (delivery,) = await receive(broker, 1)
    assert (sent,) == delivery.messages
    assert (SERVICE, "") == (delivery.service, delivery.problem)


@behaviour()
async def test_message_reaches_another_connection(harness: Harness[Broker]) -> None:
    """Publisher and consumer need nothing in common but the server and the namespace."""
    publisher, consumer = await harness.connect(), await harness.connect()
    sent = message()
    await publisher.publish([sent])

    assert [sent] == await receive_and_ack(consumer, 1)


@behaviour()
async def test_many_messages_arrive(harness: Harness[Broker]) -> None:
    """Of many messages each arrives, once as long as nothing breaks."""
    broker = await harness.connect()
    sent = [message() for _ in range(300)]
    for first in range(0, len(sent), 30):
        await broker.publish(sent[first : first + 30])

    received = await receive_and_ack(broker, len(sent))
    assert sorted(sent, key=_id) == sorted(received, key=_id)
    await assert_empty(broker)


@behaviour()
async def test_big_batch_arrives(harness: Harness[Broker]) -> None:
    """A batch may be larger than anything that the adapter sends at once."""
    broker = await harness.connect()
    sent = [message() for _ in range(2000)]

    assert [True] * len(sent) == await broker.publish(sent)
    received = await receive_and_ack(broker, len(sent))
    assert {one.call_id for one in sent} == {one.call_id for one in received}


@behaviour()
async def test_publish_of_nothing_is_fine(harness: Harness[Broker]) -> None:
    """An empty batch is confirmed by an empty answer."""
    broker = await harness.connect()

    assert [] == await broker.publish([])
    await assert_empty(broker)


@behaviour()
async def test_batch_goes_to_many_services(harness: Harness[Broker]) -> None:
    """The messages of one batch go each to the queue of its own service."""
    broker = await harness.connect()
    sent = [message(f"service-{number % 7}.task") for number in range(35)]

    assert [True] * len(sent) == await broker.publish(sent)
    for number in range(7):
        mine = [one for one in sent if one.address == f"service-{number}.task"]
        received = await receive_and_ack(broker, len(mine), f"service-{number}")
        assert sorted(mine, key=_id) == sorted(received, key=_id)


@behaviour()
async def test_single_consumer_sees_the_order(harness: Harness[Broker]) -> None:
    """One consumer gets one publisher's messages in their order, where the broker claims that."""
    broker = await harness.connect()
    sent = [message() for _ in range(100)]
    for first in range(0, len(sent), 9):
        await broker.publish(sent[first : first + 9])

    received = await receive_and_ack(broker, len(sent))
    if broker.capabilities.ordered:
        assert sent == received
    else:
        assert sorted(sent, key=_id) == sorted(received, key=_id)


@behaviour()
async def test_receive_keeps_to_the_limit(harness: Harness[Broker]) -> None:
    """Not more messages than asked for, unless one delivery names more."""
    broker = await harness.connect()
    assert [] == await broker.receive([SERVICE], 100)  # who takes more is sent more, ahead of time
    for sent in [*[[message()] for _ in range(10)], [message() for _ in range(10)]]:
        await broker.publish(sent)
    received = 0
    while received < 20:
        deliveries = await receive_some(broker, 3)
        received += len(names(deliveries))
        await broker.ack(deliveries)

        assert len(deliveries) == 1 or len(names(deliveries)) <= 3


@behaviour()
async def test_receive_of_an_empty_queue_returns_at_once(harness: Harness[Broker]) -> None:
    """Receiving does not wait, not even for a service that nobody has published to."""
    broker = await harness.connect()
    async with asyncio.timeout(10):
        assert [] == await broker.receive(["nobody"], 10)
        assert [] == await broker.receive(["nobody", "nothing"], 10)
        assert [] == await broker.receive([], 10)


@behaviour()
async def test_message_published_again_is_delivered_again(harness: Harness[Broker]) -> None:
    """A broker does not tell copies apart: an outbox may publish a copy that was lost once more."""
    broker = await harness.connect()
    sent = message()
    for _ in range(2):
        await broker.publish([sent])

        assert [sent] == await receive_and_ack(broker, 1)


@behaviour()
async def test_copies_in_one_batch_are_all_delivered(harness: Harness[Broker]) -> None:
    """The same message twice in a batch is two messages."""
    broker = await harness.connect()
    sent = message()

    assert [True, True] == await broker.publish([sent, sent])
    assert [sent, sent] == await receive_and_ack(broker, 2)


@pytest.mark.parametrize("generation", [0, 1, 2**31, 2**53])
@behaviour()
async def test_generation_arrives_as_it_was(harness: Harness[Broker], generation: int) -> None:
    """Numbers are not rounded on the way."""
    broker = await harness.connect()
    sent = message(generation=generation)
    await broker.publish([sent])

    assert [sent] == await receive_and_ack(broker, 1)


@behaviour()
async def test_many_publish_at_once(harness: Harness[Broker]) -> None:
    """Publishing is safe from many places at a time, beside somebody who receives and waits."""
    broker = await harness.connect()
    batches = [[message() for _ in range(10)] for _ in range(20)]
    receiving = asyncio.create_task(_receive_in_parts(broker, 10, 20))
    confirmed = await asyncio.gather(*(broker.publish(batch) for batch in batches))

    assert [[True] * 10] * 20 == confirmed
    sent = [one for batch in batches for one in batch]
    assert sorted(sent, key=_id) == sorted(await receiving, key=_id)


async def _receive_in_parts(broker: Broker, parts: int, size: int) -> list[Message]:
    """Receive as a worker does: not too much without an ack."""
    return [one for _ in range(parts) for one in await receive_and_ack(broker, size)]


def _id(named: Message) -> str:
    return named.call_id
