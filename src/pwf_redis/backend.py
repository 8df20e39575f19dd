"""The fused backend: state and queues on one Redis, so that commit, publish and ack are one step.

Theory of operation. A service's queue is a stream without consumer groups. `exchange` is one script
call: it fires due timers, applies commands, and takes messages from the head of the streams, leasing
their calls and deleting the messages in the same atomic step. So there is no pending list and
nothing to reclaim; the lease's timer, kept by the same server, is the only way back. A call that is
enqueued and taken by the same exchange never touches its stream at all.

Idle workers block on a list that holds at most one token per service, and have the exchange that a token
calls for right behind. Tokens are hints: they may come too often or get lost with a worker, so nobody waits
for one for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Self

import attrs

from pwf_core.adapters import Settings
from pwf_core.capabilities import Capabilities
from pwf_core.commands import Command, Reply
from pwf_core.ids import RunId
from pwf_core.ports import Exchanged, Take, Watch
from pwf_core.views import DeadLetter, RunView
from pwf_redis.client import Client, capabilities_of, operations_for
from pwf_redis.leases import RedisLeases
from pwf_redis.operations import Operations
from pwf_redis.partitions import Partitions
from pwf_redis.target import Target

__all__ = ["CAPABILITIES", "WHY_UNSIGNED", "RedisBackend"]

CAPABILITIES = Capabilities(technology="redis", durable=True, shared=True, fused=True)
WHY_UNSIGNED = (
    "Messages never leave Redis here, and whoever can write to it can write to the state itself, so "
    "a signature would protect nothing."
)


@attrs.define
class RedisBackend:
    """A backend on one Redis server; made by `pwf_redis.adapter`."""

    operations: Operations | Partitions
    _client: Client

    @classmethod
    def on(cls, target: Target, settings: Settings) -> Self:
        """Return a backend on a server.

        Raises:
            UnsupportedError: If messages are to be signed.
        """
        settings.refuse_signing(WHY_UNSIGNED)
        operations = operations_for(target, settings)
        return cls(operations, Client(target, operations.open, operations.rung))

    @property
    def capabilities(self) -> Capabilities:
        """Durable, shared and fused."""
        return capabilities_of(CAPABILITIES, self.operations)

    async def open(self) -> None:
        """See `Backend.open`."""
        await self._client.open()

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._client.close()

    async def apply(self, commands: Sequence[Command]) -> list[Reply]:
        """See `Backend.apply`."""
        applied = await self._client.run(self.operations.apply(commands, sweep=0))
        return applied.replies

    async def exchange(self, commands: Sequence[Command], take: Take) -> Exchanged:
        """See `Backend.exchange`."""
        return await self._client.run(self.operations.exchange(commands, take))

    async def idle(self, take: Take, timeout: float) -> Exchanged | None:
        """See `Backend.idle`."""
        operations = self.operations
        if isinstance(operations, Operations):
            return await self._client.listen(partial(operations.listen, take), timeout)
        # No command waits in several slots.
        await self._client.wait_for_work(
            lambda: operations.has_work(take.services),
            lambda: operations.bells(take.services),
            timeout,
        )
        return None

    async def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """See `Backend.read`."""
        return await self._client.run(self.operations.read(run_ids))

    def watch(self, run_id: RunId) -> AbstractAsyncContextManager[Watch]:
        """See `Backend.watch`."""
        return self._client.watch(*self.operations.channel(run_id))

    def leases(self) -> RedisLeases:
        """See `Backend.leases`."""
        return RedisLeases.of(self.operations, self._client.target)

    async def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """See `Backend.dead_letters`."""
        return await self._client.run(self.operations.dead_letters(service, limit))

    async def purge(self, service: str) -> int:
        """See `Backend.purge`."""
        return await self._client.run(self.operations.purge(service))
