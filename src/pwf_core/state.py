"""The state of one run, as records; the rules over them are in joins, scopes and transition.

Every store holds exactly this, in its own form. A call is in `calls` from its birth to the commit
that adds its children, and leaves no trace: there are no tombstones.
"""

from __future__ import annotations

import attrs

from pwf_core.decisions import NewCall, StagedCall
from pwf_core.ids import CallId, ClaimId, RunId
from pwf_core.views import CallView, JoinView, Outcome, Phase, RunView, Status

__all__ = ["ROOT", "Call", "Join", "Rest", "Rules", "RunState", "Scope", "view"]

ROOT = CallId("")  # the root scope: the run itself, which has one member, number 0


@attrs.frozen(kw_only=True)
class Rules:
    """The settings of a deployment that transitions depend on.

    Attributes:
        paired: Whether calls go through an outbox, because the broker is not part of the store.
        retention_ms: How long an ended run stays readable.
        dead_retention_ms: How long a run stays that a requeue or an event could still revive.
    """

    paired: bool = False
    retention_ms: int = 24 * 3600 * 1000  # a day: "what happened last night?" can be answered
    dead_retention_ms: int = 30 * 24 * 3600 * 1000  # a month: longer than anyone's holiday


@attrs.define
class Call:
    """An open call.

    Attributes:
        scope, member: The innermost scope that it belongs to, and the member in whose subtree it is.
        joined: Events whose payloads its handler sees.
        gathered: How many results its handler sees; -1 unless a gather made it.
        attempts: Executions granted, without those handed back.
        lost: How many of them ended with their lease.
        unclaimed: How often its valid copy was published again because nobody claimed it.
        due_ms: When `Fire` moves it on, whatever its phase says that means; None while it is in a
            queue that is part of the store.
        chunks: How many parts of its decision have been put down under this claim.
    """

    address: str
    body: bytes
    scope: CallId
    member: int
    joined: tuple[str, ...]
    gathered: int
    phase: Phase = Phase.QUEUED
    generation: int = 0
    attempts: int = 0
    lost: int = 0
    due_ms: int | None = None
    claim_id: ClaimId = ClaimId("")
    reason: str = ""
    unclaimed: int = 0
    chunks: int = 0


@attrs.define
class Rest:
    """What is left to do of a call that has been committed; its key in `RunState.rests` is its id.

    A decision that is too large for one step was put down in chunks before. The commit counts all
    that is in them, in every scope, and from then on they are made into calls, one chunk at a time.
    LIMIT: a purge takes the calls that there are, and not those that are still to be made.

    Attributes:
        address: Of the call.
        scope, member: Where it belonged.
        gathers: The scopes that it has opened, for what is in the chunks.
        chunk, chunks: The next one to be made into calls, and how many there are.
        results: How many results of the gather that had made it are still to be forgotten.
        due_ms: When `Fire` moves it on.
    """

    address: str
    due_ms: int
    scope: CallId = ROOT
    member: int = 0
    gathers: tuple[CallId, ...] = ()
    chunk: int = 0
    chunks: int = 0
    results: int = 0


@attrs.define
class Join:
    """A join that has not fired; its key in `RunState.joins` is the id of the call it will make.

    Attributes:
        missing: How many of its events have not happened.
        outside: How many of those come from outside the run.
        due_ms: When it lapses; None if never, or if it has.
        late: The call that it makes then instead.
        lapsed: Whether it has. It stays here, as it is on the lists of those who wait for events.
    """

    address: str
    body: bytes
    delay_ms: int
    at_ms: int
    scope: CallId
    member: int
    events: tuple[str, ...]
    external: tuple[str, ...]
    missing: int = 0
    outside: int = 0
    due_ms: int | None = None
    late: NewCall | None = None
    lapsed: bool = False


@attrs.define
class Scope:
    """A gather that has not fired; its key in `RunState.scopes` is the id of the call it will make.

    Attributes:
        scope, member: Where the gather itself belongs, and its `then` with it.
        size: How many members it has.
        tolerated: How many of them may fail without keeping it from firing.
        failed: How many of those have.
        lost: Whether something of it failed that it does not tolerate: it is not going to fire.
        pending: Open calls, joins and inner scopes in it.
    """

    address: str
    body: bytes
    delay_ms: int
    at_ms: int
    scope: CallId
    member: int
    size: int
    tolerated: int
    failed: int = 0
    lost: bool = False
    pending: int = 0


@attrs.define
class RunState:
    """One run.

    Attributes:
        pending: Open calls, joins and scopes of the root scope.
        live: Calls that are going to run: all but the dead.
        dead: Dead letters.
        dropped: Calls that were taken out; with any, the run cannot finish but only fail.
        external: Joins that wait for an event from outside.
        timed: Joins that lapse at some time.
        reason: Why the run failed or stalled, as far as it is known now.
        due_ms: When the run is deleted; None while it goes on.
        waiting: Ids of the joins that miss an event, by event.
        results: By scope and member; ("", 0) is the run's own.
        staged: Parts of decisions, by call and number.
        rests: What is left to do of calls that have been committed.
    """

    run_id: RunId
    key: str = ""
    status: Status = Status.RUNNING
    pending: int = 0
    live: int = 0
    dead: int = 0
    dropped: int = 0
    external: int = 0
    timed: int = 0
    reason: str = ""
    due_ms: int | None = None
    calls: dict[CallId, Call] = attrs.field(factory=dict)
    events: dict[str, bytes] = attrs.field(factory=dict)
    joins: dict[CallId, Join] = attrs.field(factory=dict)
    waiting: dict[str, list[CallId]] = attrs.field(factory=dict)
    scopes: dict[CallId, Scope] = attrs.field(factory=dict)
    results: dict[tuple[CallId, int], bytes] = attrs.field(factory=dict)
    staged: dict[tuple[CallId, int], tuple[StagedCall, ...]] = attrs.field(factory=dict)
    rests: dict[CallId, Rest] = attrs.field(factory=dict)

    def outcome(self) -> Outcome:
        """Return how the run stands."""
        return Outcome(self.status, self.results.get((ROOT, 0)), self.reason)

    def clear(self) -> None:
        """Forget all but how the run ended."""
        self.calls.clear()
        self.events.clear()
        self.joins.clear()
        self.waiting.clear()
        self.scopes.clear()
        self.staged.clear()
        self.rests.clear()
        result = self.results.get((ROOT, 0))
        self.results = {} if result is None else {(ROOT, 0): result}


def view(run: RunState) -> RunView:
    """Return *run* as people see it."""
    return RunView(
        run_id=run.run_id,
        outcome=run.outcome(),
        calls=tuple(
            CallView(
                call_id=call_id,
                address=call.address,
                phase=call.phase,
                generation=call.generation,
                attempts=call.attempts,
                lost=call.lost,
                due_ms=call.due_ms,
                reason=call.reason,
            )
            for call_id, call in run.calls.items()
        ),
        joins=tuple(
            JoinView(
                call_id,
                join.address,
                tuple(name for name in join.events if name not in run.events),
            )
            for call_id, join in run.joins.items()
            if not join.lapsed
        ),
        events=tuple(run.events),
    )
