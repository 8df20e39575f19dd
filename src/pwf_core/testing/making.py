"""Builders of what the tests send: calls, commands and decisions, with ids that nobody else has."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from pwf_core.commands import Claim, Commit, Granted, Message, Postpone, Postponement, Start
from pwf_core.decisions import Decision, NewCall, NewGather, NewJoin
from pwf_core.ids import CallId, ClaimId, RunId, home_of, placed

__all__ = [
    "LEASE",
    "SERVICE",
    "call",
    "claim",
    "commit",
    "decision",
    "gather",
    "join",
    "message",
    "new_call_id",
    "new_claim_id",
    "new_run_id",
    "postpone",
    "start",
]

SERVICE = "work"
LEASE = 600_000  # ms: never over before the test is


def new_run_id() -> RunId:
    """Return an id that no run has."""
    return RunId(secrets.token_hex(16))


def new_call_id() -> CallId:
    """Return an id that no call has."""
    return CallId(secrets.token_hex(16))


def new_claim_id() -> ClaimId:
    """Return an id that no claim has, of a worker that there is only once."""
    return ClaimId(f"{secrets.token_hex(8)}:1")


def call(
    address: str = f"{SERVICE}.task",
    body: bytes = b"\x90",
    *,
    delay_ms: int = 0,
    due_ms: int = 0,
) -> NewCall:
    """Return a call to be made."""
    return NewCall(new_call_id(), address, body, delay_ms, due_ms)


def join(
    *events: str,
    then: NewCall,
    external: tuple[str, ...] = (),
    timeout_ms: int = 0,
    late: NewCall | None = None,
) -> NewJoin:
    """Return a join to be registered."""
    return NewJoin(then, events, external, timeout_ms, late)


def gather(*members: NewCall, then: NewCall, tolerated: int = 0) -> NewGather:
    """Return a gather to be opened."""
    return NewGather(then, members, tolerated)


def start(
    first: NewCall | None = None, *, key: str = "", fingerprint: str = "", partitions: int = 1
) -> Start:
    """Return the command that starts a run of its own, with an id for so many partitions."""
    run_id = new_run_id()
    if key and partitions > 1:
        run_id = placed(run_id, home_of(key, partitions))
    return Start(run_id, first or call(), key, fingerprint)


def message(address: str = f"{SERVICE}.task", generation: int = 0) -> Message:
    """Return a message that names a call of its own."""
    return Message(new_run_id(), new_call_id(), generation, address)


def claim(
    named: Message,
    claim_id: ClaimId | None = None,
    *,
    lease_ms: int = LEASE,
    suspects: bool = True,
) -> Claim:
    """Return the claim on what a message names."""
    return Claim(
        run_id=named.run_id,
        call_id=named.call_id,
        generation=named.generation,
        claim_id=claim_id or new_claim_id(),
        lease_ms=lease_ms,
        suspects=suspects,
    )


def decision(
    *,
    calls: Sequence[NewCall] = (),
    emits: Sequence[tuple[str, bytes]] = (),
    joins: Sequence[NewJoin] = (),
    gathers: Sequence[NewGather] = (),
    result: bytes | None = None,
) -> Decision:
    """Return a decision; an empty one by default."""
    return Decision(tuple(calls), tuple(emits), tuple(joins), tuple(gathers), result)


def commit(grant: Granted, made: Decision | None = None) -> Commit:
    """Return the commit of a granted call."""
    return Commit(grant.run_id, grant.call_id, grant.claim_id, made or Decision())


def postpone(
    grant: Granted,
    kind: Postponement = Postponement.RETRY,
    *,
    delay_ms: int = 0,
    reason: str = "because",
) -> Postpone:
    """Return the postponement of a granted call."""
    return Postpone(grant.run_id, grant.call_id, grant.claim_id, kind, delay_ms, reason)
