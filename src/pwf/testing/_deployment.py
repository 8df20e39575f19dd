"""A deployment in one thread, on a virtual clock, in which every effect can go wrong by plan.

The store is the reference, the workers are real `Engine`s, and the protocol between them is the one
that real backends run: either fused, or `Paired` with a broker that is a few lists. What a worker has
under way are generators of effects (`_workers.py`); here is decided what becomes of each effect, so that
a worker can die before it or after it, be told that the server was away, or be left standing at it, alone
or with all that it has under way.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import attrs

from pwf._handlers import call_sync, gather_returned
from pwf._options import WorkerOptions, make_engine
from pwf.testing._observing import NotingContext, Recording, Trip, commits, describe
from pwf.testing._workers import Lane, Life, Protocol, Worker
from pwf_core.commands import Start
from pwf_core.decisions import Decision
from pwf_core.errors import BrokerUnavailableError, StoreUnavailableError, UnavailableError
from pwf_core.ids import CallId
from pwf_core.names import service_of
from pwf_core.paired import Ack, Apply, Publish, Receive, Reject, apply_steps
from pwf_core.ports import Delivery
from pwf_core.service import Service
from pwf_core.state import Rules
from pwf_core.underway import RunningCall
from pwf_core.views import RunView
from pwf_memory.clock import VirtualClock

__all__ = ["CrashError", "Deployment", "Fault", "Kind", "kinds_of"]

_ENDLESS = 10_000  # effects of one run; more is a loop
_LONG = 10_000  # ms that a lane is overtaken for, at the most: two leases


class CrashError(BaseException):
    """What a handler raises that takes its process down."""


class Kind(StrEnum):
    """What can go wrong at an effect."""

    DEAD_BEFORE = "dies before"
    DEAD_AFTER = "dies after"
    AWAY = "finds the server away"
    REPLY_LOST = "gets no reply"
    STALLED = "stands still until the others have nothing to do"
    OVERTAKEN = "stands still until another is about to commit"
    DOUBLED = "and every message is doubled"
    REORDERED = "and messages come in the opposite order"
    # Of one lane, while the rest of its worker goes on:
    LATE = "arrives when the rest of the worker waits for it"
    ANSWERED_LATE = "is answered when the rest of the worker waits for it"
    OUTRUN = "is answered when another lane is about to commit"


# Messages that are waiting, without which nothing comes of it.
_FEWEST = {Kind.DOUBLED: 1, Kind.REORDERED: 2}

_OF_LANES = (Kind.LATE, Kind.ANSWERED_LATE, Kind.OUTRUN)


def kinds_of(protocol: Protocol) -> list[Kind]:
    """Return what can go wrong there."""
    return [kind for kind in Kind if protocol.lanes > 1 or kind not in _OF_LANES]


@attrs.frozen(order=True)
class Fault:
    """Something that goes wrong at one effect of a run, counted from 0."""

    at: int
    kind: Kind


class Deployment:
    """One run of a workflow, with what goes wrong in it.

    Attributes:
        tables: The store.
        made: Each effect that was made: by which lane, and what went wrong.
        effects: How often each `ctx.effect(name)` was asked for, by call, task and name.
        guilty: Calls whose handlers have taken a worker down.
        is_vain: Whether something that went wrong has changed nothing: there were no messages for it.
            The run goes on no further, for it would be the one without that.
    """

    def __init__(
        self,
        protocol: Protocol,
        start: Start,
        services: Sequence[Service],
        find: Callable[[type[Any]], Any],
        plan: Mapping[int, Kind],
        *,
        concurrency: int,
    ) -> None:
        self.clock = VirtualClock()
        self.protocol = protocol
        self.tables = Recording(Rules(paired=protocol.is_paired), self.clock)
        self.made: list[tuple[str, object, Kind | None]] = []
        self.effects: Counter[tuple[CallId, str, str]] = Counter()
        self.guilty: set[CallId] = set()
        self.is_vain = False
        self._start = start
        self._services = services
        self._find = find
        self._plan = plan
        self._options = WorkerOptions(concurrency=concurrency)
        self._queues: Any = defaultdict(deque) if protocol.is_paired else self.tables.queues
        self._standing: list[Worker] = []
        self._rival: Worker | None = None  # stands at an effect until another is about to commit
        self._hired = 0
        self._worker = self._client()

    @property
    def view(self) -> RunView | None:
        """The run as it stands."""
        return self.tables.read([self._start.run_id])[0]

    @property
    def trace(self) -> list[str]:
        """Each effect that was made, for people."""
        return [
            f"{number:4} {lane} {describe(effect)}" + (f": {kind.value}" if kind else "")
            for number, (lane, effect, kind) in enumerate(self.made)
        ]

    @property
    def decisions(self) -> list[tuple[CallId, str, Decision]]:
        """Every commit that was accepted: the call, its task, and what was decided."""
        return self.tables.committed

    def left_behind(self) -> list[str]:
        """Return what is still there that should not be, once the run is over."""
        left = [f"messages for {name!r}" for name, queue in self._queues.items() if queue]
        if self._worker.unacked:
            left.append("messages that are not acked")
        self.clock.advance(max(self.tables.rules.retention_ms, self.tables.rules.dead_retention_ms))
        after = self.tables.apply([], sweep=_ENDLESS)
        if self.tables.runs or after.next_due_ms is not None:
            left.append("state of the run after its retention")
        return left

    async def go(self) -> bool:
        """Go on until nothing is left to do; False if that does not come to an end, or is in vain."""
        while len(self.made) < _ENDLESS and not self.is_vain:
            worker = self._worker
            match worker.next_turn(self._has_work):
                case None:
                    if not self._wait(worker):
                        return True
                case Lane() as lane if lane.answer is not None:
                    worker.go_on(lane)
                case Lane() as lane:
                    self._arrive(worker, lane)
                case call:
                    await self._handle(worker, call)
        return False

    # -- workers ----------------------------------------------------------------------------------

    def _hire(self) -> Worker:
        self._hired += 1
        engine = make_engine(
            self._services,
            self._options,
            f"w{self._hired}",
            self._find,
            lanes=self.protocol.lanes,
        )
        engine.on_outcome = lambda *_: None
        return Worker(f"worker {self._hired}", self.protocol, self.clock, engine)

    def _client(self) -> Worker:
        worker = Worker("client", self.protocol, self.clock)
        worker.begin(self._start_run(), worker.name)
        return worker

    def _start_run(self) -> Life:
        done = False
        while not done:
            try:
                if self.protocol.is_paired:
                    yield from apply_steps([self._start])
                else:
                    yield Apply([self._start])
                done = True
            except UnavailableError:
                pass  # the same start again

    async def _handle(self, worker: Worker, call: RunningCall) -> None:
        engine, invoke = worker.engine, call.invoke
        assert engine is not None
        if invoke is None:
            return  # it was lost while it waited for its turn
        task = invoke.task
        context = NotingContext.of(invoke.context, self._note(call))
        args = [context, *invoke.args] if task.takes_context else invoke.args
        try:
            value = await gather_returned(call_sync(task.fn, args, invoke.kwargs))
        except CrashError:
            self.guilty.add(call.grant.call_id)
            self._bury(worker)
        except Exception as error:  # noqa: BLE001 -- the protocol decides what it means
            engine.raised(call, error)
        else:
            engine.returned(call, value)

    def _note(self, call: RunningCall) -> Callable[[str], None]:
        grant = call.grant

        def note(name: str) -> None:
            self.effects[grant.call_id, grant.address, name] += 1

        return note

    def _has_work(self) -> bool:
        return any(self._queues.get(service.name) for service in self._services)

    def _wait(self, worker: Worker) -> bool:
        """Go on with what was held back, or let time pass; False if there is nothing to wait for."""
        if worker.let_go(Kind.LATE, Kind.ANSWERED_LATE):
            return True
        if worker.engine is None:  # the client has started its run
            self._worker = self._standing.pop() if self._standing else self._hire()
            return True
        now, due, view = self.clock.now_ms(), worker.due, self.view
        is_over = due is None or view is None or view.outcome.status.is_final
        if worker.let_go(
            Kind.OUTRUN,
            since=math.inf if is_over or not worker.engine.may_overlap else now - _LONG,
        ):
            return True
        if due is None or is_over:
            if self._rival is not None:
                self._standing.append(self._rival)
                self._rival = None
            if not self._standing:
                return False
            self._worker = self._standing.pop(0)
            return True
        self.clock.advance(due - now)
        return True

    # -- effects ----------------------------------------------------------------------------------

    def _arrive(self, worker: Worker, lane: Lane) -> None:
        if commits(lane.at):
            worker.turns.appendleft(lane)  # for the time being
            if self._rival is not None:
                self._standing.append(worker)
                self._worker, self._rival = self._rival, None
                return
            if worker.let_go(Kind.OUTRUN):
                return
            worker.turns.popleft()
        self._meet_fate(worker, lane)

    def _meet_fate(self, worker: Worker, lane: Lane) -> None:
        effect, kind = lane.at, self._plan.get(len(self.made))
        self.made.append((lane.name, effect, kind))
        worker.turns.append(lane)
        if kind is None:
            lane.answer = self._perform(worker, effect), None
            return
        match kind:
            case Kind.DEAD_BEFORE:
                self._bury(worker)
            case Kind.DEAD_AFTER:
                self._perform(worker, effect)
                self._bury(worker)
            case Kind.STALLED:
                worker.turns.rotate()  # so that it goes on from here
                self._standing.append(worker)
                self._worker = self._successor(worker)
            case Kind.OVERTAKEN:
                worker.turns.rotate()
                self._rival = worker
                self._worker = self._successor(worker)
            case Kind.AWAY:
                self._cut_off(worker, lane)
            case Kind.REPLY_LOST:
                self._perform(worker, effect)
                self._cut_off(worker, lane)
            case Kind.LATE:
                lane.held = kind
            case _:
                if kind in _OF_LANES:
                    lane.held, lane.since = kind, self.clock.now_ms()
                else:
                    self._stir(kind)
                lane.answer = self._perform(worker, effect), None

    def _cut_off(self, worker: Worker, lane: Lane) -> None:
        if isinstance(lane.at, (Publish, Receive, Ack, Reject)):
            self._redeliver(worker)
            lane.answer = None, BrokerUnavailableError("The broker is away.")
        else:
            lane.answer = None, StoreUnavailableError("The store is away.")

    def _redeliver(self, worker: Worker) -> None:
        for delivery in worker.unacked:
            self._queues[delivery.service] += delivery.messages
        worker.unacked.clear()

    def _bury(self, worker: Worker) -> None:
        worker.close()
        self._redeliver(worker)
        self._worker = self._successor(worker)

    def _successor(self, worker: Worker) -> Worker:
        return self._client() if worker.engine is None else self._hire()

    def _stir(self, kind: Kind) -> None:
        self.is_vain = sum(map(len, self._queues.values())) < _FEWEST[kind]
        for queue in self._queues.values():
            if kind is Kind.DOUBLED:
                queue.extend(list(queue))
            else:
                queue.reverse()

    def _perform(self, worker: Worker, effect: object) -> object:
        match effect:
            case Trip(commands, take):
                return self.tables.exchange(commands, take)
            case Apply(commands, sweep):
                return self.tables.apply(commands, sweep=sweep)
            case Publish(messages):
                for message in messages:
                    self._queues[service_of(message.address)].append(message)
                return [True] * len(messages)
            case Receive(services, limit):
                return self._receive(worker, services, limit)
            case Ack(deliveries) | Reject(deliveries):
                # Those of a connection that was lost are left to come again.
                worker.unacked = [one for one in worker.unacked if one not in deliveries]
        return None

    def _receive(self, worker: Worker, services: Sequence[str], limit: int) -> list[Delivery]:
        received: list[Delivery] = []
        for service in services:
            queue = self._queues[service]
            while queue and len(received) < limit:
                received.append(Delivery(service, (queue.popleft(),), len(self.made)))
        worker.unacked += received
        return received
