"""The reference: what each command does to a run, what it answers, and what follows from it.

`transition` is pure of I/O, clock and chance. It changes the state that it is given, in time that
does not grow with the run. The memory adapter runs it as it is; the Redis scripts do the same inside
Redis and are held to it by differential tests.

Theory of operation. A call is born queued (or timed) with generation 0. Whatever puts a new copy of
it on its way (retry, park, takeover, requeue) raises the generation, so that older copies run
nothing. A claim on the valid copy leases the call; only that claim can commit, postpone or bury it.
The lease's end is a timer like any other. A call leaves `calls` in `_remove`, called by the commit
that has added its children first, or by a drop; so no scope can look finished while something of
it is still to come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pwf_core import joins, scopes
from pwf_core.commands import (
    Answer,
    Bury,
    Claim,
    Command,
    Commit,
    Drop,
    Emit,
    Fire,
    Granted,
    Postpone,
    Postponement,
    Renew,
    Reply,
    Requeue,
    Settle,
    Start,
    Started,
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
from pwf_core.state import ROOT, Call, Join, Rules, RunState, Scope
from pwf_core.views import Phase, Status

__all__ = [
    "DEFER_MS",
    "MAX_LOST",
    "OUTBOX_MS",
    "SUSPECT_LOST",
    "UNCLAIMED_MS",
    "transition",
]

# A call that takes its worker down does so each time; five times in a row is no coincidence.
MAX_LOST = 5
# From two on, a process runs one such call at a time, so that the innocent beside it get away.
SUSPECT_LOST = 2
# Until a suspect comes again that met a worker with a suspect of its own: 64 innocent calls that
# were lost with a guilty one get through one by one, each after a few of these.
DEFER_MS = 100
# Until a copy is published again that no publisher has settled; publishing takes far less.
OUTBOX_MS = 5000
# Until a copy is published again that the broker has taken and nobody has claimed: its queue was
# lost, or a worker holds it that hangs. Four times as long each time, so that calls which only
# wait behind many others are not multiplied: 1, 4, 16 minutes, an hour, four hours.
UNCLAIMED_MS = 60_000
_MOST_UNCLAIMED = 4


def transition(
    run: RunState,
    command: Command,
    rules: Rules,
    now_ms: int,
) -> tuple[Reply, list[Effect]]:
    """Apply *command* to *run*, in place, and return its answer and the effects.

    Args:
        run: The run that the command names; a fresh one for `Start`.
        command: What to do.
        rules: The deployment's settings.
        now_ms: The store's clock, in milliseconds since the epoch.
    """
    step = _Step(run, rules, now_ms)
    reply = _HANDLERS[type(command)](step, command)
    return reply, step.effects


class _Step:
    """One command being applied."""

    __slots__ = ("effects", "last", "now", "rules", "run")

    def __init__(self, run: RunState, rules: Rules, now: int) -> None:
        self.run = run
        self.rules = rules
        self.now = now
        self.effects: list[Effect] = []
        self.last = ""  # the call that this command ended, for people

    # -- commands ---------------------------------------------------------------------------------

    def start(self, command: Start) -> Reply:
        self.run.key = command.key
        self._add(command.call, ROOT, 0)
        return Started(command.run_id, created=True)

    def claim(self, command: Claim) -> Reply:
        call = self.run.calls.get(command.call_id)
        if call is None:
            return Answer.ENDED
        leased = call.phase is Phase.LEASED
        if leased and call.claim_id == command.claim_id:
            return self._grant(command, call)
        if command.generation < call.generation:
            return Answer.STALE
        if command.generation > call.generation:
            # The store went back in time: it has forgotten what made this copy. Adopt it.
            call.generation = command.generation
            if call.phase is Phase.DEAD:
                self._revive(command.call_id, call)
                self._conclude()
        elif leased:
            return Answer.BUSY
        elif call.phase not in {Phase.QUEUED, Phase.OUTBOX}:
            return Answer.STALE
        if call.lost >= SUSPECT_LOST and not command.suspects:
            call.generation += 1
            self._wait(command.call_id, call, Phase.TIMED, DEFER_MS)
            return Answer.DEFERRED
        call.claim_id = command.claim_id
        call.unclaimed = 0
        call.attempts += 1
        self._wait(command.call_id, call, Phase.LEASED, command.lease_ms)
        return self._grant(command, call)

    def renew(self, command: Renew) -> Reply:
        call = self._claimed(command)
        if isinstance(call, Answer):
            return call
        self._wait(command.call_id, call, Phase.LEASED, command.lease_ms)
        return Answer.DONE

    def commit(self, command: Commit) -> Reply:
        call = self._claimed(command)
        if isinstance(call, Answer):
            return call
        scope, member, decision = call.scope, call.member, command.decision
        if decision.result is not None:
            scopes.write_result(self.run, scope, member, decision.result)
        for event, payload in decision.emits:
            self._emit(event, payload)
        for join in decision.joins:
            self._join(join, scope, member)
        for gather in decision.gathers:
            self._gather(gather, scope, member)
        for new in decision.calls:
            self._add(new, scope, member)
        self._remove(command.call_id, call)
        self._conclude()
        return Answer.DONE

    def postpone(self, command: Postpone) -> Reply:
        call = self._claimed(command)
        if isinstance(call, Answer):
            return call
        if command.kind is not Postponement.RETRY:
            call.attempts -= 1
        call.reason = command.reason
        call.generation += 1
        parked = command.kind is Postponement.PARK
        self._schedule(command.call_id, call, command.delay_ms, parked=parked)
        return Answer.DONE

    def bury(self, command: Bury) -> Reply:
        call = self._claimed(command)
        if isinstance(call, Answer):
            return call
        self._bury(command.call_id, call, command.reason)
        self._conclude()
        return Answer.DONE

    def emit(self, command: Emit) -> Reply:
        if self._is_over():
            return Answer.ENDED
        if not self._emit(command.event, command.payload):
            return Answer.REFUSED
        self._conclude()
        return Answer.DONE

    def settle(self, command: Settle) -> Reply:
        call = self.run.calls.get(command.call_id)
        if call is None:
            return Answer.ENDED
        if call.phase is not Phase.OUTBOX or call.generation != command.generation:
            return Answer.STALE
        delay_ms = UNCLAIMED_MS * 4 ** min(call.unclaimed, _MOST_UNCLAIMED)
        self._wait(command.call_id, call, Phase.QUEUED, delay_ms)
        return Answer.DONE

    def fire(self, command: Fire) -> Reply:
        if not command.call_id:
            return self._expire()
        call = self.run.calls.get(command.call_id)
        if call is None:
            return Answer.ENDED
        if call.due_ms is None or call.due_ms > self.now:
            return Answer.STALE
        if call.phase is Phase.LEASED:
            call.lost += 1
            call.generation += 1
            if call.lost >= MAX_LOST:
                reason = (
                    f"its worker died, or held it without renewing the lease, {call.lost} times"
                )
                self._bury(command.call_id, call, reason)
                self._conclude()
                return Answer.DONE
        elif call.phase is Phase.QUEUED:
            call.unclaimed += 1
        self._enqueue(command.call_id, call)
        return Answer.DONE

    def requeue(self, command: Requeue) -> Reply:
        call = self.run.calls.get(command.call_id)
        if call is None:
            return Answer.ENDED
        if call.phase is not Phase.DEAD:
            return Answer.STALE
        self._revive(command.call_id, call)
        call.generation += 1
        call.attempts = call.lost = 0
        self._enqueue(command.call_id, call)
        self._conclude()
        return Answer.DONE

    def drop(self, command: Drop) -> Reply:
        call = self.run.calls.get(command.call_id)
        if call is None:
            return Answer.ENDED
        if call.phase is Phase.LEASED or (call.phase is Phase.DEAD) is not command.dead:
            return Answer.STALE
        if command.dead:
            self._revive(command.call_id, call)
        self.run.dropped += 1
        self.run.reason = f"{call.address} ({command.call_id}): {command.reason}"
        scopes.lose(self.run, call.scope)
        self._remove(command.call_id, call)
        self._conclude()
        return Answer.DONE

    # -- the life of a call -----------------------------------------------------------------------

    def _add(
        self,
        new: NewCall,
        scope: CallId,
        member: int,
        joined: tuple[str, ...] = (),
        gathered: int = -1,
    ) -> None:
        call = Call(new.address, new.body, scope, member, Phase.QUEUED)
        call.joined = joined
        call.gathered = gathered
        self.run.calls[new.call_id] = call
        self.run.live += 1
        scopes.enter(self.run, scope)
        delay_ms = max(new.due_ms - self.now, 0) if new.due_ms else new.delay_ms
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

    def _claimed(self, command: Renew | Commit | Postpone | Bury) -> Call | Answer:
        call = self.run.calls.get(command.call_id)
        if call is None:
            return Answer.ENDED
        if call.phase is not Phase.LEASED or call.claim_id != command.claim_id:
            return Answer.LOST
        return call

    def _grant(self, command: Claim, call: Call) -> Granted:
        run = self.run
        results = None
        if call.gathered >= 0:
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
        )

    def _remove(self, call_id: CallId, call: Call) -> None:
        del self.run.calls[call_id]
        self.last = f"{call.address} ({call_id})"
        self.run.live -= 1
        if call.due_ms is not None:
            self.effects.append(ClearTimer(call_id, call.address))
        if call.gathered > 0:
            scopes.take_results(self.run, call_id, call.gathered)
        self._leave(call.scope)

    def _bury(self, call_id: CallId, call: Call, reason: str) -> None:
        call.phase = Phase.DEAD
        call.claim_id = ClaimId("")
        call.reason = reason
        call.due_ms = None
        self.run.live -= 1
        self.run.dead += 1
        self.run.reason = f"{call.address} ({call_id}): {reason}"
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
        )
        if joins.register(self.run, then.call_id, join):
            self._make(then.call_id, join, joined=join.events)
        else:
            scopes.enter(self.run, scope)

    def _gather(self, new: NewGather, scope: CallId, member: int) -> None:
        then = new.then
        record = Scope(
            address=then.address,
            body=then.body,
            delay_ms=then.delay_ms,
            at_ms=then.due_ms,
            scope=scope,
            member=member,
            size=len(new.members),
        )
        if not new.members:
            self._make(then.call_id, record, gathered=0)
            return
        self.run.scopes[then.call_id] = record
        scopes.enter(self.run, scope)
        for number, call in enumerate(new.members):
            self._add(call, then.call_id, number)

    def _leave(self, scope: CallId) -> None:
        over = scopes.leave(self.run, scope)
        if over is None:
            return
        if over.lost:
            scopes.take_results(self.run, scope, over.size)
            scopes.lose(self.run, over.scope)
        else:
            self._make(scope, over, gathered=over.size)
        self._leave(over.scope)  # the gather's own place, after its call has taken one

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
        if not status.is_final:
            if run.due_ms is not None:
                run.due_ms = None
                self.effects.append(ClearTimer(ROOT, ""))
            return
        self.effects.append(EndRun(run.outcome()))
        if run.pending:
            keep_ms = self.rules.dead_retention_ms
        else:
            run.events.clear()
            keep_ms = self.rules.retention_ms
            if not keep_ms:
                if run.due_ms is not None:
                    self.effects.append(ClearTimer(ROOT, ""))
                self.effects.append(DeleteRun(run.run_id, run.key))
                return
        run.due_ms = self.now + keep_ms
        self.effects.append(SetTimer(ROOT, run.due_ms, ""))

    def _expire(self) -> Reply:
        run = self.run
        if run.due_ms is None or run.due_ms > self.now:
            return Answer.STALE
        # Only dead calls can be left: a run with any other open call has no due time.
        for call_id, call in run.calls.items():
            self.effects.append(UnburyCall(call_id, call.address))
        self.effects.append(ClearTimer(ROOT, ""))
        self.effects.append(DeleteRun(run.run_id, run.key))
        return Answer.DONE


_HANDLERS: dict[type, Callable[[_Step, Any], Reply]] = {
    Start: _Step.start,
    Claim: _Step.claim,
    Renew: _Step.renew,
    Commit: _Step.commit,
    Postpone: _Step.postpone,
    Bury: _Step.bury,
    Emit: _Step.emit,
    Settle: _Step.settle,
    Fire: _Step.fire,
    Requeue: _Step.requeue,
    Drop: _Step.drop,
}
