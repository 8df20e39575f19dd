"""Timers: everything pending has its time, by the store's clock, and any sweeper moves it on."""

from __future__ import annotations

from pwf_core.commands import Answer, Fire, Message
from pwf_core.ports import StateStore
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import call, claim, commit, decision, start
from pwf_core.testing.stores._desk import begin, call_of, do, settle, started, sweep
from pwf_core.transition import OUTBOX_MS
from pwf_core.views import Phase


@behaviour()
async def test_delayed_call_comes_in_time(harness: Harness[StateStore]) -> None:
    """A delayed call is enqueued once its time has come, and not before."""
    store = await harness.connect()
    first = start(call(delay_ms=2 * harness.tick))
    applied = await store.apply([first])

    assert [] == applied.enqueued
    seen = await call_of(store, first.run_id)
    assert (Phase.TIMED, 0) == (seen.phase, seen.generation)
    assert seen.due_ms is not None
    await harness.elapse(2 * harness.tick)
    expected = Message(first.run_id, first.call.call_id, 0, first.call.address)
    assert [expected] == await sweep(store)
    assert [] == await sweep(store)


@behaviour()
async def test_nothing_is_early(harness: Harness[StateStore]) -> None:
    """Sweeping moves on what is due, and nothing else."""
    store = await harness.connect()
    await store.apply([start(call(delay_ms=600_000))])
    await harness.elapse(harness.tick)

    assert [] == await sweep(store)


@behaviour()
async def test_timers_fire_in_due_order(harness: Harness[StateStore]) -> None:
    """What was due first is enqueued first, whatever was stored first."""
    store = await harness.connect()
    order = [5, 1, 4, 2, 3]
    starts = [start(call(f"work.t{number}", delay_ms=number * harness.tick)) for number in order]
    await store.apply(starts)
    await harness.elapse(5 * harness.tick)

    swept = [one.address for one in await sweep(store)]
    if not store.capabilities.ordered:
        swept.sort()
    assert [f"work.t{number}" for number in sorted(order)] == swept


@behaviour()
async def test_sweep_keeps_to_its_limit(harness: Harness[StateStore]) -> None:
    """A sweep moves on as many as it is told to; the rest is for the next."""
    store = await harness.connect()
    await store.apply([start(call(delay_ms=harness.tick)) for _ in range(5)])
    await harness.elapse(harness.tick)

    counts = [len(await sweep(store, 2)) for _ in range(8)]
    if store.capabilities.partitions == 1:
        assert [2, 2, 1] == counts[:3]
    assert max(counts) <= 2
    assert 5 == sum(counts)


@behaviour()
async def test_without_a_sweep_nothing_fires(harness: Harness[StateStore]) -> None:
    """Who does not ask for a sweep moves nothing on."""
    store = await harness.connect()
    await store.apply([start(call(delay_ms=harness.tick))])
    await harness.elapse(harness.tick)

    assert [] == (await store.apply([])).enqueued
    assert 1 == len(await sweep(store))


@behaviour()
async def test_sweep_comes_before_the_commands(harness: Harness[StateStore]) -> None:
    """What is due is moved on first: a commit in the same batch whose lease is over is refused."""
    store = await harness.connect()
    grant = await begin(store, lease_ms=harness.tick)
    await harness.elapse(harness.tick)
    applied = await store.apply([commit(grant)], sweep=10)

    assert [Answer.LOST] == applied.replies
    assert [1] == [copy.generation for copy in applied.enqueued]


@behaviour()
async def test_fire_names_a_due_call_only(harness: Harness[StateStore]) -> None:
    """Firing what is not due, or has no timer, does nothing; so does firing twice."""
    store = await harness.connect()
    queued = await started(store)
    delayed = start(call(delay_ms=harness.tick))
    await store.apply([delayed])
    held = await begin(store)
    fire = Fire(delayed.run_id, delayed.call.call_id)

    assert [Answer.STALE] * 4 == await do(
        store,
        Fire(queued.run_id, queued.call_id),
        Fire(queued.run_id, type(queued.call_id)("")),
        Fire(held.run_id, held.call_id),
        fire if harness.virtual else Fire(held.run_id, held.call_id),
    )
    await harness.elapse(harness.tick)
    applied = await store.apply([fire])
    assert [Answer.DONE] == applied.replies
    assert 1 == len(applied.enqueued)
    assert [] == await sweep(store)


@behaviour()
async def test_absolute_time_in_the_past_is_now(harness: Harness[StateStore]) -> None:
    """A call whose moment has passed runs at once."""
    store = await harness.connect()
    applied = await store.apply([start(call(due_ms=1))])

    assert 1 == len(applied.enqueued)


@behaviour()
async def test_absolute_time_is_kept(harness: Harness[StateStore]) -> None:
    """A call with a moment of its own waits for exactly that."""
    store = await harness.connect()
    due_ms = 32_503_680_000_000  # the year 3000
    first = start(call(due_ms=due_ms))
    await store.apply([first])

    assert due_ms == (await call_of(store, first.run_id)).due_ms
    assert [] == await sweep(store)


@behaviour()
async def test_children_are_delayed_from_the_commit(harness: Harness[StateStore]) -> None:
    """The delay of a call that a decision makes counts from its commit."""
    store = await harness.connect()
    grant = await begin(store)
    await harness.elapse(2 * harness.tick)
    child = call("work.child", delay_ms=600_000)
    applied = await store.apply([commit(grant, decision(calls=[child]))])

    assert [] == applied.enqueued
    assert applied.next_due_ms is not None
    assert 500_000 < applied.next_due_ms <= 600_000


@behaviour()
async def test_next_due_tells_how_long_to_wait(harness: Harness[StateStore]) -> None:
    """Every answer says how long until the earliest timer; without timers there is nothing."""
    store = await harness.connect()
    assert (await store.apply([])).next_due_ms is None
    applied = await store.apply([start(call(delay_ms=500_000)), start(call(delay_ms=300_000))])

    assert applied.next_due_ms is not None
    assert 250_000 < applied.next_due_ms <= 300_000
    soon = await store.apply([start()])  # in the outbox, which has a timer, too
    assert soon.next_due_ms is not None
    assert soon.next_due_ms <= OUTBOX_MS
    await do(store, *settle(soon.enqueued))
    later = await store.apply([])
    assert later.next_due_ms is not None
    assert later.next_due_ms > OUTBOX_MS


@behaviour()
async def test_fired_call_is_in_the_outbox(harness: Harness[StateStore]) -> None:
    """What a timer enqueued is claimed and settled like anything else."""
    store = await harness.connect()
    await store.apply([start(call(delay_ms=harness.tick))])
    await harness.elapse(harness.tick)
    (copy,) = await sweep(store)

    assert Phase.OUTBOX is (await call_of(store, copy.run_id)).phase
    assert [Answer.DONE] == await do(store, *settle([copy]))
    (grant,) = await do(store, claim(copy))
    assert not isinstance(grant, Answer)
