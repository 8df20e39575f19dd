"""Joins, scopes and the run around the calls: who waits for whom, what fails with whom, what is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.life import FIRST, FUSED, LEASE, OTHER, PAIRED, RUN, T0, Life, new

from pwf_core.commands import Answer, Emit, Granted, Postponement
from pwf_core.decisions import NewCall, NewGather, NewJoin
from pwf_core.effects import BuryCall, ClearTimer, DeleteRun, EndRun, Enqueue, SetTimer, UnburyCall
from pwf_core.failures import reason_in
from pwf_core.ids import CallId
from pwf_core.state import ROOT, Rules, view
from pwf_core.transition import OUTBOX_MS
from pwf_core.views import CallView, JoinView, Outcome, Phase, RunView, Status


def emit(life: Life, event: str, payload: bytes = b"1"):
    return life.do(Emit(RUN, event, payload))


# -- whatever happens ------------------------------------------------------------------------------

_EVENTS = ["a", "b", "c"]


class Chance:
    """Random decisions, and random things that befall a run."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.number = 0

    def some(self, most: int) -> range:
        return range(self.data.draw(st.integers(0, most)))

    def one(self, values):
        return self.data.draw(st.sampled_from(values))

    def fresh(self) -> NewCall:
        self.number += 1
        return new(f"c{self.number}", delay_ms=self.one([0, 0, 0, 70]))

    def join(self) -> NewJoin:
        events = tuple(self.data.draw(st.lists(st.sampled_from(_EVENTS), min_size=1, unique=True)))
        external = events[: self.one([0, 0, 1, 2])]
        timeout_ms = self.one([0, 0, 30])
        late = self.fresh() if timeout_ms and self.one([False, True]) else None
        return NewJoin(self.fresh(), events, external, timeout_ms, late)

    def gather(self) -> NewGather:
        members = tuple(self.fresh() for _ in self.some(3))
        return NewGather(self.fresh(), members, self.one(range(len(members) + 1)))

    def run(self, life: Life, call_id: str) -> None:
        life.run_call(
            call_id,
            calls=tuple(self.fresh() for _ in self.some(2)),
            emits=tuple((event, b"1") for event in self.data.draw(st.lists(st.sampled_from("ab")))),
            joins=tuple(self.join() for _ in self.some(2)),
            gathers=tuple(self.gather() for _ in self.some(2)),
            result=self.one([None, b"x"]),
        )

    def act(self, life: Life) -> None:
        """Have something happen: whatever it is answered, `Life` checks the run afterwards."""
        call_id = self.one(sorted(life.run.calls))
        match self.one(
            ["run", "run", "run", "bury", "claim", "fire", "join", "emit", "mend", "drop"]
        ):
            case "run" if life.run.calls[call_id].phase in {Phase.QUEUED, Phase.OUTBOX}:
                self.run(life, call_id)
            case "bury" if isinstance(life.claim(call_id), Granted):
                life.bury(call_id)
            case "claim":
                life.claim(call_id, by=OTHER, suspects=self.one([True, False]))
            case "fire":
                life.fire(call_id, self.one([0, 100, 100_000]))
            case "join" if life.run.joins:
                life.fire(self.one(sorted(life.run.joins)), 30)
            case "emit":
                emit(life, self.one(_EVENTS))
            case "mend":
                life.requeue(call_id)
            case "drop":
                life.drop(call_id, dead=self.one([False, True]))


def drain(life: Life) -> None:
    """Do all that is left."""
    while life.run.calls:
        call_id, call = next(iter(life.run.calls.items()))
        if call.phase is Phase.DEAD:
            life.requeue(call_id)
        elif call.phase in {Phase.TIMED, Phase.PARKED, Phase.LEASED}:
            life.fire(call_id, 100_000)
        else:
            life.run_call(call_id)


