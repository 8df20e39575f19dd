"""One run with its indexes, for tests of the reference: whatever is done to it, both agree.

`Life` applies commands; `Book` is what a store would build from the effects alone. After every command
the counts of the run are those that can be counted, its status is that which the counts make, and
timers, dead letters and copies in the book are those of the run.
"""

from __future__ import annotations

from typing import Any

from pwf_core import failures
from pwf_core.commands import (
    Answer,
    Bury,
    Cancel,
    Claim,
    Command,
    Commit,
    Drop,
    Fire,
    Granted,
    Postpone,
    Postponement,
    Requeue,
    Start,
)
from pwf_core.decisions import Decision, NewCall
from pwf_core.effects import (
    BuryCall,
    ClearTimer,
    DeleteRun,
    Effect,
    EndRun,
    Enqueue,
    SetTimer,
    UnburyCall,
)
from pwf_core.ids import CallId, ClaimId, RunId
from pwf_core.state import ROOT, Join, Rules, RunState
from pwf_core.transition import transition
from pwf_core.views import Outcome, Phase, Status

__all__ = [
    "FIRST", "FUSED", "LEASE", "MINE", "OTHER", "PAIRED", "RUN", "T0", "Book", "Life", "new",
]  # fmt: skip

RUN, FIRST = RunId("r"), CallId("first")
MINE, OTHER = ClaimId("mine"), ClaimId("other")
T0 = 1_000_000
LEASE = 1000
FUSED = Rules(retention_ms=500, dead_retention_ms=900)
PAIRED = Rules(paired=True, retention_ms=500, dead_retention_ms=900)


def new(call_id: str, *, delay_ms: int = 0, due_ms: int = 0, body: bytes = b"") -> NewCall:
    return NewCall(CallId(call_id), f"s.{call_id}", body, delay_ms, due_ms)


class Life:
    """One run, at some time, by some rules."""

    def __init__(self, rules: Rules = FUSED, **first: Any) -> None:
        self.run = RunState(RUN)
        self.book = Book()
        self.rules = rules
        self.now = T0
        self.effects: list[Any] = []
        self.do(Start(RUN, new("first", **first), "key", "print"))

    def do(self, command: Command) -> Any:
        reply, self.effects = transition(self.run, command, self.rules, self.now)
        if type(command) is Fire and reply is Answer.DONE:
            self.book.timers.pop(command.call_id, None)  # who fires takes the timer away
        self.book.note(self.effects)
        check(self.run, self.book, self.rules)
        return reply

    def claim(
        self,
        call_id: str = FIRST,
        *,
        generation: int | None = None,
        by: ClaimId = MINE,
        suspects: bool = True,
    ) -> Any:
        name = CallId(call_id)
        if generation is None:
            generation = self.run.calls[name].generation
        return self.do(Claim(RUN, name, generation, by, LEASE, suspects))

    def commit(self, call_id: str = FIRST, *, by: ClaimId = MINE, **decision: Any) -> Any:
        return self.do(Commit(RUN, CallId(call_id), by, Decision(**decision)))

    def run_call(self, call_id: str = FIRST, **decision: Any) -> None:
        assert isinstance(self.claim(call_id), Granted)
        assert Answer.DONE is self.commit(call_id, **decision)

    def bury_call(self, call_id: str = FIRST) -> None:
        assert isinstance(self.claim(call_id), Granted)
        assert Answer.DONE is self.bury(call_id)

    def postpone(self, kind: Postponement, delay_ms: int = 50, *, by: ClaimId = MINE) -> Any:
        return self.do(Postpone(RUN, FIRST, by, kind, delay_ms, "why"))

    def bury(self, call_id: str = FIRST, *, by: ClaimId = MINE) -> Any:
        return self.do(Bury(RUN, CallId(call_id), by, "boom"))

    def requeue(self, call_id: str = FIRST) -> Any:
        return self.do(Requeue(RUN, CallId(call_id)))

    def drop(self, call_id: str = FIRST, *, dead: bool) -> Any:
        return self.do(Drop(RUN, CallId(call_id), dead, "gone"))

    def cancel(self) -> Any:
        return self.do(Cancel(RUN, "enough"))

    def fire(self, call_id: str, after_ms: int = 0) -> Any:
        self.now += after_ms
        return self.do(Fire(RUN, CallId(call_id)))

    def lose(self, times: int) -> None:
        for _ in range(times):
            assert isinstance(self.claim(), Granted)
            assert Answer.DONE is self.fire(FIRST, LEASE)

    @property
    def call(self) -> Any:
        return self.run.calls[FIRST]

    @property
    def status(self) -> Status:
        return self.run.status

    @property
    def told(self) -> list[Outcome]:
        """What the last command told those who wait for the run."""
        return [one.outcome for one in self.effects if isinstance(one, EndRun)]


