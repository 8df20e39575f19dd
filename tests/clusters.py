"""A private Redis Cluster: real nodes on loopback, with their slots and replicas."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, ClassVar

import attrs

from pwf.testing.servers import LOOPBACK, RedisServer, ValkeyServer

__all__ = ["Node", "RedisCluster", "ValkeyNode", "redis_cluster"]

SLOTS = 16_384
_LIMIT = 30.0  # seconds until a cluster is one


class Node(RedisServer):
    """One node; alone until it meets others."""

    def __init__(self, *config: str) -> None:
        super().__init__(*config)
        self._further = config

    _port_names: ClassVar[tuple[str, ...]] = ("main", "bus")

    def _launch(self) -> Any:
        self._config = (
            *self._further,
            "cluster-enabled yes",
            f"cluster-port {self._ports['bus']}",
            "cluster-node-timeout 1000",
            "cluster-require-full-coverage no",
            "repl-diskless-sync-delay 0",
        )
        return super()._launch()

    @property
    def address(self) -> tuple[str, int]:
        """Where clients find it."""
        return LOOPBACK, self.port

    def ask(self, *command: str | int) -> Any:
        """Send a command to this very node."""
        from redis import Redis

        with Redis(*self.address) as admin:
            return admin.execute_command(*command)

    def master_of(self, slot: int) -> int | None:
        """Return the port of the master that has a slot, as far as this one knows."""
        for begin, end, (_, port, *_), *_ in self.ask("CLUSTER", "SLOTS"):
            if begin <= slot <= end:
                return int(port)
        return None

    def announce(self, port: int) -> None:
        """Have clients be sent to another port: that of a hop in front of it."""
        self._further = (*self._further, f"cluster-announce-port {port}")
        self.ask("CONFIG", "SET", "cluster-announce-port", port)

    @property
    def bus(self) -> int:
        """Where other nodes find it."""
        return self._ports["bus"]

    @property
    def id(self) -> str:
        """Its name among nodes."""
        return str(self.ask("CLUSTER", "MYID").decode())


class ValkeyNode(Node, ValkeyServer):
    """The same of Valkey."""


@attrs.frozen
class RedisCluster:
    """Masters, with a share of the slots each, and their replicas, one each or none."""

    masters: Sequence[Node]
    replicas: Sequence[Node]

    @property
    def nodes(self) -> list[Node]:
        """All of them."""
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        """What clients connect to; two nodes are enough to find the rest."""
        hosts = ",".join(f"{LOOPBACK}:{node.port}" for node in self.masters[:2])
        return f"redis+cluster://{hosts}"

    def join(self) -> None:
        """Make one cluster of the nodes."""
        first = self.masters[0]
        count = len(self.masters)
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if node is not first:
                node.ask("CLUSTER", "MEET", *first.address, first.bus)
        for number, node in enumerate(self.masters):
            begin, end = SLOTS * number // count, SLOTS * (number + 1) // count - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", begin, end)
        _until(lambda: all(self._knows_all(node) for node in self.nodes))
        for replica, master in zip(self.replicas, self.masters, strict=False):
            replica.ask("CLUSTER", "REPLICATE", master.id)
        _until(lambda: all(self.is_ready(node) for node in self.nodes))
        _until(lambda: all(_info(node)["master_link_status"] == "up" for node in self.replicas))

    def _knows_all(self, node: Node) -> bool:
        return len(node.ask("CLUSTER", "NODES").splitlines()) == len(self.nodes)

    def is_ready(self, node: Node) -> bool:
        """Whether a node says that every slot has a master."""
        return b"cluster_state:ok" in node.ask("CLUSTER", "INFO")

    def announce(self, ports: Sequence[int]) -> None:
        """Have every master send clients to these ports, one for each: those of hops in front of them."""
        for node, port in zip(self.masters, ports, strict=True):
            node.announce(port)
        _until(lambda: all(_shown_by(node) == {*ports} for node in self.masters))

    def replicated(self) -> None:
        """Wait until the replicas have everything that has been written so far."""
        for master, replica in zip(self.masters, self.replicas, strict=True):
            written = _info(master)["master_repl_offset"]
            _until(lambda r=replica, w=written: _info(r)["slave_repl_offset"] >= w)  # type: ignore[misc]

    def move(self, slot: int, to: Node) -> None:
        """Move a slot with its keys to another master, as an operator does."""
        source = self.master_of(slot)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.ask("MIGRATE", *to.address, "", 0, 5000, "KEYS", *keys)
        for node in (to, source, *self.nodes):
            if b"slave" not in node.ask("ROLE")[0]:
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)

    def master_of(self, slot: int) -> Node:
        """Return the master that has that slot now, as the others see it."""
        from redis.exceptions import ConnectionError as GoneError

        for node in self.nodes:
            with suppress(GoneError):
                if port := node.master_of(slot):
                    return next(one for one in self.nodes if one.port == port)
        raise LookupError(slot)


def _shown_by(node: Node) -> set[int]:
    """Return the ports to which a node sends clients."""
    return {int(port) for _, _, (_, port, *_), *_ in node.ask("CLUSTER", "SLOTS")}


def _info(node: Node) -> dict[str, Any]:
    from redis import Redis

    with Redis(*node.address) as admin:
        found: dict[str, Any] = admin.info("replication")
        return found


def _until(check: Any) -> None:
    deadline = time.monotonic() + _LIMIT
    while not check():
        assert time.monotonic() < deadline, "the nodes do not become a cluster"
        time.sleep(0.02)


@contextmanager
def redis_cluster(
    *, masters: int = 3, replicas: bool = False, kind: type[Node] = Node
) -> Iterator[RedisCluster]:
    """Give out a cluster with so many masters."""
    with ExitStack() as stack:
        count = masters * (2 if replicas else 1)
        nodes = [stack.enter_context(kind()) for _ in range(count)]
        cluster = RedisCluster(nodes[:masters], nodes[masters:])
        cluster.join()
        yield cluster
