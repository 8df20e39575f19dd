"""Events from outside: emitted by a client, before or after a join waits for them."""

from __future__ import annotations

from pwf_core.commands import Answer
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import call, gather, join, new_run_id
from pwf_core.views import Status


@behaviour()
async def test_run_waits_for_the_outside(harness: Harness[object]) -> None:
    """A run that only an outside event can move on is waiting, and goes on with it."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, joins=[join("a", then=call("work.then"), external=("a",))])

    assert Status.WAITING is await bench.status(root.run_id)
    assert Answer.DONE is await bench.emit(root.run_id, "a", b"\x07")
    assert Status.RUNNING is await bench.status(root.run_id)
    then = await bench.take_one("work.then")
    assert {"a": b"\x07"} == then.events
    await bench.commit(then)
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_outside_event_comes_before_the_join(harness: Harness[object]) -> None:
    """An event may come before anybody waits for it."""
    bench = await open_bench(harness)
    root = await bench.begin()

    assert Answer.DONE is await bench.emit(root.run_id, "a", b"\x07")
    await bench.commit(root, joins=[join("a", then=call("work.then"), external=("a",))])
    then = await bench.take_one("work.then")
    assert {"a": b"\x07"} == then.events


@behaviour()
async def test_outside_event_counts_once(harness: Harness[object]) -> None:
    """The second emit of an event is refused, and the first payload stands."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root,
        emits=[("b", b"\x01")],
        joins=[join("a", "c", then=call("work.then"), external=("c",))],
    )

    assert Answer.DONE is await bench.emit(root.run_id, "a", b"\x01")
    assert Answer.REFUSED is await bench.emit(root.run_id, "a", b"\x02")
    assert Answer.REFUSED is await bench.emit(root.run_id, "b", b"\x02")
    await bench.nothing()
    assert Answer.DONE is await bench.emit(root.run_id, "c", b"\x03")
    then = await bench.take_one("work.then")
    assert {"a": b"\x01", "c": b"\x03"} == then.events


@behaviour()
async def test_emit_to_a_run_that_is_over(harness: Harness[object]) -> None:
    """A run that is done takes no more events, and one that never was takes none."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, result=b"\x01")

    assert Answer.ENDED is await bench.emit(root.run_id, "a")
    assert Answer.ENDED is await bench.emit(new_run_id(), "a")
    outcome = await bench.outcome(root.run_id)
    assert (Status.FINISHED, b"\x01") == (outcome.status, outcome.result)


@behaviour()
async def test_emit_revives_a_stalled_run(harness: Harness[object]) -> None:
    """An event from outside moves a stalled run on; its reason is forgotten."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, joins=[join("a", then=call("work.then"))])

    assert Status.STALLED is await bench.status(root.run_id)
    assert Answer.DONE is await bench.emit(root.run_id, "a")
    outcome = await bench.outcome(root.run_id)
    assert (Status.RUNNING, "") == (outcome.status, outcome.reason)
    await bench.commit(await bench.take_one("work.then"))
    assert Status.FINISHED is await bench.status(root.run_id)


@behaviour()
async def test_event_that_nobody_waits_for(harness: Harness[object]) -> None:
    """An event that fires nothing is kept, and leaves a stalled run stalled."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, joins=[join("a", then=call("work.then"))])

    assert Answer.DONE is await bench.emit(root.run_id, "z")
    view = await bench.view(root.run_id)
    assert (Status.STALLED, {"z"}) == (view.outcome.status, set(view.events))


@behaviour()
async def test_waiting_becomes_stalled(harness: Harness[object]) -> None:
    """Once the outside event is there and something else is missing, the run is stalled."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, joins=[join("a", "b", then=call("work.then"), external=("a",))])

    assert Status.WAITING is await bench.status(root.run_id)
    assert Answer.DONE is await bench.emit(root.run_id, "a")
    assert Status.STALLED is await bench.status(root.run_id)
    assert Answer.DONE is await bench.emit(root.run_id, "b")
    await bench.take_one("work.then")


@behaviour()
async def test_running_goes_before_waiting(harness: Harness[object]) -> None:
    """As long as a call is going to run, the run is running, whatever it waits for beside that."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root,
        joins=[join("a", then=call("work.then"), external=("a",))],
        calls=[call("work.next")],
    )

    assert Status.RUNNING is await bench.status(root.run_id)
    await bench.commit(await bench.take_one("work.next"))
    assert Status.WAITING is await bench.status(root.run_id)


@behaviour()
async def test_outside_event_inside_a_gather(harness: Harness[object]) -> None:
    """A member may wait for the outside; its gather waits with it."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, gathers=[gather(call("work.member"), then=call("work.then"))])
    member = await bench.take_one("work.member")
    await bench.commit(member, joins=[join("a", then=call("work.joined"), external=("a",))])

    assert Status.WAITING is await bench.status(root.run_id)
    assert Answer.DONE is await bench.emit(root.run_id, "a")
    await bench.commit(await bench.take_one("work.joined"), result=b"\x01")
    assert [b"\x01"] == (await bench.take_one("work.then")).results
