"""What the tests of stores do over and over: send commands, with the copies that came of them."""

from __future__ import annotations

from collections.abc import Sequence

from pwf_core.commands import Command, Granted, Message, Reply, Settle
from pwf_core.decisions import NewCall
from pwf_core.ids import ClaimId, RunId
from pwf_core.ports import Applied, StateStore
from pwf_core.testing.making import LEASE, claim, start
from pwf_core.views import CallView, RunView

__all__ = ["SWEEP", "begin", "call_of", "do", "granted", "settle", "started", "sweep", "view_of"]

SWEEP = 1000


async def do(store: StateStore, *commands: Command) -> list[Reply]:
    """Apply *commands* and return the replies."""
    return (await store.apply(commands)).replies


async def started(store: StateStore, first: NewCall | None = None) -> Message:
    """Start a run and return the copy of its first call, settled."""
    command = start(first)
    applied = await store.apply([command])
    (copy,) = applied.enqueued

    assert Message(command.run_id, command.call.call_id, 0, command.call.address) == copy
    await store.apply(settle(applied.enqueued))
    return copy


async def granted(
    store: StateStore,
    copy: Message,
    claim_id: ClaimId | None = None,
    *,
    lease_ms: int = LEASE,
) -> Granted:
    """Claim *copy*; it must be granted."""
    (reply,) = await do(store, claim(copy, claim_id, lease_ms=lease_ms))

    assert isinstance(reply, Granted)
    return reply


async def begin(
    store: StateStore, first: NewCall | None = None, *, lease_ms: int = LEASE
) -> Granted:
    """Start a run and claim its first call."""
    return await granted(store, await started(store, first), lease_ms=lease_ms)


async def sweep(store: StateStore, limit: int = SWEEP) -> list[Message]:
    """Fire what is due, and return the copies to publish."""
    applied: Applied = await store.apply([], sweep=limit)
    return applied.enqueued


def settle(copies: Sequence[Message]) -> list[Command]:
    """Return the commands that say that a broker has *copies*."""
    return [Settle(one.run_id, one.call_id, one.generation) for one in copies]


async def view_of(store: StateStore, run_id: RunId) -> RunView:
    """Return the run as it stands."""
    (view,) = await store.read([run_id])

    assert view is not None
    return view


async def call_of(store: StateStore, run_id: RunId) -> CallView:
    """Return the one open call of the run."""
    (call_view,) = (await view_of(store, run_id)).calls
    return call_view
