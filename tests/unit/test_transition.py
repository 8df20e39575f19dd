"""The reference: each command in each phase, what it answers, changes and asks of the world."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.life import FIRST, LEASE, MINE, OTHER, PAIRED, RUN, T0, Life, new

from pwf_core.commands import (
    Answer,
    Bury,
    Claim,
    Command,
    Commit,
    Drop,
    Emit,
    Fire,
    Granted,
    Postpone,
    Postponement,
    Renew,
    Requeue,
    Settle,
    Start,
    Started,
)
from pwf_core.decisions import Decision, NewGather, NewJoin
from pwf_core.effects import (
    BuryCall,
    ClearTimer,
    DeleteRun,
    EndRun,
    Enqueue,
    SetTimer,
    UnburyCall,
)
from pwf_core.ids import CallId, ClaimId
from pwf_core.state import ROOT, Rules, view
from pwf_core.transition import (
    DEFER_MS,
    MAX_LOST,
    OUTBOX_MS,
    SUSPECT_LOST,
    UNCLAIMED_MS,
)
from pwf_core.views import Outcome, Phase, Status


def in_phase(phase: Phase) -> Life:
    """A run whose only call is in that phase."""
    life = Life(PAIRED, delay_ms=50 if phase is Phase.TIMED else 0)
    match phase:
        case Phase.QUEUED:
            life.do(Settle(RUN, FIRST, 0))
        case Phase.LEASED:
            life.claim()
        case Phase.PARKED:
            life.claim()
            life.postpone(Postponement.PARK)
        case Phase.DEAD:
            life.claim()
            life.bury()
    assert phase is life.call.phase
    return life


# -- start -----------------------------------------------------------------------------------------


def test_start_makes_the_run():
    """The first call is queued, the run runs, and has its key."""
    life = Life()

    assert [Enqueue(FIRST, 0, "s.first")] == life.effects
    assert (Status.RUNNING, "key", 1, 1) == (
        life.status,
        life.run.key,
        life.run.pending,
        life.run.live,
    )
    assert Started(RUN, created=True) == Life().do(Start(RUN, new("other")))


def test_start_of_a_pair_uses_the_outbox():
    """With a broker apart the copy is in the outbox until it is settled."""
    life = Life(PAIRED)

    assert [
        SetTimer(FIRST, T0 + OUTBOX_MS, "s.first"),
        Enqueue(FIRST, 0, "s.first"),
    ] == life.effects
    assert Phase.OUTBOX is life.call.phase


@pytest.mark.parametrize(
    ("first", "due"),
    [
        ({"delay_ms": 50}, T0 + 50),
        ({"due_ms": T0 + 70}, T0 + 70),
        ({"due_ms": T0 + 70, "delay_ms": 5}, T0 + 70),
        ({"due_ms": T0 - 1}, None),
        ({"due_ms": T0}, None),
        ({}, None),
    ],
)
def test_start_may_be_delayed(first, due):
    """A delay counts from now, a moment is itself; what has passed is now."""
    life = Life(**first)

    assert due == life.call.due_ms
    assert (Phase.TIMED if due else Phase.QUEUED) is life.call.phase


# -- every command in every phase ------------------------------------------------------------------

_PHASES = [Phase.OUTBOX, Phase.QUEUED, Phase.LEASED, Phase.TIMED, Phase.PARKED, Phase.DEAD]


def _table(**answers: Any) -> list[Any]:
    names = {"granted": Granted} | {one.name.lower(): one for one in Answer}
    return [
        pytest.param(phase, kind, names[answer], id=f"{kind}-{phase}")
        for kind, line in answers.items()
        for phase, answer in zip(_PHASES, line.split(), strict=True)
    ]


@pytest.mark.parametrize(
    ("phase", "kind", "expected"),
    _table(
        #               outbox  queued  leased  timed  parked dead
        claim="         granted granted busy    stale  stale  stale ",
        claim_older="   stale   stale   stale   stale  stale  stale ",
        claim_newer="   granted granted granted granted granted granted",
        renew="         lost    lost    done    lost   lost   lost  ",
        renew_other="   lost    lost    lost    lost   lost   lost  ",
        renew_nobody="  lost    lost    lost    lost   lost   lost  ",
        commit="        lost    lost    done    lost   lost   lost  ",
        commit_other="  lost    lost    lost    lost   lost   lost  ",
        commit_nobody=" lost    lost    lost    lost   lost   lost  ",
        postpone="      lost    lost    done    lost   lost   lost  ",
        bury="          lost    lost    done    lost   lost   lost  ",
        settle="        done    stale   stale   stale  stale  stale ",
        settle_other="  stale   stale   stale   stale  stale  stale ",
        fire_early="    stale   stale   stale   stale  stale  stale ",
        fire_due="      done    done    done    done   done   stale ",
        requeue="       stale   stale   stale   stale  stale  done  ",
        drop="          done    done    stale   done   done   stale ",
        drop_dead="     stale   stale   stale   stale  stale  done  ",
    ),
)
def test_command_in_a_phase(phase, kind, expected):
    """Each command has one answer in each phase; one that refuses changes nothing."""
    life = in_phase(phase)
    generation = life.call.generation
    commands: dict[str, Command] = {
        "claim": Claim(RUN, FIRST, generation, OTHER, LEASE),
        "claim_older": Claim(RUN, FIRST, generation - 1, OTHER, LEASE),
        "claim_newer": Claim(RUN, FIRST, generation + 1, OTHER, LEASE),
        "renew": Renew(RUN, FIRST, MINE, LEASE),
        "renew_other": Renew(RUN, FIRST, OTHER, LEASE),
        "renew_nobody": Renew(RUN, FIRST, ClaimId(""), LEASE),
        "commit": Commit(RUN, FIRST, MINE, Decision(calls=(new("a"),))),
        "commit_other": Commit(RUN, FIRST, OTHER, Decision(calls=(new("a"),))),
        "commit_nobody": Commit(RUN, FIRST, ClaimId(""), Decision(calls=(new("a"),))),
        "postpone": Postpone(RUN, FIRST, MINE, Postponement.RETRY, 50, "why"),
        "bury": Bury(RUN, FIRST, MINE, "boom"),
        "settle": Settle(RUN, FIRST, generation),
        "settle_other": Settle(RUN, FIRST, generation + 1),
        "fire_early": Fire(RUN, FIRST),
        "fire_due": Fire(RUN, FIRST),
        "requeue": Requeue(RUN, FIRST),
        "drop": Drop(RUN, FIRST, dead=False, reason="x"),
        "drop_dead": Drop(RUN, FIRST, dead=True, reason="x"),
    }
    if kind == "fire_due":
        life.now += 10 * UNCLAIMED_MS
    before = view(life.run)
    reply = life.do(commands[kind])

    if expected is Granted:
        assert isinstance(reply, Granted)
        return
    assert expected is reply
    if reply is not Answer.DONE:
        assert ([], before) == (life.effects, view(life.run))


@pytest.mark.parametrize(
    "command",
    [
        Claim(RUN, CallId("ghost"), 0, MINE, LEASE),
        Renew(RUN, CallId("ghost"), MINE, LEASE),
        Commit(RUN, CallId("ghost"), MINE, Decision()),
        Postpone(RUN, CallId("ghost"), MINE, Postponement.RETRY, 0, ""),
        Bury(RUN, CallId("ghost"), MINE, ""),
        Settle(RUN, CallId("ghost"), 0),
        Fire(RUN, CallId("ghost")),
        Requeue(RUN, CallId("ghost")),
        Drop(RUN, CallId("ghost"), dead=True, reason=""),
        Drop(RUN, CallId("ghost"), dead=False, reason=""),
    ],
    ids=lambda one: type(one).__name__,
)
def test_call_that_is_not_there_has_ended(command):
    """A call that was committed, or never was, is answered as ended, and leaves no trace."""
    life = Life()

    assert Answer.ENDED is life.do(command)
    assert ([], [FIRST]) == (life.effects, list(life.run.calls))


# -- claims ----------------------------------------------------------------------------------------


def test_claim_leases():
    """A claim counts an attempt and sets the lease's timer; again, it answers the same."""
    life = Life(PAIRED, body=b"x")
    grant = life.claim()

    assert [SetTimer(FIRST, T0 + LEASE, "s.first")] == life.effects
    assert Granted(RUN, FIRST, MINE, 0, "s.first", b"x", 1, 0, False, {}, None) == grant
    assert grant == life.claim()
    assert ([], 1) == (life.effects, life.call.attempts)


