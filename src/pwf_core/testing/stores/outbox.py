"""The outbox: what was committed is published until somebody says that a broker has it."""

from __future__ import annotations

import pytest

from pwf_core.commands import Answer, Fire, Message, Settle
from pwf_core.ports import StateStore
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import call, commit, decision, gather, join, message, postpone, start
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
from pwf_core.transition import OUTBOX_MS, UNCLAIMED_MS
from pwf_core.views import Phase


@behaviour()
async def test_commit_names_what_to_publish(harness: Harness[StateStore]) -> None:
    """The copies of the calls that a commit makes come with its reply, in their order."""
    store = await harness.connect()
    grant = await begin(store)
    calls = [call(f"service-{number}.task") for number in range(3)]
    joined, gathered, member = call("work.joined"), call("work.gathered"), call("work.member")
    made = decision(
        calls=[*calls, call("work.later", delay_ms=10_000)],
        emits=[("e", b"\x01")],
        joins=[join("e", then=joined), join("f", then=call("work.never"))],
        gathers=[gather(then=gathered), gather(member, then=call("work.last"))],
    )
    applied = await store.apply([commit(grant, made)])

    assert [Answer.DONE] == applied.replies
    expected = [*calls, joined, gathered, member]
    copies = [Message(grant.run_id, one.call_id, 0, one.address) for one in expected]
    assert sorted(copies, key=_id) == sorted(applied.enqueued, key=_id)


@behaviour()
async def test_settled_copy_is_queued(harness: Harness[StateStore]) -> None:
    """Once settled, a copy is the broker's: it is not published again soon."""
    store = await harness.connect()
    first = start()
    applied = await store.apply([first])

    assert Phase.OUTBOX is (await call_of(store, first.run_id)).phase
    replies = await do(store, *settle(applied.enqueued), *settle(applied.enqueued))
    assert [Answer.DONE, Answer.STALE] == replies
    assert Phase.QUEUED is (await call_of(store, first.run_id)).phase
    await harness.elapse(OUTBOX_MS)
    assert [] == await sweep(store)


@behaviour()
async def test_copy_that_nobody_claims_is_published_again(harness: Harness[StateStore]) -> None:
    """A copy that a broker took and lost comes again, more and more seldom; claimed, no more."""
    if not harness.virtual:
        pytest.skip("minutes pass only on a clock that can be moved")
    store = await harness.connect()
    copy = await started(store)
    for minutes in (1, 4, 16):
        await harness.elapse(minutes * UNCLAIMED_MS - 1)
        assert [] == await sweep(store)
        await harness.elapse(1)
        assert [copy] == await sweep(store)
        await do(store, *settle([copy]))
    grant = await granted(store, copy, lease_ms=10**9)
    await harness.elapse(100 * UNCLAIMED_MS)

    assert (0, 1) == (grant.generation, grant.attempt)
    assert [] == await sweep(store)
    await do(store, postpone(grant))
    (again,) = [Message(copy.run_id, copy.call_id, 1, copy.address)]
    await do(store, *settle([again]))
    await harness.elapse(UNCLAIMED_MS)
    assert [again] == await sweep(store)


@behaviour()
async def test_unsettled_copy_is_published_again(harness: Harness[StateStore]) -> None:
    """What nobody settled comes again, the same copy, until somebody does."""
    store = await harness.connect()
    applied = await store.apply([start(), start()])
    lost, kept = applied.enqueued
    await do(store, *settle([kept]))

    assert [] == await sweep(store)
    await harness.elapse(OUTBOX_MS)
    assert [lost] == await sweep(store)
    assert [] == await sweep(store)
    await do(store, *settle([lost]))
    await granted(store, lost)


@behaviour()
async def test_settle_of_another_copy_is_stale(harness: Harness[StateStore]) -> None:
    """Settling an older or a newer copy leaves the one in the outbox there."""
    store = await harness.connect()
    (copy,) = (await store.apply([start()])).enqueued
    other = Settle(copy.run_id, copy.call_id, 1)

    assert [Answer.STALE] == await do(store, other)
    assert Phase.OUTBOX is (await call_of(store, copy.run_id)).phase


@behaviour()
async def test_settle_and_fire_of_a_missing_run_do_nothing(harness: Harness[StateStore]) -> None:
    """Late news of a run that is gone is answered, and creates nothing."""
    store = await harness.connect()
    copy = message()
    commands = [*settle([copy]), Fire(copy.run_id, copy.call_id)]
    applied = await store.apply(commands)

    assert [Answer.ENDED] * 2 == applied.replies
    assert [] == applied.enqueued
    assert [None] == await store.read([copy.run_id])


@behaviour()
async def test_settle_of_a_committed_call_does_nothing(harness: Harness[StateStore]) -> None:
    """News of a call that is done is late, too."""
    store = await harness.connect()
    grant = await begin(store)
    await do(store, commit(grant, decision(calls=[call()])))
    before = await view_of(store, grant.run_id)
    late = Message(grant.run_id, grant.call_id, 0, grant.address)

    assert [Answer.ENDED] * 2 == await do(store, *settle([late]), Fire(grant.run_id, grant.call_id))
    assert before == await view_of(store, grant.run_id)


def _id(copy: Message) -> str:
    return copy.call_id
