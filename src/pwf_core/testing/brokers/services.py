"""Queues: one per service, shared by its consumers, kept apart from all others."""

from __future__ import annotations

import asyncio

import pytest

from pwf_core.commands import Message
from pwf_core.ports import Broker
from pwf_core.testing.brokers._consumer import assert_empty, names, receive, receive_and_ack
from pwf_core.testing.harness import PATIENCE, Harness, behaviour
from pwf_core.testing.making import SERVICE, message


@behaviour()
async def test_message_waits_for_its_first_consumer(harness: Harness[Broker]) -> None:
    """What is published to a service that nobody has served yet waits there."""
    publisher = await harness.connect()
    sent = [message("later.task") for _ in range(3)]

    assert [True] * 3 == await publisher.publish(sent)
    await publisher.close()
    consumer = await harness.connect()
    received = await receive_and_ack(consumer, 3, "later")
    assert {one.call_id for one in sent} == {one.call_id for one in received}


@behaviour()
async def test_two_consumers_share(harness: Harness[Broker]) -> None:
    """Two consumers of a service get all its messages between them, each message once."""
    consumers = [await harness.connect(), await harness.connect()]
    sent = [message() for _ in range(100)]
    received: list[Message] = []

    async def consume(broker: Broker) -> None:
        while len(received) < len(sent):
            deliveries = await broker.receive([SERVICE], 5)
            received.extend(names(deliveries))
            await broker.ack(deliveries)
            if not deliveries:
                await broker.idle([SERVICE], 0.05)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for broker in consumers:
            group.create_task(consume(broker))
        for first in range(0, len(sent), 10):
            await consumers[0].publish(sent[first : first + 10])

    assert sorted(one.call_id for one in sent) == sorted(one.call_id for one in received)


@behaviour()
async def test_services_are_kept_apart(harness: Harness[Broker]) -> None:
    """Who receives of one service gets nothing of another."""
    broker = await harness.connect()
    here, there = message("here.task"), message("there.task")
    await broker.publish([here, there])

    assert [here] == await receive_and_ack(broker, 1, "here")
    await assert_empty(broker, "here")
    assert [there] == await receive_and_ack(broker, 1, "there")


@behaviour()
async def test_consumer_of_several_services(harness: Harness[Broker]) -> None:
    """One consumer may receive of many services, and each delivery says of which it is."""
    broker = await harness.connect()
    services = [f"service-{number}" for number in range(10)]
    await broker.publish([message(f"{service}.task") for service in services])
    deliveries = await receive(broker, 10, *services)
    await broker.ack(deliveries)

    assert sorted(services) == sorted(one.service for one in deliveries)
    for delivery in deliveries:
        (named,) = delivery.messages
        assert f"{delivery.service}.task" == named.address


@behaviour()
async def test_services_may_change_between_calls(harness: Harness[Broker]) -> None:
    """What one receives of is said with every call."""
    broker = await harness.connect()
    one, two = message("one.task"), message("two.task")
    await broker.publish([one, two])

    assert [one] == await receive_and_ack(broker, 1, "one")
    assert [two] == await receive_and_ack(broker, 1, "one", "two")


@pytest.mark.parametrize(
    "service",
    [
        pytest.param("x" * 64, id="64"),
        pytest.param("x" * 100, id="100"),
        pytest.param("größe-日本語-🎉", id="unicode"),
        pytest.param("é" * 50, id="100-bytes"),
        pytest.param("with space", id="space"),
        pytest.param("*[a-z]?#{x}:/%41", id="wildcards"),
        pytest.param("'\"\\;--", id="quotes"),
        pytest.param("UPPER", id="upper"),
    ],
)
@behaviour()
async def test_service_may_have_any_allowed_name(harness: Harness[Broker], service: str) -> None:
    """Every name that the core allows has a queue, and one of its own."""
    broker = await harness.connect()
    sent, other = message(f"{service}.task-é"), message("upper.task")
    await broker.publish([other, sent])
    (delivery,) = await receive(broker, 1, service)
    await broker.ack([delivery])

    assert (service, (sent,)) == (delivery.service, delivery.messages)
    assert [other] == await receive_and_ack(broker, 1, "upper")


@behaviour()
async def test_namespaces_are_kept_apart(harness: Harness[Broker]) -> None:
    """Two deployments on one server share no queue, though their services have the same names."""
    here, there = await harness.connect(), await harness.elsewhere()
    sent = message()
    await here.publish([sent])

    await assert_empty(there)
    assert [sent] == await receive_and_ack(here, 1)
