"""Which node of a Redis Cluster has which slot, and the URL of one.

`redis+cluster://user:password@host1:6379,host2:6379?partitions=8`: any of its nodes, which are asked
where the others are. Whoever is told that a slot lies elsewhere, or finds a node away, asks again
before the next round trip. See https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/.

redis-py's own clients for clusters are not used: they repeat commands, and take no two slots at once.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from pwf_core.adapters import Url
from pwf_core.errors import ConfigurationError, StoreUnavailableError
from pwf_core.steps import Steps
from pwf_redis.keys import MOST_PARTITIONS
from pwf_redis.target import (
    DEFAULT_TIMEOUT,
    OPTIONS,
    BlockingConnection,
    Connection,
    Target,
    hosts_of,
    network_arguments,
    seconds,
)

__all__ = ["SLOTS", "Address", "Cluster", "ClusterTarget"]

Address: TypeAlias = tuple[str, int]
"""Host and port of a node."""

SLOTS = ("CLUSTER", "SLOTS")
_FORM = "redis+cluster://host:6379,host:6379"
_PORT = 6379


@attrs.define(eq=False)
class Cluster:
    """What is known about the nodes; for any thread.

    Attributes:
        seeds: Those that the URL names.
    """

    seeds: tuple[Address, ...]
    _shares: list[tuple[int, int, Address]] = attrs.field(factory=list, init=False)
    _order: list[Address] = attrs.field(
        default=attrs.Factory(lambda self: [*self.seeds], takes_self=True), init=False
    )
    _is_doubted: bool = attrs.field(default=True, init=False)

    def address_of(self, slot: int) -> Address | None:
        """Return which master has a slot; None if none is known."""
        for begin, end, address in self._shares:
            if begin <= slot <= end:
                return address
        return None

    @property
    def masters(self) -> list[Address]:
        """All that have slots, or the seeds if nothing is known yet."""
        return [*dict.fromkeys(address for _, _, address in self._shares)] or [*self.seeds]

    @property
    def is_doubted(self) -> bool:
        """Whether what is known should be asked for before it is used."""
        return self._is_doubted

    def doubt(self, address: Address | None = None) -> None:
        """Note that something was not where it should be, or that a node is in trouble.

        One that is may be cut off from the others and tell of old times: it is asked last.
        """
        if address is not None:
            self._order = [*(one for one in self._order if one != address), address]
        self._is_doubted = True

    def find(self) -> Steps[Address, None]:
        """Ask one node after the other, until one says who has which slots; a step is whom to ask.

        Raises:
            StoreUnavailableError: If none does.
            ConfigurationError: If a server is not part of a cluster.
        """
        problems = []
        for address in tuple(self._order):
            try:
                shares = yield address
            except ConfigurationError:
                raise
            except Exception as error:  # noqa: BLE001 -- whatever it is, another one may answer
                problems.append(str(error).rstrip(".") or f"{address[0]}:{address[1]} is silent")
                continue
            self._learn(address, shares)
            return
        raise StoreUnavailableError(
            f"No node of the cluster says who has which slots: {'; '.join(problems)}."
        )

    def _learn(self, said_by: Address, shares: Any) -> None:
        found = []
        others = []
        for begin, end, *nodes in shares:
            # One that does not know its own name leaves it out: it is where it was asked.
            names = [((host or b"").decode() or said_by[0], port) for host, port, *_ in nodes]
            found.append((begin, end, names[0]))
            others += names
        self._shares, self._is_doubted = found, not found
        self._order = [*dict.fromkeys([said_by, *others, *self.seeds])]


@attrs.frozen(kw_only=True)
class ClusterTarget(Target):
    """The nodes of a cluster; it makes no connections itself.

    Attributes:
        cluster: Where they are.
        partitions: How many partitions a namespace is to have at least; None to take it as it is.
    """

    cluster: Cluster
    partitions: int | None = None

    @classmethod
    def of_url(cls, url: Url) -> ClusterTarget:
        """Return the target of `redis+cluster://` or `rediss+cluster://`.

        Raises:
            ConfigurationError: If the URL or an option makes no sense, or a file cannot be used.
        """
        url.refuse_unknown(*OPTIONS, "partitions")
        hosts = hosts_of(url, _PORT)
        if not all(host for host, _ in hosts):
            raise ConfigurationError(f"{url}: this takes nodes of a cluster: {_FORM}.")
        if url.path.strip("/") not in {"", "0"}:
            raise ConfigurationError(f"{url}: a cluster has no other database than 0.")
        return cls(
            where=f"the cluster of {', '.join(f'{host}:{port}' for host, port in hosts)}",
            timeout=url.option("timeout", seconds, DEFAULT_TIMEOUT),
            arguments={
                "username": url.username or None,
                "password": url.password or None,
                **network_arguments(url, "rediss+cluster"),
            },
            tls=url.scheme == "rediss+cluster",
            cluster=Cluster(tuple(hosts)),
            partitions=url.option("partitions", _partitions, None),
        )

    def node(self, address: Address) -> Target:
        """Return one of them."""
        host, port = address
        return Target(
            where=f"{host}:{port}",
            timeout=self.timeout,
            arguments={"host": host, "port": port, **self.arguments},
            tls=self.tls,
        )

    def briefly(self, address: Address) -> Target:
        """Return one that counts as away so soon that others can be asked in the same time."""
        others = 2 * len(self.cluster.masters)
        return attrs.evolve(self.node(address), timeout=self.timeout / others)

    def place(self, slot: int) -> Target:
        """Return whatever node has a slot, each time that a connection is made."""
        return _SlotTarget(where=self.where, timeout=self.timeout, cluster=self, slot=slot)


@attrs.frozen(kw_only=True)
class _SlotTarget(Target):
    cluster: ClusterTarget
    slot: int

    def _here_and_now(self) -> Target:
        address = self.cluster.cluster.address_of(self.slot)
        return self.cluster.node(address or self.cluster.cluster.seeds[0])

    def doubt(self) -> None:
        self.cluster.cluster.doubt(self.cluster.cluster.address_of(self.slot))

    def is_current(self, connection: Connection | BlockingConnection) -> bool:
        here: Any = connection
        arguments = self._here_and_now().arguments
        return bool((here.host, here.port) == (arguments["host"], arguments["port"]))

    def connection(self) -> Connection:
        return self._here_and_now().connection()

    def blocking_connection(self) -> BlockingConnection:
        return self._here_and_now().blocking_connection()


def _partitions(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST_PARTITIONS:
        raise ValueError(f"it is a number of partitions from 1 to {MOST_PARTITIONS}")
    return value
