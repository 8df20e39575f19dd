"""The worker's bookkeeping: what it asks for, what it sends, and what it makes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from pwf_core.commands import (
    DEFER_MS,
    Answer,
    Bury,
    Collect,
    Commit,
    Granted,
    Page,
    Postpone,
    Postponement,
    Reply,
)
from pwf_core.directives import publish, result
from pwf_core.engine import Engine
from pwf_core.ids import CallId, ClaimId, RunId
from pwf_core.ports import Exchanged
from pwf_core.protocol import Outcome
from pwf_core.retries import Retry
from pwf_core.service import Service
from pwf_core.staging import MOST_CALLS, weight_of
from pwf_core.underway import Exchange, RunningCall

work = Service("work")


@work.task(retry=Retry(attempts=2))
def task() -> None: ...


class Desk:
    """An engine, and what became of its calls."""

    def __init__(self, concurrency: int = 4, lanes: int = 1) -> None:
        self.outcomes: list[tuple[str, Outcome]] = []
        self.reasons: list[str] = []
        self.engine = Engine(
            services=("work",),
            tasks=work.tasks,
            session="s",
            concurrency=concurrency,
            lease_ms=1000,
            find_resource=lambda _: None,
            on_outcome=self.note,
            lanes=lanes,
        )
        self.sent: Exchange | None = None

    def note(self, grant: Granted, outcome: Outcome, reason: str) -> None:
        self.outcomes.append((grant.call_id, outcome))
        self.reasons.append(reason)

    def ask(self) -> Exchange:
        self.sent = self.engine.next_exchange()
        return self.sent

    def answer(self, *grants: Granted, replies: list[Reply] | None = None) -> list[RunningCall]:
        assert self.sent is not None
        if replies is None:
            replies = [Answer.DONE] * len(self.sent.commands)
        return self.engine.exchanged(self.sent, Exchanged(replies, list(grants), None))

    def start(self, *grants: Granted) -> list[RunningCall]:
        self.ask()
        return self.answer(*grants)


def grant(call: str = "c", claim: str = "s:1", **more: Any) -> Granted:
    fields: dict[str, Any] = {
        "run_id": RunId("r"),
        "call_id": CallId(call),
        "claim_id": ClaimId(claim),
        "generation": 0,
        "address": "work.task",
        "body": b"\x90",
        "attempt": 1,
        "failures": 0,
        "suspect": False,
        "events": {},
        "results": None,
    }
    return Granted(**fields | more)


def test_every_exchange_has_a_claim_of_its_own():
    """Claim ids are never used twice, and name the session."""
    desk = Desk()

    takes = []
    for _ in range(3):
        takes.append(desk.ask().take)
        desk.answer()
    assert ["s.0:1", "s.0:2", "s.0:3"] == [take.claim_id for take in takes]
    assert (("work",), 4, 1000, True) == (
        takes[0].services,
        takes[0].limit,
        takes[0].lease_ms,
        takes[0].suspects,
    )


def test_room_shrinks_with_what_runs():
    """A worker asks for as many calls as it can start."""
    desk = Desk()
    desk.start(grant("a"), grant("b"))

    assert 2 == desk.ask().take.limit
    desk.answer(*(grant(str(number)) for number in range(7)))  # a broker may deliver more
    assert 0 == desk.ask().take.limit


def test_room_is_made_by_conclusions():
    """What is concluded makes room at once: the exchange that carries it asks for as many calls."""
    desk = Desk()
    for call in desk.start(*(grant(name) for name in "abc")):
        desk.engine.returned(call, None)

    exchange = desk.ask()
    assert (3, 4) == (len(exchange.commands), exchange.take.limit)


def test_lanes_share_the_room():
    """Each exchange asks for its share of what there is room for, under a session of its own."""
    desk = Desk(concurrency=5, lanes=2)
    first, second = desk.ask(), desk.ask()

    assert [("s.0:1", 3), ("s.1:2", 2)] == [
        (one.take.claim_id, one.take.limit) for one in (first, second)
    ]
    assert [True, False] == [one.take.suspects for one in (first, second)]
    assert not desk.engine.may_overlap
    desk.sent = first
    desk.answer(*(grant(name) for name in "abc"))
    assert desk.engine.may_overlap
    third = desk.ask()
    assert ("s.0:3", 0) == (third.take.claim_id, third.take.limit)
    assert not desk.engine.is_done


@pytest.mark.parametrize(("lanes", "sent"), [(1, [40]), (2, [20, 20])])
def test_lanes_share_what_was_concluded(lanes, sent):
    """With several round trips at a time, one carries half of the commands in hand at the most."""
    desk = Desk(concurrency=40, lanes=lanes)
    for call in desk.start(*(grant(f"c{number}") for number in range(40))):
        desk.engine.returned(call, None)

    assert sent == [len(desk.ask().commands) for _ in sent]
    assert not desk.engine.has_conclusions


def test_few_commands_go_out_together():
    """Of a few, halves would cost more than they bring."""
    desk = Desk(concurrency=10, lanes=2)
    desk.ask()
    for call in desk.answer(*(grant(f"c{number}") for number in range(5))):
        desk.engine.returned(call, None)

    assert 5 == len(desk.ask().commands)


def test_parts_of_a_decision_are_answered_one_after_the_other():
    """No other exchange overtakes one that carries parts, so that they arrive in their order."""
    desk = Desk(lanes=2)
    (wide, *_) = desk.start(grant("a"), grant("b"))
    desk.engine.returned(wide, [publish("work.task") for _ in range(3 * MOST_CALLS)])

    overlap = []
    while desk.engine.has_conclusions:
        desk.ask()
        overlap.append(desk.engine.may_overlap)
        desk.answer()
    assert [False, False] == overlap


def test_call_is_committed_with_the_next_exchange():
    """What a handler returned goes out with the next round trip; its answer ends the call."""
    desk = Desk()
    (call,) = desk.start(grant())
    desk.engine.returned(call, result(7))

    assert desk.engine.has_conclusions
    exchange = desk.ask()
    (commit,) = exchange.commands
    assert isinstance(commit, Commit)
    assert b"\x07" == commit.decision.result
    assert not desk.engine.is_done
    desk.answer()
    assert [("c", Outcome.COMMITTED)] == desk.outcomes
    assert desk.engine.is_done


def test_what_a_full_store_refused_goes_out_with_what_came_after():
    """A commit that needs room holds up none that makes room; each is answered once."""
    desk = Desk()
    first, second = desk.start(grant("a"), grant("b"))
    desk.engine.returned(first, publish("work.task"))
    refused = desk.ask()
    desk.engine.returned(second, result(7))
    desk.sent = desk.engine.next_exchange(refused)

    assert ["a", "b"] == [command.call_id for command in desk.sent.commands]
    assert desk.sent.take.claim_id != refused.take.claim_id
    desk.answer()
    assert [("a", Outcome.COMMITTED), ("b", Outcome.COMMITTED)] == desk.outcomes
    assert desk.engine.is_done


def test_what_did_not_get_through_goes_out_again():
    """One of several servers is away: its calls stay in hand, and nobody waits for them."""
    desk = Desk()
    first, second = desk.start(grant("a"), grant("b"))
    desk.engine.returned(first, result(7))
    desk.engine.returned(second, result(8))
    desk.ask()
    desk.answer(replies=[Answer.AWAY, Answer.DONE])

    assert [("b", Outcome.COMMITTED)] == desk.outcomes
    assert not desk.engine.has_conclusions  # no reason to ask again at once
    assert not desk.engine.is_done
    assert ["a"] == [command.call_id for command in desk.ask().commands]
    desk.answer()
    assert [("b", Outcome.COMMITTED), ("a", Outcome.COMMITTED)] == desk.outcomes
    assert desk.engine.is_done


def test_parts_that_did_not_get_through_stay_in_order():
    """The commit that makes them valid comes after them, also when they are sent again."""
    desk = Desk()
    wide, other = desk.start(grant("a"), grant("b"))
    desk.engine.returned(wide, [publish("work.task") for _ in range(3 * MOST_CALLS)])
    parts = desk.ask().commands
    desk.answer(replies=[Answer.AWAY] * len(parts))
    desk.engine.returned(other, None)
    again = desk.ask().commands

    assert [*parts] == again[: len(parts)]
    assert ["Commit", "Commit"] == [type(one).__name__ for one in again[-2:]]
    desk.answer()
    assert [("a", Outcome.COMMITTED), ("b", Outcome.COMMITTED)] == desk.outcomes


def test_suspect_waits_for_what_did_not_get_through():
    """It begins once the others have been given back, and not before."""
    desk = Desk()
    assert [] == desk.start(grant("a", suspect=True), grant("b", suspect=True))
    desk.ask()
    assert [] == desk.answer(replies=[Answer.AWAY])
    desk.ask()
    (suspect,) = desk.answer()

    assert "a" == suspect.grant.call_id


def test_renewal_that_did_not_get_through_loses_no_lease():
    """The lease may well hold until the next one."""
    desk = Desk()
    desk.start(grant("a"))

    assert [] == desk.engine.renewed(desk.engine.renewals(), [Answer.AWAY])
    assert [] == desk.outcomes


def test_conclusions_are_sent_together():
    """Group commit: whatever has gathered shares a round trip, in its order."""
    desk = Desk()
    calls = desk.start(*(grant(name) for name in "abc"))
    for call in reversed(calls):
        desk.engine.returned(call, None)

    exchange = desk.ask()
    assert ["c", "b", "a"] == [command.call_id for command in exchange.commands]
    desk.answer()
    assert [("c", Outcome.COMMITTED), ("b", Outcome.COMMITTED), ("a", Outcome.COMMITTED)] == (
        desk.outcomes
    )


def test_failures_are_retried_then_buried():
    """An error postpones the call, the last one buries it, with its traceback."""
    desk = Desk()
    first, last = desk.start(grant("a"), grant("b", failures=1))
    for call in (first, last):
        desk.engine.raised(call, ValueError("no"))

    postpone, bury = desk.ask().commands
    assert isinstance(postpone, Postpone)
    assert (Postponement.RETRY, True) == (postpone.kind, "ValueError: no" in postpone.reason)
    assert isinstance(bury, Bury)
    desk.answer()
    assert [("a", Outcome.RETRIED), ("b", Outcome.BURIED)] == desk.outcomes


def test_process_errors_are_failures():
    """SystemExit ends an attempt, not the worker."""
    desk = Desk()
    (call,) = desk.start(grant())
    desk.engine.raised(call, SystemExit(3))

    (command,) = desk.ask().commands
    assert isinstance(command, Postpone)
    assert "SystemExit(3)" in command.reason


def test_unknown_task_is_parked():
    """A task that is not known here, and arguments that are not its own, start no handler."""
    desk = Desk()

    assert [] == desk.start(grant("a", address="work.new"), grant("b", body=b"\x91\x01"))
    one, two = desk.ask().commands
    assert isinstance(one, Postpone)
    assert isinstance(two, Postpone)
    assert [Postponement.PARK] * 2 == [one.kind, two.kind]
    desk.answer()
    assert [Outcome.PARKED] * 2 == [outcome for _, outcome in desk.outcomes]


def test_refused_commit_says_so():
    """A commit that comes too late is told apart: done by another, or the lease lost."""
    desk = Desk()
    calls = desk.start(grant("a"), grant("b"))
    for call in calls:
        desk.engine.returned(call, None)
    desk.ask()
    desk.answer(replies=[Answer.ENDED, Answer.LOST])

    assert [("a", Outcome.ENDED), ("b", Outcome.LEASE_LOST)] == desk.outcomes
    assert desk.engine.is_done


def test_large_decision_goes_in_parts():
    """One exchange carries what one step of a store bears; the others follow, in order."""
    desk = Desk()
    wide, small = desk.start(grant("a"), grant("b"))
    desk.engine.returned(wide, [publish("work.task") for _ in range(3 * MOST_CALLS + 1)])
    desk.engine.returned(small, None)
    sent = []
    while desk.engine.has_conclusions:
        commands = desk.ask().commands
        assert sum(map(weight_of, commands)) <= 2 * MOST_CALLS
        sent.append([type(one).__name__ for one in commands])
        desk.answer()

    assert [["Stage"] * 2, ["Stage"] * 2 + ["Commit"] * 2] == sent
    assert [("a", Outcome.COMMITTED), ("b", Outcome.COMMITTED)] == desk.outcomes
    assert desk.engine.is_done


def test_results_are_collected_before_the_handler_runs():
    """Page by page; then the call is one of those to start."""
    desk = Desk()
    assert [] == desk.start(grant("a", uncollected=3))
    (first,) = desk.ask().commands
    assert [] == desk.answer(replies=[Page([b"\x01", None])])
    (second,) = desk.ask().commands
    (call,) = desk.answer(replies=[Page([b"\x03"])])

    assert [Collect("r", "a", "s:1", 0), Collect("r", "a", "s:1", 2)] == [first, second]
    assert call.context is not None
    assert [1, None, 3] == list(call.context.results)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(Answer.LOST, Outcome.LEASE_LOST), (Answer.ENDED, Outcome.ENDED)],
)
def test_results_of_a_lost_call_cannot_be_collected(answer, outcome):
    """Its handler does not run."""
    desk = Desk()
    desk.start(grant("a", uncollected=3))
    desk.ask()

    assert [] == desk.answer(replies=[answer])
    assert [("a", outcome)] == desk.outcomes
    assert desk.engine.is_done


def test_leaving_worker_starts_nothing_that_it_has_collected():
    """The call goes back."""
    desk = Desk()
    desk.start(grant("a", uncollected=1))
    desk.ask()
    desk.engine.stopping = True

    assert [] == desk.answer(replies=[Page([None])])
    (back,) = desk.ask().commands
    assert isinstance(back, Postpone)
    assert Postponement.HAND_BACK is back.kind


def test_lease_is_let_go_when_its_time_is_over():
    """A call that its loop should have ended long ago is not renewed; the others are."""
    desk = Desk()
    late, other = desk.start(grant("a"), grant("b"))
    late.keep_until = 7.0

    assert ["a", "b"] == [one.call_id for one in desk.engine.renewals(6.9)]
    assert ["b"] == [one.call_id for one in desk.engine.renewals(7.0)]
    assert ["b"] == [one.call_id for one in desk.engine.renewals(1e9)]
    assert other.invoke is not None


def test_lost_lease_is_said_once():
    """A lease lost at renewal cancels the call's context; what its handler returns is dropped."""
    desk = Desk()
    kept, lost = desk.start(grant("a"), grant("b"))
    context = lost.context
    renewals = desk.engine.renewals()
    gone = desk.engine.renewed(renewals, [Answer.DONE, Answer.LOST])

    assert [lost] == gone
    assert context is not None
    assert context.cancelled
    assert [("b", Outcome.LEASE_LOST)] == desk.outcomes
    assert [] == desk.engine.renewed(renewals, [Answer.DONE, Answer.LOST])
    desk.engine.returned(lost, result(1))
    desk.engine.raised(lost, ValueError())
    assert not desk.engine.has_conclusions
    desk.engine.returned(kept, None)
    assert 1 == len(desk.ask().commands)


