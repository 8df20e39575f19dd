"""`Paired` step by step: what its effects are, and what two workers that share one may not mix up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pwf_core import inboxes
from pwf_core.commands import Answer, Claim, Command, Commit, Granted, Message, Start
from pwf_core.decisions import Decision, NewCall
from pwf_core.errors import BrokerUnavailableError, StoreUnavailableError
from pwf_core.ids import CallId, ClaimId, RunId
from pwf_core.paired import BlockingPaired
from pwf_core.ports import Applied, Delivery, Take
from pwf_core.wire import encode_messages
from pwf_memory.broker import BlockingMemoryBroker, Queues
from pwf_memory.store import BlockingMemoryStateStore


def take(session: str, number: int, limit: int = 10) -> Take:
    return Take(("s",), limit, ClaimId(f"{session}:{number}"), 60_000)


def start(number: int) -> Start:
    run_id = f"{number:032x}"
    return Start(RunId(run_id), NewCall(CallId(run_id), "s.task", b"\x80"))


def names(grants: Sequence[Granted]) -> list[int]:
    return [int(grant.run_id, 16) for grant in grants]


class Tap(BlockingMemoryBroker):
    """A broker that lets a test in between receiving and claiming, and counts acks."""

    def __init__(self, queues: Queues) -> None:
        super().__init__(queues)
        self.acked = 0

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.acked += len(deliveries)
        super().ack(deliveries)


class Interrupted(BlockingMemoryStateStore):
    """A store that calls back before it looks at claims."""

    def __init__(self) -> None:
        super().__init__()
        self.between = list[object]()

    def apply(self, commands: Sequence[object], *, sweep: int = 0, partly: bool = False) -> Applied:
        if self.between and any(isinstance(one, Claim) for one in commands):
            callback = self.between.pop()
            assert callable(callback)
            callback()
        return super().apply(commands, sweep=sweep)  # type: ignore[arg-type]  # what it was given


def test_workers_that_share_a_backend_claim_only_what_is_theirs() -> None:
    """One worker's exchange in the middle of another's gets other calls, and none twice."""
    store = Interrupted()
    backend = BlockingPaired(BlockingMemoryBroker(Queues()), store)
    backend.apply([start(1), start(2)])
    second: list[Granted] = []
    store.between.append(lambda: second.extend(backend.exchange([], take("b", 1)).grants))
    first = backend.exchange([], take("a", 1, limit=1)).grants

    assert (names(first), names(second)) == ([1], [2])


def test_delivery_that_names_more_calls_than_there_is_room_for_waits() -> None:
    """Each call is claimed when there is room for it; the delivery is acked after the last."""
    queues = Queues()
    broker, store = Tap(queues), BlockingMemoryStateStore()
    backend = BlockingPaired(broker, store)
    starts = [start(number) for number in range(3)]
    store.apply(starts)
    messages = [Message(one.run_id, one.call.call_id, 0, "s.task") for one in starts]
    queues.put("s", encode_messages(messages))
    taken = [
        (names(backend.exchange([], take("a", number, limit=1)).grants), broker.acked)
        for number in range(4)
    ]

    assert taken == [([0], 0), ([1], 0), ([2], 1), ([], 1)]


def test_copy_that_is_delivered_twice_is_granted_once() -> None:
    """Both deliveries are acked."""
    queues = Queues()
    broker, store = Tap(queues), BlockingMemoryStateStore()
    backend = BlockingPaired(broker, store)
    one = start(1)
    store.apply([one])
    message = Message(one.run_id, one.call.call_id, 0, "s.task")
    for _ in range(3):
        queues.put("s", encode_messages([message]))

    assert names(backend.exchange([], take("a", 1)).grants) == [1]
    assert broker.acked == 3


def test_message_that_is_none_of_ours_is_set_aside_alone() -> None:
    """Also when nothing else has been delivered."""
    queues = Queues()
    backend = BlockingPaired(BlockingMemoryBroker(queues), BlockingMemoryStateStore())
    queues.put("s", b"nonsense")

    assert backend.exchange([], take("a", 1)).grants == []
    assert list(queues.rejected) == [b"nonsense"]


class Away(BlockingMemoryBroker):
    """A broker that says why it cannot be used."""

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        raise BrokerUnavailableError("takes no messages")

    def receive(self, services: Sequence[str], limit: int) -> list[Delivery]:
        raise BrokerUnavailableError("cannot be reached")


def test_broker_that_is_away_is_a_problem_and_no_failure() -> None:
    """Commands are applied; what does not work is said, or a worker would look well."""
    store = BlockingMemoryStateStore()
    backend = BlockingPaired(Away(Queues()), store)
    idle, busy = backend.exchange([], take("a", 1)), backend.exchange([start(1)], take("a", 2))

    assert idle.problem == "cannot be reached"
    assert busy.problem == "takes no messages; cannot be reached"
    assert store.read([start(1).run_id]) != [None]
    assert (
        BlockingPaired(BlockingMemoryBroker(Queues()), store).exchange([], take("b", 1)).problem
        == ""
    )


class Refusing(BlockingMemoryBroker):
    """A broker that refuses to publish as long as it is told to."""

    is_away = True

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        if self.is_away:
            raise BrokerUnavailableError("away")
        return super().publish(messages)


def test_what_could_not_be_sent_goes_out_with_the_next_exchange() -> None:
    """Without waiting for the outbox's timer; the copy is settled then, and claimed."""
    broker = Refusing(Queues())
    backend = BlockingPaired(broker, BlockingMemoryStateStore())
    first = backend.exchange([start(1)], take("a", 1))
    assert (names(first.grants), first.problem) == ([], "away")
    assert backend.exchange([], take("a", 2)).problem == "away"
    broker.is_away = False
    found = backend.exchange([start(2)], take("a", 3))

    assert (sorted(names(found.grants)), found.problem) == ([1, 2], "")
    assert names(backend.exchange([], take("a", 4)).grants) == []


