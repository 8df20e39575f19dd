"""Harnesses of the RabbitMQ adapter, alone and with the state on Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pika

from pwf_core.adapters import Settings, Url
from pwf_core.paired import BlockingPaired, Paired
from pwf_rabbit.adapter import adapter
from pwf_rabbit.topology import Topology

from .flavours import Driving
from .on_redis import _RealTime, _Redis, make_store
from .served import Served


class RabbitBrokerHarness(Served):
    def __init__(self, *, options: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.options = options

    def make(self, settings: Settings, amqp_url: str) -> Any:
        return make_broker(self.blocking, settings, f"{amqp_url}?{self.options}")

    async def inject(self, service: str, body: bytes) -> None:
        queue = Topology(self.names[0]).queue(service).name
        await asyncio.to_thread(publish, self.urls["amqp_url"], queue, body)


class RabbitBackendHarness(_Redis):
    paired = True

    def __init__(self, *, options: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.options = options

    def make(self, settings: Settings, amqp_url: str, redis_url: str) -> Any:
        store = self.timed(make_store(self.blocking, settings, redis_url))
        broker = make_broker(self.blocking, settings, f"{amqp_url}?{self.options}")
        return BlockingPaired(broker, store) if self.blocking else Paired(broker, store)

    async def inject(self, service: str, body: bytes) -> None:
        queue = Topology(self.names[0]).queue(service).name
        await asyncio.to_thread(publish, self.urls["amqp_url"], queue, body)


class RabbitWorkflowHarness(_RealTime, Driving, RabbitBackendHarness):
    pass


def make_broker(blocking: bool, settings: Settings, url: str) -> Any:
    make = adapter.blocking_broker if blocking else adapter.broker
    return make(Url.parse(url), settings)


def publish(url: str, queue: str, body: bytes) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", queue, body, mandatory=True)
