"""Gathers that tolerate failed members."""

from __future__ import annotations

from pwf_core.commands import Answer, Bury, Drop, Granted, Requeue
from pwf_core.failures import LONGEST, reason_in
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import LEASE, call, gather
from pwf_core.views import Status


def _bury(grant: Granted, reason: str = "boom") -> Bury:
    return Bury(grant.run_id, grant.call_id, grant.claim_id, reason)


@behaviour()
async def test_tolerated_failure_is_a_result(harness: Harness[object]) -> None:
    """The gather fires with the reason in the member's place; there is no dead letter, no failed run."""
    bench = await open_bench(harness)
    root = await bench.begin()
    members = [call("work.one"), call("work.two")]
    await bench.commit(root, gathers=[gather(*members, then=call("work.then"), tolerated=1)])
    one, two = sorted(await bench.take(2), key=lambda grant: grant.address)
    await bench.commit(two, result=b"\x02")

    assert [Answer.DONE, Answer.ENDED] == await bench.do(_bury(one), _bury(one))
    assert [] == await bench.port.dead_letters(None, 10)
    then = await bench.take_one("work.then")
    assert then.results is not None
    assert f"work.one ({one.call_id}): boom" == reason_in(then.results[0])
    assert b"\x02" == then.results[1]
    await bench.commit(then, result=b"\x03")
    outcome = await bench.outcome(root.run_id)
    assert (Status.FINISHED, b"\x03", "") == (outcome.status, outcome.result, outcome.reason)


@behaviour()
async def test_one_failure_too_many(harness: Harness[object]) -> None:
    """What is beyond the tolerance is a dead letter, which can be requeued."""
    bench = await open_bench(harness)
    root = await bench.begin()
    members = [call(f"work.m{number}") for number in range(3)]
    await bench.commit(root, gathers=[gather(*members, then=call("work.then"), tolerated=1)])
    grants = sorted(await bench.take(3), key=lambda grant: grant.address)
    await bench.do(*map(_bury, grants[:2]))
    await bench.commit(grants[2])

    assert Status.FAILED is await bench.status(root.run_id)
    (letter,) = await bench.port.dead_letters(None, 10)
    assert grants[1].call_id == letter.call_id
    assert [Answer.DONE] == await bench.do(Requeue(letter.run_id, letter.call_id))
    await bench.commit(await bench.take_one("work.m1"), result=b"\x01")
    then = await bench.take_one("work.then")
    assert then.results is not None
    assert [True, False, False] == [reason_in(one) is not None for one in then.results]
    await bench.commit(then)
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_member_fails_once(harness: Harness[object]) -> None:
    """However many of a member's descendants die, it is one failure; a value of it counts no more."""
    bench = await open_bench(harness)
    root = await bench.begin()
    member = call("work.member")
    await bench.commit(root, gathers=[gather(member, then=call("work.then"), tolerated=1)])
    grant = await bench.take_one("work.member")
    await bench.commit(grant, calls=[call("work.child") for _ in range(4)], result=b"\x01")
    children = await bench.take(4)
    await bench.do(*(_bury(child, f"number {n}") for n, child in enumerate(children[:3])))
    assert [] == await bench.port.dead_letters(None, 10)
    await bench.commit(children[3], result=b"\x02")

    then = await bench.take_one("work.then")
    assert then.results is not None
    (failed,) = then.results
    assert (reason_in(failed) or "").endswith("number 0")


@behaviour()
async def test_inner_failure_is_the_members(harness: Harness[object]) -> None:
    """What a gather inside a member does not tolerate fails the member; the inner one never fires."""
    bench = await open_bench(harness)
    root = await bench.begin()
    members = [call("work.one"), call("work.two")]
    await bench.commit(root, gathers=[gather(*members, then=call("work.then"), tolerated=2)])
    one, two = sorted(await bench.take(2), key=lambda grant: grant.address)
    await bench.commit(two, result=b"\x02")
    inner = [call("work.inner"), call("work.other")]
    await bench.commit(one, gathers=[gather(*inner, then=call("work.never"))])
    grants = {grant.address: grant for grant in await bench.take(2)}
    await bench.do(_bury(grants["work.inner"]))
    await bench.nothing()
    await bench.commit(grants["work.other"], result=b"\x07")

    then = await bench.take_one("work.then")
    assert then.results is not None
    assert "work.inner" in (reason_in(then.results[0]) or "")
    assert b"\x02" == then.results[1]
    await bench.commit(then)
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_dropped_call_can_be_tolerated(harness: Harness[object]) -> None:
    """A call that was taken out is a failure like any other, in a gather around it."""
    bench = await open_bench(harness)
    root = await bench.begin()
    member = call("work.member", delay_ms=LEASE)
    await bench.commit(root, gathers=[gather(member, then=call("work.then"), tolerated=1)])
    drop = Drop(root.run_id, member.call_id, dead=False, reason="purged")

    assert [Answer.DONE] == await bench.do(drop)
    then = await bench.take_one("work.then")
    assert then.results is not None
    assert (reason_in(then.results[0]) or "").endswith("purged")
    await bench.commit(then)
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_long_reason_is_cut(harness: Harness[object]) -> None:
    """Of a long traceback the end is kept."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, gathers=[gather(call("work.m"), then=call("work.then"), tolerated=1)])
    await bench.do(_bury(await bench.take_one("work.m"), "ü" * LONGEST + "the end"))

    then = await bench.take_one("work.then")
    assert then.results is not None
    reason = reason_in(then.results[0]) or ""
    assert reason.endswith("üthe end")
    assert LONGEST - 4 <= len(reason.encode()) <= LONGEST
