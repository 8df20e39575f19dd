"""Servers, proxies and URLs of one backend: Redis alone, RabbitMQ with Redis; the same on a Redis Cluster."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Self
from urllib.parse import quote

from tests.chaos.proxy import Proxy
from tests.chaos.workflows import alpha, beta
from tests.clusters import Node, RedisCluster

from pwf.testing.servers import LOOPBACK, PrivateServer, RabbitServer, RedisServer

__all__ = ["BACKENDS", "NAMESPACE", "Site"]

BACKENDS = ("redis", "rabbit", "cluster", "rabbit-cluster")
NAMESPACE = "chaos"

_TIMEOUT = 2  # seconds, so that a connection that has gone deaf is given up soon
_HEARTBEAT = 2


class Site:
    """The servers of a backend, each behind a proxy.

    Attributes:
        servers: By name: "redis" or the masters of a cluster, and perhaps "rabbit".
        proxies: Those in front of them, by the same names.
    """

    def __init__(self, backend: str, chance: random.Random, retention: timedelta) -> None:
        self.backend = backend
        self._chance = chance
        self._retention = retention
        self._stack = AsyncExitStack()
        # "no" leaves it to the page cache: a killed server loses nothing that it has acknowledged,
        # where "everysec" may put off a write while an fsync is under way.
        self.servers: dict[str, PrivateServer]
        if backend.endswith("cluster"):
            self.servers = {f"node{number}": Node("appendfsync no") for number in (1, 2, 3)}
        else:
            self.servers = {"redis": RedisServer("appendfsync no")}
        if backend.startswith("rabbit"):
            self.servers["rabbit"] = RabbitServer()
        self.proxies: dict[str, Proxy] = {}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for name, server in self.servers.items():
                await asyncio.to_thread(server.start)
                stack.push_async_callback(asyncio.to_thread, server.stop)
                proxy = Proxy(LOOPBACK, server.port, self._chance)
                self.proxies[name] = await stack.enter_async_context(proxy)
            await self._join({n: one for n, one in self.servers.items() if isinstance(one, Node)})
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def _join(self, nodes: Mapping[str, Node]) -> None:
        """Make a cluster whose clients are sent to the proxies, wherever they ask."""
        if not nodes:
            return
        cluster = RedisCluster([*nodes.values()], ())
        await asyncio.to_thread(cluster.join)
        await asyncio.to_thread(cluster.announce, [self.proxies[name].port for name in nodes])

    @property
    def url(self) -> str:
        """The backend by way of the proxies."""
        return self._url({name: proxy.port for name, proxy in self.proxies.items()})

    @property
    def direct_url(self) -> str:
        """The backend without anything in between."""
        return self._url({name: server.port for name, server in self.servers.items()})

    @property
    def redis_ports(self) -> list[int]:
        """Where each Redis listens itself."""
        return [server.port for name, server in self.servers.items() if name != "rabbit"]

    def _url(self, ports: dict[str, int]) -> str:
        own = f"namespace={NAMESPACE}&retention={self._retention.total_seconds():g}s"
        amqp = ports.pop("rabbit", None)
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in ports.values())
        scheme = "redis+cluster" if self.backend.endswith("cluster") else "redis"
        redis = f"{scheme}://{hosts}?timeout={_TIMEOUT}"
        if amqp is None:
            return f"{redis}&{own}"
        options = f"timeout={_TIMEOUT}&heartbeat={_HEARTBEAT}&store={quote(redis, safe='')}"
        return f"amqp://guest:guest@{LOOPBACK}:{amqp}/?{own}&{options}"

    async def settled(self) -> None:
        """Wait until the servers can be killed without forgetting what they have just been told.

        RabbitMQ 3.10 writes down the name of a new quorum queue a moment after it has said that the
        queue is there; killed in that moment, it forgets the queue.
        """
        if "rabbit" not in self.servers:
            return
        names = [f"pwf.{NAMESPACE}.{service.name}".encode() for service in (alpha, beta)]
        async with asyncio.timeout(60):
            while not self._are_written_down(names):  # noqa: ASYNC110 -- a file has no event
                await asyncio.sleep(0.1)

    def _are_written_down(self, names: list[bytes]) -> bool:
        files = self.servers["rabbit"].folder.rglob("names.dets")
        found = b"".join(file.read_bytes() for file in files)
        return all(name in found for name in names)