@given(st.data())
def test_whatever_happens_the_books_are_right(data):
    """Whatever befalls a run, counts, status and indexes agree; in the end it ends, and leaves nothing."""
    chance = Chance(data)
    life = Life(chance.one([FUSED, PAIRED]))
    chance.run(life, FIRST)
    for _ in chance.some(25):
        if not life.run.calls:
            break
        chance.act(life)
    drain(life)
    for event in _EVENTS:
        emit(life, event)
        drain(life)
    assert life.status in {Status.FINISHED, Status.FAILED}
    assert 0 == life.run.pending


# -- joins -----------------------------------------------------------------------------------------


def test_join_keeps_what_it_is_to_make():
    """The call of a join comes as the join said, whether it fires now or later."""
    life = Life()
    late, soon = new("late", delay_ms=5, body=b"x"), new("soon", due_ms=T0 + 9, body=b"y")
    life.run_call(
        FIRST,
        calls=(new("a"),),
        emits=(("e", b"1"),),
        joins=(NewJoin(late, ("e",)), NewJoin(soon, ("f",))),
    )
    life.run_call("a", emits=(("f", b"2"),))

    calls = life.run.calls
    assert [(b"x", T0 + 5), (b"y", T0 + 9)] == [(one.body, one.due_ms) for one in calls.values()]
    assert [("e",), ("f",)] == [one.joined for one in calls.values()]


def test_join_shares_its_events():
    """Joins on the same event fire together, in the order of their registration."""
    life = Life()
    life.run_call(joins=tuple(NewJoin(new(name), ("e", name)) for name in "jkl"))
    emit(life, "k")
    emit(life, "l")
    emit(life, "e")

    assert [Enqueue(CallId("k"), 0, "s.k"), Enqueue(CallId("l"), 0, "s.l")] == life.effects[:2]
    assert (["j"], 3) == (list(life.run.joins), len(life.effects))  # and the run is no more stalled
    assert life.claim("k").results is None


def test_join_in_time_clears_its_timer():
    """A join that fires is due no more."""
    life = Life()
    life.claim()
    life.commit(joins=(NewJoin(new("j"), ("e",), (), 30, new("late")),))

    assert SetTimer(CallId("j"), T0 + 30, "s.j") in life.effects
    assert Status.WAITING is life.status
    emit(life, "e", b"7")
    assert [ClearTimer(CallId("j"), "s.j"), Enqueue(CallId("j"), 0, "s.j")] == life.effects
    assert {"e": b"7"} == life.claim("j").events


def test_join_that_times_out_makes_the_other_call():
    """At its time, not before, and with what has happened; events that come later make nothing."""
    life = Life()
    late = new("late", body=b"z")
    life.run_call(
        emits=(("e", b"1"),),
        joins=(NewJoin(new("j", body=b"big"), ("e", "f"), ("f",), 30, late),),
    )

    assert Answer.STALE is life.fire("j", 29)
    assert Answer.DONE is life.fire("j", 1)
    assert [Enqueue(CallId("late"), 0, "s.late")] == life.effects
    assert (b"", None) == (life.run.joins[CallId("j")].body, life.run.joins[CallId("j")].late)
    assert Answer.STALE is life.fire("j", 30)
    grant = life.claim("late")
    assert ({"e": b"1"}, b"z", None) == (grant.events, grant.body, grant.results)
    assert () == view(life.run).joins
    emit(life, "f")
    assert ({}, ["late"]) == (life.run.joins, list(life.run.calls))
    life.commit("late")
    assert Status.FINISHED is life.status


def test_join_that_times_out_alone_fails_the_run():
    """Without another call, its run ends as failed, and the reason names what was missing."""
    life = Life()
    wait = NewJoin(new("j"), ("e", "f", "g"), (), 30)
    life.run_call(emits=(("f", b"1"),), joins=(wait,), result=b"7")
    life.fire("j", 30)

    reason = "s.j (j): its join timed out without e, g"
    assert [Outcome(Status.FAILED, b"7", reason)] == life.told
    assert [EndRun(life.told[0]), SetTimer(ROOT, life.now + 500, "")] == life.effects


