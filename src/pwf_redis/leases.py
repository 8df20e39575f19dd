"""Renewing leases from a thread of its own, over connections of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import attrs

from pwf_core.commands import Renew, Reply
from pwf_core.steps import Steps, drive
from pwf_redis.cluster import ClusterTarget
from pwf_redis.cluster_links import BlockingClusterLinks
from pwf_redis.links import MOST, BlockingLinks
from pwf_redis.operations import Operations
from pwf_redis.partitions import Partitions
from pwf_redis.target import Target

__all__ = ["RedisLeases", "blocking_links_to"]

# Seconds. On a cluster a node that is silent must not let the leases at the others run out.
_PATIENCE = 1.0


def blocking_links_to(target: Target, most: int = MOST) -> BlockingLinks | BlockingClusterLinks:
    """Return connections to a server or a cluster."""
    if isinstance(target, ClusterTarget):
        return BlockingClusterLinks(target, most)
    return BlockingLinks(target, most)


@attrs.define
class RedisLeases:
    """See `Leases`; of a port that has been opened, and so has checked the server."""

    _operations: Operations | Partitions
    _links: BlockingLinks | BlockingClusterLinks

    @classmethod
    def of(cls, operations: Operations | Partitions, target: Target) -> Self:
        """Return what renews the leases of one namespace on a server."""
        if isinstance(target, ClusterTarget):
            target = attrs.evolve(target, timeout=min(target.timeout, _PATIENCE))
        return cls(operations, blocking_links_to(target, most=1))

    def renew(self, renewals: Sequence[Renew]) -> list[Reply]:
        """See `Leases.renew`."""
        steps: Steps[Any, list[Reply]] = self._operations.renew(renewals)
        return drive(steps, self._links.perform)

    def close(self) -> None:
        """See `Leases.close`."""
        self._links.close()
