"""The memory adapter as a state store, to be paired with any broker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager

import attrs

from pwf_core.capabilities import Capabilities
from pwf_core.commands import Command
from pwf_core.ids import RunId
from pwf_core.ports import Applied, BlockingWatch, Watch
from pwf_core.state import Rules
from pwf_core.views import DeadLetter, RunView
from pwf_memory import waiting
from pwf_memory.connection import Connection
from pwf_memory.tables import Tables

__all__ = ["BlockingMemoryStateStore", "MemoryStateStore"]

_CAPABILITIES = Capabilities(technology="memory")


def _tables() -> Tables:
    return Tables(Rules(paired=True))


@attrs.define
class MemoryStateStore(Connection):
    """A state store inside this process."""

    _tables: Tables = attrs.field(factory=_tables)

    @property
    def capabilities(self) -> Capabilities:
        """Neither durable nor shared with other processes."""
        return _CAPABILITIES

    async def open(self) -> None:
        """See `StateStore.open`."""
        self._door.open()

    async def close(self) -> None:
        """See `StateStore.close`; the tables stay, for others that share them."""
        self._door.close()

    async def apply(
        self, commands: Sequence[Command], *, sweep: int = 0, partly: bool = False
    ) -> Applied:
        """See `StateStore.apply`."""
        return self.tables.apply(commands, sweep=sweep)

    async def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """See `StateStore.read`."""
        return self.tables.read(run_ids)

    def watch(self, run_id: RunId) -> AbstractAsyncContextManager[Watch]:
        """See `StateStore.watch`."""
        return waiting.watch(self._door, self.tables, run_id)

    async def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """See `StateStore.dead_letters`."""
        return self.tables.dead_letters(service, limit)

    async def purge(self, service: str) -> int:
        """See `StateStore.purge`."""
        return self.tables.purge(service)


@attrs.define
class BlockingMemoryStateStore(Connection):
    """Blocking twin of `MemoryStateStore`."""

    _tables: Tables = attrs.field(factory=_tables)

    @property
    def capabilities(self) -> Capabilities:
        """Neither durable nor shared with other processes."""
        return _CAPABILITIES

    def open(self) -> None:
        """See `StateStore.open`."""
        self._door.open()

    def close(self) -> None:
        """See `StateStore.close`; the tables stay, for others that share them."""
        self._door.close()

    def apply(
        self, commands: Sequence[Command], *, sweep: int = 0, partly: bool = False
    ) -> Applied:
        """See `StateStore.apply`."""
        return self.tables.apply(commands, sweep=sweep)

    def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """See `StateStore.read`."""
        return self.tables.read(run_ids)

    def watch(self, run_id: RunId) -> AbstractContextManager[BlockingWatch]:
        """See `StateStore.watch`."""
        return waiting.watch_blocking(self._door, self.tables, run_id)

    def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """See `StateStore.dead_letters`."""
        return self.tables.dead_letters(service, limit)

    def purge(self, service: str) -> int:
        """See `StateStore.purge`."""
        return self.tables.purge(service)
