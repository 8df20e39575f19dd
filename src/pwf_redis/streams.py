"""Redis Streams as a plain broker, to be paired with any store; see `consuming` for how it works.

On its own Redis is faster and simpler as the fused backend. This is for state that has to live
elsewhere, and for comparing brokers.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self, TypeVar

import attrs

from pwf_core.adapters import Settings
from pwf_core.capabilities import Capabilities
from pwf_core.commands import Message
from pwf_core.errors import BrokerUnavailableError, StoreFullError, StoreUnavailableError
from pwf_core.ports import Delivery
from pwf_core.steps import Steps
from pwf_redis.blocking import BlockingClient
from pwf_redis.checks import Facts
from pwf_redis.client import Client
from pwf_redis.consuming import Consuming
from pwf_redis.keys import Keys
from pwf_redis.rounds import Round
from pwf_redis.target import Target

__all__ = ["BlockingRedisStreamsBroker", "RedisStreamsBroker"]

T = TypeVar("T")

_CAPABILITIES = Capabilities(technology="redis streams", durable=True, shared=True)


def _consuming(target: Target, settings: Settings) -> Consuming:
    facts = Facts(where=target.where, durability=settings.durability)
    return Consuming(Keys(settings.namespace), facts, _new_name(), settings.signer)


def _new_name() -> str:
    return secrets.token_hex(8)


@contextmanager
def _as_broker() -> Iterator[None]:
    """Say of the same server that the broker is away, not the store."""
    try:
        yield
    except (StoreUnavailableError, StoreFullError) as error:
        raise BrokerUnavailableError(str(error)) from error


@attrs.define
class RedisStreamsBroker:
    """A broker on one Redis server; made by `pwf_redis.adapter`."""

    consuming: Consuming
    _client: Client

    @classmethod
    def on(cls, target: Target, settings: Settings) -> Self:
        """Return a broker on a server."""
        consuming = _consuming(target, settings)
        return cls(consuming, Client(target, consuming.open, consuming.rung))

    @property
    def capabilities(self) -> Capabilities:
        """Durable and shared."""
        return _CAPABILITIES

    async def open(self) -> None:
        """See `Broker.open`."""
        with _as_broker():
            await self._client.open()

    async def close(self) -> None:
        """See `Broker.close`."""
        if self.consuming.served:
            try:
                with _as_broker():
                    await self._client.run(self.consuming.close())
            except BrokerUnavailableError:
                pass  # others take it over in a while
            finally:
                self.consuming.served.clear()
                self.consuming.consumer = _new_name()
        await self._client.close()

    async def _run(self, steps: Steps[Round, T]) -> T:
        with _as_broker():
            return await self._client.run(steps)

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """See `Broker.publish`."""
        return await self._run(self.consuming.publish(messages))

    async def receive(self, services: Sequence[str], limit: int) -> list[Delivery]:
        """See `Broker.receive`."""
        now = asyncio.get_running_loop().time()
        return await self._run(self.consuming.receive(services, limit, now))

    async def idle(self, services: Sequence[str], timeout: float) -> None:
        """See `Broker.idle`."""
        with _as_broker():
            await self._client.wait_for_work(
                lambda: self.consuming.has_work(services),
                lambda: self.consuming.bells(services),
                timeout,
            )

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.ack`."""
        await self._run(self.consuming.settle(deliveries, reject=False))

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.reject`."""
        await self._run(self.consuming.settle(deliveries, reject=True))

    async def drain(self, service: str, limit: int) -> list[Delivery]:
        """See `Broker.drain`."""
        return await self.receive((service,), limit)


@attrs.define
class BlockingRedisStreamsBroker:
    """Blocking twin of `RedisStreamsBroker`."""

    consuming: Consuming
    _client: BlockingClient

    @classmethod
    def on(cls, target: Target, settings: Settings) -> Self:
        """Return a broker on a server."""
        consuming = _consuming(target, settings)
        return cls(consuming, BlockingClient(target, consuming.open, consuming.rung))

    @property
    def capabilities(self) -> Capabilities:
        """Durable and shared."""
        return _CAPABILITIES

    def open(self) -> None:
        """See `Broker.open`."""
        with _as_broker():
            self._client.open()

    def close(self) -> None:
        """See `Broker.close`."""
        if self.consuming.served:
            try:
                with _as_broker():
                    self._client.run(self.consuming.close())
            except BrokerUnavailableError:
                pass  # others take it over in a while
            finally:
                self.consuming.served.clear()
                self.consuming.consumer = _new_name()
        self._client.close()

    def _run(self, steps: Steps[Round, T]) -> T:
        with _as_broker():
            return self._client.run(steps)

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        """See `Broker.publish`."""
        return self._run(self.consuming.publish(messages))

    def receive(self, services: Sequence[str], limit: int) -> list[Delivery]:
        """See `Broker.receive`."""
        return self._run(self.consuming.receive(services, limit, time.monotonic()))

    def idle(self, services: Sequence[str], timeout: float) -> None:
        """See `Broker.idle`."""
        with _as_broker():
            self._client.wait_for_work(
                lambda: self.consuming.has_work(services),
                lambda: self.consuming.bells(services),
                timeout,
            )

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.ack`."""
        self._run(self.consuming.settle(deliveries, reject=False))

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.reject`."""
        self._run(self.consuming.settle(deliveries, reject=True))

    def drain(self, service: str, limit: int) -> list[Delivery]:
        """See `Broker.drain`."""
        return self.receive((service,), limit)
