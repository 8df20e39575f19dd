"""Cancelling: a run ends at once, whatever is open in it."""

from __future__ import annotations

from pwf_core.commands import Answer, Bury, Cancel, Emit, Renew, Requeue
from pwf_core.state import Rules
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import LEASE, call, commit, gather, join, start
from pwf_core.views import Outcome, Status


@behaviour()
async def test_cancelled_run_is_over(harness: Harness[object]) -> None:
    """Nothing of it runs any more, and whatever comes of it later is refused."""
    bench = await open_bench(harness)
    root = await bench.begin()
    dead, held = call("work.dead"), call("work.held")
    await bench.commit(
        root,
        calls=[dead, held, call("work.queued"), call("work.delayed", delay_ms=harness.tick)],
        joins=[
            join("e", then=call("work.joined")),
            join("e", "f", then=call("work.late"), timeout_ms=harness.tick),
        ],
        gathers=[gather(call("work.member", delay_ms=harness.tick), then=call("work.then"))],
        result=b"\x01",
    )
    grants = {grant.call_id: grant for grant in await bench.take(3)}
    grant = grants[held.call_id]
    letter = grants[dead.call_id]
    await bench.do(Bury(letter.run_id, letter.call_id, letter.claim_id, "boom"))
    cancel = Cancel(root.run_id, "cancelled: enough")

    assert [Answer.DONE, Answer.ENDED] == await bench.do(cancel, cancel)
    view = await bench.view(root.run_id)
    assert Outcome(Status.CANCELLED, b"\x01", "cancelled: enough") == view.outcome
    assert ((), (), ()) == (view.calls, view.joins, view.events)
    assert [] == await bench.port.dead_letters(None, 10)
    assert [Answer.ENDED] * 4 == await bench.do(
        Renew(grant.run_id, grant.call_id, grant.claim_id, LEASE),
        commit(grant),
        Emit(root.run_id, "e", b"\xc0"),
        Requeue(letter.run_id, letter.call_id),
    )
    await bench.elapse(harness.tick)
    await bench.nothing()


@behaviour()
async def test_only_an_open_run_is_cancelled(harness: Harness[object]) -> None:
    """A run that is over stays as it was; one that nobody knows is not made."""
    bench = await open_bench(harness)
    done = await bench.begin()
    await bench.commit(done, result=b"\x01")
    unknown = start()

    assert [Answer.ENDED] * 2 == await bench.do(
        Cancel(done.run_id, "cancelled"), Cancel(unknown.run_id, "cancelled")
    )
    assert Outcome(Status.FINISHED, b"\x01") == await bench.outcome(done.run_id)
    assert await bench.find(unknown.run_id) is None


@behaviour()
async def test_run_is_cancelled_in_its_first_batch(harness: Harness[object]) -> None:
    """Started and cancelled in one breath, it has never run."""
    bench = await open_bench(harness)
    first = start()

    replies = await bench.do(first, Cancel(first.run_id, "cancelled"))
    assert Answer.DONE is replies[1]
    await bench.nothing()
    assert Outcome(Status.CANCELLED, None, "cancelled") == await bench.outcome(first.run_id)


@behaviour(rules=Rules(retention_ms=0))
async def test_cancelled_run_leaves_nothing(harness: Harness[object]) -> None:
    """It goes like any other when its retention is over."""
    bench = await open_bench(harness)
    root = await bench.begin(key="k")
    await bench.commit(root, calls=[call(), call(delay_ms=LEASE)], emits=[("e", b"\xc0")])

    assert [Answer.DONE] == await bench.do(Cancel(root.run_id, "cancelled"))
    assert await bench.find(root.run_id) is None


@behaviour()
async def test_failed_run_can_be_cancelled(harness: Harness[object]) -> None:
    """A run that only a requeue could revive is not revived any more."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.do(Bury(root.run_id, root.call_id, root.claim_id, "boom"))

    assert [Answer.DONE] == await bench.do(Cancel(root.run_id, "cancelled"))
    assert Status.CANCELLED is await bench.status(root.run_id)
    assert [Answer.ENDED] == await bench.do(Requeue(root.run_id, root.call_id))
