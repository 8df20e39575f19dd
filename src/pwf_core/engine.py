"""What a worker has in hand: calls being run, conclusions to send, and what to ask for next.

One `Engine` per worker, driven by a loop that waits and performs: asyncio, threads, or the simulator.
It waits for nothing and performs nothing, and is used by one thread at a time; only `renewals` may
be called from another one. The loop's part:

    exchange = engine.next_exchange()              commands and room for more: one round trip
    exchange = engine.listen()                     room alone, to wait with for more calls
    engine.exchanged(exchange, reply)              -> calls whose handlers are to be started
    engine.returned(call, value) / engine.raised(call, error)   when a handler is through
    engine.renewals(now), engine.renewed(replies)  every third of a lease, beside all that

Conclusions go out with the next exchange, whatever has gathered by then: group commit. A loop that can
has several exchanges under way, so that handlers run while a store works; `may_overlap` says when.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from msgspec.structs import replace

from pwf_core.commands import (
    DEFER_MS,
    Answer,
    Bury,
    Command,
    Commit,
    Granted,
    Postpone,
    Postponement,
    Renew,
    Reply,
    Stage,
)
from pwf_core.ids import claim_id_of
from pwf_core.ports import Exchanged, Take
from pwf_core.protocol import Conclude, Effect, HandBackError, Invoke, Outcome, process
from pwf_core.staging import MOST_CALLS, in_parts, weight_of
from pwf_core.steps import Steps
from pwf_core.tasks import Task
from pwf_core.underway import Exchange, RunningCall

__all__ = ["Engine"]

_FEW = 16  # commands that are not shared out: a round trip for each half would take longer


@attrs.define
class Engine:
    """The bookkeeping of one worker.

    Attributes:
        services: Names of the services to take calls of.
        tasks: Their tasks by address.
        session: Names this worker's claims; never used before.
        concurrency: How many calls to run at once.
        lanes: How many exchanges may be under way at a time.
        ahead: How many more calls to take than are run at once; the loop's to set, by how soon it
            will come to them.
        lease_ms: How long a claim holds unless renewed.
        find_resource: What `Context.resource` does.
        on_outcome: Told how each call ended, and what may be logged of its error if it failed.
    """

    services: tuple[str, ...]
    tasks: Mapping[str, Task[..., Any, Any]]
    session: str
    concurrency: int
    lease_ms: int
    find_resource: Callable[[type[Any]], Any]
    on_outcome: Callable[[Granted, Outcome, str], None]
    lanes: int = 1
    ahead: int = attrs.field(default=0, init=False)
    running: dict[tuple[str, str], RunningCall] = attrs.field(factory=dict, init=False)
    stopping: bool = attrs.field(default=False, init=False)
    _open: int = attrs.field(default=0, init=False)  # of those running, how many are not concluded
    _under_way: dict[int, Exchange] = attrs.field(factory=dict, init=False)  # by lane
    _concluded: list[tuple[Command, RunningCall | None]] = attrs.field(factory=list, init=False)
    # Commands that did not get through, to go out with whatever is next.
    _away: list[tuple[Command, RunningCall | None]] = attrs.field(factory=list, init=False)
    _held: list[Granted] = attrs.field(factory=list, init=False)
    _exchanges: int = attrs.field(default=0, init=False)
    _asking: Exchange | None = attrs.field(default=None, init=False)  # what listening has come to

    @property
    def room(self) -> int:
        """How many more calls there is room for."""
        if self.stopping:
            return 0
        room = self.concurrency + self.ahead - self._open - len(self._held)
        for exchange in self._under_way.values():
            room -= exchange.take.limit
        return max(room, 0)

    @property
    def has_conclusions(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._concluded) or self._asking is not None

    @property
    def is_done(self) -> bool:
        """Whether nothing is in hand."""
        in_hand = (self.running, self._concluded, self._away, self._held, self._under_way)
        return not any(in_hand)

    @property
    def may_overlap(self) -> bool:
        """Whether an exchange may go out beside those that are under way."""
        under_way = self._under_way
        most = self.lanes + (self.lanes in under_way)  # who listens holds up nobody
        return len(under_way) < most and not any(one.comes_first for one in under_way.values())

    @property
    def may_listen(self) -> bool:
        """Whether to wait for calls: there is room for more, and nobody waits for them yet."""
        return self.room > 0 and self.lanes not in self._under_way

    def next_exchange(self, refused: Exchange | None = None) -> Exchange:
        """Return the next round trip, with everything that has been concluded so far.

        Args:
            refused: The last one, if a full store has refused it, so that nothing was taken: it
                goes out again, together with what may make room by now.
        """
        if self._asking is not None and refused is None:
            exchange, self._asking = self._asking, None
            return exchange
        if refused is not None and refused.lane == self.lanes:
            self._asking = refused  # there may be something to hear all the same
        elif refused is not None:
            del self._under_way[refused.lane]
            self._concluded[:0] = zip(refused.commands, refused.calls, strict=True)
        # Those that do not get through hold up no others: they go beside as many as there are.
        all_of_them = refused is not None or bool(self._away)
        self._concluded[:0] = self._away
        self._away.clear()
        lane = next(number for number in range(self.lanes) if number not in self._under_way)
        concluded = self._next_commands(all_of_them=all_of_them)
        exchange = self._under_way[lane] = Exchange(
            [command for command, _ in concluded],
            self._next_take(lane, self.lanes),
            [call for _, call in concluded],
            lane,
            comes_first=any(isinstance(command, Stage) for command, _ in concluded),
            frees=bool(self._held) and not self._concluded,
        )
        return exchange

    def listen(self) -> Exchange:
        """Return what to take once there is something, if one `may_listen`; beside all other exchanges."""
        lane = self.lanes
        room = self.room
        # Those that have something to send want room, too, for what follows from it.
        take = self._next_take(lane, self.lanes + 1)
        # A suspect would be kept from them as long as this one waits; with all the room, only it can have one.
        if take.limit < room:
            take = replace(take, suspects=False)
        exchange = Exchange((), take, (), lane, comes_first=False, frees=False)
        self._under_way[lane] = exchange
        return exchange

    def withdrawn(self, exchange: Exchange) -> None:
        """Take note that whoever listened has taken nothing."""
        if self._is_current(exchange):
            del self._under_way[exchange.lane]

    def unheard(self, exchange: Exchange) -> None:
        """Take note that nobody knows what whoever listened has taken: the next exchange asks."""
        if self._is_current(exchange):
            asking = attrs.evolve(exchange, take=replace(exchange.take, limit=0))
            self._asking = self._under_way[exchange.lane] = asking

    def stop(self) -> None:
        """Take no more calls; whoever listens is not waited for."""
        self.stopping = True
        listening = self._under_way.get(self.lanes)
        if listening is not None and listening.take.limit:  # else it is asked for already
            self.unheard(listening)

    def _is_current(self, exchange: Exchange) -> bool:
        return self._under_way.get(exchange.lane) is exchange

    def _next_take(self, lane: int, sharing: int) -> Take:
        """Return a new one, for an exchange that shares the room with so many others."""
        self._exchanges += 1
        return Take(
            services=self.services,
            limit=min(self.room, math.ceil((self.concurrency + self.ahead) / sharing)),
            claim_id=claim_id_of(self.session, lane, self._exchanges),
            lease_ms=self.lease_ms,
            suspects=self._may_take_a_suspect(),
        )

    def _may_take_a_suspect(self) -> bool:
        return not (
            self._held
            or any(call.grant.suspect for call in self.running.values())
            or any(exchange.take.suspects for exchange in self._under_way.values())
        )

    def _next_commands(self, *, all_of_them: bool) -> list[tuple[Command, RunningCall | None]]:
        """Take the commands that go out next, in order, as many as one step of a store bears."""
        weight = -math.inf if all_of_them else 0
        share = math.inf if all_of_them or self.lanes == 1 else self._share()
        for number, (command, _) in enumerate(self._concluded):
            weight += weight_of(command)
            if number and (weight > 2 * MOST_CALLS or number >= share):
                taken, self._concluded = self._concluded[:number], self._concluded[number:]
                return taken
        taken, self._concluded = self._concluded, []
        return taken

    def _share(self) -> int:
        """Return how many commands go out at a time at the most.

        Half of those in hand: while the backend is busy with these, the worker runs the others. All
        in one round trip, one would wait for the other.
        """
        in_hand = len(self._concluded) + sum(len(one.commands) for one in self._under_way.values())
        return max(math.ceil(in_hand / 2), _FEW)

    def exchanged(self, exchange: Exchange, reply: Exchanged) -> list[RunningCall]:
        """Take note of what an exchange came to, and return the calls to start."""
        if not self._is_current(exchange):
            return []  # whoever listened is late: it was asked again what that came to
        del self._under_way[exchange.lane]
        started = []
        asked = zip(exchange.commands, exchange.calls, reply.replies, strict=True)
        for command, call, answer in asked:
            if answer is Answer.AWAY:
                self._away.append((command, call))
            elif call is not None:
                self._proceed(call, call.steps.send, answer)
                if call.invoke is not None:  # it has all its results now
                    started.append(call)
        if self.stopping:
            for call in started:
                self.raised(call, HandBackError("the worker is leaving"))
            started = []
        held: list[Granted] = []
        if exchange.frees and not self._away:
            held, self._held = self._held, held
        for grant in [*held, *self._one_suspect(reply.grants)]:
            if self._has(grant):
                continue  # another copy of it, claimed in the same breath
            if self.stopping:
                self._give_back(grant, 0, "the worker is leaving")
            elif (call := self._begin(grant)).invoke is not None:
                started.append(call)
        return started

    def returned(self, call: RunningCall, value: object) -> None:
        """Take note of what a handler returned: a directive, several, or None."""
        if call.invoke is not None:
            self._proceed(call, call.steps.send, value)

    def raised(self, call: RunningCall, error: BaseException) -> None:
        """Take note of what a handler raised; no exception of a handler stops the worker."""
        if call.invoke is None:
            return  # its call was handed back or lost while it ran
        if not isinstance(error, Exception):
            wrapped = RuntimeError(
                f"the handler raised {error!r}, which is for the process, not it"
            )
            wrapped.__cause__ = error
            error = wrapped
        self._proceed(call, call.steps.throw, error)

    def hand_back(self) -> list[RunningCall]:
        """Give back every call whose handler still runs; the handlers are to be stopped."""
        interrupted = [call for call in self.running.values() if call.invoke is not None]
        for call in interrupted:
            if call.context is not None:
                call.context.cancelled = True
            self.raised(call, HandBackError("the worker is leaving"))
        return interrupted

    def renewals(self, now: float = 0) -> list[Renew]:
        """Return the commands that keep the leases of the calls in hand; from any thread.

        Args:
            now: By the clock of `RunningCall.keep_until`.
        """
        return [
            Renew(call.grant.run_id, call.grant.call_id, call.grant.claim_id, self.lease_ms)
            for call in tuple(self.running.values())  # which others may change meanwhile
            if now < call.keep_until
        ]

    def renewed(self, sent: Sequence[Renew], replies: Sequence[Reply]) -> list[RunningCall]:
        """Take note of the answers, and return the calls whose leases are lost, once each."""
        lost = []
        for renew, answer in zip(sent, replies, strict=True):
            call = self.running.get((renew.run_id, renew.call_id))
            if answer in {Answer.DONE, Answer.AWAY}:
                continue
            if call is None or call.grant.claim_id != renew.claim_id:
                continue
            if call.invoke is None:
                continue  # concluded: its own answer tells
            self._lose(call)
            lost.append(call)
        return lost

    def _has(self, grant: Granted) -> bool:
        running = self.running.get((grant.run_id, grant.call_id))
        return running is not None and running.grant.claim_id == grant.claim_id

    def _one_suspect(self, grants: Sequence[Granted]) -> Sequence[Granted]:
        """Return the grants to begin now.

        Of several calls that were lost with their workers before, one is run here. It may take this
        process down as soon as it starts, so it is held until the others are safely given back.
        """
        suspects = [grant for grant in grants if grant.suspect]
        if len(suspects) + len(self._held) <= 1:
            return grants
        if not self._held:
            self._held = [suspects.pop(0)]
        for grant in suspects:
            self._give_back(grant, DEFER_MS, "another suspect runs in this process")
        return [grant for grant in grants if not grant.suspect]

    def _give_back(self, grant: Granted, delay_ms: int, reason: str) -> None:
        kind = Postponement.HAND_BACK
        command = Postpone(grant.run_id, grant.call_id, grant.claim_id, kind, delay_ms, reason)
        self._concluded.append((command, None))

    def _begin(self, grant: Granted) -> RunningCall:
        older = self.running.get((grant.run_id, grant.call_id))
        if older is not None and older.invoke is not None:
            self._lose(older)  # its lease ran out unnoticed, and the call has come back to us
        call = RunningCall(grant, process(grant, self.tasks, self.find_resource))
        self.running[grant.run_id, grant.call_id] = call
        self._open += 1
        self._proceed(call, call.steps.send, None)
        return call

    def _proceed(self, call: RunningCall, step: Callable[[Any], Effect], value: object) -> None:
        call.invoke = None
        try:
            effect = step(value)
        except StopIteration as stop:
            self._end(call, *stop.value)
            return
        except Exception as error:  # noqa: BLE001 -- no slip may leave a call leased for ever
            grant = call.grant
            reason = f"pwf could not go on with it: {error!r}"
            bury = Bury(grant.run_id, grant.call_id, grant.claim_id, reason)
            call.steps = _conclude(bury)
            effect = next(call.steps)
        if isinstance(effect, Invoke):
            call.invoke = effect
            return
        if isinstance(effect, Conclude) and not call.concluded:
            call.concluded = True
            self._open -= 1
        command: Command = effect.command
        if isinstance(command, Commit):
            *parts, command = in_parts(command)
            self._concluded += [(part, None) for part in parts]
        self._concluded.append((command, call))

    def _lose(self, call: RunningCall) -> None:
        assert call.invoke is not None
        call.invoke.context.cancelled = True
        call.invoke = None
        call.steps.close()
        self._end(call, Outcome.LEASE_LOST)

    def _end(self, call: RunningCall, outcome: Outcome, problem: str = "") -> None:
        name = call.grant.run_id, call.grant.call_id
        if self.running.get(name) is call:
            del self.running[name]
        if not call.concluded:
            self._open -= 1
        self.on_outcome(call.grant, outcome, problem)


def _conclude(bury: Bury) -> Steps[Effect, tuple[Outcome, str]]:
    answer: Answer = yield Conclude(bury)
    return (Outcome.BURIED if answer is Answer.DONE else Outcome.LEASE_LOST), bury.reason
