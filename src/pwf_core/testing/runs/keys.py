"""Keys: the same key is the same run, however often and from wherever it is started."""

from __future__ import annotations

import asyncio

import pytest

from pwf_core.commands import Started
from pwf_core.ids import derive_call_id, root_call_id
from pwf_core.state import Rules
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import call, new_run_id, start
from pwf_core.views import Status

_AT_ONCE = Rules(retention_ms=0)


@behaviour()
async def test_start_without_a_key(harness: Harness[object]) -> None:
    """Without a key every start is a run, and the same start again is the same run."""
    bench = await open_bench(harness)
    one, two = start(), start()

    assert [
        Started(one.run_id, created=True),
        Started(two.run_id, created=True),
        Started(one.run_id, created=False),
    ] == await bench.do(one, two, one)
    assert 2 == len(await bench.take(2))
    await bench.nothing()


@behaviour()
async def test_same_key_is_the_same_run(harness: Harness[object]) -> None:
    """The first start with a key makes the run; later ones find it, running or finished."""
    bench = await open_bench(harness)
    first = bench.start(key="k", fingerprint="f")
    grant_id = first.call.call_id
    found = Started(first.run_id, created=False)

    assert [Started(first.run_id, created=True)] == await bench.do(first)
    assert [found] == await bench.do(bench.start(key="k", fingerprint="f"))
    grant = await bench.take_one()
    assert grant_id == grant.call_id
    await bench.commit(grant, result=b"\x01")
    assert [found, found] == await bench.do(bench.start(key="k", fingerprint="f"), first)
    await bench.nothing()


@behaviour()
async def test_key_with_other_arguments_is_a_conflict(harness: Harness[object]) -> None:
    """The same key with another fingerprint starts nothing, and says whose the key is."""
    bench = await open_bench(harness)
    first, other = bench.start(key="k", fingerprint="f"), bench.start(key="k", fingerprint="g")

    assert [
        Started(first.run_id, created=True),
        Started(first.run_id, created=False, conflict=True),
    ] == await bench.do(first, other)
    assert await bench.find(other.run_id) is None
    await bench.take_one()
    await bench.nothing()


@behaviour()
async def test_many_start_one_key(harness: Harness[object]) -> None:
    """Of many clients that start with one key at the same time, one makes the run."""
    bench = await open_bench(harness)
    benches = [bench, await bench.another(), await bench.another()]
    starts = [bench.start(key="k", fingerprint="f") for _ in range(12)]
    answers = await asyncio.gather(
        *(benches[number % 3].do(one) for number, one in enumerate(starts))
    )
    replies = [one for (one,) in answers if isinstance(one, Started)]

    assert 1 == len({one.run_id for one in replies})
    assert 1 == len([one for one in replies if one.created])
    await bench.take_one()
    await bench.nothing()


@behaviour(rules=_AT_ONCE)
async def test_key_outlives_its_run(harness: Harness[object]) -> None:
    """A start that is repeated late, after its run was deleted, starts nothing twice."""
    bench = await open_bench(harness)
    first = bench.start(key="k", fingerprint="f")
    await bench.do(first)
    await bench.commit(await bench.take_one())

    assert await bench.find(first.run_id) is None
    again, other = bench.start(key="k", fingerprint="f"), bench.start(key="k", fingerprint="g")
    assert [
        Started(first.run_id, created=False),
        Started(first.run_id, created=False),
        Started(first.run_id, created=False, conflict=True),
    ] == await bench.do(again, first, other)
    await bench.nothing()


@behaviour(rules=_AT_ONCE)
async def test_key_is_free_after_its_grace(harness: Harness[object]) -> None:
    """An hour after its run was deleted a key may start another, with ids of its own."""
    if not harness.virtual:
        pytest.skip("an hour passes only on a clock that can be moved")
    bench = await open_bench(harness)
    first = bench.start(key="k", fingerprint="f")
    await bench.do(first)
    await bench.commit(await bench.take_one())
    await bench.elapse(3_599_000)

    assert [Started(first.run_id, created=False)] == await bench.do(
        bench.start(key="k", fingerprint="f")
    )
    await bench.elapse(3_601_000)
    again = bench.start(key="k", fingerprint="g")
    assert [Started(again.run_id, created=True)] == await bench.do(again)
    grant = await bench.take_one()
    assert (again.run_id, again.call.call_id) == (grant.run_id, grant.call_id)
    await bench.commit(grant)


_OTHER = new_run_id()


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(_OTHER, id="run-id"),
        pytest.param(root_call_id(_OTHER, "work.task"), id="call-id"),
        pytest.param(derive_call_id(_OTHER, "publish", "work.task", 0), id="derived-id"),
        pytest.param("x" * 1000, id="long"),
        pytest.param("größe 日本語 🎉", id="unicode"),
        pytest.param("'\"\\;--\n\r\t\0\x7f", id="quotes-and-controls"),
        pytest.param("*?[a-z]{x}:%41", id="wildcards"),
        pytest.param("return redis.call('FLUSHALL')", id="code"),
        pytest.param(" ", id="space"),
    ],
)
@behaviour()
async def test_key_may_be_any_text(harness: Harness[object], key: str) -> None:
    """A key is data, and never mixed up with an id: not even if it looks like one."""
    bench = await open_bench(harness)
    first, other = (
        bench.start(key=key, fingerprint="f"),
        bench.start(key=f"{key}x", fingerprint="f"),
    )
    plain = start()

    assert [
        Started(first.run_id, created=True),
        Started(other.run_id, created=True),
        Started(plain.run_id, created=True),
        Started(first.run_id, created=False),
    ] == await bench.do(first, other, plain, bench.start(key=key, fingerprint="f"))
    for grant in await bench.take(3):
        await bench.commit(grant)
    assert Status.FINISHED is await bench.status(first.run_id)


@behaviour()
async def test_key_that_is_the_id_of_a_run(harness: Harness[object]) -> None:
    """A key that equals the id of a run or a call that exists touches neither."""
    bench = await open_bench(harness)
    one = start(call(body=b"\x91\x01"))
    two = bench.start(call(body=b"\x91\x02"), key=one.run_id, fingerprint="f")
    three = bench.start(call(body=b"\x91\x03"), key=one.call.call_id, fingerprint="f")
    await bench.do(one, two, three)
    grants = {grant.run_id: grant for grant in await bench.take(3)}

    assert [one.run_id, two.run_id, three.run_id] == [
        run_id for run_id in (one.run_id, two.run_id, three.run_id) if run_id in grants
    ]
    await bench.commit(grants[one.run_id], result=b"\x01")
    assert (await bench.outcome(two.run_id)).result is None
    assert b"\x01" == (await bench.outcome(one.run_id)).result
