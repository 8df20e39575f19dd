"""What workers have received from a broker and the store has not answered: the memory of `paired`."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

from pwf_core.commands import Claim, Command, Message
from pwf_core.ids import ClaimId, session_of
from pwf_core.ports import Delivery, Take

__all__ = ["Inbox", "Inboxes"]


@attrs.define
class _Held:
    """A delivery, until each of its messages has been answered."""

    delivery: Delivery
    unanswered: int


@attrs.define
class _Claims:
    """What one lane of a worker asks for; asked again with the same claim id until it is answered."""

    claim_id: ClaimId
    messages: list[tuple[Message, _Held]]


@attrs.define
class Inbox:
    """What one worker has received and the store has not answered.

    A delivery may name more calls than there is room for. The rest waits here, unclaimed, and is
    the worker's own: several of them may share one `Paired`.

    Attributes:
        waiting: Messages that there was no room for.
        asked: Claims that may have been sent, by lane.
        unsent: What the broker could not be given; it goes out with the next exchange, long before
            the outbox's timer.
        users: Exchanges under way.
    """

    waiting: deque[tuple[Message, _Held]] = attrs.field(factory=deque)
    asked: dict[str, _Claims] = attrs.field(factory=dict)
    unsent: list[Message] = attrs.field(factory=list)
    users: int = 0

    def put(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Add what was received; return what is none of ours."""
        for delivery in deliveries:
            held = _Held(delivery, len(delivery.messages))
            self.waiting.extend((message, held) for message in delivery.messages)
        return [delivery for delivery in deliveries if delivery.problem]

    def ask(self, take: Take) -> list[Command]:
        """Return claims for as many messages as there is room for."""
        asked = self.asked.get(session_of(take.claim_id))
        if asked is None:
            room = min(take.limit, len(self.waiting))
            if not room:
                return []
            asked = _Claims(take.claim_id, [self.waiting.popleft() for _ in range(room)])
            self.asked[session_of(take.claim_id)] = asked
        # A copy that was delivered twice is claimed once: the same claim would be granted again.
        messages = dict.fromkeys(message for message, _ in asked.messages)
        return [
            Claim(
                run_id=message.run_id,
                call_id=message.call_id,
                generation=message.generation,
                claim_id=asked.claim_id,
                lease_ms=take.lease_ms,
                suspects=take.suspects,
            )
            for message in messages
        ]

    def answered(self, session: str) -> list[Delivery]:
        """Take note that a lane's claims are answered; return the deliveries that are done with."""
        done = []
        asked = self.asked.pop(session, None)
        for _, held in asked.messages if asked is not None else ():
            held.unanswered -= 1
            if not held.unanswered:
                done.append(held.delivery)
        return done


class Inboxes(defaultdict[str, Inbox]):
    """By worker: several may share one backend. Each lane of one makes one exchange at a time."""

    def __init__(self) -> None:
        super().__init__(Inbox)

    @contextmanager
    def use(self, worker: str) -> Iterator[Inbox]:
        """Give out a worker's inbox, and forget it once nobody uses it and there is nothing in it."""
        inbox = self[worker]
        inbox.users += 1
        try:
            yield inbox
        finally:
            inbox.users -= 1
            if not (inbox.users or inbox.waiting or inbox.asked or inbox.unsent):
                del self[worker]
