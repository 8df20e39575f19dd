"""Harnesses of Redis Cluster: what those of one server do, with runs spread over the nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import attrs
from redis.cluster import ClusterNode, RedisCluster
from tests.least import PASSWORD, as_user, redis_rules

from pwf_core.adapters import Settings, Url
from pwf_core.commands import Message
from pwf_core.names import service_of
from pwf_core.state import Rules
from pwf_redis.backend import RedisBackend
from pwf_redis.blocking import BlockingRedisBackend, BlockingRedisStateStore
from pwf_redis.checks import NEEDED, NEEDED_BY_CLUSTERS, USED_IF_ALLOWED
from pwf_redis.cluster import Address, ClusterTarget
from pwf_redis.keys import Keys
from pwf_redis.layout import Layout
from pwf_redis.store import RedisStateStore
from pwf_redis.target import Target

from .flavours import Driving
from .on_redis import RealTime, RedisBackendHarness, RedisStoreHarness
from .served import Plan, Served
from .wire import Wire

__all__ = ["ClusterBackendHarness", "ClusterStoreHarness", "ClusterWorkflowHarness"]

# Tests have namespaces of their own.
_MAY = (f">{PASSWORD}", *redis_rules("*", (*NEEDED, *NEEDED_BY_CLUSTERS, *USED_IF_ALLOWED)))


@cache
def _admin(url: str) -> Any:
    """Return a client that may do everything; it takes long to make."""
    first = urlsplit(f"//{urlsplit(url).netloc.split(',')[0]}")
    return RedisCluster(startup_nodes=[ClusterNode(first.hostname, first.port)])


class _Clustered:
    """Ports connect as a user who may do little."""

    blocking: bool
    partitions: int
    kinds: tuple[Any, Any]  # for an event loop, for threads

    def __init__(self, *, redis_url: str, **rest: Any) -> None:
        self.url = redis_url
        Served.__init__(self, **rest)  # type: ignore[arg-type]

    def admin(self) -> Any:
        return nullcontext(_admin(self.url))

    async def open(self, rules: Rules) -> None:
        await super().open(rules)  # type: ignore[misc]
        self.nodes = await asyncio.to_thread(self.make_user)

    def make_user(self) -> list[int]:
        """Make the user at every node; return their ports."""
        with self.admin() as redis:
            rules = ("ACL", "SETUSER", "worker", "reset", "on", *_MAY)
            redis.execute_command(*rules, target_nodes=RedisCluster.ALL_NODES)
            return [node.port for node in redis.get_nodes()]

    async def plan(self, *, here: bool, doomed: bool) -> Plan:
        """Return what makes ports; over a wire to each node if they are to be cut."""
        wires = {
            port: await Wire(f"redis://127.0.0.1:{port}").open() for port in self.nodes if doomed
        }
        settings = self.settings(here)  # type: ignore[attr-defined]
        ports = {port: urlsplit(wire.url).port or 0 for port, wire in wires.items()}
        plan = Plan(lambda: self.make_over(settings, ports), [*wires.values()])
        self.plans.append(plan)  # type: ignore[attr-defined]
        return plan

    def make_over(self, settings: Settings, ports: Mapping[int, int]) -> Any:
        """Return a port that finds nodes at other ports than their own."""
        url = Url.parse(f"{as_user(self.url, 'worker')}?partitions={self.partitions}")
        target = attrs.evolve(_Wired.of_url(url), ports=ports)
        return self.timed(self.kinds[self.blocking].on(target, settings))  # type: ignore[attr-defined]


@attrs.frozen(kw_only=True)
class _Wired(ClusterTarget):
    """Reaches nodes by way of other ports than those where they say that they are."""

    ports: Mapping[int, int] = attrs.field(factory=dict)

    def node(self, address: Address) -> Target:
        host, port = address
        return super().node((host, self.ports.get(port, port)))


class ClusterStoreHarness(_Clustered, RedisStoreHarness):
    partitions = 3
    kinds = (RedisStateStore, BlockingRedisStateStore)


class ClusterBackendHarness(_Clustered, RedisBackendHarness):
    partitions = 8
    kinds = (RedisBackend, BlockingRedisBackend)

    async def redeliver(self, message: Message) -> None:
        entry = f"{message.run_id}:{message.call_id}:{message.generation}"
        layout = Layout(paired=False, sizes=(self.partitions,))
        keys = Keys(self.names[0], layout.place_of(message.run_id))
        await self.add(keys.queue(service_of(message.address)), entry.encode())


class ClusterWorkflowHarness(RealTime, Driving, ClusterBackendHarness):
    pass
