"""Batches: judged in order, each item on its own, each seeing what earlier ones wrote."""

from __future__ import annotations

import asyncio

from pwf_core.commands import (
    Answer,
    Claim,
    Command,
    Emit,
    Granted,
    Message,
    Requeue,
    Started,
)
from pwf_core.ports import StateStore
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import (
    call,
    claim,
    commit,
    decision,
    join,
    message,
    new_claim_id,
    start,
)
from pwf_core.testing.stores._desk import begin, do, granted, settle, sweep, view_of
from pwf_core.views import Status


@behaviour()
async def test_batch_of_nothing_is_fine(harness: Harness[StateStore]) -> None:
    """An empty batch has an empty answer."""
    store = await harness.connect()
    applied = await store.apply([])

    assert ([], []) == (applied.replies, applied.enqueued)
    assert [] == await store.read([])


@behaviour()
async def test_store_that_is_reached_has_no_problem(harness: Harness[StateStore]) -> None:
    """Those who would go on without some of its servers have all that there is."""
    store = await harness.connect()
    starts = [start() for _ in range(20)]
    applied = await store.apply(starts, sweep=1, partly=True)

    assert [Started(one.run_id, created=True) for one in starts] == applied.replies
    assert {one.run_id for one in starts} == {copy.run_id for copy in applied.enqueued}
    assert applied.problem == ""
    assert applied.next_due_ms is not None


@behaviour()
async def test_items_see_what_earlier_ones_wrote(harness: Harness[StateStore]) -> None:
    """A whole life fits into one batch: start, claim, commit, and the run is finished."""
    store = await harness.connect()
    first = start()
    copy = Message(first.run_id, first.call.call_id, 0, first.call.address)
    claim_id = new_claim_id()
    grant = Granted(copy.run_id, copy.call_id, claim_id, 0, copy.address, b"", 1, 0, False, {}, [])
    batch: list[Command] = [
        first,
        claim(copy, claim_id),
        commit(grant, decision(result=b"\x2a")),
        claim(copy, claim_id),
        first,
    ]
    replies = await do(store, *batch)

    assert Started(first.run_id, created=True) == replies[0]
    assert isinstance(replies[1], Granted)
    assert [Answer.DONE, Answer.ENDED] == replies[2:4]
    assert Started(first.run_id, created=False) == replies[4]
    outcome = (await view_of(store, first.run_id)).outcome
    assert (Status.FINISHED, b"\x2a") == (outcome.status, outcome.result)


@behaviour()
async def test_commits_of_one_run_share_a_batch(harness: Harness[StateStore]) -> None:
    """Several commits of one run in one batch count each, and fire what they complete together."""
    store = await harness.connect()
    root = await begin(store)
    members = [call(f"work.m{number}") for number in range(20)]
    joined = call("work.joined")
    made = decision(
        calls=members, joins=[join(*(f"e{number}" for number in range(20)), then=joined)]
    )
    applied = await store.apply([commit(root, made)])
    grants = [await granted(store, copy) for copy in applied.enqueued]
    commits = [
        commit(grant, decision(emits=[(f"e{grant.address[6:]}", b"\x01")])) for grant in grants
    ]
    applied = await store.apply(commits)

    assert [Answer.DONE] * 20 == applied.replies
    assert [joined.call_id] == [copy.call_id for copy in applied.enqueued]


@behaviour()
async def test_bad_item_fails_alone(harness: Harness[StateStore]) -> None:
    """A command that is refused leaves no trace, and its neighbours are judged as if alone."""
    store = await harness.connect()
    one, two, three = [await begin(store) for _ in range(3)]
    await do(store, commit(two))
    ghost = message()
    batch: list[Command] = [
        commit(one, decision(emits=[("e", b"\x01")], calls=[call("work.next")])),
        commit(two, decision(calls=[call("work.ghost")])),
        Emit(ghost.run_id, "e", b"\x01"),
        Requeue(one.run_id, one.call_id),
        claim(ghost),
        commit(three, decision(result=b"\x03")),
    ]
    applied = await store.apply(batch)

    expected = [
        Answer.DONE,
        Answer.ENDED,
        Answer.ENDED,
        Answer.ENDED,
        Answer.ENDED,
        Answer.DONE,
    ]
    assert expected == applied.replies
    assert ["work.next"] == [copy.address for copy in applied.enqueued]
    assert b"\x03" == (await view_of(store, three.run_id)).outcome.result


