"""Claims: one worker runs a call at a time, and one that lost its lease commits nothing."""

from __future__ import annotations

import asyncio

import attrs
import msgspec
import pytest

from pwf_core.commands import (
    Answer,
    Bury,
    Command,
    Granted,
    Message,
    Postponement,
    Renew,
    Settle,
)
from pwf_core.ports import StateStore
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import (
    LEASE,
    call,
    claim,
    commit,
    decision,
    message,
    new_claim_id,
    postpone,
    start,
)
from pwf_core.testing.stores._desk import (
    begin,
    call_of,
    do,
    granted,
    settle,
    started,
    sweep,
    view_of,
)
from pwf_core.transition import MAX_LOST, SUSPECT_LOST
from pwf_core.views import Phase, Status


def _copy(grant: Granted, generation: int | None = None) -> Message:
    found = grant.generation if generation is None else generation
    return Message(grant.run_id, grant.call_id, found, grant.address)


def _renew(grant: Granted, lease_ms: int = LEASE) -> Renew:
    return Renew(grant.run_id, grant.call_id, grant.claim_id, lease_ms)


@behaviour()
async def test_claim_gives_all_that_a_handler_needs(harness: Harness[StateStore]) -> None:
    """The grant of a first attempt has the call's address and body, and counts from one."""
    store = await harness.connect()
    first = call("work.task", b"\x93\x01\x02\x03")
    copy = await started(store, first)
    claim_id = new_claim_id()

    expected = Granted(
        run_id=copy.run_id,
        call_id=copy.call_id,
        claim_id=claim_id,
        generation=0,
        address="work.task",
        body=b"\x93\x01\x02\x03",
        attempt=1,
        failures=0,
        suspect=False,
        events={},
        results=None,
    )
    assert [expected] == await do(store, claim(copy, claim_id))
    seen = await call_of(store, copy.run_id)
    assert (Phase.LEASED, 1, 0) == (seen.phase, seen.attempts, seen.lost)
    assert seen.due_ms is not None


@behaviour()
async def test_same_claim_gets_the_same_answer(harness: Harness[StateStore]) -> None:
    """A claim whose reply was lost may be repeated: the same answer, and one attempt."""
    store = await harness.connect()
    copy = await started(store)
    asked = claim(copy)
    (first,) = await do(store, asked)

    assert [first, first] == await do(store, asked, asked)
    assert 1 == (await call_of(store, copy.run_id)).attempts


@behaviour()
async def test_same_claim_names_an_older_copy(harness: Harness[StateStore]) -> None:
    """The holder is told by its claim id, whichever copy of the call it asks with."""
    store = await harness.connect()
    first = await begin(store)
    await do(store, postpone(first))
    (copy,) = [Message(first.run_id, first.call_id, 1, first.address)]
    second = await granted(store, copy)

    (again,) = await do(store, claim(_copy(first), second.claim_id))
    assert second == again


@behaviour()
async def test_held_call_is_busy(harness: Harness[StateStore]) -> None:
    """While a claim holds a call, another one is refused and changes nothing."""
    store = await harness.connect()
    grant = await begin(store)
    before = await call_of(store, grant.run_id)

    assert [Answer.BUSY] == await do(store, claim(_copy(grant)))
    assert before == await call_of(store, grant.run_id)
    assert [Answer.DONE] == await do(store, commit(grant))


@behaviour()
async def test_one_of_many_claims_wins(harness: Harness[StateStore]) -> None:
    """Of claims that come at the same time over several connections, one is granted."""
    stores = [await harness.connect() for _ in range(4)]
    for _ in range(5):
        copy = await started(stores[0])
        answers = await asyncio.gather(*(do(store, claim(copy)) for store in stores * 3))
        flat = [one for (one,) in answers]

        assert 1 == len([one for one in flat if isinstance(one, Granted)])
        assert 11 == flat.count(Answer.BUSY)


@behaviour()
async def test_unknown_call_has_ended(harness: Harness[StateStore]) -> None:
    """For a run that never was, and a call that is not in it, there is nothing to claim."""
    store = await harness.connect()
    grant = await begin(store)
    forged = Message(grant.run_id, message().call_id, 0, grant.address)

    assert [Answer.ENDED] * 2 == await do(store, claim(message()), claim(forged))
    assert [None] == await store.read([message().run_id])