class Parted(BlockingMemoryStateStore):
    """A store on several servers, some of which are away.

    Attributes:
        away: The runs that those have.
        is_deaf: Whether commands do not get there either; else it is the replies that are lost.
        failures: Of each time that it is asked for calls, what goes wrong.
    """

    def __init__(self, *away: int) -> None:
        super().__init__()
        self.away = set(away)
        self.is_deaf = True
        self.failures = list[StoreUnavailableError | None]()

    def apply(
        self, commands: Sequence[Command], *, sweep: int = 0, partly: bool = False
    ) -> Applied:
        if self.failures and any(isinstance(one, Claim) for one in commands):
            error = self.failures.pop(0)
            if error is not None:
                raise error
        here = [int(one.run_id, 16) not in self.away for one in commands]
        if all(here):
            return super().apply(commands, sweep=sweep)
        if not partly:
            raise StoreUnavailableError("a node is away")
        if not self.is_deaf:
            super().apply([one for one, is_here in zip(commands, here, strict=True) if not is_here])
        reached = [one for one, is_here in zip(commands, here, strict=True) if is_here]
        applied = super().apply(reached, sweep=sweep)
        answers = iter(applied.replies)
        replies = [next(answers) if is_here else Answer.AWAY for is_here in here]
        return Applied(replies, applied.enqueued, applied.next_due_ms, "a node is away")


def parted(*numbers: int, away: Sequence[int]) -> tuple[BlockingPaired, Parted, Tap]:
    """Return a backend with these runs, some of them at servers that are away now."""
    broker, store = Tap(Queues()), Parted()
    backend = BlockingPaired(broker, store)
    backend.apply([start(number) for number in numbers])
    store.away = {*away}
    return backend, store, broker


def commit(grant: Granted) -> Commit:
    return Commit(grant.run_id, grant.call_id, grant.claim_id, Decision())


