"""Harnesses of the RabbitMQ adapter, alone and with the state on Redis.

Ports of the usual ones make their queues. Those of `Least…` connect as a user who may not, and find
queues that an operator has made for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pika
from tests.least import as_user

from pwf_core.adapters import Settings, Url
from pwf_core.commands import Message
from pwf_core.names import service_of
from pwf_core.paired import BlockingPaired, Paired
from pwf_rabbit.adapter import adapter
from pwf_rabbit.topology import Queue, Topology

from .flavours import Driving
from .on_redis import RealTime, _Redis, make_store
from .served import Served


class _Rabbit(Served):
    def __init__(self, *, options: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.options = options

    def make_broker(self, settings: Settings, url: str) -> Any:
        make = adapter.blocking_broker if self.blocking else adapter.broker
        return make(Url.parse(f"{url}?{self.options}"), settings)

    async def inject(self, service: str, body: bytes) -> None:
        queue = Topology(self.names[0]).queue(service).name
        await asyncio.to_thread(publish, self.urls["amqp_url"], queue, body)


class RabbitBrokerHarness(_Rabbit):
    def make(self, settings: Settings, amqp_url: str) -> Any:
        return self.make_broker(settings, amqp_url)


class RabbitBackendHarness(_Rabbit, _Redis):
    paired = True

    def make(self, settings: Settings, amqp_url: str, redis_url: str) -> Any:
        store = self.timed(make_store(self.blocking, settings, redis_url))
        broker = self.make_broker(settings, amqp_url)
        return BlockingPaired(broker, store) if self.blocking else Paired(broker, store)


class RabbitWorkflowHarness(RealTime, Driving, RabbitBackendHarness):
    pass


class _AsLeastUser:
    """Mixin: the ports' user may configure nothing."""

    def __init__(self, *, least_amqp_url: str, **rest: Any) -> None:
        self.operator_url = least_amqp_url
        super().__init__(amqp_url=as_user(least_amqp_url, "worker"), **rest)

    def make_broker(self, settings: Settings, url: str) -> Any:
        broker = super().make_broker(settings, url)  # type: ignore[misc]
        topology = Topology(settings.namespace)
        return _Attended(broker, topology, lambda queue: declare(self.operator_url, queue))


class _Attended:
    """A broker whose queues are made by somebody else, before it first uses them."""

    def __init__(self, broker: Any, topology: Topology, declare: Callable[[Queue], None]) -> None:
        self._broker = broker
        self._topology = topology
        self._declare = declare
        self._seen: set[str] = set()
        declare(topology.rejected)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def publish(self, messages: Sequence[Message]) -> Any:
        return self._at({service_of(one.address) for one in messages}).publish(messages)

    def receive(self, services: Sequence[str], limit: int) -> Any:
        return self._at(services).receive(services, limit)

    def idle(self, services: Sequence[str], timeout: float) -> Any:
        return self._at(services).idle(services, timeout)

    def drain(self, service: str, limit: int) -> Any:
        return self._at([service]).drain(service, limit)

    def _at(self, services: Iterable[str]) -> Any:
        for service in set(services) - self._seen:
            self._declare(self._topology.queue(service))
            self._seen.add(service)
        return self._broker


class LeastRabbitBrokerHarness(_AsLeastUser, RabbitBrokerHarness):
    pass


class LeastRabbitBackendHarness(_AsLeastUser, RabbitBackendHarness):
    pass


class LeastRabbitWorkflowHarness(_AsLeastUser, RabbitWorkflowHarness):
    pass


def declare(url: str, queue: Queue) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_declare(queue.name, durable=True, arguments=queue.arguments)


def publish(url: str, queue: str, body: bytes) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", queue, body, mandatory=True)