def test_join_without_timeout_does_not_fire():
    """A timer that the store dreamt up changes nothing."""
    life = Life()
    life.run_call(joins=(NewJoin(new("j"), ("e",)),))

    assert Answer.STALE is life.fire("j", 10**9)
    assert Status.STALLED is life.status


def test_run_waits_while_any_join_can_come():
    """For the outside or for its time; when the last of them is gone, what is left is stalled."""
    life = Life()
    timed = [
        NewJoin(new(name), ("never",), (), ms, new(f"{name}!"))
        for name, ms in (("t", 30), ("u", 60))
    ]
    outside = [NewJoin(new(name), ("never", name), (name,)) for name in ("x", "y")]
    life.run_call(joins=(*timed, *outside))

    assert (2, 2) == (life.run.timed, life.run.external)
    life.fire("t", 30)
    life.run_call("t!")
    assert (Status.WAITING, 1) == (life.status, life.run.timed)
    life.fire("u", 30)
    life.run_call("u!")
    emit(life, "x")
    assert (Status.WAITING, 1) == (life.status, life.run.external)
    emit(life, "y")
    assert [Outcome(Status.STALLED)] == life.told
    emit(life, "never")
    assert (Status.RUNNING, ["x", "y"]) == (life.status, list(life.run.calls))


def test_stalled_run_says_what_ended_last():
    """A commit that leaves nothing but a join that cannot come is named."""
    life = Life()
    life.claim()
    life.commit(joins=(NewJoin(new("j"), ("e",)),))

    assert [Outcome(Status.STALLED, None, "the last call to end was s.first (first).")] == life.told
    emit(life, "e")
    assert ("", Status.RUNNING) == (life.run.reason, life.status)


# -- gathers ---------------------------------------------------------------------------------------


def gathering(life: Life, *, tolerated: int = 0, members: int = 2, **then: int) -> None:
    life.run_call(
        gathers=(
            NewGather(
                new("g", **then),
                tuple(new(f"m{number}") for number in range(members)),
                tolerated,
            ),
        )
    )


def test_gather_keeps_what_it_is_to_make():
    """Its call comes as the gather said, with one result per member."""
    life = Life()
    gathering(life, due_ms=T0 + 40)
    life.run_call("m0")
    life.run_call("m1", result=b"1")

    assert T0 + 40 == life.run.calls[CallId("g")].due_ms
    life.fire("g", 40)
    assert [None, b"1"] == life.claim("g").results
    life.commit("g")
    assert {} == life.run.results


def test_gather_of_nothing_fires_at_once():
    """Its call has an empty list of results; other calls have none at all."""
    life = Life()
    assert life.claim().results is None
    life.commit(gathers=(NewGather(new("g", delay_ms=9), ()),))

    assert T0 + 9 == life.run.calls[CallId("g")].due_ms
    life.fire("g", 9)
    assert [] == life.claim("g").results


def test_first_value_of_a_member_stands():
    """Whoever in its subtree writes later writes in vain."""
    life = Life()
    gathering(life, members=1)
    life.run_call("m0", result=b"1", calls=(new("child"),))
    life.run_call("child", result=b"2")

    assert [b"1"] == life.claim("g").results


def test_member_that_fails_is_a_result_where_that_is_tolerated():
    """Its reason stands in its place, once, and the gather fires; there is no dead letter."""
    life = Life()
    gathering(life, tolerated=1, members=3)
    life.run_call("m1", calls=(new("a"), new("b"), new("c")))
    life.bury_call("a")
    life.bury_call("b")
    life.run_call("c", result=b"late")
    life.run_call("m0", result=b"0")
    life.run_call("m2", result=b"2")

    assert [] == [one for one in life.effects if isinstance(one, BuryCall)]
    first, failed, last = life.claim("g").results
    assert (b"0", "s.a (a): boom", b"2") == (first, reason_in(failed), last)
    life.commit("g")
    assert (Outcome(Status.FINISHED), {}) == (life.run.outcome(), life.run.results)