def test_lapsed_lease_is_taken_over():
    """When a lease ends, a new generation is on its way, and a loss is counted."""
    life = in_phase(Phase.LEASED)
    life.now += LEASE
    life.do(Fire(RUN, FIRST))

    due = life.now + OUTBOX_MS
    assert [SetTimer(FIRST, due, "s.first"), Enqueue(FIRST, 1, "s.first")] == life.effects
    assert (1, 1, Phase.OUTBOX, "") == (
        life.call.lost,
        life.call.generation,
        life.call.phase,
        life.call.claim_id,
    )
    assert Answer.LOST is life.commit()


def test_renewal_counts_from_now():
    """A renewed lease ends later."""
    life = in_phase(Phase.LEASED)
    life.now += 900
    life.do(Renew(RUN, FIRST, MINE, LEASE))

    assert [SetTimer(FIRST, life.now + LEASE, "s.first")] == life.effects
    life.now += 999
    assert Answer.STALE is life.do(Fire(RUN, FIRST))
    assert Answer.DONE is life.commit()


def test_suspects_are_deferred_or_granted():
    """A call that was lost before comes later where it is unwanted, and is marked where it is run."""
    life = Life()
    life.lose(SUSPECT_LOST)

    assert Answer.DEFERRED is life.claim(suspects=False)
    assert [SetTimer(FIRST, life.now + DEFER_MS, "s.first")] == life.effects
    assert (Phase.TIMED, SUSPECT_LOST + 1) == (life.call.phase, life.call.generation)
    life.now += DEFER_MS
    life.do(Fire(RUN, FIRST))
    grant = life.claim(suspects=True)
    assert (True, SUSPECT_LOST + 1, 0) == (grant.suspect, grant.attempt, grant.failures)