@behaviour()
async def test_committed_call_has_ended(harness: Harness[StateStore]) -> None:
    """A redelivery after the commit runs nothing: the stored decision stands."""
    store = await harness.connect()
    grant = await begin(store)
    await do(store, commit(grant, decision(calls=[call()])))

    assert [Answer.ENDED] == await do(store, claim(_copy(grant)))
    assert [Answer.ENDED] == await do(store, claim(_copy(grant), grant.claim_id))


@behaviour()
async def test_unsettled_copy_can_be_claimed(harness: Harness[StateStore]) -> None:
    """A message may arrive before its publisher has said that it is out."""
    store = await harness.connect()
    applied = await store.apply([start()])
    (copy,) = applied.enqueued
    grant = await granted(store, copy)

    assert [Answer.STALE] == await do(store, *settle([copy]))
    assert Phase.LEASED is (await call_of(store, copy.run_id)).phase
    assert [Answer.DONE] == await do(store, commit(grant))


@behaviour()
async def test_older_generation_is_stale(harness: Harness[StateStore]) -> None:
    """Once a retry is on its way, the copy of before runs nothing."""
    store = await harness.connect()
    grant = await begin(store)
    await do(store, postpone(grant))

    assert [Answer.STALE] == await do(store, claim(_copy(grant, 0)))
    assert 1 == (await granted(store, _copy(grant, 1))).generation


@behaviour()
async def test_parked_retry_does_not_run_early(harness: Harness[StateStore]) -> None:
    """While a retry waits for its time, no copy of the call runs: an old one, nor a forged one."""
    store = await harness.connect()
    grant = await begin(store)
    await do(store, postpone(grant, delay_ms=LEASE))
    before = await call_of(store, grant.run_id)

    replies = await do(store, claim(_copy(grant, 0)), claim(_copy(grant, 1)))
    assert [Answer.STALE] * 2 == replies
    assert before == await call_of(store, grant.run_id)


@behaviour()
async def test_delayed_call_does_not_run_early(harness: Harness[StateStore]) -> None:
    """A delayed call has no valid copy before its time."""
    store = await harness.connect()
    first = start(call(delay_ms=LEASE))
    applied = await store.apply([first])
    copy = Message(first.run_id, first.call.call_id, 0, first.call.address)

    assert [] == applied.enqueued
    assert [Answer.STALE] == await do(store, claim(copy))


@behaviour()
async def test_late_settle_does_not_erase_the_retry(harness: Harness[StateStore]) -> None:
    """A settle of the copy that failed touches nothing of the retry that came after."""
    store = await harness.connect()
    applied = await store.apply([start()])
    grant = await granted(store, applied.enqueued[0])
    await do(store, postpone(grant, delay_ms=harness.tick))

    assert [Answer.STALE] == await do(store, *settle(applied.enqueued))
    await harness.elapse(harness.tick)
    (copy,) = await sweep(store)
    assert _copy(grant, 1) == copy


@behaviour()
async def test_newer_generation_is_adopted(harness: Harness[StateStore]) -> None:
    """A newer copy shows that the store went back in time: it is run, and older ones are stale."""
    store = await harness.connect()
    copy = await started(store)
    newer = Message(copy.run_id, copy.call_id, 7, copy.address)
    grant = await granted(store, newer)

    assert 7 == grant.generation
    assert [Answer.STALE] == await do(store, claim(copy))
    assert [Answer.DONE] == await do(store, commit(grant))


@behaviour()
async def test_newer_generation_takes_over(harness: Harness[StateStore]) -> None:
    """A newer copy wins over a claim that a forgetful store still has."""
    store = await harness.connect()
    old = await begin(store)
    new = await granted(store, _copy(old, 3))

    assert [Answer.LOST] == await do(store, commit(old, decision(result=b"\x01")))
    assert [Answer.DONE] == await do(store, commit(new, decision(result=b"\x02")))
    assert b"\x02" == (await view_of(store, old.run_id)).outcome.result


