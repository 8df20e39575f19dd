"""Redis as a state store, to be paired with any message broker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

import attrs

from pwf_core.adapters import Settings
from pwf_core.capabilities import Capabilities
from pwf_core.commands import Command
from pwf_core.ids import RunId
from pwf_core.ports import Applied, Watch
from pwf_core.views import DeadLetter, RunView
from pwf_redis.client import Client, capabilities_of, operations_for
from pwf_redis.leases import RedisLeases
from pwf_redis.operations import Operations
from pwf_redis.partitions import Partitions
from pwf_redis.target import Target

__all__ = ["CAPABILITIES", "RedisStateStore"]

CAPABILITIES = Capabilities(technology="redis", durable=True, shared=True)


@attrs.define
class RedisStateStore:
    """A state store on one Redis server; made by `pwf_redis.adapter`."""

    operations: Operations | Partitions
    _client: Client

    @classmethod
    def on(cls, target: Target, settings: Settings) -> Self:
        """Return a store on a server."""
        operations = operations_for(target, settings)
        return cls(operations, Client(target, operations.open, operations.rung))

    @property
    def capabilities(self) -> Capabilities:
        """Durable and shared."""
        return capabilities_of(CAPABILITIES, self.operations)

    async def open(self) -> None:
        """See `StateStore.open`."""
        await self._client.open()

    async def close(self) -> None:
        """See `StateStore.close`."""
        await self._client.close()

    async def apply(
        self, commands: Sequence[Command], *, sweep: int = 0, partly: bool = False
    ) -> Applied:
        """See `StateStore.apply`."""
        steps = self.operations.apply(commands, sweep=sweep, partly=partly)
        return await self._client.run(steps)

    async def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """See `StateStore.read`."""
        return await self._client.run(self.operations.read(run_ids))

    def watch(self, run_id: RunId) -> AbstractAsyncContextManager[Watch]:
        """See `StateStore.watch`."""
        return self._client.watch(*self.operations.channel(run_id))

    def leases(self) -> RedisLeases:
        """See `StateStore.leases`."""
        return RedisLeases.of(self.operations, self._client.target)

    async def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """See `StateStore.dead_letters`."""
        return await self._client.run(self.operations.dead_letters(service, limit))

    async def purge(self, service: str) -> int:
        """See `StateStore.purge`."""
        return await self._client.run(self.operations.purge_waiting(service))
