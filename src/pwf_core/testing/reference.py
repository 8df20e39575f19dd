"""A store beside the reference: random commands, and after every batch both say and hold the same.

`Reference` keeps runs in dictionaries, moved on by `transition`; its timers, lists and queues come
from the effects alone. `test_store_equals_the_reference` drives it beside the store under test.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pwf_core.commands import (
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
    Message,
    Postpone,
    Postponement,
    Renew,
    Reply,
    Requeue,
    Settle,
    Start,
    Started,
)
from pwf_core.decisions import Decision, NewCall, NewGather, NewJoin
from pwf_core.effects import (
    BuryCall,
    ClearTimer,
    DeleteRun,
    Effect,
    Enqueue,
    SetTimer,
    UnburyCall,
)
from pwf_core.ids import CallId, ClaimId, RunId, home_of, place_in, placed
from pwf_core.names import service_of
from pwf_core.paired import PURGED
from pwf_core.ports import StateStore
from pwf_core.staging import in_parts
from pwf_core.state import Rules, RunState, view
from pwf_core.testing.harness import Harness
from pwf_core.transition import transition
from pwf_core.views import Phase, RunView

__all__ = ["Reference", "test_store_equals_the_reference"]

_SERVICES = ("work", "other")
_EVENTS = ("a", "b", "c", "d")
_KEYS = ("", "", "k1", "k2")
_ALL = 10_000
# Keys outlive their runs by an hour of a clock that the reference does not have.
_LONGEST_MS = 3_000_000


@attrs.define
class Reference:
    """A store of runs that is nothing but `transition` and its effects.

    Attributes:
        now_ms: The time.
    """

    rules: Rules
    now_ms: int = 1_000_000_000_000
    runs: dict[RunId, RunState] = attrs.field(factory=dict)
    keys: dict[str, tuple[RunId, str]] = attrs.field(factory=dict)
    timers: dict[tuple[RunId, str], int] = attrs.field(factory=dict)
    dead: dict[tuple[RunId, CallId], int] = attrs.field(factory=dict)
    _enqueued: list[Message] = attrs.field(factory=list)

    def apply(
        self, commands: Sequence[Command], *, sweep: bool
    ) -> tuple[list[Reply], list[Message]]:
        """Return the replies and what is to be published."""
        if sweep:
            due = [(due_ms, *name) for name, due_ms in self.timers.items() if due_ms <= self.now_ms]
            for _, run_id, call_id in sorted(due):
                del self.timers[run_id, call_id]
                is_rest = call_id in self.runs[run_id].rests
                self._do(Fire(run_id, CallId(call_id)))
                if is_rest:
                    break
        replies = [self._do(command) for command in commands]
        enqueued, self._enqueued = self._enqueued, []
        return replies, enqueued

    def next_due_ms(self) -> int | None:
        """Return how long until the earliest timer."""
        return max(min(self.timers.values()) - self.now_ms, 0) if self.timers else None

    def purge(self, service: str) -> int:
        """Drop what waits of *service*, in the order in which it is due; return how many."""
        names = [
            (run_id, CallId(call_id))
            for _, run_id, call_id in sorted((due, *name) for name, due in self.timers.items())
            if (call := self.runs[run_id].calls.get(CallId(call_id))) is not None
            and service_of(call.address) == service
        ]
        drops = [Drop(run_id, call_id, dead=False, reason=PURGED) for run_id, call_id in names]
        count = [self._do(drop) for drop in drops].count(Answer.DONE)
        self._enqueued.clear()  # a later sweep publishes it
        return count

    def _do(self, command: Command) -> Reply:
        if isinstance(command, Start):
            known = self.keys.get(command.key)
            if known is not None:
                return Started(known[0], created=False, conflict=known[1] != command.fingerprint)
            if command.run_id in self.runs:
                return Started(command.run_id, created=False)
            self.runs[command.run_id] = RunState(command.run_id)
            if command.key:
                self.keys[command.key] = (command.run_id, command.fingerprint)
        run = self.runs.get(command.run_id)
        if run is None:
            return Answer.ENDED
        reply, effects = transition(run, command, self.rules, self.now_ms)
        for effect in effects:
            self._perform(command.run_id, effect)
        return reply

    def _perform(self, run_id: RunId, effect: Effect) -> None:
        match effect:
            case Enqueue(call_id, generation, address):
                self._enqueued.append(Message(run_id, call_id, generation, address))
            case SetTimer(call_id, due_ms):
                self.timers[run_id, call_id] = due_ms
            case ClearTimer(call_id):
                self.timers.pop((run_id, call_id), None)
            case BuryCall(call_id):
                self.dead[run_id, call_id] = self.now_ms
            case UnburyCall(call_id):
                self.dead.pop((run_id, call_id), None)
            case DeleteRun(_, _):
                del self.runs[run_id]  # its key stays, for longer than any example takes


class _References:
    """A reference for each partition, as if they were one."""

    def __init__(self, rules: Rules, partitions: int) -> None:
        self.parts = [Reference(rules) for _ in range(partitions)]

    def of(self, run_id: RunId) -> Reference:
        """Return where a run is."""
        place = place_in(run_id)
        return self.parts[home_of(run_id, len(self.parts)) if place is None else place]

    def apply(
        self, commands: Sequence[Command], *, sweep: bool
    ) -> tuple[list[Reply], list[Message]]:
        """See `Reference`; all sweep before any applies."""
        enqueued = [copy for part in self.parts for copy in part.apply([], sweep=sweep)[1]]
        replies: list[Reply] = []
        for command in commands:
            answered, copies = self.of(command.run_id).apply([command], sweep=False)
            replies += answered
            enqueued += copies
        return replies, enqueued

    def next_due_ms(self) -> int | None:
        """See `Reference`."""
        return min(
            (due for one in self.parts if (due := one.next_due_ms()) is not None), default=None
        )

    def purge(self, service: str) -> int:
        """See `Reference`."""
        return sum(part.purge(service) for part in self.parts)

    def elapse(self, ms: int) -> None:
        """Let time pass."""
        for part in self.parts:
            part.now_ms += ms

    def run(self, run_id: RunId) -> RunState | None:
        """Return a run."""
        return self.of(run_id).runs.get(run_id)

    @property
    def dead(self) -> list[tuple[RunId, CallId]]:
        """Return the dead letters."""
        return [name for part in self.parts for name in part.dead]


class _Machine(RuleBasedStateMachine):
    """Collects a batch of commands, sends it to both, and compares."""

    def __init__(self, harness: Harness[StateStore]) -> None:
        super().__init__()
        self.elapsed_ms = 0
        self.harness = harness
        self.loop = asyncio.Runner()
        self.ids = self._new_ids()
        self.batch: list[Command] = []
        self.copies: list[Message] = []
        self.claims: list[Claim] = []
        self.runs: list[RunId] = []
        self.offset_ms: int | None = None

    @initialize(retention=st.sampled_from([0, 5]), dead_retention=st.sampled_from([3, 1000]))
    def open(self, retention: int, dead_retention: int) -> None:
        """Take fresh names, with some retention."""
        tick = self.harness.tick if self.harness.virtual else 3_600_000
        rules = Rules(
            paired=True,
            retention_ms=retention * tick,
            dead_retention_ms=dead_retention * tick,
        )
        self.loop.run(self.harness.open(rules))
        self.store = self.loop.run(self.harness.connect())
        self.partitions = self.store.capabilities.partitions
        self.reference = _References(rules, self.partitions)

    def teardown(self) -> None:
        """Close what was opened."""
        try:
            if hasattr(self, "store"):
                self.loop.run(self.harness.close())
        finally:
            self.loop.close()

    # -- commands ---------------------------------------------------------------------------------

    @rule(data=st.data(), sweep=st.booleans())
    def act(self, data: st.DataObject, *, sweep: bool) -> None:
        """Add commands to the batch, those that move runs on more often than the others."""
        for _ in range(data.draw(st.integers(1, 4))):
            kinds: list[Callable[[st.DataObject], Command | list[Command]]] = [self._start]
            if self.copies:
                kinds += [self._claim] * 6 + [self._settle, self._fire, self._requeue, self._drop]
            if self.claims:
                kinds += [self._commit] * 4 + [self._commit_in_parts] * 2
                kinds += [self._claim_again, self._renew, self._postpone, self._bury]
                kinds += [self._collect]
            if self.runs:
                kinds += [self._emit, self._emit, self._fire_run, self._cancel]
            drawn = data.draw(st.sampled_from(kinds))(data)
            self.batch += drawn if isinstance(drawn, list) else [drawn]
            if data.draw(st.booleans()):
                self.send(sweep=sweep)

    def _start(self, data: st.DataObject) -> Start:
        run_id = RunId(next(self.ids))
        key, fingerprint = data.draw(st.sampled_from(_KEYS)), data.draw(st.sampled_from("fg"))
        if key and self.partitions > 1:
            run_id = placed(run_id, home_of(key, self.partitions))
        self.runs.append(run_id)
        return Start(run_id, self._call(data), key, fingerprint)

    def _claim(self, data: st.DataObject) -> Claim:
        """Claim a copy: the one at hand mostly, or an older or newer one."""
        copy = self._draw(data, self.copies)
        claim = Claim(
            run_id=copy.run_id,
            call_id=copy.call_id,
            generation=max(copy.generation + data.draw(st.sampled_from([0] * 8 + [-1, 1])), 0),
            claim_id=ClaimId(f"{next(self.ids)}:1"),
            lease_ms=self._lease(data),
            suspects=data.draw(st.sampled_from([True, True, False])),
        )
        self.claims.append(claim)
        return claim

    def _claim_again(self, data: st.DataObject) -> Claim:
        claim: Claim = self._draw(data, self.claims)
        return claim

    def _renew(self, data: st.DataObject) -> Renew:
        return Renew(*self._claimed(data), self._lease(data))

    def _commit(self, data: st.DataObject) -> Commit:
        few = st.sampled_from([0, 0, 1, 2])
        emits = st.lists(st.sampled_from(_EVENTS), max_size=2)
        decision = Decision(
            calls=tuple(self._call(data) for _ in range(data.draw(few))),
            emits=tuple((event, next(self.ids).encode()) for event in data.draw(emits)),
            joins=tuple(self._join(data) for _ in range(data.draw(few))),
            gathers=tuple(self._gather(data) for _ in range(data.draw(few))),
            result=next(self.ids).encode() if data.draw(st.booleans()) else None,
        )
        return Commit(*self._claimed(data), decision)

    def _commit_in_parts(self, data: st.DataObject) -> list[Command]:
        """Put a decision down in small parts; now and then one gets lost."""
        parts: list[Command] = list(in_parts(self._commit(data), data.draw(st.integers(0, 2))))
        if data.draw(st.sampled_from([False] * 5 + [True])):
            del parts[data.draw(st.integers(0, len(parts) - 1))]
        return parts

    def _collect(self, data: st.DataObject) -> Collect:
        return Collect(*self._claimed(data), data.draw(st.integers(0, 2)))

    def _postpone(self, data: st.DataObject) -> Postpone:
        kind = data.draw(st.sampled_from(Postponement))
        return Postpone(*self._claimed(data), kind, self._delay(data), next(self.ids))

    def _bury(self, data: st.DataObject) -> Bury:
        return Bury(*self._claimed(data), next(self.ids))

    def _emit(self, data: st.DataObject) -> Emit:
        event = data.draw(st.sampled_from(_EVENTS))
        return Emit(self._draw(data, self.runs), event, next(self.ids).encode())

    def _settle(self, data: st.DataObject) -> Settle:
        copy = self._draw(data, self.copies)
        return Settle(copy.run_id, copy.call_id, copy.generation)

    def _fire(self, data: st.DataObject) -> Fire:
        copy = self._draw(data, self.copies)
        return Fire(copy.run_id, copy.call_id)

    def _fire_run(self, data: st.DataObject) -> Fire:
        return Fire(self._draw(data, self.runs), CallId(""))

    def _cancel(self, data: st.DataObject) -> Cancel:
        return Cancel(self._draw(data, self.runs), next(self.ids))

    def _requeue(self, data: st.DataObject) -> Requeue:
        dead = self.reference.dead
        copy = self._draw(data, self.copies)
        return Requeue(*(self._draw(data, dead) if dead else (copy.run_id, copy.call_id)))

    def _drop(self, data: st.DataObject) -> Drop:
        copy = self._draw(data, self.copies)
        dead = data.draw(st.booleans())
        return Drop(copy.run_id, copy.call_id, dead=dead, reason=next(self.ids))

    # -- time and comparison ----------------------------------------------------------------------

    def send(self, *, sweep: bool) -> None:
        """Send what has been collected to both, and compare what they say and what they hold."""
        batch, self.batch = self.batch, []
        replies, enqueued = self.reference.apply(batch, sweep=sweep)
        applied = self.loop.run(self.store.apply(batch, sweep=_ALL if sweep else 0))

        assert replies == applied.replies
        assert sorted(enqueued, key=_by_name) == sorted(applied.enqueued, key=_by_name)
        self.copies += enqueued
        if self.harness.virtual:
            assert self.reference.next_due_ms() == applied.next_due_ms
        if sweep:
            self._compare(self.runs)
            self._compare_lists()
        else:
            self._compare(list({command.run_id for command in batch}))

    def _compare(self, run_ids: Sequence[RunId]) -> None:
        views = self.loop.run(self.store.read(run_ids))
        for run_id, seen in zip(run_ids, views, strict=True):
            run = self.reference.run(run_id)
            assert (None if run is None else self._plain(view(run))) == self._plain(seen, real=True)

    def _compare_lists(self) -> None:
        letters = self.loop.run(self.store.dead_letters(None, _ALL))
        assert set(self.reference.dead) == {(one.run_id, one.call_id) for one in letters}
        assert sorted(one.died_ms for one in letters) == [one.died_ms for one in letters]

    @rule(service=st.sampled_from(_SERVICES), sure=st.sampled_from([False] * 7 + [True]))
    def purge(self, service: str, *, sure: bool) -> None:
        """Purge a service now and then, after what has been collected was sent."""
        if sure:
            self.send(sweep=True)
            assert self.reference.purge(service) == self.loop.run(self.store.purge(service))
            self._compare(self.runs)

    @precondition(lambda self: self.harness.virtual)
    @rule(ticks=st.sampled_from([1, 2, 4, 10, 1001]))
    def elapse(self, ticks: int) -> None:
        """Let time pass, after what has been collected was sent."""
        self.send(sweep=False)
        ms = ticks * self.harness.tick
        if self.elapsed_ms + ms > _LONGEST_MS:
            return
        self.elapsed_ms += ms
        self.reference.elapse(ms)
        self.loop.run(self.harness.elapse(ms))

    # -- making -----------------------------------------------------------------------------------

    def _plain(self, seen: RunView | None, *, real: bool = False) -> object:
        """Return a view that compares: sorted, and its times by the reference's clock."""
        if seen is None:
            return None
        calls = []
        for call in sorted(seen.calls, key=lambda one: one.call_id):
            due_ms = call.due_ms
            if due_ms is not None:
                due_ms = self._by_reference(call.call_id, seen.run_id, due_ms) if real else due_ms
                due_ms = due_ms if self.harness.virtual else 0
            calls.append(msgspec.structs.replace(call, due_ms=due_ms))
        joins = sorted(seen.joins, key=lambda one: one.call_id)
        return (seen.run_id, seen.outcome, calls, joins, sorted(seen.events))

    def _by_reference(self, call_id: CallId, run_id: RunId, due_ms: int) -> int:
        """Both clocks stand still together, some constant apart, which the first time tells."""
        if self.offset_ms is None:
            run = self.reference.run(run_id)
            call = run.calls.get(call_id) if run is not None else None
            if call is None or call.due_ms is None:
                return due_ms
            self.offset_ms = due_ms - call.due_ms
        return due_ms - self.offset_ms

    def _call(self, data: st.DataObject) -> NewCall:
        address = f"{data.draw(st.sampled_from(_SERVICES))}.task"
        body = data.draw(st.binary(max_size=3))
        past = data.draw(st.sampled_from([0, 0, 0, 1]))
        return NewCall(CallId(next(self.ids)), address, body, self._delay(data), past)

    def _join(self, data: st.DataObject) -> NewJoin:
        names = st.lists(st.sampled_from(_EVENTS), min_size=1, max_size=3, unique=True)
        events = tuple(data.draw(names))
        external = events[: data.draw(st.integers(0, 1))]
        timeout_ms = self._delay(data)
        late = self._call(data) if timeout_ms and data.draw(st.booleans()) else None
        return NewJoin(self._call(data), events, external, timeout_ms, late)

    def _gather(self, data: st.DataObject) -> NewGather:
        members = tuple(self._call(data) for _ in range(data.draw(st.integers(0, 3))))
        return NewGather(self._call(data), members, data.draw(st.sampled_from([0, 0, 1, 3])))

    def _delay(self, data: st.DataObject) -> int:
        ticks = data.draw(st.sampled_from([0, 0, 0, 1, 3]))
        return ticks * (self.harness.tick if self.harness.virtual else 3_600_000)

    def _lease(self, data: st.DataObject) -> int:
        ticks = data.draw(st.sampled_from([1, 100, 10_000]))
        return ticks * (self.harness.tick if self.harness.virtual else 3_600_000)

    def _claimed(self, data: st.DataObject) -> tuple[RunId, CallId, ClaimId]:
        claim = self._draw(data, self.claims)
        return claim.run_id, claim.call_id, claim.claim_id

    def _draw(self, data: st.DataObject, among: Sequence[Any]) -> Any:
        """Draw one of the latest."""
        return data.draw(st.sampled_from(among[-6:]))

    def _new_ids(self) -> Iterator[str]:
        # The same for each machine, whose names are fresh: they say in which partitions runs are.
        for number in itertools.count(1):
            yield f"{number:032x}"


def _by_name(copy: Message) -> tuple[str, str, int]:
    return copy.run_id, copy.call_id, copy.generation


def test_store_equals_the_reference(harness: Harness[StateStore]) -> None:
    """Whatever it is told, a store answers and holds what the reference `transition` does."""
    run_state_machine_as_test(lambda: _Machine(harness))  # type: ignore[arg-type]  # any factory will do