@pytest.mark.parametrize("is_deaf", [True, False])
def test_call_whose_server_is_away_waits_and_holds_up_no_other(is_deaf: bool) -> None:
    """It is claimed as it was, so that nothing is lost if the claim had got there; the broker waits not."""
    backend, store, broker = parted(1, 2, 3, away=[2])
    store.is_deaf = is_deaf
    first = backend.exchange([], take("a", 1))
    assert (names(first.grants), first.problem, broker.acked) == ([1, 3], "a node is away", 3)
    commits = [commit(grant) for grant in first.grants]
    second = backend.exchange([*commits, start(4)], take("a", 2))
    assert ([Answer.DONE] * 2, names(second.grants)) == (second.replies[:2], [4])
    store.away.clear()
    (grant,) = backend.exchange([], take("a", 3)).grants

    assert (names([grant]), grant.claim_id, grant.attempt) == ([2], "a:1", 1)
    assert backend.exchange([commit(grant)], take("a", 4)).replies == [Answer.DONE]
    assert not backend._inboxes


def test_commit_whose_server_is_away_is_not_answered() -> None:
    """Made again, it is answered as if it came once more: the call is done with, or it is done now."""
    backend, store, _ = parted(1, 2, away=[])
    one, two = (commit(grant) for grant in backend.exchange([], take("a", 1)).grants)
    store.away = {1}
    store.is_deaf = False
    assert backend.exchange([one, two], take("a", 2)).replies == [Answer.AWAY, Answer.DONE]
    store.away.clear()

    assert backend.exchange([one], take("a", 3)).replies == [Answer.ENDED]


def test_calls_whose_server_is_away_take_no_room() -> None:
    """Once it is back they come first, and no more of them than there is room for."""
    backend, store, _ = parted(1, 2, 3, 4, 5, 6, away=[1, 2, 3])
    taken = [names(backend.exchange([], take("a", number, limit=2)).grants) for number in range(4)]
    assert taken == [[], [4], [5, 6], []]
    store.away.clear()
    backend.apply([start(7), start(8)])
    taken = [names(backend.exchange([], take("a", number, limit=2)).grants) for number in (4, 5, 6)]

    assert [len(one) for one in taken] == [2, 2, 1]
    assert sorted([*taken[0], *taken[1]]) == [1, 2, 3, 7]


def test_whoever_has_no_room_asks_for_none() -> None:
    backend, store, _ = parted(1, away=[1])
    backend.exchange([], take("a", 1))
    store.away.clear()

    assert backend.exchange([], take("a", 2, limit=0)).grants == []
    assert names(backend.exchange([], take("a", 3)).grants) == [1]


def test_another_lane_asks_for_what_one_could_not_get() -> None:
    """It may be long until that one has another exchange."""
    backend, store, _ = parted(1, away=[1])
    backend.exchange([], take("a.3", 1))
    store.away.clear()
    (grant,) = backend.exchange([], take("a.0", 2)).grants

    assert (names([grant]), grant.claim_id) == ([1], "a.3:1")


def test_no_more_calls_are_kept_than_a_worker_can_remember(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's timers send copies of the others."""
    monkeypatch.setattr(inboxes, "_MOST_AWAY", 2)
    backend, store, broker = parted(1, 2, 3, away=[1, 2, 3])
    backend.exchange([], take("a", 1))
    assert broker.acked == 3
    store.away.clear()

    assert names(backend.exchange([], take("a", 2)).grants) == [1, 2]


def test_exchange_that_is_made_again_brings_what_had_been_away_again() -> None:
    """What was granted in an exchange that failed then is granted to the next one, within the room."""
    backend, store, broker = parted(1, 2, 3, 4, away=[1])
    assert names(backend.exchange([], take("a", 1, limit=1)).grants) == []
    assert names(backend.exchange([], take("a", 2, limit=1)).grants) == [2]
    store.away.clear()
    store.failures = [None, StoreUnavailableError("all are away")]
    with pytest.raises(StoreUnavailableError):
        backend.exchange([], take("a", 3, limit=2))
    again = backend.exchange([], take("a", 3, limit=2))

    assert (names(again.grants), broker.acked) == ([1, 3], 3)
    assert names(backend.exchange([], take("a", 4)).grants) == [4]


def test_client_is_told_that_a_server_is_away() -> None:
    """It wants what it has asked for, or an error."""
    backend, store, _ = parted(1, away=[1, 2])

    with pytest.raises(StoreUnavailableError):
        backend.apply([start(2)])
    with pytest.raises(StoreUnavailableError):
        backend.apply([start(3), start(2)])
    assert store.read([start(2).run_id]) == [None]