class Book:
    """Timers, dead letters and copies, as a store builds them from effects."""

    def __init__(self) -> None:
        self.timers: dict[str, int] = {}
        self.letters: set[str] = set()
        self.copies: set[tuple[str, int]] = set()
        self.addresses: dict[str, str] = {"": ""}
        self.told: Outcome | None = None
        self.deleted = False

    def note(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert not self.deleted
            match effect:
                case Enqueue(call_id, generation, address):
                    self.copies.add((call_id, generation))
                case SetTimer(call_id, due_ms, address):
                    self.timers[call_id] = due_ms
                case ClearTimer(call_id, address):
                    self.timers.pop(call_id, None)
                case BuryCall(call_id, address):
                    assert call_id not in self.letters
                    self.letters.add(call_id)
                case UnburyCall(call_id, address):
                    self.letters.remove(call_id)
                case EndRun(outcome):
                    self.told = outcome
                    continue
                case DeleteRun(run_id, key):
                    assert (RUN, "key") == (run_id, key)
                    self.deleted = True
                    continue
            assert address == self.addresses.setdefault(call_id, address or "?")


def check(run: RunState, book: Book, rules: Rules) -> None:
    """Compare the run with itself, and with the book."""
    if book.deleted:
        assert ({}, set()) == (book.timers, book.letters)
        return
    _check_counts(run)
    _check_status(run, book)
    timers: dict[str, int | None] = {ROOT: run.due_ms}
    timers |= {name: one.due_ms for name, one in [*run.calls.items(), *run.joins.items()]}
    assert {name: due for name, due in timers.items() if due is not None} == book.timers
    assert {name for name, one in run.calls.items() if one.phase is Phase.DEAD} == book.letters
    for name, call in run.calls.items():
        copy_is_out = call.phase in {Phase.QUEUED, Phase.OUTBOX}
        assert not copy_is_out or (name, call.generation) in book.copies
        assert (call.phase is Phase.LEASED) is (call.claim_id != "")
        assert call.gathered >= -1
        untimed = {Phase.DEAD} if rules.paired else {Phase.DEAD, Phase.QUEUED}
        assert (call.due_ms is None) is (call.phase in untimed)


def _check_counts(run: RunState) -> None:
    awaited = [join for join in run.joins.values() if not join.lapsed]
    inside = [*run.calls.values(), *awaited, *run.scopes.values()]
    dead = [one for one in run.calls.values() if one.phase is Phase.DEAD]
    assert run.pending == len([one for one in inside if one.scope == ROOT])
    assert (run.live, run.dead) == (len(run.calls) - len(dead), len(dead))
    assert run.external == len([join for join in awaited if _missing(run, join, join.external)])
    assert run.timed == len([join for join in awaited if join.due_ms is not None])
    for scope_id, scope in run.scopes.items():
        assert scope.pending == len([one for one in inside if one.scope == scope_id]) > 0
        results = [run.results.get((scope_id, number)) for number in range(scope.size)]
        failed = [one for one in results if failures.reason_in(one) is not None]
        assert scope.failed == len(failed) <= scope.tolerated
    for scope_id, number in run.results:
        call = run.calls.get(scope_id)
        size = 1 if scope_id == ROOT else call.gathered if call else run.scopes[scope_id].size
        assert 0 <= number < size
    waiting: dict[str, list[str]] = {}
    for join_id, join in run.joins.items():
        missing = _missing(run, join, join.events)
        assert join.missing == len(missing) > 0
        for name in missing:
            waiting.setdefault(name, []).append(join_id)
    assert waiting == {
        name: sorted(run.waiting[name], key=list(run.joins).index) for name in run.waiting
    }


def _missing(run: RunState, join: Join, events: tuple[str, ...]) -> list[str]:
    return [name for name in join.events if name in events and name not in run.events]


def _check_status(run: RunState, book: Book) -> None:
    if run.status is Status.CANCELLED:
        assert (0, 0, 0, 0, 0) == (run.pending, run.live, run.dead, run.external, run.timed)
    elif not run.pending:
        assert (Status.FAILED if run.dropped else Status.FINISHED) is run.status
    elif run.live:
        assert Status.RUNNING is run.status
    elif run.timed:
        assert Status.WAITING is run.status
    elif run.dead or run.dropped:
        assert Status.FAILED is run.status
    else:
        assert (Status.WAITING if run.external else Status.STALLED) is run.status
    assert run.status.is_final is (run.due_ms is not None)
    if run.status.is_final:
        assert book.told is not None
        assert run.outcome().status is book.told.status
    if not run.pending:
        assert ({}, {}, {}, {}, {}) == (run.calls, run.events, run.joins, run.waiting, run.scopes)
        assert set(run.results) <= {(ROOT, 0)}