@behaviour()
async def test_newer_generation_revives_the_dead(harness: Harness[StateStore]) -> None:
    """A newer copy of a dead letter shows that somebody had requeued it: it runs."""
    store = await harness.connect()
    grant = await begin(store)
    await do(store, Bury(grant.run_id, grant.call_id, grant.claim_id, "boom"))
    again = await granted(store, _copy(grant, 1))

    assert [] == await store.dead_letters(None, 10)
    assert [Answer.DONE] == await do(store, commit(again))
    assert Status.FINISHED is (await view_of(store, grant.run_id)).outcome.status


@behaviour()
async def test_newer_generation_of_a_retry_that_waits(harness: Harness[StateStore]) -> None:
    """A newer copy runs at once, and the timer of the retry does not run it a second time."""
    store = await harness.connect()
    grant = await begin(store)
    await do(store, postpone(grant, delay_ms=harness.tick))
    newer = await granted(store, _copy(grant, 5))
    await harness.elapse(harness.tick)

    assert [] == await sweep(store)
    assert [Answer.DONE] == await do(store, commit(newer))


# -- leases ----------------------------------------------------------------------------------------


@behaviour()
async def test_lapsed_lease_is_granted_again(harness: Harness[StateStore]) -> None:
    """A call whose lease ran out goes to the next worker, as a new generation and attempt."""
    store = await harness.connect()
    first = await begin(store, lease_ms=harness.tick)
    await harness.elapse(harness.tick)
    (copy,) = await sweep(store)

    assert _copy(first, 1) == copy
    second = await granted(store, copy)
    assert (1, 2, 0) == (second.generation, second.attempt, second.failures)
    assert [Answer.STALE] == await do(store, claim(_copy(first)))


@behaviour()
async def test_lease_holds_until_it_is_over(harness: Harness[StateStore]) -> None:
    """Sweeping takes nothing away from a worker whose lease goes on."""
    store = await harness.connect()
    grant = await begin(store)
    await harness.elapse(harness.tick)

    assert [] == await sweep(store)
    assert [Answer.DONE] == await do(store, commit(grant))


@behaviour()
async def test_renewed_lease_goes_on(harness: Harness[StateStore]) -> None:
    """A renewal counts from now, and as often as one likes."""
    store = await harness.connect()
    grant = await begin(store, lease_ms=harness.tick)
    assert [Answer.DONE] * 2 == await do(store, _renew(grant), _renew(grant))
    await harness.elapse(harness.tick)

    assert [] == await sweep(store)
    assert [Answer.DONE] == await do(store, commit(grant))


@behaviour()
async def test_leases_are_renewed_from_a_thread(harness: Harness[StateStore]) -> None:
    """What a store gives out for that renews from any thread, also once the store is closed."""
    store, other = await harness.connect(), await harness.connect()
    grant, gone = await begin(store, lease_ms=harness.tick), await begin(store)
    assert [Answer.DONE] == await do(store, commit(gone))
    leases = store.leases()
    await store.close()
    try:
        replies = await asyncio.to_thread(leases.renew, [_renew(grant), _renew(gone)])
        await harness.elapse(harness.tick)
    finally:
        leases.close()
        leases.close()

    assert [Answer.DONE, Answer.ENDED] == replies
    assert [] == await sweep(other)
    assert [Answer.DONE] == await do(other, commit(grant))


@behaviour()
async def test_lapsed_lease_counts_until_somebody_takes_over(
    harness: Harness[StateStore],
) -> None:
    """A worker that is late, but faster than any sweeper, still commits: nobody else has begun."""
    store = await harness.connect()
    grant = await begin(store, lease_ms=harness.tick)
    await harness.elapse(harness.tick)

    assert [Answer.DONE] == await do(store, commit(grant))
    assert [] == await sweep(store)


