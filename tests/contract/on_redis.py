"""Harnesses of the Redis adapter. Its scripts take the time as an argument: tests pass theirs.

Ports connect as a user who may do what `pwf_redis.checks` lists, and nothing else; those of the blocking
flavour also what is used if it is allowed, where the server knows it.
"""

from __future__ import annotations

import asyncio
import time
from functools import cache
from typing import Any

from redis import Redis
from tests.least import redis_user

from pwf_core.adapters import Settings, Url
from pwf_core.commands import Message
from pwf_core.names import service_of
from pwf_core.paired import BlockingPaired, Paired
from pwf_core.state import Rules
from pwf_redis.adapter import adapter
from pwf_redis.checks import NEEDED, NEEDED_BY_STREAMS, USED_IF_ALLOWED
from pwf_redis.consuming import ABANDONED_MS, GROUP, Consuming
from pwf_redis.keys import Keys

from .flavours import Driving
from .served import Served

_MINUTE = 60_000


@cache
def knows_functions(url: str) -> bool:
    """Return whether the server can keep scripts as functions."""
    with Redis.from_url(url) as redis:
        return int(redis.info("server")["redis_version"].partition(".")[0]) >= 7


class _AsLeastUser(Served):
    """Ports on Redis that may do little; the harness may do everything."""

    allowed: tuple[str, ...] = NEEDED

    def __init__(self, *, redis_url: str, **rest: Any) -> None:
        self.admin_url = redis_url
        allowed = self.allowed
        if rest["blocking"] and knows_functions(redis_url):
            allowed = (*allowed, *USED_IF_ALLOWED)
        name = f"worker-{len(allowed)}"
        url = redis_user(redis_url, "*", allowed, name)  # tests have namespaces of their own
        super().__init__(redis_url=url, **rest)

    def admin(self) -> Any:
        """Return a client that may do everything."""
        return Redis.from_url(self.admin_url)

    async def add(self, stream: str, body: bytes) -> None:
        """Put a message into a stream."""

        def put() -> None:
            with self.admin() as redis:
                redis.xadd(stream, {"m": body})

        await asyncio.to_thread(put)


class _Redis(_AsLeastUser):
    """State on Redis, by a clock that only tests move."""

    tick = 1000
    virtual = True

    async def open(self, rules: Rules) -> None:
        await super().open(rules)
        self.now_ms = int(time.time() * 1000)
        self.stores: list[Any] = []

    async def elapse(self, ms: int) -> None:
        self.now_ms += ms
        for store in self.stores:
            store.operations.now_ms = self.now_ms
        if ms > _MINUTE:
            await asyncio.to_thread(self.expire, ms)

    def expire(self, ms: int) -> None:
        """Have the server's own expiry, which asks nobody for the time, come as much earlier."""
        with self.admin() as redis:
            for key in redis.scan_iter(f"*{self.names[0]}*"):
                left = redis.pttl(key)
                if left > 0:
                    redis.pexpire(key, max(left - ms, 1))
        time.sleep(0.005)

    async def remember(self) -> None:
        def keep() -> dict[bytes, bytes]:
            with self.admin() as redis:
                found = {key: redis.dump(key) for key in redis.scan_iter(f"*{self.names[0]}*")}
                # A token may be taken meanwhile.
                return {key: value for key, value in found.items() if value is not None}

        self.remembered = await asyncio.to_thread(keep)

    async def rewind(self) -> None:
        def put_back() -> None:
            with self.admin() as redis:
                for key in redis.scan_iter(f"*{self.names[0]}*"):
                    redis.delete(key)
                for key, value in self.remembered.items():
                    redis.restore(key, 0, value)

        await asyncio.to_thread(put_back)

    def timed(self, store: Any) -> Any:
        self.stores.append(store)
        store.operations.now_ms = self.now_ms
        return store


def make_store(blocking: bool, settings: Settings, url: str) -> Any:
    make = adapter.blocking_store if blocking else adapter.store
    return make(Url.parse(url), settings)


class RedisStoreHarness(_Redis):
    paired = True

    def make(self, settings: Settings, redis_url: str) -> Any:
        return self.timed(make_store(self.blocking, settings, redis_url))


class RedisBackendHarness(_Redis):
    async def inject(self, service: str, body: bytes) -> None:
        await self.add(Keys(self.names[0]).queue(service), body)

    async def redeliver(self, message: Message) -> None:
        entry = f"{message.run_id}:{message.call_id}:{message.generation}"
        await self.inject(service_of(message.address), entry.encode())

    def make(self, settings: Settings, redis_url: str) -> Any:
        make = adapter.blocking_backend if self.blocking else adapter.backend
        return self.timed(make(Url.parse(redis_url), settings))


class RedisBrokerHarness(_AsLeastUser):
    allowed = (*NEEDED, *NEEDED_BY_STREAMS)

    def make(self, settings: Settings, redis_url: str) -> Any:
        make = adapter.blocking_broker if self.blocking else adapter.broker
        return make(Url.parse(redis_url), settings)

    async def crash(self, port: Any) -> None:
        await super().crash(port)
        await asyncio.to_thread(self.age, port.consuming)
        for other in self.ports:
            other.consuming._last_look.clear()

    def age(self, dead: Consuming) -> None:
        """Have half a minute pass, for what a dead consumer holds."""
        with Redis.from_url(self.admin_url) as redis:
            for stream in map(dead.keys.stream, dead.served):
                pending = redis.xpending_range(stream, GROUP, "-", "+", 1000, dead.consumer)
                if pending:
                    ids = [one["message_id"] for one in pending]
                    redis.xclaim(stream, GROUP, dead.consumer, 0, ids, idle=ABANDONED_MS)

    async def inject(self, service: str, body: bytes) -> None:
        await self.add(Keys(self.names[0]).stream(service), body)


class RedisPairedHarness(_Redis):
    allowed = (*NEEDED, *NEEDED_BY_STREAMS)
    paired = True

    async def inject(self, service: str, body: bytes) -> None:
        await self.add(Keys(self.names[0]).stream(service), body)

    def make(self, settings: Settings, redis_url: str) -> Any:
        store = self.timed(make_store(self.blocking, settings, redis_url))
        url = Url.parse(redis_url)
        if self.blocking:
            return BlockingPaired(adapter.blocking_broker(url, settings), store)
        return Paired(adapter.broker(url, settings), store)


class RealTime:
    """By the server's own clock."""

    tick = 100
    virtual = False

    def timed(self, store: Any) -> Any:
        return store

    async def elapse(self, ms: int) -> None:
        await Served.elapse(self, ms)


class RedisWorkflowHarness(RealTime, Driving, RedisBackendHarness):
    pass


class RedisPairedWorkflowHarness(RealTime, Driving, RedisPairedHarness):
    pass
