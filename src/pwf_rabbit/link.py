"""The slice of AMQP that pwf uses: what each driver has to bring.

Errors that cross these protocols are pwf's own, and nothing here retries or has a deadline: both are
the business of who calls. All of it runs on one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol, TypeAlias

from pwf_rabbit.ledger import Ack
from pwf_rabbit.options import Options
from pwf_rabbit.topology import Queue

__all__ = ["MANDATORY", "PERSISTENT", "Channel", "Connect", "Link", "OnDelivery", "Sent"]

MANDATORY = True  # messages that no queue takes come back, instead of being confirmed and dropped
PERSISTENT = 2  # delivery mode: survives the restart of the server

OnDelivery: TypeAlias = Callable[[int, bytes], None]


class Sent(Enum):
    """What became of a published message."""

    CONFIRMED = "confirmed"  # the server has it
    RETURNED = "returned"  # there was no queue to put it into
    REFUSED = "refused"  # the server could not take it
    UNKNOWN = "unknown"  # the connection was lost before the answer


class Channel(Protocol):
    """A channel: numbered deliveries, numbered publishes, one question at a time."""

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        ...

    @property
    def is_consuming(self) -> bool:
        """Whether the server has cancelled none of its consumers."""
        ...

    async def declare(self, queue: Queue, *, passive: bool = False) -> None:
        """Make *queue*, or check that it is there as it should be; passive: only that it is there.

        Raises:
            ConfigurationError: If it has other arguments, or may not be made.
            QueueMissingError: If *passive*, and it is not there.
        """
        ...

    async def consume(self, queue: Queue, prefetch: int, on_delivery: OnDelivery) -> None:
        """Have deliveries of *queue* handed to *on_delivery*, up to *prefetch* (more) unacked."""
        ...

    def publish(self, queue: str, body: bytes, headers: Mapping[str, str]) -> asyncio.Future[Sent]:
        """Send a persistent message to *queue*; the future never fails."""
        ...

    async def ack(self, acks: Sequence[Ack]) -> None:
        """Acknowledge; silently nothing if the channel is closed."""
        ...

    async def get(self, queue: Queue) -> tuple[int, bytes] | None:
        """Take one message; None if there is none."""
        ...

    async def close(self) -> None:
        """Close it; what is not acked goes back to its queue."""
        ...


class Link(Protocol):
    """A connection."""

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        ...

    @property
    def lost(self) -> asyncio.Event:
        """Set once the connection is gone, for whatever reason."""
        ...

    async def is_blocked(self) -> bool:
        """Whether the server takes no messages now, being short of memory or disk."""
        ...

    async def channel(self, *, publishes: bool = False) -> Channel:
        """Open a channel, with confirms if it *publishes*."""
        ...

    async def close(self) -> None:
        """Close in order; what is not acked goes back to its queue. Again is fine."""
        ...


class Connect(Protocol):
    """What opens links."""

    async def __call__(self, options: Options, name: str) -> Link:
        """Return an open connection, called *name* in the server's lists."""
        ...
