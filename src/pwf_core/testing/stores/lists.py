"""What a store has lists of: runs by id, dead letters, and the calls that wait."""

from __future__ import annotations

import pytest

from pwf_core.commands import Answer, Bury, Drop, Granted, Postponement, Requeue
from pwf_core.ports import StateStore
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import (
    call,
    claim,
    commit,
    decision,
    gather,
    new_run_id,
    postpone,
    start,
)
from pwf_core.testing.stores._desk import begin, do, started, sweep, view_of
from pwf_core.transition import OUTBOX_MS
from pwf_core.views import Status


def _bury(grant: Granted, reason: str = "boom") -> Bury:
    return Bury(grant.run_id, grant.call_id, grant.claim_id, reason)


@behaviour()
async def test_read_keeps_the_order(harness: Harness[StateStore]) -> None:
    """Runs come in the order asked for, as often as asked for, None for those unknown."""
    store = await harness.connect()
    one, two = await started(store), await started(store)
    views = await store.read([two.run_id, new_run_id(), one.run_id, two.run_id])

    assert [two.run_id, None, one.run_id, two.run_id] == [one and one.run_id for one in views]


@behaviour()
async def test_purge_drops_what_waits(harness: Harness[StateStore]) -> None:
    """Queued, unpublished, delayed, retried and parked calls go; leased, dead and others' stay."""
    store = await harness.connect()
    unpublished, delayed = start(), start(call(delay_ms=600_000))
    other = start(call("other.task", delay_ms=600_000))
    retried, parked, leased, dead = [await begin(store) for _ in range(4)]
    await do(
        store,
        postpone(retried, delay_ms=600_000),
        postpone(parked, Postponement.PARK, delay_ms=600_000),
        Bury(dead.run_id, dead.call_id, dead.claim_id, "boom"),
    )
    queued = await started(store)
    await store.apply([unpublished, delayed, other])

    assert 5 == await store.purge("work")
    assert 0 == await store.purge("work")
    for run_id in (
        retried.run_id, parked.run_id, queued.run_id, unpublished.run_id, delayed.run_id,
    ):  # fmt: skip
        view = await view_of(store, run_id)
        assert (Status.FAILED, ()) == (view.outcome.status, view.calls)
        assert "purged" in view.outcome.reason
    assert [Answer.ENDED, Answer.DONE] == await do(store, claim(queued), commit(leased))
    assert [dead.call_id] == [letter.call_id for letter in await store.dead_letters(None, 10)]
    assert Status.RUNNING is (await view_of(store, other.run_id)).outcome.status
    assert 1 == await store.purge("other")


@pytest.mark.parametrize("service", ["other", "work"])
@behaviour()
async def test_purge_that_completes_a_gather(harness: Harness[StateStore], service: str) -> None:
    """A gather that bears the loss goes on: its call waits in the outbox for the next sweep.

    Even if it is of the service that is purged: that call was not waiting when the purge began.
    """
    store = await harness.connect()
    then = call(f"{service}.task")
    fork = gather(call(delay_ms=600_000), then=then, tolerated=1)
    grant = await begin(store, call("other.task"))
    await do(store, commit(grant, decision(gathers=[fork])))

    assert 1 == await store.purge("work")
    await harness.elapse(OUTBOX_MS + harness.tick)
    assert [then.call_id] == [copy.call_id for copy in await sweep(store)]


@behaviour()
async def test_purge_of_more_than_a_page(harness: Harness[StateStore]) -> None:
    """However many there are, and however they lie among calls of other services."""
    store = await harness.connect()
    for number in range(4):
        service = ("work", "other")[number % 2]
        delay = 600_000 + number * 1000
        await store.apply([start(call(f"{service}.task", delay_ms=delay)) for _ in range(300)])

    assert 600 == await store.purge("work")
    assert 600 == await store.purge("other")
    assert [] == await sweep(store)


@behaviour()
async def test_dead_letters_tell_their_story(harness: Harness[StateStore]) -> None:
    """A dead letter has the call's address and body, its attempts, the reason and the time."""
    store = await harness.connect()
    grant = await begin(store, call("work.task", b"\x91\xa1x"))
    await do(store, _bury(grant, "Traceback\n  …\nValueError: no"))
    (letter,) = await store.dead_letters(None, 10)

    assert (grant.run_id, grant.call_id, "work.task") == (
        letter.run_id,
        letter.call_id,
        letter.address,
    )
    assert (1, b"\x91\xa1x") == (letter.attempts, letter.body)
    assert "Traceback\n  …\nValueError: no" == letter.reason
    assert letter.died_ms > 0


@behaviour()
async def test_dead_letters_are_listed_oldest_first(harness: Harness[StateStore]) -> None:
    """Dead letters come in the order of their death, by service or all, at most so many."""
    store = await harness.connect()
    grants = [await begin(store, call(f"service-{number % 2}.task")) for number in range(6)]
    for grant in reversed(grants):
        await do(store, _bury(grant))
        await harness.elapse(harness.tick)
    died = [grant.call_id for grant in reversed(grants)]

    assert died == [one.call_id for one in await store.dead_letters(None, 10)]
    assert died[:3] == [one.call_id for one in await store.dead_letters(None, 3)]
    assert died[::2] == [one.call_id for one in await store.dead_letters("service-1", 10)]
    assert died[1:4:2] == [one.call_id for one in await store.dead_letters("service-0", 2)]
    assert [] == await store.dead_letters("nobody", 10)


@behaviour()
async def test_requeued_and_dropped_are_off_the_list(harness: Harness[StateStore]) -> None:
    """A dead letter that was requeued or discarded is none any more."""
    store = await harness.connect()
    one, two, three = [await begin(store) for _ in range(3)]
    await do(store, _bury(one), _bury(two), _bury(three))
    replies = await do(
        store,
        Requeue(one.run_id, one.call_id),
        Drop(two.run_id, two.call_id, dead=True, reason="discarded"),
    )

    assert [Answer.DONE] * 2 == replies
    assert [three.call_id] == [letter.call_id for letter in await store.dead_letters(None, 10)]


@behaviour()
async def test_committed_is_on_no_list(harness: Harness[StateStore]) -> None:
    """A commit removes every trace of its call."""
    store = await harness.connect()
    grant = await begin(store)
    await do(store, commit(grant))

    assert 0 == await store.purge("work")
    assert [] == await store.dead_letters(None, 10)
    (view,) = await store.read([grant.run_id])
    assert view is not None
    assert ((), ()) == (view.calls, view.joins)
