"""Joins: each fires once, after all its distinct events, whatever order things happen in.

Registering and emitting run the same check in the same atomic step: a join counts what it misses
when it is registered, and every event is counted down once, by its first write. An emit costs what
the joins on *that* event cost.
"""

from __future__ import annotations

from pwf_core.decisions import NewCall
from pwf_core.ids import CallId
from pwf_core.state import Join, RunState

__all__ = ["happen", "lapse", "register"]


def register(run: RunState, join_id: CallId, join: Join) -> bool:
    """Add *join*, or say True: nothing is missing, and it is to fire now."""
    missing = [name for name in join.events if name not in run.events]
    if not missing:
        return True
    join.missing = len(missing)
    join.outside = len([name for name in missing if name in join.external])
    run.joins[join_id] = join
    run.external += join.outside > 0
    run.timed += join.due_ms is not None
    for name in missing:
        run.waiting.setdefault(name, []).append(join_id)
    return False


def happen(run: RunState, event: str, payload: bytes) -> list[tuple[CallId, Join]] | None:
    """Write *event* and return the joins that are to fire now; None if it had happened before."""
    if event in run.events:
        return None
    run.events[event] = payload
    ready = []
    for join_id in run.waiting.pop(event, ()):
        join = run.joins[join_id]
        join.missing -= 1
        if event in join.external and not join.lapsed:
            join.outside -= 1
            run.external -= not join.outside
        if not join.missing:
            del run.joins[join_id]
            run.timed -= join.due_ms is not None
            if not join.lapsed:
                ready.append((join_id, join))
    return ready


def lapse(run: RunState, join: Join) -> NewCall | None:
    """Have *join*, whose time is over, never fire; return the call to make instead."""
    late, join.late = join.late, None
    join.body = b""
    join.lapsed = True
    join.due_ms = None
    run.timed -= 1
    run.external -= join.outside > 0
    return late
