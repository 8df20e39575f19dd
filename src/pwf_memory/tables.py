"""Runs in dictionaries, moved on by `transition`; queues, timers and lists built from its effects.

Everything happens under one lock and nothing waits, so all flavours of the adapter share this, from
any thread. Waiting is done by those who call, who leave a callback here to be woken.
"""

from __future__ import annotations

import heapq
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import attrs

from pwf_core.commands import (
    Answer,
    Claim,
    Command,
    Drop,
    Fire,
    Granted,
    Message,
    Renew,
    Reply,
    Start,
    Started,
)
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
from pwf_core.ids import CallId, RunId, session_of
from pwf_core.names import service_of
from pwf_core.paired import PURGED, SWEEP
from pwf_core.ports import Applied, Clock, Exchanged, Take
from pwf_core.state import Rules, RunState, view
from pwf_core.transition import transition
from pwf_core.views import DeadLetter, Outcome, RunView
from pwf_memory.clock import SystemClock

__all__ = ["KEY_GRACE_MS", "MemoryLeases", "Tables"]

# A key outlives its run by this, so that a client that repeats its start late starts nothing twice.
KEY_GRACE_MS = 3600 * 1000

_SESSIONS = 1000  # workers whose last exchange is remembered; more do not share one process

_Name = tuple[RunId, str]  # of a timer: run and call, or run and "" for the run's own


@attrs.define
class _Key:
    run_id: RunId
    fingerprint: str
    expires_ms: int | None = None


@attrs.define
class _Taken:
    """What the last exchange of one worker came to, should its reply get lost."""

    claim_id: str
    replies: list[Reply]
    claims: list[Claim]