def test_late_renewal_touches_no_conclusion():
    """A renewal that is answered after the handler ended decides nothing: the commit's answer does."""
    desk = Desk()
    (call,) = desk.start(grant())
    renewals = desk.engine.renewals()
    desk.engine.returned(call, None)

    assert [] == desk.engine.renewed(renewals, [Answer.LOST])
    desk.ask()
    desk.answer(replies=[Answer.LOST])
    assert [("c", Outcome.LEASE_LOST)] == desk.outcomes


def test_call_may_come_back_to_its_own_worker():
    """A worker whose lease ran out unnoticed may get the call again: the older attempt is lost."""
    desk = Desk()
    (older,) = desk.start(grant(claim="s:1"))
    context = older.context
    (newer,) = desk.start(grant(claim="s:2", generation=1, attempt=2))

    assert [("c", Outcome.LEASE_LOST)] == desk.outcomes
    assert context is not None
    assert context.cancelled
    desk.engine.returned(older, result(1))
    desk.engine.returned(newer, result(2))
    (commit,) = desk.ask().commands
    assert isinstance(commit, Commit)
    assert ("s:2", b"\x02") == (commit.claim_id, commit.decision.result)
    desk.answer()
    assert desk.engine.is_done


def test_call_comes_back_while_its_commit_is_on_its_way():
    """The answer to the older attempt's commit ends that attempt, and not the newer one."""
    desk = Desk()
    (older,) = desk.start(grant(claim="s:1"))
    desk.engine.returned(older, result(1))
    desk.ask()
    (newer,) = desk.answer(grant(claim="s:2", generation=1), replies=[Answer.LOST])

    assert [("c", Outcome.LEASE_LOST)] == desk.outcomes
    assert not desk.engine.is_done
    desk.engine.returned(newer, result(2))
    desk.ask()
    desk.answer()
    assert [("c", Outcome.LEASE_LOST), ("c", Outcome.COMMITTED)] == desk.outcomes


