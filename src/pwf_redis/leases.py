"""Renewing leases from a thread of its own, over a connection of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import attrs

from pwf_core.commands import Renew, Reply
from pwf_core.steps import drive
from pwf_redis.links import BlockingLinks
from pwf_redis.operations import Operations
from pwf_redis.target import Target

__all__ = ["RedisLeases"]


@attrs.define
class RedisLeases:
    """See `Leases`; of a port that has been opened, and so has checked the server."""

    _operations: Operations
    _links: BlockingLinks

    @classmethod
    def of(cls, operations: Operations, target: Target) -> Self:
        """Return what renews the leases of one namespace on a server."""
        return cls(operations, BlockingLinks(target, most=1))

    def renew(self, renewals: Sequence[Renew]) -> list[Reply]:
        """See `Leases.renew`."""
        steps = self._operations.apply(renewals, sweep=0)
        return drive(steps, lambda effect: self._links.ask(effect.commands)).replies

    def close(self) -> None:
        """See `Leases.close`."""
        self._links.close()