class Tables:
    """All runs of one namespace, and what is pending in them.

    Args:
        rules: The deployment's settings.
        clock: The store's clock; the machine's unless a test brings its own.
    """

    def __init__(self, rules: Rules | None = None, clock: Clock | None = None) -> None:
        self.rules = rules or Rules()
        self.clock = clock or SystemClock()
        self.runs: dict[RunId, RunState] = {}
        self.queues: defaultdict[str, deque[Message]] = defaultdict(deque)
        self.dead: dict[tuple[RunId, CallId], int] = {}
        self._lock = threading.RLock()
        self._keys: dict[str, _Key] = {}
        self._dying_keys: deque[tuple[int, str]] = deque()
        self._timers: dict[_Name, int] = {}
        self._heap: list[tuple[int, _Name]] = []
        self._taken: dict[str, _Taken] = {}
        self._enqueued: list[Message] = []
        self._turn = 0
        self._idle: dict[object, tuple[frozenset[str], Callable[[], None]]] = {}
        self._ears: defaultdict[RunId, list[Callable[[Outcome], None]]] = defaultdict(list)

    # -- what the ports do ------------------------------------------------------------------------

    def apply(self, commands: Iterable[Command], *, sweep: int = 0) -> Applied:
        """See `StateStore.apply`."""
        with self._lock:
            now = self.clock.now_ms()
            self._sweep(now, sweep)
            replies = [self._do(command, now) for command in commands]
            enqueued, self._enqueued = self._enqueued, []
            return Applied(replies, enqueued, self._next_due_ms(now))

    def exchange(self, commands: Sequence[Command], take: Take) -> Exchanged:
        """See `Backend.exchange`."""
        session = session_of(take.claim_id)
        with self._lock:
            now = self.clock.now_ms()
            taken = self._taken.get(session)
            if taken is None or taken.claim_id != take.claim_id:
                self._sweep(now, SWEEP)
                replies = [self._do(command, now) for command in commands]
                taken = _Taken(take.claim_id, replies, [])
                self._remember(session, taken)
                grants = self._take(take, taken, now)
            else:
                again = [self._do(claim, now) for claim in taken.claims]
                grants = [reply for reply in again if isinstance(reply, Granted)]
            return Exchanged(list(taken.replies), grants, self._next_due_ms(now))

    def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """See `StateStore.read`."""
        with self._lock:
            found = [self.runs.get(run_id) for run_id in run_ids]
            return [view(run) if run is not None else None for run in found]

    def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """See `StateStore.dead_letters`."""
        letters: list[DeadLetter] = []
        with self._lock:
            for (run_id, call_id), died_ms in self.dead.items():
                call = self.runs[run_id].calls[call_id]
                if service is not None and service_of(call.address) != service:
                    continue
                if len(letters) == limit:
                    break
                letter = DeadLetter(
                    run_id=run_id,
                    call_id=call_id,
                    address=call.address,
                    attempts=call.attempts,
                    reason=call.reason,
                    body=call.body,
                    died_ms=died_ms,
                )
                letters.append(letter)
        return letters

    def purge(self, service: str) -> int:
        """See `Backend.purge` and `StateStore.purge`."""
        with self._lock:
            timed = sorted((due_ms, *name) for name, due_ms in self._timers.items())
            names = [
                *((message.run_id, message.call_id) for message in self.queues[service]),
                *((run_id, CallId(call_id)) for _, run_id, call_id in timed),
            ]
            self.queues[service].clear()
            drops = [
                Drop(run_id, call_id, dead=False, reason=PURGED)
                for run_id, call_id in names
                if (call := self.runs[run_id].calls.get(call_id)) is not None
                and service_of(call.address) == service
            ]
            return self.apply(drops).replies.count(Answer.DONE)

    @contextmanager
    def on_work(self, services: Sequence[str], wake: Callable[[], None]) -> Iterator[None]:
        """Have *wake* called when an exchange may have calls of *services*; at once if it has."""
        token = object()
        with self._lock:
            self._idle[token] = (frozenset(services), wake)
            if any(self.queues.get(service) for service in services):
                wake()
        try:
            yield
        finally:
            with self._lock:
                self._idle.pop(token, None)

    @contextmanager
    def on_end(self, run_id: RunId, hear: Callable[[Outcome], None]) -> Iterator[None]:
        """Have *hear* called whenever the run ends or stalls."""
        with self._lock:
            self._ears[run_id].append(hear)
        try:
            yield
        finally:
            with self._lock:
                ears = self._ears[run_id]
                ears.remove(hear)
                if not ears:
                    del self._ears[run_id]

    def enqueue(self, message: Message) -> None:
        """Put a copy of a call into the queue of its service."""
        service = service_of(message.address)
        with self._lock:
            self.queues[service].append(message)
            self._wake(service)

    def wake_all(self) -> None:
        """Wake everybody who waits for work: time has been moved."""
        with self._lock:
            for _, wake in tuple(self._idle.values()):
                wake()

    # -- commands ---------------------------------------------------------------------------------

    def _do(self, command: Command, now: int) -> Reply:
        if type(command) is Start:
            return self._start(command, now)
        run = self.runs.get(command.run_id)
        if run is None:
            return Answer.ENDED
        reply, effects = transition(run, command, self.rules, now)
        if effects:
            self._perform(run.run_id, effects, now)
        return reply

    def _start(self, command: Start, now: int) -> Reply:
        self._forget_keys(now)
        key = self._keys.get(command.key) if command.key else None
        if key is not None:
            conflict = key.fingerprint != command.fingerprint
            return Started(key.run_id, created=False, conflict=conflict)
        if command.run_id in self.runs:
            return Started(command.run_id, created=False)
        run = self.runs[command.run_id] = RunState(command.run_id)
        if command.key:
            self._keys[command.key] = _Key(command.run_id, command.fingerprint)
        reply, effects = transition(run, command, self.rules, now)
        self._perform(run.run_id, effects, now)
        return reply

    def _forget_keys(self, now: int) -> None:
        while self._dying_keys and self._dying_keys[0][0] <= now:
            _, name = self._dying_keys.popleft()
            self._keys.pop(name, None)

    def _take(self, take: Take, taken: _Taken, now: int) -> list[Granted]:
        """Grant up to the limit, one of each service in turn."""
        grants: list[Granted] = []
        suspects = take.suspects
        self._turn += 1
        start = self._turn % len(take.services) if take.services else 0
        waiting = [
            queue
            for service in (*take.services[start:], *take.services[:start])
            if (queue := self.queues.get(service))
        ]
        while waiting and len(grants) < take.limit:
            for queue in tuple(waiting):
                message = queue.popleft()
                if not queue:
                    waiting.remove(queue)
                claim = Claim(
                    run_id=message.run_id,
                    call_id=message.call_id,
                    generation=message.generation,
                    claim_id=take.claim_id,
                    lease_ms=take.lease_ms,
                    suspects=suspects,
                )
                reply = self._do(claim, now)
                if isinstance(reply, Granted):
                    suspects = suspects and not reply.suspect
                    grants.append(reply)
                    taken.claims.append(claim)
                    if len(grants) == take.limit:
                        break
        return grants

    def _remember(self, session: str, taken: _Taken) -> None:
        self._taken.pop(session, None)  # the latest goes to the end
        self._taken[session] = taken
        if len(self._taken) > _SESSIONS:
            del self._taken[next(iter(self._taken))]

    def _sweep(self, now: int, limit: int) -> None:
        heap = self._heap
        while limit and heap and heap[0][0] <= now:
            due, name = heapq.heappop(heap)
            if self._timers.get(name) != due:
                continue  # set anew or cleared since
            limit -= 1
            del self._timers[name]
            run = self.runs.get(name[0])
            if run is not None and name[1] in run.rests:
                limit = 0  # a rest takes as long as many others
            self._do(Fire(name[0], CallId(name[1])), now)

    def _next_due_ms(self, now: int) -> int | None:
        heap = self._heap
        while heap and self._timers.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return max(heap[0][0] - now, 0) if heap else None

    # -- effects ----------------------------------------------------------------------------------

    def _perform(self, run_id: RunId, effects: Sequence[Effect], now: int) -> None:
        for effect in effects:
            match effect:
                case Enqueue(call_id, generation, address):
                    message = Message(run_id, call_id, generation, address)
                    if self.rules.paired:
                        self._enqueued.append(message)
                    else:
                        self.enqueue(message)
                case SetTimer(call_id, due_ms, address):
                    self._set_timer((run_id, call_id), due_ms, address)
                case ClearTimer(call_id):
                    self._timers.pop((run_id, call_id), None)
                case BuryCall(call_id):
                    self.dead[run_id, call_id] = now
                case UnburyCall(call_id):
                    self.dead.pop((run_id, call_id), None)
                case EndRun(outcome):
                    for hear in tuple(self._ears.get(run_id, ())):
                        hear(outcome)
                case DeleteRun(_, key):
                    del self.runs[run_id]
                    if key:
                        self._dying_keys.append((now + KEY_GRACE_MS, key))

    def _set_timer(self, name: _Name, due_ms: int, address: str) -> None:
        self._timers[name] = due_ms
        heap = self._heap
        if len(heap) > 2 * len(self._timers) + 64:  # mostly renewed leases: start afresh
            heap[:] = [(due, one) for one, due in self._timers.items()]
            heapq.heapify(heap)
        else:
            heapq.heappush(heap, (due_ms, name))
        if heap[0][1] == name:
            self._wake(service_of(address))

    def _wake(self, service: str) -> None:
        for services, wake in tuple(self._idle.values()):
            if service in services:
                wake()


@attrs.frozen
class MemoryLeases:
    """See `Leases`; the tables may be used from any thread as they are."""

    _tables: Tables

    def renew(self, renewals: Sequence[Renew]) -> list[Reply]:
        """See `Leases.renew`."""
        return self._tables.apply(renewals).replies

    def close(self) -> None:
        """See `Leases.close`; nothing was opened."""
