"""A deployment in one thread, on a virtual clock, in which every effect can go wrong by plan.

The store is the reference, the workers are real `Engine`s, and the protocol between them is the one
that real backends run: either fused, or `Paired` with a broker that is a few lists. A worker is a
generator of effects; whoever drives it decides what becomes of each, so that a worker can die before
an effect or after it, be told that the server was away, or be left standing at it.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeAlias

import attrs
from msgspec import Struct

from pwf._handlers import call_sync, gather_returned
from pwf._options import WorkerOptions, make_engine
from pwf.testing._observing import NotingContext, Recording, Trip, commits, describe
from pwf_core.commands import Start
from pwf_core.decisions import Decision
from pwf_core.engine import Engine, RunningCall
from pwf_core.errors import BrokerUnavailableError, StoreUnavailableError, UnavailableError
from pwf_core.ids import CallId
from pwf_core.inboxes import Inboxes
from pwf_core.names import service_of
from pwf_core.paired import (
    Ack,
    Apply,
    Publish,
    Receive,
    Reject,
    apply_steps,
    exchange_steps,
)
from pwf_core.ports import Delivery, Exchanged
from pwf_core.service import Service
from pwf_core.state import Rules
from pwf_core.views import RunView
from pwf_memory.clock import VirtualClock

__all__ = ["Deployment", "Fault", "Kind", "Protocol"]

_ENDLESS = 10_000  # effects of one run; more is a loop


class Protocol(StrEnum):
    """How workers and servers talk."""

    FUSED = "fused"  # one effect takes, applies and delivers
    PAIRED = "paired"  # a store, and a broker apart from it


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


@attrs.frozen(order=True)
class Fault:
    """Something that goes wrong at one effect of a run, counted from 0."""

    at: int
    kind: Kind


class _Handle(Struct, frozen=True):
    """Not an effect: run a handler."""

    engine: Engine
    call: RunningCall


class _Idle(Struct, frozen=True):
    """Not an effect: there is nothing to do for so long, or until somebody else does something."""

    next_due_ms: int | None


_Life: TypeAlias = Generator[Any, Any, None]


@attrs.define(eq=False)
class _Worker:
    """Who makes effects: a worker, or the client that starts the run."""

    name: str
    life: _Life
    at: Any = None  # the effect that it stands at
    unacked: list[Delivery] = attrs.field(factory=list)

    def go_on(self, reply: object = None, error: Exception | None = None) -> bool:
        """Have it go to its next effect; say whether there is one."""
        try:
            self.at = self.life.throw(error) if error is not None else self.life.send(reply)
        except StopIteration:
            return False
        return True


class Deployment:
    """One run of a workflow, with what goes wrong in it.

    Attributes:
        tables: The store.
        trace: Each effect that was made, for people.
        effects: How often each `ctx.effect(name)` was asked for, by call, task and name.
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
        self.tables = Recording(Rules(paired=protocol is Protocol.PAIRED), self.clock)
        self.trace: list[str] = []
        self.effects: Counter[tuple[CallId, str, str]] = Counter()
        self._start = start
        self._services = services
        self._find = find
        self._plan = plan
        self._options = WorkerOptions(concurrency=concurrency)
        self._queues: Any = defaultdict(deque)
        if protocol is Protocol.FUSED:
            self._queues = self.tables.queues
        self._standing: list[_Worker] = []
        self._rival: _Worker | None = None  # stands at an effect until another is about to commit
        self._hired = 0
        self._worker = self._client()

    @property
    def view(self) -> RunView | None:
        """The run as it stands."""
        return self.tables.read([self._start.run_id])[0]

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
        """Go on until nothing is left to do; False if that does not come to an end."""
        while len(self.trace) < _ENDLESS:
            worker = self._worker
            match worker.at:
                case _Handle(engine, call):
                    await self._handle(engine, call)
                    worker.go_on()
                case _Idle(next_due_ms):
                    if not self._wait(next_due_ms):
                        return True
                case effect:
                    if self._rival is not None and commits(effect):
                        worker = self._let_go_first(self._rival)
                    self._meet_fate(worker)
        return False

    # -- workers ----------------------------------------------------------------------------------

    def _hire(self) -> _Worker:
        self._hired += 1
        worker = _Worker(f"worker {self._hired}", self._work(f"w{self._hired}"))
        worker.go_on()
        return worker

    def _client(self) -> _Worker:
        worker = _Worker("client", self._start_run())
        worker.go_on()
        return worker

    def _start_run(self) -> _Life:
        done = False
        while not done:
            try:
                if self.protocol is Protocol.PAIRED:
                    yield from apply_steps([self._start])
                else:
                    yield Apply([self._start])
                done = True
            except UnavailableError:
                pass  # the same start again

    def _work(self, session: str) -> _Life:
        engine = make_engine(self._services, self._options, session, self._find)
        engine.on_outcome = lambda *_: None
        inboxes = Inboxes()
        while True:
            exchange = engine.next_exchange()
            reply: Exchanged | None = None
            while reply is None:
                try:
                    if self.protocol is Protocol.PAIRED:
                        reply = yield from exchange_steps(exchange.commands, exchange.take, inboxes)
                    else:
                        reply = yield Trip(exchange.commands, exchange.take)
                except UnavailableError:
                    pass  # the same exchange again
            for call in engine.exchanged(exchange, reply):
                yield _Handle(engine, call)
            if exchange.take.limit and not engine.has_conclusions and not reply.grants:
                yield _Idle(reply.next_due_ms)

    async def _handle(self, engine: Engine, call: RunningCall) -> None:
        invoke = call.invoke
        assert invoke is not None
        task = invoke.task
        context = NotingContext.of(invoke.context, self._note(call))
        args = [context, *invoke.args] if task.takes_context else invoke.args
        try:
            value = await gather_returned(call_sync(task.fn, args, invoke.kwargs))
        except Exception as error:  # noqa: BLE001 -- the protocol decides what it means
            engine.raised(call, error)
        else:
            engine.returned(call, value)

    def _note(self, call: RunningCall) -> Callable[[str], None]:
        grant = call.grant

        def note(name: str) -> None:
            self.effects[grant.call_id, grant.address, name] += 1

        return note

    def _wait(self, next_due_ms: int | None) -> bool:
        """Go on with what has come, or let time pass; False if there is nothing to wait for."""
        if any(self._queues.get(service.name) for service in self._services):
            self._worker.go_on()
            return True
        view = self.view
        if view is None or view.outcome.status.is_final or next_due_ms is None:
            if self._rival is not None:
                self._standing.append(self._rival)
                self._rival = None
            if not self._standing:
                return False
            self._worker = self._standing.pop(0)
            return True
        self.clock.advance(max(next_due_ms, 1))
        self._worker.go_on()
        return True

    def _let_go_first(self, rival: _Worker) -> _Worker:
        """Have who would commit now wait, and return the *rival* that does so instead."""
        self._standing.append(self._worker)
        self._worker, self._rival = rival, None
        return rival

    # -- effects ----------------------------------------------------------------------------------

    def _meet_fate(self, worker: _Worker) -> None:
        effect, number = worker.at, len(self.trace)
        kind = self._plan.get(number)
        line = f"{number:4} {worker.name} {describe(effect)}"
        self.trace.append(f"{line}: {kind.value}" if kind is not None else line)
        match kind:
            case Kind.DEAD_BEFORE:
                self._bury(worker)
            case Kind.DEAD_AFTER:
                self._perform(worker, effect)
                self._bury(worker)
            case Kind.STALLED:
                self._standing.append(worker)
                self._worker = self._successor(worker)
            case Kind.OVERTAKEN:
                self._rival = worker
                self._worker = self._successor(worker)
            case Kind.AWAY:
                self._cut_off(worker, effect)
            case Kind.REPLY_LOST:
                self._perform(worker, effect)
                self._cut_off(worker, effect)
            case _:
                if kind is not None:
                    self._stir(kind)
                self._go_on(worker, self._perform(worker, effect))

    def _go_on(self, worker: _Worker, reply: object = None, error: Exception | None = None) -> None:
        if not worker.go_on(reply, error):  # the client has started its run
            self._worker = self._standing.pop() if self._standing else self._hire()

    def _cut_off(self, worker: _Worker, effect: object) -> None:
        if isinstance(effect, (Publish, Receive, Ack, Reject)):
            self._redeliver(worker)
            self._go_on(worker, error=BrokerUnavailableError("The broker is away."))
        else:
            self._go_on(worker, error=StoreUnavailableError("The store is away."))

    def _redeliver(self, worker: _Worker) -> None:
        for delivery in worker.unacked:
            self._queues[delivery.service] += delivery.messages
        worker.unacked.clear()

    def _bury(self, worker: _Worker) -> None:
        worker.life.close()
        self._redeliver(worker)
        self._worker = self._successor(worker)

    def _successor(self, worker: _Worker) -> _Worker:
        return self._client() if worker.name == "client" else self._hire()

    def _stir(self, kind: Kind) -> None:
        for queue in self._queues.values():
            if kind is Kind.DOUBLED:
                queue.extend(list(queue))
            else:
                queue.reverse()

    def _perform(self, worker: _Worker, effect: object) -> object:
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

    def _receive(self, worker: _Worker, services: Sequence[str], limit: int) -> list[Delivery]:
        received: list[Delivery] = []
        for service in services:
            queue = self._queues[service]
            while queue and len(received) < limit:
                received.append(Delivery(service, (queue.popleft(),), len(self.trace)))
        worker.unacked += received
        return received