def test_call_that_was_lost_once_is_no_suspect():
    """Nor is one that never was: they are granted where suspects are unwanted."""
    life = Life()
    for lost in range(SUSPECT_LOST):
        grant = life.claim(suspects=False)
        assert (False, lost + 1, 0) == (grant.suspect, grant.attempt, grant.failures)
        life.fire(FIRST, LEASE)

    assert Answer.DEFERRED is life.claim(suspects=False)


def test_too_many_losses_bury():
    """A call that was lost too often is a dead letter, and its run has failed."""
    life = Life()
    life.lose(MAX_LOST)

    assert Phase.DEAD is life.call.phase
    assert BuryCall(FIRST, "s.first") in life.effects
    assert Status.FAILED is life.status
    reason = f"its worker died, or held it without renewing the lease, {MAX_LOST} times"
    assert (reason, f"s.first (first): {reason}") == (life.call.reason, life.run.reason)


def test_unclaimed_copies_come_again_ever_later():
    """A copy that the broker has and nobody claims is enqueued again, the same one."""
    life = Life(PAIRED)
    for factor in (1, 4, 16, 64, 256, 256):
        life.do(Settle(RUN, FIRST, 0))
        assert [SetTimer(FIRST, life.now + factor * UNCLAIMED_MS, "s.first")] == life.effects
        life.now += factor * UNCLAIMED_MS
        assert Answer.DONE is life.do(Fire(RUN, FIRST))
        assert Enqueue(FIRST, 0, "s.first") in life.effects
    life.claim()
    life.postpone(Postponement.RETRY, 0)
    life.do(Settle(RUN, FIRST, 1))
    assert [SetTimer(FIRST, life.now + UNCLAIMED_MS, "s.first")] == life.effects


def test_copies_that_were_not_published_are_not_unclaimed():
    """Nobody could claim what waited for its time, or never left the outbox."""
    life = Life(PAIRED, delay_ms=50)
    life.fire(FIRST, 50)
    life.fire(FIRST, OUTBOX_MS)
    life.do(Settle(RUN, FIRST, 0))

    assert [SetTimer(FIRST, life.now + UNCLAIMED_MS, "s.first")] == life.effects


@pytest.mark.parametrize("phase", [Phase.TIMED, Phase.DEAD, Phase.LEASED])
def test_newer_generation_is_adopted(phase):
    """A copy from the future shows that this store went back in time; older ones are stale then."""
    life = in_phase(phase)

    grant = life.claim(generation=9, by=OTHER)
    assert (9, OTHER) == (grant.generation, life.call.claim_id)
    assert (UnburyCall(FIRST, "s.first") in life.effects) is (phase is Phase.DEAD)
    assert (0, 1) == (life.run.dead, life.run.live)
    assert Answer.STALE is life.claim(generation=8, by=MINE)


