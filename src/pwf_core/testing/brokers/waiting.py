"""Waiting and closing: a consumer is woken by work, and leaves when it is told to."""

from __future__ import annotations

import asyncio
import time

import pytest

from pwf_core.errors import BrokerUnavailableError
from pwf_core.ports import Broker
from pwf_core.testing.brokers._consumer import receive_and_ack
from pwf_core.testing.harness import PATIENCE, Harness, behaviour
from pwf_core.testing.making import SERVICE, message

_WHILE = 0.1  # seconds in which who has nothing to wait for would be back


@behaviour()
async def test_idle_is_over_when_work_comes(harness: Harness[Broker]) -> None:
    """Who waits is woken by a message that another connection publishes, long before the time-out."""
    consumer, publisher = await harness.connect(), await harness.connect()
    await consumer.receive([SERVICE], 1)
    waiting = asyncio.create_task(consumer.idle([SERVICE], 2 * PATIENCE))
    ended, _ = await asyncio.wait([waiting], timeout=_WHILE)
    sent = message()
    await publisher.publish([sent])
    async with asyncio.timeout(PATIENCE):
        await waiting

    assert not ended
    assert [sent] == await receive_and_ack(consumer, 1)


@behaviour()
async def test_idle_returns_when_work_is_there(harness: Harness[Broker]) -> None:
    """What was published before one began to wait counts, too."""
    consumer, publisher = await harness.connect(), await harness.connect()
    sent = message()
    await publisher.publish([sent])
    async with asyncio.timeout(PATIENCE):
        await consumer.idle([SERVICE], 2 * PATIENCE)

    assert [sent] == await receive_and_ack(consumer, 1)


@behaviour()
async def test_idle_ends_with_its_time(harness: Harness[Broker]) -> None:
    """Without work, waiting is over after the time-out, and that is no error."""
    broker = await harness.connect()
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        await broker.idle([SERVICE], _WHILE)
        waited = time.monotonic() - began
        await broker.idle([SERVICE, "other"], 0)

    assert waited > 0.8 * _WHILE  # clocks differ in their resolution


@behaviour()
async def test_close_lets_go_who_waits(harness: Harness[Broker]) -> None:
    """Closing ends every wait; who waited sees at most that the connection is gone."""
    broker = await harness.connect()
    await broker.receive([SERVICE], 1)
    waiting = [asyncio.create_task(broker.idle([SERVICE], 2 * PATIENCE)) for _ in range(3)]
    ended, _ = await asyncio.wait(waiting, timeout=_WHILE)
    async with asyncio.timeout(PATIENCE):
        await broker.close()
        ends = await asyncio.gather(*waiting, return_exceptions=True)

    assert not ended
    assert all(one is None or isinstance(one, BrokerUnavailableError) for one in ends)


@behaviour()
async def test_closed_broker_does_nothing(harness: Harness[Broker]) -> None:
    """It says that it is closed, and neither takes nor gives anything."""
    broker, other = await harness.connect(), await harness.connect()
    sent = message()
    await other.publish([sent])
    await broker.close()

    for attempt in (
        lambda: broker.publish([message()]),
        lambda: broker.receive([SERVICE], 1),
        lambda: broker.drain(SERVICE, 1),
        lambda: broker.idle([SERVICE], PATIENCE),
    ):
        with pytest.raises(BrokerUnavailableError):
            await attempt()
    assert [sent] == await receive_and_ack(other, 1)


@behaviour()
async def test_close_twice_is_fine(harness: Harness[Broker]) -> None:
    """Closing what is closed does nothing."""
    broker = await harness.connect()
    await broker.publish([message()])
    await broker.close()
    await broker.close()


@behaviour()
async def test_close_after_crash_is_fine(harness: Harness[Broker]) -> None:
    """A broker whose connection is gone closes in good time, and without an error."""
    broker = await harness.connect(doomed=True)
    await broker.publish([message()])
    await harness.crash(broker)
    async with asyncio.timeout(PATIENCE):
        await broker.close()
        await broker.close()


@behaviour()
async def test_closed_broker_opens_again(harness: Harness[Broker]) -> None:
    """A broker may be opened anew after it was closed: blocking clients do that."""
    broker = await harness.connect()
    sent = message()
    await broker.publish([sent])
    await broker.close()
    await broker.open()

    assert [sent] == await receive_and_ack(broker, 1)
