"""`Paired`: a backend made of any broker and any store.

Theory of operation. The store has everything: bodies, due times, leases, and an outbox of copies
that the broker is not yet known to have. A message only names a copy of a call. So:

    commands ─▶ store ─▶ publish the outbox ─▶ settle what was confirmed, claim what was delivered
                                               ─▶ ack

A delivery is acked as soon as the store has answered its claims. If granted, the lease now stands
for the call: when it ends without a commit, the sweeper publishes a new copy. Nothing is held in the
broker while a handler runs, so there is no acknowledgement time-out to outlive, and a connection
lost in mid-handler costs nothing. A publish that fails leaves its copies in the outbox, whose timer
publishes them again; only the store being away is an error to the caller.

Of a store on several servers some may be away. A worker goes on with the others: what it has for
those that are away is answered by `AWAY`. Claims are among it: they are made again as they were, at
the beginning of each exchange, while their deliveries are acked. As long as those servers are known to
be away that costs nothing and takes no room; once they are back, what these claims are granted comes
before what is delivered then. A client wants all of its commands or an error.

The logic below is sans-IO; `Paired` and `BlockingPaired` only perform it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TypeAlias

import attrs
from msgspec import Struct

from pwf_core.capabilities import Capabilities
from pwf_core.commands import Answer, Command, Drop, Granted, Message, Reply, Settle
from pwf_core.errors import BrokerUnavailableError, ConfigurationError
from pwf_core.ids import RunId, session_of, worker_of
from pwf_core.inboxes import Inbox, Inboxes
from pwf_core.ports import (
    Applied,
    BlockingBroker,
    BlockingStateStore,
    BlockingWatch,
    Broker,
    Delivery,
    Exchanged,
    Leases,
    StateStore,
    Take,
    Watch,
)
from pwf_core.steps import Steps, drive, drive_async
from pwf_core.views import DeadLetter, RunView

__all__ = [
    "PURGED",
    "SWEEP",
    "Ack",
    "Apply",
    "BlockingPaired",
    "Drain",
    "Effect",
    "Paired",
    "Publish",
    "Purge",
    "Receive",
    "Reject",
    "apply_steps",
    "exchange_steps",
]

SWEEP = 256  # timers fired per exchange: more than a worker's usual batch, and still a short script
PURGED = "purged"
_UNSENT = (
    1024  # copies kept for the next exchange; more would wait for a broker that is away for long
)
_PURGE = 256  # calls drained per round trip


class Apply(Struct, frozen=True):
    """Ask the store; *partly* if some of its servers may be away (see `StateStore.apply`)."""

    commands: Sequence[Command]
    sweep: int = 0
    partly: bool = False


class Publish(Struct, frozen=True):
    """Ask the broker to take these."""

    messages: Sequence[Message]


class Receive(Struct, frozen=True):
    """Ask the broker what it has delivered."""

    services: Sequence[str]
    limit: int


class Drain(Struct, frozen=True):
    """Ask the broker for what waits in a queue."""

    service: str
    limit: int


class Purge(Struct, frozen=True):
    """Have the store drop what waits of a service."""

    service: str


class Ack(Struct, frozen=True):
    """Tell the broker to forget these."""

    deliveries: Sequence[Delivery]


class Reject(Struct, frozen=True):
    """Tell the broker to set these aside."""

    deliveries: Sequence[Delivery]


Effect: TypeAlias = Apply | Publish | Receive | Drain | Purge | Ack | Reject


def apply_steps(commands: Sequence[Command]) -> Steps[Effect, list[Reply]]:
    """Apply *commands*, and publish what follows; see `Backend.apply`."""
    applied: Applied = yield Apply(commands)
    try:
        settles = yield from _publish(applied.enqueued)
    except BrokerUnavailableError:
        return applied.replies  # they stay in the outbox; its timer publishes them again
    if settles:
        yield Apply(settles)
    return applied.replies


def exchange_steps(
    commands: Sequence[Command],
    take: Take,
    inboxes: Inboxes,
) -> Steps[Effect, Exchanged]:
    """Make a worker's round trip; see `Backend.exchange`."""
    with inboxes.use(worker_of(take.claim_id)) as inbox:
        return (yield from _exchange(commands, take, inbox))