def test_one_suspect_at_a_time():
    """Of several suspects one is kept, and begins once the others are safely given back."""
    desk = Desk()

    assert ["a"] == [
        call.grant.call_id
        for call in desk.start(grant("a"), grant("b", suspect=True), grant("c", suspect=True))
    ]
    exchange = desk.ask()
    assert not exchange.take.suspects
    assert 2 == exchange.take.limit
    (back,) = exchange.commands
    assert isinstance(back, Postpone)
    assert ("c", Postponement.HAND_BACK, DEFER_MS) == (back.call_id, back.kind, back.delay_ms)
    (suspect,) = desk.answer()
    assert "b" == suspect.grant.call_id
    assert not desk.ask().take.suspects
    desk.answer()
    desk.engine.returned(suspect, None)
    desk.ask()
    desk.answer()
    assert desk.ask().take.suspects


def test_suspect_begins_when_the_others_are_given_back():
    """An answer to an exchange that did not carry them says nothing about that."""
    desk = Desk(lanes=2)
    first, second = desk.ask(), desk.ask()
    desk.sent = first
    assert [] == desk.answer(grant("a", suspect=True), grant("b", suspect=True))
    back = desk.ask()
    assert ["b"] == [command.call_id for command in back.commands]
    desk.sent = second
    (other,) = desk.answer(grant("c"))
    desk.sent = back
    (suspect,) = desk.answer()

    assert ["c", "a"] == [call.grant.call_id for call in (other, suspect)]