@behaviour()
async def test_duplicates_in_one_batch(harness: Harness[StateStore]) -> None:
    """The same command twice in a batch is the same command sent again."""
    store = await harness.connect()
    first = start()
    copy = Message(first.run_id, first.call.call_id, 0, first.call.address)
    asked = claim(copy)
    replies = await do(store, first, first, asked, asked)

    assert [True, False] == [one.created for one in replies[:2] if isinstance(one, Started)]
    assert replies[2] == replies[3]
    made = commit(await granted(store, copy, asked.claim_id))
    assert [Answer.DONE, Answer.ENDED] == await do(store, made, made)


@behaviour()
async def test_big_batch(harness: Harness[StateStore]) -> None:
    """Hundreds of commands go in one batch, and the answers keep their order."""
    store = await harness.connect()
    starts = [start() for _ in range(500)]
    applied = await store.apply(starts)

    assert [one.run_id for one in starts] == [
        one.run_id for one in applied.replies if isinstance(one, Started)
    ]
    made, enqueued = [one.call.call_id for one in starts], [one.call_id for one in applied.enqueued]
    if not store.capabilities.ordered:
        made.sort()
        enqueued.sort()
    assert made == enqueued
    await do(store, *settle(applied.enqueued))
    claims: list[Claim] = [claim(copy) for copy in applied.enqueued]
    replies = (await store.apply(claims)).replies
    grants = [one for one in replies if isinstance(one, Granted)]
    assert [one.claim_id for one in claims] == [one.claim_id for one in grants]
    commits = [commit(one, decision(result=b"\x01")) for one in grants]
    assert [Answer.DONE] * 500 == (await store.apply(commits)).replies
    views = await store.read([one.run_id for one in starts])
    assert {Status.FINISHED} == {one.outcome.status for one in views if one is not None}


@behaviour()
async def test_big_decision(harness: Harness[StateStore]) -> None:
    """One decision may make a thousand calls."""
    store = await harness.connect()
    root = await begin(store)
    calls = [call(body=b"\xd9\x20" + b"x" * 32) for _ in range(1000)]
    applied = await store.apply([commit(root, decision(calls=calls))])
    copies = list(applied.enqueued)
    while len(copies) < len(calls):
        more = await sweep(store)

        assert more
        copies += more
    assert {one.call_id for one in calls} == {one.call_id for one in copies}
    assert len(calls) == len((await view_of(store, root.run_id)).calls)


@behaviour()
async def test_many_connections_write_one_run(harness: Harness[StateStore]) -> None:
    """Commits of one run from several connections at once lose nothing of each other."""
    stores = [await harness.connect() for _ in range(3)]
    root = await begin(stores[0])
    joined = call("work.joined")
    members = [call(f"work.m{number}") for number in range(30)]
    events = [f"e{number}" for number in range(30)]
    made = decision(calls=members, joins=[join(*events, then=joined)])
    applied = await stores[0].apply([commit(root, made)])
    grants = [await granted(stores[0], copy) for copy in applied.enqueued]
    answers = await asyncio.gather(
        *(
            stores[number % 3].apply(
                [commit(grant, decision(emits=[(events[number], b"\x01")]))],
            )
            for number, grant in enumerate(grants)
        )
    )

    assert [[Answer.DONE]] * 30 == [one.replies for one in answers]
    copies = [copy for one in answers for copy in one.enqueued]
    assert [joined.call_id] == [copy.call_id for copy in copies]


@behaviour()
async def test_namespaces_are_kept_apart(harness: Harness[StateStore]) -> None:
    """Two deployments on one server see nothing of each other, the same keys included."""
    here, there = await harness.connect(), await harness.elsewhere()
    partitions = here.capabilities.partitions
    mine, yours = (start(key="k", fingerprint=one, partitions=partitions) for one in "fg")

    assert [Started(mine.run_id, created=True)] == await do(here, mine)
    assert [Started(yours.run_id, created=True)] == await do(there, yours)
    assert [None] == await there.read([mine.run_id])
    copy = Message(mine.run_id, mine.call.call_id, 0, mine.call.address)
    assert [Answer.ENDED] == await do(there, claim(copy))
    await granted(here, copy)


@behaviour()
async def test_connections_share_a_namespace(harness: Harness[StateStore]) -> None:
    """What one connection wrote, another one reads, also after the first has closed."""
    first, second = await harness.connect(), await harness.connect()
    grant = await begin(first)
    await first.close()
    await first.close()

    assert [Answer.DONE] == await do(second, commit(grant, decision(result=b"\x01")))
    assert b"\x01" == (await view_of(second, grant.run_id)).outcome.result


@behaviour()
async def test_closed_store_opens_again(harness: Harness[StateStore]) -> None:
    """A store may be opened anew after it was closed: blocking clients do that."""
    store = await harness.connect()
    await harness.connect()  # where runs live no longer than their connections, one stays
    grant = await begin(store)
    await store.close()
    await store.open()

    assert [Answer.DONE] == await do(store, commit(grant))
