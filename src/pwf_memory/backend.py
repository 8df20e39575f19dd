"""The memory adapter as a fused backend: commit, publish and ack are one step under one lock."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager

import attrs

from pwf_core.capabilities import Capabilities
from pwf_core.commands import Command, Reply
from pwf_core.ids import RunId
from pwf_core.ports import BlockingWatch, Exchanged, Take, Watch
from pwf_core.views import DeadLetter, RunView
from pwf_memory import waiting
from pwf_memory.connection import Connection

__all__ = ["BlockingMemoryBackend", "MemoryBackend"]

_CAPABILITIES = Capabilities(technology="memory", fused=True)


@attrs.define
class MemoryBackend(Connection):
    """A backend inside this process."""

    @property
    def capabilities(self) -> Capabilities:
        """Fused; neither durable nor shared with other processes."""
        return _CAPABILITIES

    async def open(self) -> None:
        """See `Backend.open`."""
        self._door.open()

    async def close(self) -> None:
        """See `Backend.close`; the tables stay, for others that share them."""
        self._door.close()

    async def apply(self, commands: Sequence[Command]) -> list[Reply]:
        """See `Backend.apply`."""
        return self.tables.apply(commands).replies

    async def exchange(self, commands: Sequence[Command], take: Take) -> Exchanged:
        """See `Backend.exchange`."""
        return self.tables.exchange(commands, take)

    async def idle(self, take: Take, timeout: float) -> None:
        """See `Backend.idle`."""
        await waiting.idle(self._door, self.tables, take.services, timeout)

    async def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """See `Backend.read`."""
        return self.tables.read(run_ids)

    def watch(self, run_id: RunId) -> AbstractAsyncContextManager[Watch]:
        """See `Backend.watch`."""
        return waiting.watch(self._door, self.tables, run_id)

    async def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """See `Backend.dead_letters`."""
        return self.tables.dead_letters(service, limit)

    async def purge(self, service: str) -> int:
        """See `Backend.purge`."""
        return self.tables.purge(service)


@attrs.define
class BlockingMemoryBackend(Connection):
    """Blocking twin of `MemoryBackend`."""

    @property
    def capabilities(self) -> Capabilities:
        """Fused; neither durable nor shared with other processes."""
        return _CAPABILITIES

    def open(self) -> None:
        """See `Backend.open`."""
        self._door.open()

    def close(self) -> None:
        """See `Backend.close`; the tables stay, for others that share them."""
        self._door.close()

    def apply(self, commands: Sequence[Command]) -> list[Reply]:
        """See `Backend.apply`."""
        return self.tables.apply(commands).replies

    def exchange(self, commands: Sequence[Command], take: Take) -> Exchanged:
        """See `Backend.exchange`."""
        return self.tables.exchange(commands, take)

    def idle(self, take: Take, timeout: float) -> None:
        """See `Backend.idle`."""
        waiting.idle_blocking(self._door, self.tables, take.services, timeout)

    def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """See `Backend.read`."""
        return self.tables.read(run_ids)

    def watch(self, run_id: RunId) -> AbstractContextManager[BlockingWatch]:
        """See `Backend.watch`."""
        return waiting.watch_blocking(self._door, self.tables, run_id)

    def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """See `Backend.dead_letters`."""
        return self.tables.dead_letters(service, limit)

    def purge(self, service: str) -> int:
        """See `Backend.purge`."""
        return self.tables.purge(service)
