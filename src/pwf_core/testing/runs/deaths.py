"""Dead letters: listed with their reason, requeued, discarded; and what they are to their run."""

from __future__ import annotations

from pwf_core.commands import Answer, Bury, Drop, Granted, Requeue
from pwf_core.testing.bench import Bench, open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import call, message, postpone
from pwf_core.views import DeadLetter, Phase, Status


def _bury(grant: Granted, reason: str = "boom") -> Bury:
    return Bury(grant.run_id, grant.call_id, grant.claim_id, reason)


async def _letters(bench: Bench) -> list[DeadLetter]:
    letters: list[DeadLetter] = await bench.port.dead_letters(None, 100)
    return letters


@behaviour()
async def test_buried_call_is_a_dead_letter(harness: Harness[object]) -> None:
    """A buried call stays in its run, which has failed for that reason, and runs no more."""
    bench = await open_bench(harness)
    grant = await bench.begin(call("work.task", b"\x91\x2a"))

    assert [Answer.DONE, Answer.LOST] == await bench.do(_bury(grant), _bury(grant))
    (letter,) = await _letters(bench)
    assert (grant.run_id, grant.call_id, "work.task", 1, "boom", b"\x91\x2a") == (
        letter.run_id,
        letter.call_id,
        letter.address,
        letter.attempts,
        letter.reason,
        letter.body,
    )
    seen = await bench.call(grant.run_id)
    assert (Phase.DEAD, "boom", None) == (seen.phase, seen.reason, seen.due_ms)
    outcome = await bench.outcome(grant.run_id)
    assert Status.FAILED is outcome.status
    assert "work.task" in outcome.reason
    assert "boom" in outcome.reason
    await bench.nothing()


@behaviour()
async def test_run_goes_on_beside_its_dead(harness: Harness[object]) -> None:
    """As long as something else is going to run, the run has not failed yet."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, calls=[call("work.bad"), call("work.good")])
    grants = {grant.address: grant for grant in await bench.take(2)}
    await bench.do(_bury(grants["work.bad"]))

    assert Status.RUNNING is await bench.status(root.run_id)
    await bench.commit(grants["work.good"], result=b"\x01")
    outcome = await bench.outcome(root.run_id)
    assert (Status.FAILED, b"\x01") == (outcome.status, outcome.result)
    assert "work.bad" in outcome.reason


@behaviour()
async def test_requeued_letter_runs_again(harness: Harness[object]) -> None:
    """A requeued call counts its attempts from one, and its run goes on as if nothing had been."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await bench.do(postpone(grant))
    grant = await bench.take_one()
    await bench.do(_bury(grant))
    requeue = Requeue(grant.run_id, grant.call_id)

    assert [Answer.DONE, Answer.STALE] == await bench.do(requeue, requeue)
    assert [] == await _letters(bench)
    outcome = await bench.outcome(grant.run_id)
    assert (Status.RUNNING, "") == (outcome.status, outcome.reason)
    again = await bench.take_one()
    assert (1, 0, False) == (again.attempt, again.failures, again.suspect)
    assert again.generation > grant.generation
    await bench.commit(again)
    assert Status.FINISHED is await bench.status(grant.run_id)


@behaviour()
async def test_requeue_names_a_dead_letter_only(harness: Harness[object]) -> None:
    """What is not dead is not requeued: not a live call, nor one that is done or never was."""
    bench = await open_bench(harness)
    done, held = await bench.begin(), await bench.begin()
    await bench.commit(done)
    ghost = message()

    assert [Answer.ENDED, Answer.STALE, Answer.ENDED] == await bench.do(
        Requeue(done.run_id, done.call_id),
        Requeue(held.run_id, held.call_id),
        Requeue(ghost.run_id, ghost.call_id),
    )
    await bench.commit(held)


@behaviour()
async def test_discarded_letter_is_gone(harness: Harness[object]) -> None:
    """A discarded dead letter leaves its run, which ends as failed and says why."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await bench.do(_bury(grant))
    drop = Drop(grant.run_id, grant.call_id, dead=True, reason="discarded")

    assert [Answer.DONE, Answer.ENDED] == await bench.do(drop, drop)
    assert [] == await _letters(bench)
    view = await bench.view(grant.run_id)
    assert (Status.FAILED, ()) == (view.outcome.status, view.calls)
    assert "discarded" in view.outcome.reason
    assert [Answer.ENDED] == await bench.do(Requeue(grant.run_id, grant.call_id))


@behaviour()
async def test_drop_says_what_it_means(harness: Harness[object]) -> None:
    """Dropping the dead takes nothing alive, dropping the waiting nothing dead; neither a leased."""
    bench = await open_bench(harness)
    held, dead = await bench.begin(), await bench.begin()
    await bench.do(_bury(dead))

    assert [Answer.STALE] * 3 == await bench.do(
        Drop(held.run_id, held.call_id, dead=True, reason="x"),
        Drop(held.run_id, held.call_id, dead=False, reason="x"),
        Drop(dead.run_id, dead.call_id, dead=False, reason="x"),
    )
    await bench.commit(held)
    assert Status.FINISHED is await bench.status(held.run_id)


@behaviour()
async def test_dropped_call_does_not_run(harness: Harness[object]) -> None:
    """A waiting call that was dropped runs no more, and its run fails at its end."""
    bench = await open_bench(harness)
    root = await bench.begin()
    queued, delayed = call("work.queued"), call("work.delayed", delay_ms=harness.tick)
    other = call("work.other")
    await bench.commit(root, calls=[queued, delayed, other])

    assert [Answer.DONE] * 2 == await bench.do(
        Drop(root.run_id, queued.call_id, dead=False, reason="purged"),
        Drop(root.run_id, delayed.call_id, dead=False, reason="purged"),
    )
    await bench.elapse(harness.tick)
    grant = await bench.take_one("work.other")
    assert Status.RUNNING is await bench.status(root.run_id)
    await bench.nothing()
    await bench.commit(grant)
    outcome = await bench.outcome(root.run_id)
    assert Status.FAILED is outcome.status
    assert "purged" in outcome.reason


@behaviour()
async def test_letters_of_one_run_are_apart(harness: Harness[object]) -> None:
    """Several dead letters of a run are requeued and discarded each on its own."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, calls=[call() for _ in range(3)])
    grants = await bench.take(3)
    await bench.do(*(_bury(grant) for grant in grants))
    one, two, three = grants

    assert 3 == len(await _letters(bench))
    assert Status.FAILED is await bench.status(root.run_id)
    await bench.do(
        Requeue(root.run_id, one.call_id),
        Drop(root.run_id, two.call_id, dead=True, reason="discarded"),
    )
    assert [three.call_id] == [letter.call_id for letter in await _letters(bench)]
    await bench.commit(await bench.take_one())
    assert Status.FAILED is await bench.status(root.run_id)
    await bench.do(Requeue(root.run_id, three.call_id))
    assert Status.RUNNING is await bench.status(root.run_id)
    await bench.commit(await bench.take_one())
    assert Status.FAILED is await bench.status(root.run_id)


@behaviour()
async def test_requeued_letter_may_die_again(harness: Harness[object]) -> None:
    """Dying is not for once: the letter is listed again, with its new reason."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await bench.do(_bury(grant, "first"))
    await bench.do(Requeue(grant.run_id, grant.call_id))
    again = await bench.take_one()
    await bench.do(_bury(again, "second"))

    assert ["second"] == [letter.reason for letter in await _letters(bench)]
    outcome = await bench.outcome(grant.run_id)
    assert (Status.FAILED, True) == (outcome.status, "second" in outcome.reason)
