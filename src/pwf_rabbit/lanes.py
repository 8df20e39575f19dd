"""A lane: one service's consumer, what it was given, and what waits here to be received."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

import attrs

from pwf_core.errors import PwfError
from pwf_core.ports import Delivery
from pwf_core.signing import Signer
from pwf_rabbit.envelopes import unpack
from pwf_rabbit.ledger import Ledger
from pwf_rabbit.link import Channel
from pwf_rabbit.topology import Queue

__all__ = ["Lane", "Tag", "Tray"]


@attrs.define(eq=False)
class Tray:
    """What one channel delivered: an epoch. Once the channel is closed, all of it comes again.

    Attributes:
        channel: The epoch lasts as long as it is open.
        signer: Must find genuine what arrives; None where messages are not signed.
        ledger: What is not acked.
        is_orphan: Whether the server cancelled the consumer. Its queue may have been deleted, and
            then what lies here exists nowhere else in the broker.
        is_over: Whether its lane has ended it; the channel may still be closing.
    """

    channel: Channel
    signer: Signer | None
    ledger: Ledger = attrs.field(factory=Ledger)
    is_orphan: bool = False
    is_over: bool = False

    @property
    def is_valid(self) -> bool:
        """Whether what lies here should be handed out; otherwise it comes again by itself."""
        return self.is_orphan or (self.channel.is_open and not self.is_over)

    def deliver(self, service: str, number: int, body: bytes) -> Delivery:
        """Note what arrived, and return it as a delivery."""
        messages, problem = unpack(body, self.signer, service)
        parts = max(1, len(messages))
        self.ledger.add(number, parts)
        return Delivery(service, messages, Tag(self, number, parts, body * bool(problem)), problem)


@attrs.define(eq=False)
class Tag:
    """The handle of a delivery.

    Attributes:
        tray: Where it lies.
        number: Its number there.
        parts: How many parts of that number it is; calls that share a message can be handed out
            apart, and the message is acked with the last of them.
        body: As it came, if it could not be decoded.
        settled: Whether it was acked; a second time does nothing.
    """

    tray: Tray
    number: int
    parts: int
    body: bytes = b""
    settled: bool = False


@attrs.define(eq=False)
class Lane:
    """One service's consumer.

    Attributes:
        arrived: Called when there is something to receive.
        tray: The present epoch; None between two.
        trouble: Why it could not be raised at the last attempt.
        judged: Set once an attempt to raise it has ended, well or not.
        was_up: Whether it has ever been up.
        failures: Attempts that failed in a row.
        retry_at: When to try again, by the loop's clock.
        prefetch: How many AMQP messages may be here without being acked.
        signer: Must find genuine what arrives; None where messages are not signed.
        is_short: Whether somebody had room for more than that lately.
        parked: Whether it waits to be asked for again before it consumes.
        renew_at: When to consume anew, by the loop's clock, if nothing is delivered before.
    """

    service: str
    queue: Queue
    arrived: Callable[[], None]
    prefetch: int
    signer: Signer | None = None
    is_short: bool = False
    tray: Tray | None = None
    trouble: PwfError | None = None
    judged: asyncio.Event = attrs.field(factory=asyncio.Event)
    was_up: bool = False
    failures: int = 0
    retry_at: float = 0.0
    parked: bool = False
    renew_at: float = 0.0
    _buffer: deque[tuple[float, Delivery]] = attrs.field(factory=deque, init=False)

    @property
    def is_up(self) -> bool:
        """Whether the server pushes into it."""
        return self.tray is not None and self.tray.channel.is_consuming

    @property
    def is_silent(self) -> bool:
        """Whether all that was delivered is acked."""
        return self.tray is not None and not self.tray.ledger

    @property
    def is_exhausted(self) -> bool:
        """Whether the server holds back because all that it may push is here, and was received."""
        return (
            self.tray is not None and not self.has_work and len(self.tray.ledger) >= self.prefetch
        )

    @property
    def has_work(self) -> bool:
        """Whether there is something to receive."""
        while self._buffer and not _tray(self._buffer[0][1]).is_valid:
            self._buffer.popleft()
        return bool(self._buffer)

    def waiting(self, now: float) -> float:
        """Return for how long, in seconds, the first delivery has been waiting here."""
        return now - self._buffer[0][0] if self._buffer else 0.0

    def begin(self, channel: Channel) -> Tray:
        """Start an epoch."""
        self.tray = Tray(channel, self.signer)
        return self.tray

    def end(self) -> Channel | None:
        """End the epoch, and return its channel, which is to be closed."""
        tray, self.tray = self.tray, None
        if tray is None:
            return None
        tray.is_over = True
        tray.is_orphan = tray.channel.is_open and not tray.channel.is_consuming
        return tray.channel

    def deliver(self, tray: Tray, number: int, body: bytes) -> None:
        """Take in what the server pushed."""
        if tray is self.tray:
            self.renew_at = math.inf
            self.put(tray.deliver(self.service, number, body))

    def put(self, delivery: Delivery) -> None:
        """Have *delivery* handed out (again), if its epoch lasts."""
        if _tray(delivery).is_valid:
            self._buffer.append((asyncio.get_running_loop().time(), delivery))
            self.arrived()

    def take(self, room: int) -> Delivery:
        """Return the first delivery, or as many of its calls as there is room for."""
        since, first = self._buffer.popleft()
        if len(first.messages) <= room:
            return first
        tag = first.tag
        assert isinstance(tag, Tag)
        left = len(first.messages) - room
        rest = Delivery(self.service, first.messages[room:], Tag(tag.tray, tag.number, left))
        self._buffer.appendleft((since, rest))
        return Delivery(self.service, first.messages[:room], Tag(tag.tray, tag.number, room))


def _tray(delivery: Delivery) -> Tray:
    assert isinstance(delivery.tag, Tag)
    return delivery.tag.tray