@behaviour()
async def test_lost_claim_does_nothing(harness: Harness[StateStore]) -> None:
    """A worker that lost its lease commits, renews, postpones and buries nothing."""
    store = await harness.connect()
    lost = await begin(store, lease_ms=harness.tick)
    await harness.elapse(harness.tick)
    (copy,) = await sweep(store)
    late: list[Command] = [
        commit(lost, decision(calls=[call()], emits=[("e", b"\x01")], result=b"\x01")),
        _renew(lost),
        postpone(lost),
        Bury(lost.run_id, lost.call_id, lost.claim_id, "boom"),
    ]
    before = await view_of(store, lost.run_id)

    assert [Answer.LOST] * 4 == await do(store, *late)
    assert before == await view_of(store, lost.run_id)
    await granted(store, copy)
    before = await view_of(store, lost.run_id)
    assert [Answer.LOST] * 4 == await do(store, *late)
    assert before == await view_of(store, lost.run_id)


@behaviour()
async def test_second_worker_wins(harness: Harness[StateStore]) -> None:
    """After a take-over only the new owner's decision counts, whoever finishes first."""
    store = await harness.connect()
    first = await begin(store, lease_ms=harness.tick)
    await harness.elapse(harness.tick)
    (copy,) = await sweep(store)
    second = await granted(store, copy)

    replies = await do(
        store,
        commit(first, decision(result=b"\x01")),
        commit(second, decision(result=b"\x02")),
        commit(first, decision(result=b"\x01")),
    )
    assert [Answer.LOST, Answer.DONE, Answer.ENDED] == replies
    assert b"\x02" == (await view_of(store, first.run_id)).outcome.result


@behaviour()
async def test_commit_is_accepted_once(harness: Harness[StateStore]) -> None:
    """A commit whose reply was lost may be repeated: it says that all is done, and adds nothing."""
    store = await harness.connect()
    grant = await begin(store)
    made = commit(grant, decision(calls=[call("work.next")], emits=[("e", b"\x01")]))
    applied = await store.apply([made])

    assert [Answer.DONE] == applied.replies
    again = await store.apply([made, made])
    assert [Answer.ENDED] * 2 == again.replies
    assert [] == again.enqueued
    view = await view_of(store, grant.run_id)
    assert ["work.next"] == [one.address for one in view.calls]


@behaviour()
async def test_wrong_claim_id_does_nothing(harness: Harness[StateStore]) -> None:
    """Nobody commits with a claim that was never granted."""
    store = await harness.connect()
    grant = await begin(store)
    forged = msgspec.structs.replace(grant, claim_id=new_claim_id())
    empty = msgspec.structs.replace(grant, claim_id="")

    assert [Answer.LOST] * 3 == await do(store, commit(forged), commit(empty), _renew(forged))


@behaviour()
async def test_empty_claim_id_commits_nothing(harness: Harness[StateStore]) -> None:
    """A call that nobody holds cannot be committed, not even by the claim of nobody."""
    store = await harness.connect()
    copy = await started(store)
    grant = Granted(
        copy.run_id, copy.call_id, new_claim_id(), 0, copy.address, b"", 1, 0, False, {}, None
    )
    nobody = msgspec.structs.replace(grant, claim_id="")

    assert [Answer.LOST] * 2 == await do(store, commit(grant), commit(nobody))
    assert Phase.QUEUED is (await call_of(store, copy.run_id)).phase


# -- what counts as an attempt ---------------------------------------------------------------------


@attrs.frozen
class _Case:
    kind: Postponement
    attempt: int
    failures: int
    phase: Phase


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(_Case(Postponement.RETRY, 2, 1, Phase.TIMED), id="retry"),
        pytest.param(_Case(Postponement.PARK, 1, 0, Phase.PARKED), id="park"),
        pytest.param(_Case(Postponement.HAND_BACK, 1, 0, Phase.TIMED), id="hand-back"),
    ],
)
@behaviour()
async def test_postponed_call_comes_again(harness: Harness[StateStore], case: _Case) -> None:
    """A retry counts as an attempt; a call that was parked or handed back was not run."""
    store = await harness.connect()
    grant = await begin(store)
    asked = postpone(grant, case.kind, delay_ms=harness.tick, reason="why")

    assert [Answer.DONE, Answer.LOST] == await do(store, asked, asked)
    seen = await call_of(store, grant.run_id)
    assert (case.phase, 1, "why") == (seen.phase, seen.generation, seen.reason)
    await harness.elapse(harness.tick)
    (copy,) = await sweep(store)
    again = await granted(store, copy)
    assert (case.attempt, case.failures, 1) == (again.attempt, again.failures, again.generation)


