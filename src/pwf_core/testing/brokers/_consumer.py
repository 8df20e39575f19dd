"""What the tests of brokers do over and over: receive until it is there, show that nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from pwf_core.commands import Message
from pwf_core.errors import BrokerUnavailableError
from pwf_core.ports import Broker, Delivery
from pwf_core.testing.harness import PATIENCE
from pwf_core.testing.making import SERVICE, message

__all__ = ["assert_empty", "names", "receive", "receive_and_ack", "receive_some"]

_PAUSE = 0.1
_MOST = 100  # messages asked for at once


async def receive(broker: Broker, count: int, *services: str) -> list[Delivery]:
    """Return deliveries that name the next *count* messages, or are problems; not acked."""
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while (missing := count - _size(found)) > 0:
            found += await receive_some(broker, min(missing, _MOST), *services)
    return found


async def receive_some(broker: Broker, limit: int, *services: str) -> list[Delivery]:
    """Return what the broker gives out when it is asked for *limit* messages, and has any; not acked.

    A server under load may refuse to be consumed for a moment; what it holds must come all the
    same, as it does for workers, who ask again.
    """
    wanted = services or (SERVICE,)
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(BrokerUnavailableError):
                deliveries = await broker.receive(wanted, limit)
                if deliveries:
                    return deliveries
            await broker.idle(wanted, _PAUSE)


async def receive_and_ack(broker: Broker, count: int, *services: str) -> list[Message]:
    """Return the next *count* messages, each acked before more are asked for, as workers do."""
    found: list[Message] = []
    async with asyncio.timeout(PATIENCE):
        while (missing := count - len(found)) > 0:
            deliveries = await receive_some(broker, min(missing, _MOST), *services)
            await broker.ack(deliveries)
            found += names(deliveries)
    return found


def names(deliveries: Sequence[Delivery]) -> list[Message]:
    """Return the messages that *deliveries* name."""
    return [one for delivery in deliveries for one in delivery.messages]


async def assert_empty(broker: Broker, service: str = SERVICE) -> None:
    """Show that the queue of *service* has nothing, by a message that arrives alone."""
    fence = message(f"{service}.fence")

    assert [True] == await broker.publish([fence])
    assert [fence] == await receive_and_ack(broker, 1, service)
    assert [] == await broker.receive([service], 10)


def _size(deliveries: Sequence[Delivery]) -> int:
    return sum(len(one.messages) or 1 for one in deliveries)