def _exchange(
    commands: Sequence[Command],
    take: Take,
    inbox: Inbox,
) -> Steps[Effect, Exchanged]:
    session = session_of(take.claim_id)
    again = inbox.ask_again(session, take)
    applied: Applied = yield Apply([*commands, *again.values()], sweep=SWEEP, partly=True)
    replies, heard = applied.replies[: len(commands)], applied.replies[len(commands) :]
    yield from _forget(inbox.answered(session, dict(zip(again, heard, strict=True))))
    problems = [applied.problem]
    settles: list[Command] = []
    messages, inbox.unsent = [*inbox.unsent, *applied.enqueued], []
    try:
        settles = yield from _publish(messages)
    except (BrokerUnavailableError, ConfigurationError) as error:
        problems.append(str(error))  # and one bad queue must not stop all other work
        inbox.unsent = messages[:_UNSENT]
    room = inbox.room(session, take) - len(inbox.waiting)
    bad: list[Delivery] = []
    if room > 0:
        try:
            deliveries: list[Delivery] = yield Receive(take.services, room)
            bad = inbox.put(deliveries)
        except BrokerUnavailableError as error:
            problems.append(str(error))  # the broker's own supervisor reconnects
    claims = inbox.ask(session, take)
    claimed = Applied([], [], applied.next_due_ms)
    if settles or claims:
        # What is not settled because its server is away has its timer there, and is published again.
        claimed = yield Apply([*settles, *claims.values()], partly=True)
        problems.append(claimed.problem)
    answers = claimed.replies[len(settles) :]
    grants = [reply for reply in (*heard, *answers) if isinstance(reply, Granted)]
    # A call that was deferred for being a second suspect here is in the store, with a timer.
    done = inbox.answered(session, dict(zip(claims, answers, strict=True)))
    del inbox.asked[session]
    yield from _forget([*done, *bad])
    problem = "; ".join(dict.fromkeys(filter(None, problems)))
    return Exchanged(replies, grants, claimed.next_due_ms, problem)


def _publish(messages: Sequence[Message]) -> Steps[Effect, list[Command]]:
    """Publish, and return the commands that settle what was confirmed."""
    if not messages:
        return []
    confirmed: list[bool] = yield Publish(messages)
    return [
        Settle(message.run_id, message.call_id, message.generation)
        for message, known in zip(messages, confirmed, strict=True)
        if known
    ]


def _forget(deliveries: Sequence[Delivery]) -> Steps[Effect, None]:
    good = [one for one in deliveries if not one.problem]
    bad = [one for one in deliveries if one.problem]
    try:
        if bad:
            yield Reject(bad)
        if good:
            yield Ack(good)
    except BrokerUnavailableError:
        pass  # they come again, and the store answers that there is nothing to do


def _purge(service: str) -> Steps[Effect, int]:
    count: int = yield Purge(service)
    # Mostly copies of what is gone now; and, while others publish, of calls that are new.
    deliveries: list[Delivery] = yield Drain(service, _PURGE)
    while deliveries:
        drops = [
            Drop(message.run_id, message.call_id, dead=False, reason=PURGED)
            for one in deliveries
            for message in one.messages
        ]
        replies = yield from apply_steps(drops)
        count += replies.count(Answer.DONE)
        yield from _forget(deliveries)
        deliveries = yield Drain(service, _PURGE)
    return count


