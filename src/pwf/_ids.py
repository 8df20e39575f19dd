"""Ids that are drawn: of runs, and of workers' sessions. Everything else is derived, in the core."""

from __future__ import annotations

import secrets
import time

from pwf_core.ids import RunId, home_of, placed

__all__ = ["new_run_id", "new_session"]


def new_run_id(key: str = "", partitions: int = 1) -> RunId:
    """Return a UUIDv7 as 32 hex digits, and the run's partition where there are several.

    Runs sort by the time of their start. Source: RFC 9562, section 5.7.
    """
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    number = number & ~(0xF << 76) | 0x7 << 76  # version 7
    number = number & ~(0x3 << 62) | 0x2 << 62  # variant 10
    run_id = RunId(f"{number:032x}")
    if partitions == 1:
        return run_id
    return placed(run_id, home_of(key, partitions) if key else secrets.randbelow(partitions))


def new_session() -> str:
    """Return a name for a worker's claims that no other worker has."""
    return secrets.token_hex(8)
