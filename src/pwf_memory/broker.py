"""The memory adapter as a broker: queues of encoded messages, as a real broker would carry them.

Several brokers made on the same `Queues` are several connections to one server.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs

from pwf_core.capabilities import Capabilities
from pwf_core.commands import Message
from pwf_core.errors import BrokerUnavailableError, CodecError
from pwf_core.names import service_of
from pwf_core.ports import Delivery
from pwf_core.wire import decode_messages, encode_messages
from pwf_memory.waiting import Door, idle, idle_blocking

__all__ = ["BlockingMemoryBroker", "MemoryBroker", "Queues"]

_CAPABILITIES = Capabilities(technology="memory")
_REJECTED = 1000  # kept for people to look at; older ones go


class Queues:
    """What a broker's server would hold."""

    def __init__(self) -> None:
        self.rejected: deque[bytes] = deque(maxlen=_REJECTED)
        self._lock = threading.RLock()
        self._waiting: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self._idle: dict[object, tuple[frozenset[str], Callable[[], None]]] = {}

    def put(self, service: str, body: bytes, *, front: bool = False) -> None:
        """Add a message to the queue of *service*."""
        with self._lock:
            queue = self._waiting[service]
            queue.appendleft(body) if front else queue.append(body)
            for services, wake in tuple(self._idle.values()):
                if service in services:
                    wake()

    def pop(self, service: str) -> bytes | None:
        """Take the first message of *service*, if there is one."""
        with self._lock:
            queue = self._waiting.get(service)
            return queue.popleft() if queue else None

    @contextmanager
    def on_work(self, services: Sequence[str], wake: Callable[[], None]) -> Iterator[None]:
        """Have *wake* called when *services* have a message; at once if they have."""
        token = object()
        with self._lock:
            self._idle[token] = (frozenset(services), wake)
            if any(self._waiting.get(service) for service in services):
                wake()
        try:
            yield
        finally:
            with self._lock:
                self._idle.pop(token, None)


@attrs.define
class _Consumer:
    """One connection: what it was given and has not acked. Nothing here waits."""

    queues: Queues
    door: Door = attrs.field(factory=lambda: Door(BrokerUnavailableError))
    unacked: dict[int, tuple[str, bytes]] = attrs.field(factory=dict)
    _last_tag: int = 0
    _turn: int = 0

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        self.door.check()
        for message in messages:
            self.queues.put(service_of(message.address), encode_messages([message]))
        return [True] * len(messages)

    def receive(self, services: Sequence[str], limit: int) -> list[Delivery]:
        """Return up to *limit* deliveries, one of each service in turn."""
        self.door.check()
        deliveries: list[Delivery] = []
        self._turn += 1
        start = self._turn % len(services) if services else 0
        waiting = [*services[start:], *services[:start]]
        while waiting and len(deliveries) < limit:
            service = waiting.pop(0)
            body = self.queues.pop(service)
            if body is not None:
                deliveries.append(self._deliver(service, body))
                waiting.append(service)
        return deliveries

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.unacked.pop(_tag(delivery), None)

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            held = self.unacked.pop(_tag(delivery), None)
            if held is not None:
                self.queues.rejected.append(held[1])

    def close(self) -> None:
        self.door.close()
        for service, body in reversed(self.unacked.values()):
            self.queues.put(service, body, front=True)
        self.unacked.clear()

    def _deliver(self, service: str, body: bytes) -> Delivery:
        self._last_tag += 1
        self.unacked[self._last_tag] = (service, body)
        try:
            messages = tuple(decode_messages(body))
        except CodecError as error:
            return Delivery(service, (), self._last_tag, problem=str(error))
        return Delivery(service, messages, self._last_tag)


def _tag(delivery: Delivery) -> int:
    assert isinstance(delivery.tag, int)
    return delivery.tag


def _consumer(queues: Queues | None) -> _Consumer:
    return _Consumer(queues or Queues())


@attrs.define
class MemoryBroker:
    """A broker inside this process."""

    _consumer: _Consumer = attrs.field(default=None, converter=_consumer)

    @property
    def capabilities(self) -> Capabilities:
        """Neither durable nor shared with other processes."""
        return _CAPABILITIES

    async def open(self) -> None:
        """See `Broker.open`."""
        self._consumer.door.open()

    async def close(self) -> None:
        """See `Broker.close`."""
        self._consumer.close()

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """See `Broker.publish`."""
        return self._consumer.publish(messages)

    async def receive(self, services: Sequence[str], limit: int) -> list[Delivery]:
        """See `Broker.receive`."""
        return self._consumer.receive(services, limit)

    async def idle(self, services: Sequence[str], timeout: float) -> None:
        """See `Broker.idle`."""
        await idle(self._consumer.door, self._consumer.queues, services, timeout)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.ack`."""
        self._consumer.ack(deliveries)

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.reject`."""
        self._consumer.reject(deliveries)

    async def drain(self, service: str, limit: int) -> list[Delivery]:
        """See `Broker.drain`."""
        return self._consumer.receive((service,), limit)


@attrs.define
class BlockingMemoryBroker:
    """Blocking twin of `MemoryBroker`."""

    _consumer: _Consumer = attrs.field(default=None, converter=_consumer)

    @property
    def capabilities(self) -> Capabilities:
        """Neither durable nor shared with other processes."""
        return _CAPABILITIES

    def open(self) -> None:
        """See `Broker.open`."""
        self._consumer.door.open()

    def close(self) -> None:
        """See `Broker.close`."""
        self._consumer.close()

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        """See `Broker.publish`."""
        return self._consumer.publish(messages)

    def receive(self, services: Sequence[str], limit: int) -> list[Delivery]:
        """See `Broker.receive`."""
        return self._consumer.receive(services, limit)

    def idle(self, services: Sequence[str], timeout: float) -> None:
        """See `Broker.idle`."""
        idle_blocking(self._consumer.door, self._consumer.queues, services, timeout)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.ack`."""
        self._consumer.ack(deliveries)

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.reject`."""
        self._consumer.reject(deliveries)

    def drain(self, service: str, limit: int) -> list[Delivery]:
        """See `Broker.drain`."""
        return self._consumer.receive((service,), limit)
