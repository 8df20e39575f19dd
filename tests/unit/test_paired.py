"""`Paired` step by step: what its effects are, and what two workers that share one may not mix up."""

from __future__ import annotations

from collections.abc import Sequence

from pwf_core.commands import Claim, Granted, Message, Start
from pwf_core.decisions import NewCall
from pwf_core.errors import BrokerUnavailableError
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

    def apply(self, commands: Sequence[object], *, sweep: int = 0) -> Applied:
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