def test_member_too_many_is_a_dead_letter():
    """What is not tolerated keeps its gather waiting, until it is requeued."""
    life = Life()
    gathering(life, tolerated=1, members=2)
    life.bury_call("m0")
    life.bury_call("m1")

    assert BuryCall(CallId("m1"), "s.m1") in life.effects
    assert Outcome(Status.FAILED, None, "s.m1 (m1): boom") == life.run.outcome()
    life.requeue("m1")
    life.run_call("m1", result=b"1")
    failed, value = life.claim("g").results
    assert ("s.m0 (m0): boom", b"1") == (reason_in(failed), value)


def test_gather_counts_its_failed_members():
    """As many as it tolerates, and each of them once."""
    life = Life()
    gathering(life, tolerated=2, members=3)
    life.bury_call("m0")
    life.bury_call("m2")

    assert 2 == life.run.scopes[CallId("g")].failed
    life.bury_call("m1")
    assert {"m1"} == life.book.letters


def test_member_that_gave_a_value_can_fail():
    """The reason takes the place of the value."""
    life = Life()
    gathering(life, tolerated=1, members=1)
    life.run_call("m0", result=b"1", calls=(new("child"),))
    life.bury_call("child")

    assert "s.child (child): boom" == reason_in(life.claim("g").results[0])


def test_gather_inside_of_a_failed_member_never_fires():
    """It counts down with what is left of it, leaves no results, and the outer one goes on."""
    life = Life()
    gathering(life, tolerated=1, members=2)
    inner = NewGather(new("in"), (new("i0"), new("i1")))
    life.run_call("m0", gathers=(NewGather(new("mid"), (new("n0"),)), inner))
    life.bury_call("i0")
    life.run_call("i1", result=b"1")

    assert {"m1", "n0"} == set(life.run.calls)
    assert {"g", "mid"} == set(life.run.scopes)
    assert [(CallId("g"), 0)] == list(life.run.results)
    life.run_call("n0", result=b"n")
    life.run_call("mid", result=b"mid")
    life.run_call("m1", result=b"1")
    failed, value = life.claim("g").results
    assert ("s.i0 (i0): boom", b"1") == (reason_in(failed), value)


def test_failure_goes_to_the_innermost_that_tolerates_it():
    """The gathers around that one do not learn of it; the next too many is theirs."""
    life = Life()
    gathering(life, tolerated=1, members=1)
    life.run_call("m0", gathers=(NewGather(new("in"), (new("i0"), new("i1")), 1),))
    life.bury_call("i0")

    assert [(CallId("in"), 0)] == list(life.run.results)
    life.bury_call("i1")
    assert {(CallId("g"), 0), (CallId("in"), 0)} >= set(life.run.results)
    assert "s.i1 (i1): boom" == reason_in(life.claim("g").results[0])


def test_dropped_call_keeps_every_gather_around_it_from_firing():
    """Where nobody tolerates it, the run goes on with the rest, and ends as failed."""
    life = Life()
    gathering(life, members=2)
    life.run_call("m0", gathers=(NewGather(new("in"), (new("i0"), new("i1"))),))
    assert Answer.DONE is life.drop("i0", dead=False)

    assert (Status.RUNNING, "s.i0 (i0): gone") == (life.status, life.run.reason)
    life.run_call("i1", result=b"1")
    life.claim("m1")
    life.commit("m1", result=b"2")
    assert [Outcome(Status.FAILED, None, "s.i0 (i0): gone")] == life.told


def test_dropped_call_is_a_result_where_that_is_tolerated():
    """The gather fires without it, and the run is none the worse."""
    life = Life()
    gathering(life, tolerated=1, members=2)
    life.run_call("m1")
    life.drop("m0", dead=False)

    assert "s.m0 (m0): gone" == reason_in(life.claim("g").results[0])
    life.commit("g")
    assert Outcome(Status.FINISHED) == life.run.outcome()


