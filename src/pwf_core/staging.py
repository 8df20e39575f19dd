"""Cutting a decision that is too large for one step into parts, and batches into what one step takes.

A step is one script inside a store, which holds up everybody else: a thousand calls take one of 13 ms.
So a large decision is put down in parts (`Stage`) under the claim of its call; then a small commit
makes all of it valid at once, and counts it; and from then on the store makes the parts into calls,
one at a time, as its timers are fired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from pwf_core.commands import Command, Commit, Stage
from pwf_core.decisions import StagedCall

__all__ = ["MOST_BYTES", "MOST_CALLS", "in_parts", "weight_of"]

# What one step takes: calls to be made, and bytes of their bodies.
MOST_CALLS = 250
MOST_BYTES = 256 * 1024


def weight_of(command: Command) -> int:
    """Return how many calls *command* makes, or puts down; at least 1."""
    match command:
        case Stage(calls=calls):
            return len(calls)
        case Commit(decision=decision):
            members = sum(len(gather.members) for gather in decision.gathers)
            return max(len(decision.calls) + members, 1)
        case _:
            return 1


def in_parts(commit: Commit, most_calls: int = MOST_CALLS) -> Sequence[Stage | Commit]:
    """Return *commit*, preceded by parts of its decision if that is too large for one step."""
    decision = commit.decision
    made = decision.calls
    if decision.gathers:
        made = (*made, *(one for gather in decision.gathers for one in gather.members))
    if len(made) <= most_calls and sum([len(one.body) for one in made]) <= MOST_BYTES:
        return [commit]
    calls = [StagedCall(one) for one in decision.calls]
    for number, gather in enumerate(decision.gathers):
        calls += [StagedCall(one, number, member) for member, one in enumerate(gather.members)]
    parts: list[Stage | Commit] = [
        Stage(commit.run_id, commit.call_id, commit.claim_id, number, chunk)
        for number, chunk in enumerate(_chunks(calls, most_calls))
    ]
    rest = replace(
        decision,
        calls=(),
        gathers=tuple(
            replace(gather, members=(), staged=len(gather.members)) for gather in decision.gathers
        ),
        chunks=len(parts),
        staged=len(decision.calls),
    )
    parts.append(replace(commit, decision=rest))
    return parts


def _chunks(calls: Sequence[StagedCall], most_calls: int) -> Iterator[tuple[StagedCall, ...]]:
    chunk: list[StagedCall] = []
    size = 0
    for one in calls:
        if chunk and (len(chunk) == most_calls or size + len(one.call.body) > MOST_BYTES):
            yield tuple(chunk)
            chunk, size = [], 0
        chunk.append(one)
        size += len(one.call.body)
    yield tuple(chunk)
