"""What people and clients see of a run: values made for reading, never for deciding."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from pwf_core.ids import CallId, RunId

__all__ = ["CallView", "DeadLetter", "JoinView", "Outcome", "Phase", "RunView", "Status"]


class Status(StrEnum):
    """How a run stands."""

    RUNNING = "running"  # something is queued, runs, or waits for its time
    WAITING = "waiting"  # only an event from outside can move it on
    STALLED = "stalled"  # nothing is left that could fire its joins
    FINISHED = "finished"  # all is done
    FAILED = "failed"  # a call is dead or was dropped, and nothing else is left to do
    CANCELLED = "cancelled"  # somebody ended it; nothing is left to do

    @property
    def is_final(self) -> bool:
        """Whether waiting longer cannot help (a requeue or an outside event may still revive)."""
        return self not in {Status.RUNNING, Status.WAITING}


class Phase(StrEnum):
    """Where a call stands between its birth and its commit."""

    OUTBOX = "outbox"  # committed, not yet known to be in the broker; due: published again
    QUEUED = "queued"  # in the broker; due (if that is not the store): published again
    LEASED = "leased"  # a claim holds it; due: taken over
    TIMED = "timed"  # delayed, or waiting for a retry; due: enqueued
    PARKED = "parked"  # no worker that got it knows its task; due: enqueued
    DEAD = "dead"  # a dead letter; due: dropped


class Outcome(Struct, frozen=True):
    """How a run ended.

    Attributes:
        status: Its status.
        result: The encoded value that it was given, if any.
        reason: Why it failed or stalled; "" otherwise.
    """

    status: Status
    result: bytes | None = None
    reason: str = ""


class CallView(Struct, frozen=True):
    """One open call of a run.

    Attributes:
        due_ms: When it is moved on, in milliseconds since the epoch by the store's clock; or None.
        reason: Its last error, or why it is parked.
    """

    call_id: CallId
    address: str
    phase: Phase
    generation: int
    attempts: int
    lost: int
    due_ms: int | None
    reason: str


class JoinView(Struct, frozen=True):
    """A join that has not fired: the task it will run, and the events it still waits for."""

    call_id: CallId
    address: str
    missing: tuple[str, ...]


class RunView(Struct, frozen=True):
    """A run as it stands."""

    run_id: RunId
    outcome: Outcome
    calls: tuple[CallView, ...] = ()
    joins: tuple[JoinView, ...] = ()
    events: tuple[str, ...] = ()


class DeadLetter(Struct, frozen=True):
    """A call whose attempts are exhausted.

    Attributes:
        reason: The traceback of its last attempt.
        died_ms: When it died, in milliseconds since the epoch by the store's clock.
    """

    run_id: RunId
    call_id: CallId
    address: str
    attempts: int
    reason: str
    body: bytes
    died_ms: int
