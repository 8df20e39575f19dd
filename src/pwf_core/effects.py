"""What a transition asks of the world around a run: every change of an index, queue or list.

Queues, timers, dead letters and notifications are built from these and from nothing else.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from pwf_core.ids import CallId, RunId
from pwf_core.views import Outcome

__all__ = [
    "BuryCall",
    "ClearTimer",
    "DeleteRun",
    "Effect",
    "EndRun",
    "Enqueue",
    "SetTimer",
    "UnburyCall",
]


class Enqueue(Struct, frozen=True):
    """Put this copy of a call into its service's queue."""

    call_id: CallId
    generation: int
    address: str


class SetTimer(Struct, frozen=True):
    """Have `Fire` sent for *call_id* ("" for the run) at *due_ms*, instead of any earlier wish."""

    call_id: CallId | str
    due_ms: int
    address: str


class ClearTimer(Struct, frozen=True):
    """Forget the timer of *call_id* ("" for the run)."""

    call_id: CallId | str
    address: str


class BuryCall(Struct, frozen=True):
    """List the call among the dead letters."""

    call_id: CallId
    address: str


class UnburyCall(Struct, frozen=True):
    """Take the call off the list of dead letters."""

    call_id: CallId
    address: str


class EndRun(Struct, frozen=True):
    """Tell whoever waits for the run how it ended (or stalled)."""

    outcome: Outcome


class DeleteRun(Struct, frozen=True):
    """Forget the run; its key (or "") stays for a while, so that it starts nothing twice."""

    run_id: RunId
    key: str


Effect: TypeAlias = Enqueue | SetTimer | ClearTimer | BuryCall | UnburyCall | EndRun | DeleteRun
