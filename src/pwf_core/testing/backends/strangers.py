"""Messages that a backend did not send: they run nothing, and stop nobody."""

from __future__ import annotations

import pytest

from pwf_core.commands import Answer, Message, Postponement
from pwf_core.ports import Backend
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import LEASE, SERVICE, message, postpone, start
from pwf_core.views import Status


@pytest.mark.parametrize("body", [b"", b"hello", b"\xff\x00:\x80:", b"x" * 200_000])
@behaviour()
async def test_undecodable_is_set_aside(harness: Harness[Backend], body: bytes) -> None:
    """What cannot be read holds nobody up, and does not come again."""
    bench = await open_bench(harness)
    await bench.commit(await bench.begin())  # there is a queue now
    await harness.inject(SERVICE, body)
    grant = await bench.begin()
    await bench.commit(grant)

    await bench.nothing()
    assert Status.FINISHED is await bench.status(grant.run_id)


@behaviour()
async def test_unknown_run_runs_nothing(harness: Harness[Backend]) -> None:
    """A well-formed message of a run that the store does not know is dropped."""
    bench = await open_bench(harness)
    await bench.commit(await bench.begin())
    await harness.redeliver(message())

    await bench.nothing()


@behaviour()
async def test_copy_of_what_is_decided_runs_nothing(harness: Harness[Backend]) -> None:
    """A redelivery after the commit finds nothing to do, while its run goes on and afterwards."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    copy = Message(grant.run_id, grant.call_id, grant.generation, grant.address)
    await harness.redeliver(copy)
    await bench.nothing()  # it is being run
    await bench.commit(grant)
    for _ in range(3):
        await harness.redeliver(copy)

    await bench.nothing()
    assert Status.FINISHED is await bench.status(grant.run_id)


@behaviour()
async def test_old_copy_of_a_retry_does_not_run_early(harness: Harness[Backend]) -> None:
    """While a call waits for its retry, the copy that failed before runs nothing."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    copy = Message(grant.run_id, grant.call_id, grant.generation, grant.address)
    retry = postpone(grant, Postponement.RETRY, delay_ms=harness.tick)
    assert [Answer.DONE] == await bench.do(retry)
    await harness.redeliver(copy)
    if harness.virtual:  # else its time may have come before this can be seen
        await bench.nothing()
    await harness.elapse(harness.tick)

    again = await bench.take_one()
    assert (grant.call_id, 2) == (again.call_id, again.attempt)
    await bench.commit(again)
    await harness.redeliver(copy)
    await bench.nothing()
    await bench.do(start())
    assert grant.run_id != (await bench.take_one()).run_id


@behaviour()
async def test_forged_messages_run_nothing(harness: Harness[Backend]) -> None:
    """A message runs a call only if the store has that call open, with that generation.

    So a guess at names runs nothing, nor does a copy that was kept, of a call that has moved on, is
    being run, or is done.
    """
    bench = await open_bench(harness)
    done = await bench.begin()
    await bench.commit(done)
    first = await bench.begin()
    await bench.do(postpone(first, Postponement.HAND_BACK))
    leased = await bench.take_one()
    waiting = await bench.begin()
    await bench.do(postpone(waiting, Postponement.RETRY, delay_ms=LEASE))
    before = [await bench.view(one.run_id) for one in (done, leased, waiting)]
    guess, service = message(), "work.task"
    for run_id, call_id, generation in [
        (guess.run_id, guess.call_id, 0),
        (leased.run_id, guess.call_id, 0),
        (leased.run_id, leased.call_id, first.generation),
        (leased.run_id, leased.call_id, leased.generation),
        (waiting.run_id, waiting.call_id, waiting.generation),
        (done.run_id, done.call_id, done.generation),
        (done.run_id, guess.call_id, 0),
    ]:
        await harness.redeliver(Message(run_id, call_id, generation, service))

    await bench.nothing()
    assert before == [await bench.view(one.run_id) for one in (done, leased, waiting)]
    assert None is await bench.find(guess.run_id)