def test_timed_out_join_fails_its_member():
    """Only that one; a call that is made instead counts in its place."""
    life = Life()
    gathering(life, tolerated=1, members=2)
    life.run_call("m0", joins=(NewJoin(new("j"), ("e",), (), 30),))
    life.run_call("m1", joins=(NewJoin(new("k"), ("e",), (), 30, new("late")),))
    life.fire("j", 30)
    life.fire("k")
    life.run_call("late", result=b"1")

    failed, value = life.claim("g").results
    assert ("s.j (j): its join timed out without e", b"1") == (reason_in(failed), value)


# -- dead letters ----------------------------------------------------------------------------------


def test_reason_of_a_run_stays_while_anything_is_dead_or_gone():
    """Only with the last dead letter requeued, and nothing dropped, is there no reason any more."""
    life = Life()
    life.run_call(calls=(new("a"), new("b"), new("c")))
    life.bury_call("a")
    life.bury_call("b")
    life.run_call("c")

    assert (2, Status.FAILED) == (life.run.dead, life.status)
    life.requeue("b")
    assert (Status.RUNNING, "s.b (b): boom") == (life.status, life.run.reason)
    life.requeue("a")
    assert (Status.RUNNING, "") == (life.status, life.run.reason)
    life.drop("a", dead=False)
    life.bury_call("b")
    life.requeue("b")
    assert "s.b (b): boom" == life.run.reason
    life.run_call("b")
    assert [Status.FAILED] == [one.status for one in life.told]


def test_dead_letter_keeps_its_reason_and_its_attempts():
    """People see why it died; requeued, it counts from zero."""
    life = Life()
    life.lose(1)
    life.claim()
    life.bury()

    assert ("boom", 2, 1, None) == (
        life.call.reason,
        life.call.attempts,
        life.call.lost,
        life.call.due_ms,
    )
    assert [ClearTimer(FIRST, "s.first"), BuryCall(FIRST, "s.first")] == life.effects[:2]
    life.requeue()
    assert (0, 0, 2) == (life.call.attempts, life.call.lost, life.call.generation)


def test_failed_run_is_kept_for_longer():
    """A run that a requeue could revive stays; one that is over does not wait for anybody."""
    life = Life()
    life.claim()
    life.bury()

    assert T0 + 900 == life.run.due_ms
    assert Answer.STALE is life.fire(ROOT, 899)
    life.drop(dead=True)
    assert life.now + 500 == life.run.due_ms


# -- cancelling ------------------------------------------------------------------------------------


def test_cancelled_run_leaves_nothing():
    """All timers and letters go in that step; what comes late is told that all is over."""
    life = Life()
    wait = NewJoin(new("j"), ("e",), ("e",), 30, new("late"))
    life.run_call(
        calls=(new("dead"), new("leased"), new("queued"), new("timed", delay_ms=5)),
        joins=(wait, NewJoin(new("k"), ("e",))),
        gathers=(NewGather(new("g"), (new("m0"), new("m1"))),),
        result=b"7",
    )
    life.run_call("m0", result=b"1")
    life.bury_call("dead")
    life.claim("leased")
    assert Answer.DONE is life.cancel()

    told = Outcome(Status.CANCELLED, b"7", "enough")
    assert [
        UnburyCall(CallId("dead"), "s.dead"),
        ClearTimer(CallId("leased"), "s.leased"),
        ClearTimer(CallId("timed"), "s.timed"),
        ClearTimer(CallId("j"), "s.j"),
        EndRun(told),
        SetTimer(ROOT, T0 + 500, ""),
    ] == life.effects
    assert RunView(run_id=RUN, outcome=told, calls=(), joins=(), events=()) == view(life.run)
    assert [Answer.ENDED] * 3 == [life.cancel(), emit(life, "e"), life.commit("leased")]
    assert Answer.DONE is life.fire(ROOT, 500)
    assert [ClearTimer(ROOT, ""), DeleteRun(RUN, "key")] == life.effects