@attrs.define
class Paired:
    """A backend made of a broker and a store."""

    _broker: Broker
    _store: StateStore
    _inboxes: Inboxes = attrs.field(factory=Inboxes, init=False)

    @property
    def capabilities(self) -> Capabilities:
        """What both can do together."""
        return _both(self._broker.capabilities, self._store.capabilities)

    async def open(self) -> None:
        """See `Backend.open`."""
        try:
            await self._store.open()
            await self._broker.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._broker.close()
        await self._store.close()

    async def apply(self, commands: Sequence[Command]) -> list[Reply]:
        """See `Backend.apply`."""
        return await drive_async(apply_steps(commands), self._perform)

    async def exchange(self, commands: Sequence[Command], take: Take) -> Exchanged:
        """See `Backend.exchange`."""
        return await drive_async(exchange_steps(commands, take, self._inboxes), self._perform)

    async def idle(self, take: Take, timeout: float) -> None:
        """See `Backend.idle`."""
        await self._broker.idle(take.services, timeout)

    async def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """See `Backend.read`."""
        return await self._store.read(run_ids)

    def watch(self, run_id: RunId) -> AbstractAsyncContextManager[Watch]:
        """See `Backend.watch`."""
        return self._store.watch(run_id)

    def leases(self) -> Leases:
        """See `Backend.leases`: the store has them all."""
        return self._store.leases()

    async def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """See `Backend.dead_letters`."""
        return await self._store.dead_letters(service, limit)

    async def purge(self, service: str) -> int:
        """See `Backend.purge`."""
        return await drive_async(_purge(service), self._perform)

    async def _perform(self, effect: Effect) -> object:
        match effect:
            case Apply(commands, sweep, partly):
                return await self._store.apply(commands, sweep=sweep, partly=partly)
            case Publish(messages):
                return await self._broker.publish(messages)
            case Receive(services, limit):
                return await self._broker.receive(services, limit)
            case Ack(deliveries):
                await self._broker.ack(deliveries)
            case Reject(deliveries):
                await self._broker.reject(deliveries)
            case Drain(service, limit):
                return await self._broker.drain(service, limit)
            case Purge(service):
                return await self._store.purge(service)
        return None


@attrs.define
class BlockingPaired:
    """Blocking twin of `Paired`, for any thread."""

    _broker: BlockingBroker
    _store: BlockingStateStore
    _inboxes: Inboxes = attrs.field(factory=Inboxes, init=False)

    @property
    def capabilities(self) -> Capabilities:
        """What both can do together."""
        return _both(self._broker.capabilities, self._store.capabilities)

    def open(self) -> None:
        """See `Backend.open`."""
        try:
            self._store.open()
            self._broker.open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """See `Backend.close`."""
        self._broker.close()
        self._store.close()

    def apply(self, commands: Sequence[Command]) -> list[Reply]:
        """See `Backend.apply`."""
        return drive(apply_steps(commands), self._perform)

    def exchange(self, commands: Sequence[Command], take: Take) -> Exchanged:
        """See `Backend.exchange`."""
        return drive(exchange_steps(commands, take, self._inboxes), self._perform)

    def idle(self, take: Take, timeout: float) -> None:
        """See `Backend.idle`."""
        self._broker.idle(take.services, timeout)

    def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """See `Backend.read`."""
        return self._store.read(run_ids)

    def watch(self, run_id: RunId) -> AbstractContextManager[BlockingWatch]:
        """See `Backend.watch`."""
        return self._store.watch(run_id)

    def leases(self) -> Leases:
        """See `Backend.leases`: the store has them all."""
        return self._store.leases()

    def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """See `Backend.dead_letters`."""
        return self._store.dead_letters(service, limit)

    def purge(self, service: str) -> int:
        """See `Backend.purge`."""
        return drive(_purge(service), self._perform)

    def _perform(self, effect: Effect) -> object:
        match effect:
            case Apply(commands, sweep, partly):
                return self._store.apply(commands, sweep=sweep, partly=partly)
            case Publish(messages):
                return self._broker.publish(messages)
            case Receive(services, limit):
                return self._broker.receive(services, limit)
            case Ack(deliveries):
                self._broker.ack(deliveries)
            case Reject(deliveries):
                self._broker.reject(deliveries)
            case Drain(service, limit):
                return self._broker.drain(service, limit)
            case Purge(service):
                return self._store.purge(service)
        return None


def _both(broker: Capabilities, store: Capabilities) -> Capabilities:
    return Capabilities(
        technology=f"{broker.technology} + {store.technology}",
        durable=broker.durable and store.durable,
        shared=broker.shared and store.shared,
        fused=False,
        ordered=broker.ordered and store.ordered,
        partitions=store.partitions,
    )
