"""The reference: what each command does to a run, what it answers, and what follows from it.

`transition` is pure of I/O, clock and chance. It changes the state that it is given, in time that
does not grow with the run. The memory adapter runs it as it is; the Redis scripts do the same inside
Redis and are held to it by differential tests.

A claim on the valid copy of a call leases it; only that claim can commit, postpone or bury it. The
lease's end is a timer like any other. What the commands are made of is in `lifecycle`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pwf_core import scopes
from pwf_core.commands import (
    DEFER_MS,
    Answer,
    Bury,
    Cancel,
    Claim,
    Collect,
    Command,
    Commit,
    Drop,
    Emit,
    Fire,
    Page,
    Postpone,
    Postponement,
    Renew,
    Reply,
    Requeue,
    Settle,
    Stage,
    Start,
    Started,
)
from pwf_core.effects import Effect
from pwf_core.ids import CallId
from pwf_core.lifecycle import OUTBOX_MS, SUSPECT_LOST, Lifecycle, blame
from pwf_core.state import ROOT, Rest, Rules, RunState
from pwf_core.views import Phase

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


class _Step(Lifecycle):
    """One command being applied: what each kind of them does."""

    __slots__ = ()

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
        self._unstage(command.call_id, call)
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
        if decision.chunks != call.chunks:
            return Answer.LOST  # the store has forgotten a part, or never had it
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
        self._count_staged(scope, decision.staged)
        call.chunks = 0  # they are the rest's now
        self._remove(command.call_id, call)
        if decision.chunks:
            rest = self._rest(command.call_id, call.address)
            rest.scope, rest.member, rest.chunks = scope, member, decision.chunks
            rest.gathers = tuple(gather.then.call_id for gather in decision.gathers)
        self._conclude()
        return Answer.DONE

    def stage(self, command: Stage) -> Reply:
        call = self._claimed(command)
        if isinstance(call, Answer):
            return call
        if command.number == call.chunks:
            self.run.staged[command.call_id, command.number] = command.calls
            call.chunks += 1
        return Answer.DONE if command.number < call.chunks else Answer.LOST

    def collect(self, command: Collect) -> Reply:
        call = self._claimed(command)
        if isinstance(call, Answer):
            return call
        return Page(
            scopes.page(self.run, command.call_id, range(command.first, max(call.gathered, 0)))
        )

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
            rest = self.run.rests.get(command.call_id)
            if rest is None:
                return self._fire_join(command.call_id)
            return self._fire_rest(command.call_id, rest)
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
        reason = blame(command.call_id, call.address, command.reason)
        self._fail(call.scope, call.member, reason)
        self._remove(command.call_id, call)
        self._conclude()
        return Answer.DONE

    def cancel(self, command: Cancel) -> Reply:
        if self._is_over():
            return Answer.ENDED
        self._cancel(command.reason)
        return Answer.DONE

    def _fire_rest(self, call_id: CallId, rest: Rest) -> Reply:
        if rest.due_ms > self.now:
            return Answer.STALE
        self._move_on(call_id, rest)
        return Answer.DONE

    def _fire_join(self, join_id: CallId) -> Reply:
        join = self.run.joins.get(join_id)
        if join is None:
            return Answer.ENDED
        if join.due_ms is None or join.due_ms > self.now:
            return Answer.STALE
        self._lapse(join_id, join)
        self._conclude()
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
    Cancel: _Step.cancel,
    Stage: _Step.stage,
    Collect: _Step.collect,
}