# -- conclusions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "phase", "attempts"),
    [
        (Postponement.RETRY, Phase.TIMED, 1),
        (Postponement.PARK, Phase.PARKED, 0),
        (Postponement.HAND_BACK, Phase.TIMED, 0),
    ],
)
def test_postponed_call_waits(kind, phase, attempts):
    """A new generation waits for its time; only a retry has counted."""
    life = in_phase(Phase.LEASED)
    life.postpone(kind)

    assert [SetTimer(FIRST, T0 + 50, "s.first")] == life.effects
    call = life.call
    assert (phase, attempts, 1, "why", "") == (
        call.phase,
        call.attempts,
        call.generation,
        call.reason,
        call.claim_id,
    )


def test_each_postponement_is_a_new_generation():
    """So that no copy of an earlier one runs anything."""
    life = Life()
    for generation in (1, 2, 3):
        life.claim()
        life.postpone(Postponement.RETRY)
        assert generation == life.call.generation
        life.fire(FIRST, 50)


def test_commit_replaces_the_call_by_its_children():
    """In one step the call leaves and all that follows from it is there."""
    life = Life()
    life.claim()
    life.commit(
        calls=(new("a"), new("b", delay_ms=5)),
        emits=(("e", b"1"),),
        joins=(NewJoin(new("j"), ("e",)), NewJoin(new("k"), ("f",))),
        gathers=(NewGather(new("g"), (new("m"),)), NewGather(new("h"), ())),
    )

    assert {"a", "b", "j", "m", "h"} == set(life.run.calls)
    assert ({"k"}, {"g"}) == (set(life.run.joins), set(life.run.scopes))
    enqueued = [one.call_id for one in life.effects if isinstance(one, Enqueue)]
    assert sorted("ajmh") == sorted(enqueued)
    assert ClearTimer(FIRST, "s.first") in life.effects
    assert 6 == life.run.pending  # a, b, j, k, g, h
    assert Status.RUNNING is life.status


def test_end_of_a_run():
    """With its last call a run is finished; it stays for its retention, then it is deleted."""
    life = Life()
    life.claim()
    life.commit(result=b"x", emits=(("e", b"1"),))

    assert EndRun(Outcome(Status.FINISHED, b"x")) in life.effects
    assert SetTimer(ROOT, T0 + 500, "") in life.effects
    assert {} == life.run.events  # nobody can ask for them any more
    assert Answer.STALE is life.do(Fire(RUN, ROOT))
    life.now += 500
    assert Answer.DONE is life.do(Fire(RUN, ROOT))
    assert [ClearTimer(ROOT, ""), DeleteRun(RUN, "key")] == life.effects


def test_end_without_retention():
    """With a retention of 0 the run is deleted at its end, after the outcome was told."""
    life = Life(Rules(retention_ms=0))
    life.claim()
    life.commit()

    assert [ClearTimer(FIRST, "s.first"), EndRun(Outcome(Status.FINISHED))] == life.effects[:2]
    assert DeleteRun(RUN, "key") == life.effects[-1]


def test_deleted_run_leaves_no_timer():
    """A run that had a time to die, and dies before, takes its timer along."""
    life = Life(Rules(retention_ms=0, dead_retention_ms=900))
    life.claim()
    life.bury()

    assert SetTimer(ROOT, T0 + 900, "") in life.effects
    life.do(Drop(RUN, FIRST, dead=True, reason="discarded"))
    assert [ClearTimer(ROOT, ""), DeleteRun(RUN, "key")] == life.effects[-2:]


def test_life_of_a_dead_letter():
    """Buried, requeued with its attempts from zero, buried again, discarded."""
    life = Life()
    life.claim()
    life.bury()

    assert BuryCall(FIRST, "s.first") in life.effects
    assert (Status.FAILED, "s.first (first): boom") == (life.status, life.run.reason)
    life.do(Requeue(RUN, FIRST))
    assert [UnburyCall(FIRST, "s.first"), Enqueue(FIRST, 1, "s.first")] == life.effects[:2]
    assert ClearTimer(ROOT, "") in life.effects
    assert (Status.RUNNING, "") == (life.status, life.run.reason)
    assert 1 == life.claim().attempt
    life.bury()
    life.do(Drop(RUN, FIRST, dead=True, reason="discarded"))
    assert (Status.FAILED, "s.first (first): discarded", {}) == (
        life.status,
        life.run.reason,
        life.run.calls,
    )