@pytest.mark.parametrize("kind", Postponement)
@behaviour()
async def test_postponed_by_nothing_comes_at_once(
    harness: Harness[StateStore],
    kind: Postponement,
) -> None:
    """A delay of 0 puts the new copy into the outbox in the same step."""
    store = await harness.connect()
    grant = await begin(store)
    applied = await store.apply([postpone(grant, kind)])

    assert [_copy(grant, 1)] == applied.enqueued


@behaviour()
async def test_lost_attempts_are_no_failures(harness: Harness[StateStore]) -> None:
    """Attempts that ended with their worker count apart from those that a handler failed."""
    store = await harness.connect()
    grant = await begin(store, lease_ms=harness.tick)
    await harness.elapse(harness.tick)
    (copy,) = await sweep(store)
    second = await granted(store, copy)
    await do(store, postpone(second))
    third = await granted(store, _copy(second, 2))

    assert (3, 1, False) == (third.attempt, third.failures, third.suspect)
    seen = await call_of(store, grant.run_id)
    assert (3, 1) == (seen.attempts, seen.lost)


async def _lose(store: StateStore, harness: Harness[StateStore], times: int) -> Message:
    copy = await started(store)
    for _ in range(times):
        await granted(store, copy, lease_ms=harness.tick)
        await harness.elapse(harness.tick)
        (copy,) = await sweep(store)
        await do(store, *settle([copy]))
    return copy


@behaviour()
async def test_call_that_was_lost_is_a_suspect(harness: Harness[StateStore]) -> None:
    """After some losses a call is granted as a suspect, and deferred where one is too many."""
    store = await harness.connect()
    copy = await _lose(store, harness, SUSPECT_LOST)
    claim_id = new_claim_id()

    assert [Answer.DEFERRED] == await do(store, claim(copy, claim_id, suspects=False))
    seen = await call_of(store, copy.run_id)
    assert (Phase.TIMED, copy.generation + 1) == (seen.phase, seen.generation)
    assert (SUSPECT_LOST, SUSPECT_LOST) == (seen.attempts, seen.lost)
    assert [Answer.STALE] == await do(store, claim(copy, claim_id, suspects=False))
    assert [Answer.STALE] == await do(store, claim(copy))


@behaviour()
async def test_suspect_is_granted_where_it_is_welcome(harness: Harness[StateStore]) -> None:
    """A worker without a suspect of its own gets it, and is told."""
    store = await harness.connect()
    copy = await _lose(store, harness, SUSPECT_LOST)
    grant = await granted(store, copy)

    assert (True, SUSPECT_LOST + 1, 0) == (grant.suspect, grant.attempt, grant.failures)
    assert [Answer.DONE] == await do(store, commit(grant))


@behaviour()
async def test_call_that_is_lost_for_ever_dies(harness: Harness[StateStore]) -> None:
    """A call that takes its worker down each time becomes a dead letter."""
    store = await harness.connect()
    copy = await _lose(store, harness, MAX_LOST - 1)
    await granted(store, copy, lease_ms=harness.tick)
    await harness.elapse(harness.tick)

    assert [] == await sweep(store)
    (letter,) = await store.dead_letters(None, 10)
    assert (copy.run_id, copy.call_id, MAX_LOST) == (
        letter.run_id,
        letter.call_id,
        letter.attempts,
    )
    assert str(MAX_LOST) in letter.reason
    assert Status.FAILED is (await view_of(store, copy.run_id)).outcome.status


@behaviour()
async def test_settle_of_a_claimed_copy_is_stale(harness: Harness[StateStore]) -> None:
    """Settling names a copy in the outbox and touches nothing else."""
    store = await harness.connect()
    grant = await begin(store)
    before = await call_of(store, grant.run_id)
    wrong = Settle(grant.run_id, grant.call_id, 1)

    assert [Answer.STALE] * 2 == await do(store, wrong, *settle([_copy(grant)]))
    assert before == await call_of(store, grant.run_id)