def test_no_second_suspect_is_held():
    """Where one is held already, all further ones are given back."""
    desk = Desk(lanes=2)
    first, second = desk.ask(), desk.ask()
    for sent, name in ((first, "a"), (second, "b")):
        desk.sent = sent
        desk.answer(grant(f"{name}1", suspect=True), grant(f"{name}2", suspect=True))

    assert ["a2", "b1", "b2"] == [command.call_id for command in desk.ask().commands]
    (suspect,) = desk.answer()
    assert "a1" == suspect.grant.call_id


def test_leaving_worker_takes_nothing():
    """A worker that stops asks for no calls, and gives back at once those that still come."""
    desk = Desk()
    desk.ask()
    desk.engine.stopping = True

    assert [] == desk.answer(grant("late"))
    exchange = desk.ask()
    assert 0 == exchange.take.limit
    (back,) = exchange.commands
    assert isinstance(back, Postpone)
    assert (Postponement.HAND_BACK, 0) == (back.kind, back.delay_ms)
    desk.answer()
    assert desk.engine.is_done


def test_who_listens_leaves_room():
    """One waits for calls beside all exchanges, and leaves room for what follows from theirs."""
    desk = Desk(concurrency=6, lanes=1)
    assert desk.engine.may_listen
    listening = desk.engine.listen()

    assert ("s.1:1", 3, False) == (
        listening.take.claim_id,
        listening.take.limit,
        listening.take.suspects,
    )
    assert not listening.commands
    assert not desk.engine.may_listen
    assert desk.engine.may_overlap
    beside = desk.ask()
    assert ("s.0:2", 3, True) == (beside.take.claim_id, beside.take.limit, beside.take.suspects)
    assert not desk.engine.may_overlap
    desk.answer(*(grant(name) for name in "abc"))
    desk.sent = listening
    assert 3 == len(desk.answer(*(grant(name, "s:2") for name in "def")))
    assert not desk.engine.may_listen