def test_run_that_lost_a_call_fails_instead_of_stalling():
    """A join that cannot come is not the first thing to say then; an event revives the run."""
    life = Life()
    life.run_call(calls=(new("a"), new("b")), joins=(NewJoin(new("j"), ("e",), ("e",)),))
    life.drop("a", dead=False)
    assert [] == life.effects  # it had no timer
    life.drop("b", dead=False)

    assert (Status.FAILED, 2) == (life.status, life.run.dropped)
    emit(life, "e")
    assert Status.RUNNING is life.status


def test_cancelled_run_has_not_failed():
    """What was dropped before is not counted any more."""
    life = Life()
    life.run_call(calls=(new("a"), new("b")))
    life.drop("a", dead=False)
    life.cancel()

    assert (Status.CANCELLED, 0) == (life.status, life.run.dropped)


def test_run_that_goes_on_is_not_deleted():
    """Whatever the store's timers say."""
    life = Life()

    assert Answer.STALE is life.fire(ROOT, 10**12)


# -- copies and timers -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Postponement)
def test_postponed_by_nothing_is_enqueued_at_once(kind):
    """Without a delay the next copy is on its way; a lease has no timer then."""
    life = Life()
    life.claim()
    life.postpone(kind, 0)

    assert [ClearTimer(FIRST, "s.first"), Enqueue(FIRST, 1, "s.first")] == life.effects
    assert (Phase.QUEUED, "") == (life.call.phase, life.call.claim_id)


def test_postponed_for_a_moment_waits():
    """A millisecond is a time."""
    life = Life()
    life.claim()
    life.postpone(Postponement.RETRY, 1)

    assert [SetTimer(FIRST, T0 + 1, "s.first")] == life.effects


def test_time_of_a_pair_is_enqueued_through_the_outbox():
    """A call whose time has come is in the outbox, and its timer is that of the outbox."""
    life = Life(PAIRED, delay_ms=50)
    life.fire(FIRST, 50)

    due_ms = T0 + 50 + OUTBOX_MS
    assert [SetTimer(FIRST, due_ms, "s.first"), Enqueue(FIRST, 0, "s.first")] == life.effects


def test_run_without_retention_goes_at_its_end():
    """What is told is told before; there is no timer to clear where there was none."""
    life = Life(Rules(retention_ms=0))
    life.claim()
    life.commit(result=b"7")

    assert [
        ClearTimer(FIRST, "s.first"),
        EndRun(Outcome(Status.FINISHED, b"7")),
        DeleteRun(RUN, "key"),
    ] == life.effects


# -- state -----------------------------------------------------------------------------------------


def test_rules_have_defaults():
    """One step, a day, and a month."""
    day_ms = 24 * 60 * 60 * 1000

    assert Rules(paired=False, retention_ms=day_ms, dead_retention_ms=30 * day_ms) == Rules()
    with pytest.raises(TypeError):
        Rules(True)  # which of them?


def test_view_shows_a_run():
    """Calls, joins with what they miss, and events, in the order of their coming."""
    life = Life()
    life.lose(1)
    life.claim()
    life.postpone(Postponement.RETRY, 50)
    life.fire(FIRST, 50)
    life.run_call(
        calls=(new("a"), new("b")),
        emits=(("x", b"1"), ("w", b"2")),
        joins=(NewJoin(new("j"), ("x", "y", "z")),),
    )
    life.bury_call("a")
    life.claim("b")

    assert RunView(
        run_id=RUN,
        outcome=Outcome(Status.RUNNING, None, "s.a (a): boom"),
        calls=(
            CallView(
                call_id=CallId("a"), address="s.a", phase=Phase.DEAD, generation=0,
                attempts=1, lost=0, due_ms=None, reason="boom",
            ),
            CallView(
                call_id=CallId("b"), address="s.b", phase=Phase.LEASED, generation=0,
                attempts=1, lost=0, due_ms=life.now + LEASE, reason="",
            ),
        ),
        joins=(JoinView(CallId("j"), "s.j", ("y", "z")),),
        events=("x", "w"),
    ) == view(life.run)  # fmt: skip
