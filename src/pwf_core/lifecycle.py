"""What the commands of `transition` are made of: the life of a call, joins, scopes, and the run.

A call is born queued (or timed) with generation 0. Whatever puts a new copy of it on its way (retry,
park, takeover, requeue) raises the generation, so that older copies run nothing. It leaves `calls`
in `_remove`, called by the commit that has added its children first, or where it is gone for good;
so no scope can look finished while something of it is still to come.
"""

from __future__ import annotations

from pwf_core import joins, scopes
from pwf_core.commands import (
    Answer,
    Bury,
    Claim,
    Collect,
    Commit,
    Granted,
    Postpone,
    Renew,
    Reply,
    Stage,
)
from pwf_core.decisions import NewCall, NewGather, NewJoin
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
from pwf_core.ids import CallId, ClaimId
from pwf_core.state import ROOT, Call, Join, Rest, Rules, RunState, Scope
from pwf_core.views import Phase, Status

__all__ = ["OUTBOX_MS", "SUSPECT_LOST", "Lifecycle", "blame"]

# From two lost executions on, a process runs one such call at a time, so that the innocent beside it
# get away.
SUSPECT_LOST = 2
# Until a copy is published again that no publisher has settled; publishing takes far less.
OUTBOX_MS = 2000


class Lifecycle:
    """One command being applied."""

    __slots__ = ("effects", "last", "now", "rules", "run")

    def __init__(self, run: RunState, rules: Rules, now: int) -> None:
        self.run = run
        self.rules = rules
        self.now = now
        self.effects: list[Effect] = []
        self.last = ""  # the call that this command ended, for people

    # -- the life of a call -----------------------------------------------------------------------

    def _add(
        self,
        new: NewCall,
        scope: CallId,
        member: int,
        joined: tuple[str, ...] = (),
        gathered: int = -1,
        *,
        counted: bool = False,
    ) -> None:
        call = Call(new.address, new.body, scope, member, joined, gathered)
        self.run.calls[new.call_id] = call
        if not counted:
            self.run.live += 1
            scopes.enter(self.run, scope)
        delay_ms = new.due_ms - self.now if new.due_ms else new.delay_ms
        self._schedule(new.call_id, call, delay_ms)

    def _schedule(
        self, call_id: CallId, call: Call, delay_ms: int, *, parked: bool = False
    ) -> None:
        if delay_ms > 0:
            self._wait(call_id, call, Phase.PARKED if parked else Phase.TIMED, delay_ms)
        else:
            self._enqueue(call_id, call)

    def _wait(self, call_id: CallId, call: Call, phase: Phase, delay_ms: int) -> None:
        call.phase = phase
        call.due_ms = self.now + delay_ms
        if phase is not Phase.LEASED:
            call.claim_id = ClaimId("")
        self.effects.append(SetTimer(call_id, call.due_ms, call.address))

    def _enqueue(self, call_id: CallId, call: Call) -> None:
        if self.rules.paired:
            self._wait(call_id, call, Phase.OUTBOX, OUTBOX_MS)
        else:
            if call.due_ms is not None:
                self.effects.append(ClearTimer(call_id, call.address))
            call.phase = Phase.QUEUED
            call.due_ms = None
            call.claim_id = ClaimId("")
        self.effects.append(Enqueue(call_id, call.generation, call.address))

    def _claimed(
        self, command: Renew | Commit | Postpone | Bury | Stage | Collect
    ) -> Call | Answer:
        call = self.run.calls.get(command.call_id)
        if call is None:
            return Answer.ENDED
        if call.phase is not Phase.LEASED or call.claim_id != command.claim_id:
            return Answer.LOST
        return call

    def _grant(self, command: Claim, call: Call) -> Granted:
        run = self.run
        results, uncollected = None, 0
        if call.gathered > scopes.BROUGHT:
            uncollected = call.gathered
        elif call.gathered >= 0:
            results = [run.results.get((command.call_id, n)) for n in range(call.gathered)]
        return Granted(
            run_id=command.run_id,
            call_id=command.call_id,
            claim_id=command.claim_id,
            generation=call.generation,
            address=call.address,
            body=call.body,
            attempt=call.attempts,
            failures=call.attempts - 1 - call.lost,
            suspect=call.lost >= SUSPECT_LOST,
            events={name: run.events[name] for name in call.joined},
            results=results,
            uncollected=uncollected,
        )

    def _remove(self, call_id: CallId, call: Call) -> None:
        del self.run.calls[call_id]
        self.last = f"{call.address} ({call_id})"
        self.run.live -= 1
        if call.due_ms is not None:
            self.effects.append(ClearTimer(call_id, call.address))
        self._unstage(call_id, call)
        self._forget(call_id, call.address, call.gathered)
        self._leave(call.scope)

    def _bury(self, call_id: CallId, call: Call, reason: str) -> None:
        blamed = blame(call_id, call.address, reason)
        if scopes.fail(self.run, call.scope, call.member, blamed):
            self._remove(call_id, call)
            return
        call.phase = Phase.DEAD
        call.claim_id = ClaimId("")
        call.reason = reason
        call.due_ms = None
        self.run.live -= 1
        self.run.dead += 1
        self.run.reason = blamed
        self.effects.append(ClearTimer(call_id, call.address))
        self.effects.append(BuryCall(call_id, call.address))

    def _revive(self, call_id: CallId, call: Call) -> None:
        self.run.dead -= 1
        self.run.live += 1
        if not self.run.dead and not self.run.dropped:
            self.run.reason = ""
        self.effects.append(UnburyCall(call_id, call.address))

    # -- joins, scopes, the run -------------------------------------------------------------------

    def _emit(self, event: str, payload: bytes) -> bool:
        ready = joins.happen(self.run, event, payload)
        for join_id, join in ready or ():
            if join.due_ms is not None:
                self.effects.append(ClearTimer(join_id, join.address))
            self._make(join_id, join, joined=join.events)
            self._leave(join.scope)  # the join's own place, after its call has taken one
        return ready is not None

    def _join(self, new: NewJoin, scope: CallId, member: int) -> None:
        then = new.then
        join = Join(
            address=then.address,
            body=then.body,
            delay_ms=then.delay_ms,
            at_ms=then.due_ms,
            scope=scope,
            member=member,
            events=new.events,
            external=new.external,
            due_ms=self.now + new.timeout_ms if new.timeout_ms else None,
            late=new.late,
        )
        if joins.register(self.run, then.call_id, join):
            self._make(then.call_id, join, joined=join.events)
            return
        scopes.enter(self.run, scope)
        if join.due_ms is not None:
            self.effects.append(SetTimer(then.call_id, join.due_ms, join.address))

    def _lapse(self, join_id: CallId, join: Join) -> None:
        late = joins.lapse(self.run, join)
        if late is not None:
            happened = tuple(name for name in join.events if name in self.run.events)
            self._add(late, join.scope, join.member, joined=happened)
        else:
            missing = [name for name in join.events if name not in self.run.events]
            words = f"its join timed out without {', '.join(missing)}"
            self._fail(join.scope, join.member, blame(join_id, join.address, words))
        self._leave(join.scope)  # the join's own place, after its call has taken one

    def _gather(self, new: NewGather, scope: CallId, member: int) -> None:
        then = new.then
        record = Scope(
            address=then.address,
            body=then.body,
            delay_ms=then.delay_ms,
            at_ms=then.due_ms,
            scope=scope,
            member=member,
            size=len(new.members) + new.staged,
            tolerated=new.tolerated,
        )
        if not record.size:
            self._make(then.call_id, record, gathered=0)
            return
        self.run.scopes[then.call_id] = record
        scopes.enter(self.run, scope)
        for number, call in enumerate(new.members):
            self._add(call, then.call_id, number)
        self._count_staged(then.call_id, new.staged)

    # -- what is left to do of a call ---------------------------------------------------------------

    def _count_staged(self, scope: CallId, count: int) -> None:
        self.run.live += count
        scopes.enter(self.run, scope, count)

    def _rest(self, call_id: CallId, address: str) -> Rest:
        """Return what is left to do of a call that has gone, with a timer to do it."""
        rest = self.run.rests.get(call_id)
        if rest is None:
            rest = self.run.rests[call_id] = Rest(address, due_ms=self.now)
            self.effects.append(SetTimer(call_id, rest.due_ms, address))
        return rest

    def _forget(self, call_id: CallId, address: str, size: int) -> None:
        """Forget the results of a gather, in pieces if there are many."""
        if size > scopes.BROUGHT:
            self._rest(call_id, address).results = size
        elif size > 0:
            scopes.take_results(self.run, call_id, range(size))

    def _unstage(self, call_id: CallId, call: Call) -> None:
        for number in range(call.chunks):
            del self.run.staged[call_id, number]
        call.chunks = 0

    def _move_on(self, call_id: CallId, rest: Rest) -> None:
        """Do the next piece of what is left."""
        if rest.chunk < rest.chunks:
            for one in self.run.staged.pop((call_id, rest.chunk)):
                if one.gather < 0:
                    self._add(one.call, rest.scope, rest.member, counted=True)
                else:
                    self._add(one.call, rest.gathers[one.gather], one.member, counted=True)
            rest.chunk += 1
        else:
            first = max(rest.results - scopes.PAGE, 0)
            scopes.take_results(self.run, call_id, range(first, rest.results))
            rest.results = first
        if rest.chunk < rest.chunks or rest.results:
            rest.due_ms = self.now
            self.effects.append(SetTimer(call_id, rest.due_ms, rest.address))
        else:
            del self.run.rests[call_id]
            self.effects.append(ClearTimer(call_id, rest.address))

    def _leave(self, scope: CallId) -> None:
        over = scopes.leave(self.run, scope)
        if over is None:
            return
        if over.lost:
            self._forget(scope, over.address, over.size)
        else:
            self._make(scope, over, gathered=over.size)
        self._leave(over.scope)  # the gather's own place, after its call has taken one

    def _fail(self, scope: CallId, member: int, reason: str) -> None:
        """Have a member, of which something is gone for good, fail; or else the run."""
        if not scopes.fail(self.run, scope, member, reason):
            scopes.lose(self.run, scope)
            self.run.dropped += 1
            self.run.reason = reason

    def _make(
        self,
        call_id: CallId,
        maker: Join | Scope,
        *,
        joined: tuple[str, ...] = (),
        gathered: int = -1,
    ) -> None:
        new = NewCall(call_id, maker.address, maker.body, maker.delay_ms, maker.at_ms)
        self._add(new, maker.scope, maker.member, joined, gathered)

    def _is_over(self) -> bool:
        return not self.run.pending

    def _conclude(self) -> None:
        """Bring the run's status up to date, and say so if it ended, stalled, or came back."""
        run = self.run
        if not run.pending:
            status = Status.FAILED if run.dropped else Status.FINISHED
        elif run.live:
            status = Status.RUNNING
        elif run.timed:
            status = Status.WAITING
        elif run.dead or run.dropped:
            status = Status.FAILED
        else:
            status = Status.WAITING if run.external else Status.STALLED
        if status is run.status and run.pending:
            return
        if status is Status.STALLED:
            run.reason = f"the last call to end was {self.last}." if self.last else ""
        elif run.status is Status.STALLED:
            run.reason = ""
        run.status = status
        if status.is_final:
            self._end()
        elif run.due_ms is not None:
            run.due_ms = None
            self.effects.append(ClearTimer(ROOT, ""))

    def _cancel(self, reason: str) -> None:
        # LIMIT: all that is open goes in one stroke, which takes time for each call and join.
        run = self.run
        for call_id, call in run.calls.items():
            if call.phase is Phase.DEAD:
                self.effects.append(UnburyCall(call_id, call.address))
            elif call.due_ms is not None:
                self.effects.append(ClearTimer(call_id, call.address))
        for join_id, join in run.joins.items():
            if join.due_ms is not None:
                self.effects.append(ClearTimer(join_id, join.address))
        run.pending = run.live = run.dead = run.dropped = run.external = run.timed = 0
        run.reason = reason
        run.status = Status.CANCELLED
        self._end()

    def _end(self) -> None:
        run = self.run
        self.effects.append(EndRun(run.outcome()))
        if run.pending:
            keep_ms = self.rules.dead_retention_ms
        else:
            self._drop_rests()
            run.clear()
            keep_ms = self.rules.retention_ms
            if not keep_ms:
                if run.due_ms is not None:
                    self.effects.append(ClearTimer(ROOT, ""))
                self.effects.append(DeleteRun(run.run_id, run.key))
                return
        run.due_ms = self.now + keep_ms
        self.effects.append(SetTimer(ROOT, run.due_ms, ""))

    def _drop_rests(self) -> None:
        for call_id, rest in self.run.rests.items():
            self.effects.append(ClearTimer(call_id, rest.address))

    def _expire(self) -> Reply:
        run = self.run
        if run.due_ms is None or run.due_ms > self.now:
            return Answer.STALE
        # Only dead calls can be left: a run with any other open call has no due time.
        for call_id, call in run.calls.items():
            self.effects.append(UnburyCall(call_id, call.address))
        self._drop_rests()
        self.effects.append(ClearTimer(ROOT, ""))
        self.effects.append(DeleteRun(run.run_id, run.key))
        return Answer.DONE


def blame(call_id: CallId, address: str, reason: str) -> str:
    """Return what is said of a failure outside of its call."""
    return f"{address} ({call_id}): {reason}"
