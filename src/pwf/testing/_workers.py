"""Workers of a simulated deployment: what each has under way, and in which order that goes on.

A worker is a real `Engine`, driven as `pwf.Worker` drives one. Each exchange is a lane, a generator of
effects that somebody else performs. What it has to do takes turns: a lane sends its next effect or hears
what became of the last one, a handler runs. So while one exchange stands at the servers, handlers run and
another one goes out; and whoever holds a lane back has the others overtake it. With one lane, an exchange
goes out once all handlers have run, as those of a worker on threads do that has nothing to wait for.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from enum import StrEnum
from typing import Any, TypeAlias

import attrs

from pwf.testing._observing import Trip
from pwf_core.engine import Engine
from pwf_core.errors import UnavailableError
from pwf_core.inboxes import Inboxes
from pwf_core.paired import exchange_steps
from pwf_core.ports import Delivery, Exchanged
from pwf_core.underway import Exchange, RunningCall
from pwf_memory.clock import VirtualClock

__all__ = ["Lane", "Life", "Protocol", "Worker"]

Life: TypeAlias = Generator[Any, Any, None]


class Protocol(StrEnum):
    """How workers and servers talk."""

    FUSED = "fused"  # one effect takes, applies and delivers
    PAIRED = "paired"  # a store, and a broker apart from it
    FUSED_LANES = "fused with two lanes"  # the same with two exchanges of a worker under way
    PAIRED_LANES = "paired with two lanes"

    @property
    def is_paired(self) -> bool:
        """Whether store and broker are apart."""
        return self in {Protocol.PAIRED, Protocol.PAIRED_LANES}

    @property
    def lanes(self) -> int:
        """How many exchanges of a worker may be under way at a time."""
        return 2 if self in {Protocol.FUSED_LANES, Protocol.PAIRED_LANES} else 1


@attrs.define(eq=False)
class Lane:
    """An exchange that is under way.

    Attributes:
        at: The effect that it stands at.
        answer: What became of that, an error or not; None before it was performed.
        held: For how long it is held back; None if it is not.
        since: By the clock, when it came to be held back.
    """

    name: str
    life: Life
    at: Any = None
    answer: tuple[object, Exception | None] | None = None
    held: StrEnum | None = None
    since: int = 0

    def hear(self) -> bool:
        """Have it hear its answer, and go to its next effect; say whether there is one."""
        assert self.answer is not None
        (reply, error), self.answer = self.answer, None
        try:
            self.at = self.life.throw(error) if error is not None else self.life.send(reply)
        except StopIteration:
            return False
        return True


@attrs.define(eq=False)
class Worker:
    """Who makes effects: a worker, or, without an engine, the client that starts the run.

    Attributes:
        turns: Its exchanges under way and its handlers that are to run, in the order of their turns.
        unacked: What the broker has delivered to it, and was not told to forget.
        due: By the clock, when it looks for what is due; None if nothing is known to be.
    """

    name: str
    protocol: Protocol
    clock: VirtualClock
    engine: Engine | None = None
    turns: deque[Lane | RunningCall] = attrs.field(factory=deque, init=False)
    unacked: list[Delivery] = attrs.field(factory=list, init=False)
    due: int | None = attrs.field(default=None, init=False)
    _inboxes: Inboxes = attrs.field(factory=Inboxes, init=False)
    _may_be_more: bool = attrs.field(default=True, init=False)  # calls to take
    _listens: bool = attrs.field(default=False, init=False)

    def next_turn(self, has_work: Callable[[], bool]) -> Lane | RunningCall | None:
        """Return what goes on now, off its list, or None if there is nothing to do.

        Args:
            has_work: Says whether there are messages for it.
        """
        engine = self.engine
        if engine is not None and self._listens and has_work():
            if self.protocol is not Protocol.FUSED_LANES:
                self._listens, self._may_be_more = False, True
            elif engine.may_listen:
                self._listens = False
                self.begin(self._listen(engine), f"{self.name}, listening")
        while engine is not None and self._is_time(engine):
            exchange = engine.next_exchange()
            lane = f", lane {exchange.lane + 1}" if engine.lanes > 1 else ""
            self.begin(self._exchange(engine, exchange), self.name + lane)
        for number, turn in enumerate(self.turns):
            if isinstance(turn, RunningCall) or turn.held is None:
                del self.turns[number]
                return turn
        return None

    def begin(self, life: Life, name: str) -> None:
        """Have another lane take its turns."""
        lane = Lane(name, life, answer=(None, None))
        if lane.hear():
            self.turns.append(lane)

    def go_on(self, lane: Lane) -> None:
        """Have a lane hear its answer, and take its next turn if that was not its last."""
        if lane.hear():
            self.turns.append(lane)

    def let_go(self, *kinds: StrEnum, since: float = math.inf) -> bool:
        """Hold back no longer the first lane that was held so; say whether there was one.

        Args:
            kinds: How.
            since: Only one that is held back since then, or for longer.
        """
        for turn in self.turns:
            if isinstance(turn, Lane) and turn.held in kinds and turn.since <= since:
                turn.held = None
                self.turns.remove(turn)
                self.turns.appendleft(turn)
                return True
        return False

    def close(self) -> None:
        """Be dead."""
        for turn in self.turns:
            if isinstance(turn, Lane):
                turn.life.close()
        self.turns.clear()

    # -- as `pwf.Worker` does ---------------------------------------------------------------------

    def _is_time(self, engine: Engine) -> bool:
        if engine.lanes == 1 and self.turns:
            return False  # handlers come first
        reason = (
            engine.has_conclusions
            or (self._may_be_more and engine.room > 0)
            or (self.due is not None and self.clock.now_ms() >= self.due)
        )
        return reason and engine.may_overlap

    def _exchange(self, engine: Engine, exchange: Exchange) -> Life:
        if exchange.take.limit:
            self._may_be_more = False
        self.due = None
        reply: Exchanged | None = None
        while reply is None:
            try:
                if self.protocol.is_paired:
                    reply = yield from exchange_steps(
                        exchange.commands, exchange.take, self._inboxes
                    )
                else:
                    reply = yield Trip(exchange.commands, exchange.take)
            except UnavailableError:
                pass  # the same exchange again
        self._take_in(engine, exchange, reply)

    def _listen(self, engine: Engine) -> Life:
        exchange = engine.listen()
        try:
            reply = yield Trip(exchange.commands, exchange.take)
        except UnavailableError:
            engine.unheard(exchange)
        else:
            self._take_in(engine, exchange, reply)

    def _take_in(self, engine: Engine, exchange: Exchange, reply: Exchanged) -> None:
        self.turns += engine.exchanged(exchange, reply)
        if reply.next_due_ms is not None:
            due = self.clock.now_ms() + max(reply.next_due_ms, 1)
            self.due = due if self.due is None else min(self.due, due)
        if exchange.take.limit and len(reply.grants) == exchange.take.limit:
            self._may_be_more = True
        elif engine.room:
            self._listens = True