def test_expired_run_takes_its_dead_along():
    """A failed run that nobody cared for is deleted with its letters, after their retention."""
    life = Life()
    life.claim()
    life.bury()
    life.now += 900
    life.do(Fire(RUN, ROOT))

    assert [
        UnburyCall(FIRST, "s.first"),
        ClearTimer(ROOT, ""),
        DeleteRun(RUN, "key"),
    ] == life.effects


def test_emit_from_outside():
    """The first write of an event counts; a run that is over takes none."""
    life = Life()

    assert Answer.DONE is life.do(Emit(RUN, "e", b"1"))
    assert Answer.REFUSED is life.do(Emit(RUN, "e", b"2"))
    assert {"e": b"1"} == life.run.events
    life.claim()
    life.commit()
    assert Answer.ENDED is life.do(Emit(RUN, "f", b"1"))


def test_status_follows_what_is_left():
    """Waiting for the outside, then stalled, then running, then finished; each is told once."""
    life = Life()
    life.claim()
    life.commit(joins=(NewJoin(new("j"), ("in", "out"), ("out",)),))

    assert (Status.WAITING, None) == (life.status, life.run.due_ms)
    assert [] == [one for one in life.effects if isinstance(one, EndRun)]
    life.do(Emit(RUN, "out", b"1"))
    assert Status.STALLED is life.status
    assert [Status.STALLED] == [
        one.outcome.status for one in life.effects if isinstance(one, EndRun)
    ]
    assert T0 + 900 == life.run.due_ms
    life.do(Emit(RUN, "other", b"1"))
    assert [] == life.effects
    life.do(Emit(RUN, "in", b"1"))
    assert (Status.RUNNING, None, "") == (life.status, life.run.due_ms, life.run.reason)
    life.run_call("j")
    assert Status.FINISHED is life.status


# -- joins and scopes ------------------------------------------------------------------------------


def test_join_counts_what_it_misses():
    """Registering looks at what has happened; each event counts once, by its first write."""
    life = Life()
    life.claim()
    life.commit(calls=(new("a"), new("b")), emits=(("x", b"1"),))
    life.run_call(
        "a", joins=(NewJoin(new("j"), ("x", "y", "z")),), emits=(("y", b"2"), ("y", b"3"))
    )

    assert (1, ["z"]) == (life.run.joins[CallId("j")].missing, list(life.run.waiting))
    life.run_call("b", emits=(("z", b"4"),))
    assert ({}, {}) == (life.run.joins, life.run.waiting)
    assert {"x": b"1", "y": b"2", "z": b"4"} == life.claim("j").events


def test_gather_counts_all_descendants():
    """A scope fires when its last descendant is done, with one result per member, in order."""
    life = Life()
    life.claim()
    life.commit(gathers=(NewGather(new("g"), (new("m0"), new("m1"))),))
    life.run_call("m1", result=b"1", gathers=(NewGather(new("inner"), (new("n"),)),))
    life.run_call("m0", calls=(new("child"),))

    assert {"child", "n"} == set(life.run.calls)
    life.run_call("n", result=b"n")
    assert [b"n"] == life.claim("inner").results
    life.commit("inner", result=b"late")
    assert {"child"} == set(life.run.calls)
    life.run_call("child", result=b"0")
    assert [b"0", b"1"] == life.claim("g").results
    life.commit("g", result=b"g")
    assert Outcome(Status.FINISHED, b"g") == life.run.outcome()
    assert ({}, {(ROOT, 0): b"g"}) == (life.run.scopes, life.run.results)


def test_join_in_a_member_belongs_to_it():
    """What a join makes is in the scope of who registered it."""
    life = Life()
    life.claim()
    life.commit(gathers=(NewGather(new("g"), (new("m"),)),))
    life.run_call("m", joins=(NewJoin(new("j"), ("e",), ("e",)),))

    assert Status.WAITING is life.status
    life.do(Emit(RUN, "e", b"1"))
    life.run_call("j", result=b"x")
    assert [b"x"] == life.claim("g").results
