"""What the stores and backends of this adapter have in common: tables, until they are closed."""

from __future__ import annotations

import attrs

from pwf_core.errors import StoreClosedError
from pwf_memory.tables import MemoryLeases, Tables
from pwf_memory.waiting import Door

__all__ = ["Connection"]


@attrs.define
class Connection:
    """A connection to tables."""

    _tables: Tables = attrs.field(factory=Tables)
    _door: Door = attrs.field(factory=lambda: Door(StoreClosedError), init=False)

    @property
    def tables(self) -> Tables:
        """What it is connected to."""
        self._door.check()
        return self._tables

    def leases(self) -> MemoryLeases:
        """See `Backend.leases` and `StateStore.leases`."""
        return MemoryLeases(self.tables)
