"""What workers have received from a broker and the store has not answered: the memory of `paired`."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

import attrs

from pwf_core.commands import Answer, Claim, Granted, Message, Reply
from pwf_core.ids import ClaimId
from pwf_core.ports import Delivery, Take

__all__ = ["Inbox", "Inboxes"]

_MOST_AWAY = 1024  # names of calls kept for a server that is away; of others it sends copies itself


@attrs.define
class _Held:
    """A delivery, until each of its messages has been answered."""

    delivery: Delivery
    unanswered: int


@attrs.define(eq=False)
class _Asked:
    """A claim that is made, and made again as it was until its answer has got through.

    Attributes:
        held: The delivery that has to wait for the answer; None if there is none, or no more.
    """

    message: Message
    claim_id: ClaimId
    held: _Held | None = None


@attrs.define
class Inbox:
    """What one worker has received and the store has not answered.

    A delivery may name more calls than there is room for. The rest waits here, unclaimed, and is
    the worker's own: several of them may share one `Paired`.

    Attributes:
        waiting: Messages that there was no room for.
        asked: Claims that may have been sent, by lane.
        away: Claims whose server, of several, was away. They may have got there all the same, so they
            are made again as they were, and whichever lane comes first has what they are granted.
        unsent: What the broker could not be given; it goes out with the next exchange, long before
            the outbox's timer.
        users: Exchanges under way.
    """

    waiting: deque[tuple[Message, _Held]] = attrs.field(factory=deque)
    asked: defaultdict[str, list[_Asked]] = attrs.field(factory=lambda: defaultdict(list))
    away: dict[Message, ClaimId] = attrs.field(factory=dict)
    unsent: list[Message] = attrs.field(factory=list)
    users: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        in_hand = (self.waiting, self.away, self.unsent, *self.asked.values())
        return not any(in_hand)

    def put(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Add what was received; return what is none of ours."""
        for delivery in deliveries:
            held = _Held(delivery, len(delivery.messages))
            self.waiting.extend((message, held) for message in delivery.messages)
        return [delivery for delivery in deliveries if delivery.problem]

    def ask_again(self, session: str, take: Take) -> dict[Message, Claim]:
        """Return the claims without an answer: of this lane, and as many as there is room for."""
        asked = self.asked[session]
        for message in [*islice(self.away, max(take.limit - len(asked), 0))]:
            asked.append(_Asked(message, self.away.pop(message)))
        return _claims(asked, take)

    def room(self, session: str, take: Take) -> int:
        """Return how many calls may be asked for besides those that a lane has been granted."""
        return max(take.limit - len(self.asked[session]), 0)

    def ask(self, session: str, take: Take) -> dict[Message, Claim]:
        """Return claims for messages that are waiting, as many as there is room for."""
        count = min(self.room(session, take), len(self.waiting))
        waiting = [self.waiting.popleft() for _ in range(count)]
        fresh = [_Asked(message, take.claim_id, held) for message, held in waiting]
        self.asked[session] += fresh
        return _claims(fresh, take)

    def answered(self, session: str, answers: Mapping[Message, Reply]) -> list[Delivery]:
        """Take note of the answers to a lane's claims; return the deliveries that are done with.

        What is granted is asked for again if the lane's exchange has to be made again.
        """
        done = []
        kept = []
        for one in self.asked[session]:
            answer = answers.get(one.message)
            if one.held is not None and answer is not None:
                one.held.unanswered -= 1
                if not one.held.unanswered:
                    done.append(one.held.delivery)
                one.held = None
            if answer is Answer.AWAY:
                # The delivery does not wait for a server that may be away for hours: brokers give out
                # no more beyond so many, and give those to others after a while. Should this worker
                # not live to ask again, the call's timer sends another copy.
                if len(self.away) < _MOST_AWAY:
                    self.away.setdefault(one.message, one.claim_id)
            elif answer is None or isinstance(answer, Granted):
                kept.append(one)
        self.asked[session] = kept
        return done


def _claims(asked: Sequence[_Asked], take: Take) -> dict[Message, Claim]:
    claims: dict[Message, Claim] = {}
    for one in asked:
        message = one.message
        # A copy that was delivered twice is claimed once: the same claim would be granted again.
        if message not in claims:
            claims[message] = Claim(
                run_id=message.run_id,
                call_id=message.call_id,
                generation=message.generation,
                claim_id=one.claim_id,
                lease_ms=take.lease_ms,
                suspects=take.suspects,
            )
    return claims


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
            if not inbox.users and inbox.is_empty:
                del self[worker]