def test_who_has_all_the_room_may_have_suspects():
    """Others could take none: a call that was lost with its workers would never run."""
    desk = Desk(concurrency=1)
    listening = desk.engine.listen()

    assert (1, True) == (listening.take.limit, listening.take.suspects)
    beside = desk.ask()
    assert (0, False) == (beside.take.limit, beside.take.suspects)


def test_who_listened_in_vain_leaves_nothing():
    """Nothing was taken, and somebody may listen again."""
    desk = Desk()
    desk.engine.withdrawn(desk.engine.listen())

    assert desk.engine.is_done
    assert not desk.engine.has_conclusions
    assert desk.engine.may_listen


def test_what_nobody_heard_is_asked_for():
    """The next exchange has the same claim, takes nothing new, and brings what that one was granted."""
    desk = Desk()
    listening = desk.engine.listen()
    desk.engine.unheard(listening)

    assert desk.engine.has_conclusions
    assert not desk.engine.may_listen
    assert not desk.engine.is_done
    asking = desk.ask()
    assert (listening.take.claim_id, 0) == (asking.take.claim_id, asking.take.limit)
    assert not desk.engine.has_conclusions
    (call,) = desk.answer(grant("found"))
    assert "found" == call.grant.call_id
    assert desk.engine.may_listen


def test_late_answer_changes_nothing():
    """What was asked for again, because nobody had heard it, counts once, whenever it is heard."""
    desk = Desk()
    listening = desk.engine.listen()
    desk.engine.unheard(listening)
    desk.ask()
    late = Exchanged([], [grant("found")], None)
    desk.engine.unheard(listening)
    desk.engine.withdrawn(listening)

    assert [] == desk.engine.exchanged(listening, late)
    assert not desk.engine.has_conclusions
    assert 1 == len(desk.answer(grant("found")))
    assert [] == desk.engine.exchanged(listening, late)


def test_what_a_full_store_refused_goes_before_what_nobody_heard():
    """It is on its way already; what was unheard goes out next."""
    desk = Desk(lanes=2)
    refused = desk.ask()
    desk.engine.unheard(desk.engine.listen())
    again = desk.engine.next_exchange(refused)

    assert ("s.0:3", 2) == (again.take.claim_id, again.take.limit)
    assert ("s.2:2", 0) == (desk.ask().take.claim_id, desk.sent.take.limit)


def test_what_nobody_heard_is_asked_for_until_it_is():
    """Also if a full store has refused to say; meanwhile the others go on."""
    desk = Desk()
    desk.engine.unheard(desk.engine.listen())
    refused = desk.ask()
    assert "s.0:2" == desk.engine.next_exchange(refused).take.claim_id

    assert refused is desk.ask()
    assert 1 == len(desk.answer(grant("found")))


def test_leaving_worker_asks_once():
    """What was asked for already is answered to whoever asked."""
    desk = Desk()
    desk.engine.unheard(desk.engine.listen())
    desk.ask()
    desk.engine.stop()

    assert not desk.engine.has_conclusions
    assert [] == desk.answer(grant("found"))
    assert desk.engine.has_conclusions


def test_leaving_worker_does_not_wait_for_who_listens():
    """It asks instead, and gives back what there is."""
    desk = Desk()
    listening = desk.engine.listen()
    desk.engine.stop()

    assert not desk.engine.may_listen
    asking = desk.ask()
    assert (listening.take.claim_id, 0) == (asking.take.claim_id, asking.take.limit)
    assert [] == desk.answer(grant("found"))
    (back,) = desk.ask().commands
    assert isinstance(back, Postpone)
    desk.answer()
    assert desk.engine.is_done


def test_hand_back_gives_up_what_runs():
    """Handlers that do not finish are given back without counting; those concluded are not."""
    desk = Desk()
    concluded, running = desk.start(grant("a"), grant("b"))
    desk.engine.returned(concluded, publish("work.next"))
    context = running.context
    interrupted = desk.engine.hand_back()

    assert [running] == interrupted
    assert context is not None
    assert context.cancelled
    commit, back = desk.ask().commands
    assert isinstance(commit, Commit)
    assert isinstance(back, Postpone)
    assert Postponement.HAND_BACK is back.kind
    desk.answer()
    assert [("a", Outcome.COMMITTED), ("b", Outcome.HANDED_BACK)] == desk.outcomes
    assert [] == desk.engine.hand_back()


def test_renewals_name_all_that_is_in_hand():
    """Running and concluded calls are renewed alike: the commit may take a while."""
    desk = Desk()
    first, _ = desk.start(grant("a"), grant("b"))
    desk.engine.returned(first, None)

    assert {"a", "b"} == {renew.call_id for renew in desk.engine.renewals()}
