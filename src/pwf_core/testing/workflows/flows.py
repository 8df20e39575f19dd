"""Flows: publish, join, gather, delays and results, from start to end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from pwf_core.context import Context
from pwf_core.directives import Directive, Next, emit, gather, join, publish, result
from pwf_core.errors import CodecError, RunStalledError
from pwf_core.events import Event
from pwf_core.service import Service
from pwf_core.testing.harness import PATIENCE, WorkflowHarness, behaviour
from pwf_core.testing.workflows._waiting import eventually
from pwf_core.views import Status


class Person(msgspec.Struct):
    """Something with parts, to travel."""

    name: str
    age: int


@behaviour()
async def test_one_task(harness: WorkflowHarness[Any]) -> None:
    """A started call runs, and its result is the run's."""
    work = Service("work")

    @work.task
    async def double(number: int) -> Next:
        return result(2 * number)

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(double, 21))

        assert 42 == await run.result(int, timeout=PATIENCE)
        assert Status.FINISHED is await run.status()
        assert 42 == await run.result(timeout=PATIENCE)  # any number of times


@behaviour()
async def test_handlers_of_every_kind(harness: WorkflowHarness[Any]) -> None:
    """Sync, async and yielding handlers do the same."""
    work = Service("work")

    @work.task
    def plain(done: list[str]) -> Next:
        return publish(coroutine, [*done, "plain"])

    @work.task
    async def coroutine(done: list[str]) -> Next:
        await asyncio.sleep(0)
        return [publish(generator, [*done, "coroutine"])]

    @work.task
    def generator(done: list[str]) -> Iterator[Directive]:
        yield publish(async_generator, [*done, "generator"])

    @work.task
    async def async_generator(ctx: Context, done: list[str]) -> AsyncIterator[Directive]:
        assert ctx.attempt == 1
        yield result([*done, "async generator"])

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(plain, []))

        expected = ["plain", "coroutine", "generator", "async generator"]
        assert expected == await run.result(list[str], timeout=PATIENCE)


@behaviour()
async def test_values_are_typed(harness: WorkflowHarness[Any]) -> None:
    """Arguments, payloads and results arrive as what they are declared to be."""
    work = Service("work")
    aged = Event("aged", Person)

    @work.task
    async def age(person: Person, *, years: int = 1) -> Next:
        older = Person(person.name, person.age + years)
        return emit(aged, older), join(aged, then=publish(tell))

    @work.task
    async def tell(ctx: Context) -> Next:
        return result(ctx.events[aged])

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(age, Person("größe 🎉", 41), years=1))

        assert Person("größe 🎉", 42) == await run.result(Person, timeout=PATIENCE)
        assert {"name": "größe 🎉", "age": 42} == await run.result(timeout=PATIENCE)
        with pytest.raises(CodecError, match=run.id):
            await run.result(int, timeout=PATIENCE)


@behaviour()
async def test_result_is_none_without_one(harness: WorkflowHarness[Any]) -> None:
    """A run that gave no result has None, as has one that gave None."""
    work = Service("work")

    @work.task
    async def nothing() -> None:
        return

    @work.task
    async def none() -> Next:
        return result(None)

    client = await harness.client()
    async with harness.worker(client, work):
        runs = await client.start_many([publish(nothing), publish(none)])

        assert [None, None] == [await run.result(timeout=PATIENCE) for run in runs]


@behaviour()
async def test_joins_across_services(harness: WorkflowHarness[Any]) -> None:
    """A registration: two checks and another service, addressed by name, meet in a join."""
    users, documents = Service("users"), Service("documents")
    email_verified = Event("email_verified", str)
    card_verified = Event("card_verified", str)
    document_ready = Event("document_ready", bytes)

    @users.task
    async def register(name: str) -> Next:
        return (
            publish(verify_email, f"{name}@example.org"),
            publish(verify_card, "4111"),
            publish("documents.generate", name),
            join(
                email_verified,
                card_verified,
                document_ready,
                email_verified,
                then=publish(finalize, name),
            ),
        )

    @users.task
    def verify_email(address: str) -> Next:
        return emit(email_verified, f"{address} verified")

    @users.task
    async def verify_card(card: str) -> Next:
        return emit(card_verified, f"{card} verified")

    @documents.task
    async def generate(name: str) -> Next:
        return emit(document_ready, b"\xff\0" + name.encode())

    @users.task
    async def finalize(ctx: Context, name: str) -> Next:
        events = ctx.events
        # The inferred type of the list must not be asked of its items.
        email, card, document = (
            events[email_verified],
            events[card_verified],
            events[document_ready],
        )
        return result([name, email, card, document])

    client, other = await harness.client(), await harness.client()
    async with harness.worker(client, users), harness.worker(other, documents):
        run = await client.start(publish(register, "ann"))
        name, email, card, document = await run.result(timeout=PATIENCE)

    assert ("ann", "ann@example.org verified", "4111 verified") == (name, email, card)
    assert b"\xff\0ann" == document


@behaviour()
async def test_gathers_nest(harness: WorkflowHarness[Any]) -> None:
    """Gathers in gathers hand their values outwards, in order, empty ones included."""
    work = Service("work")

    @work.task
    async def total(tree: list[Any]) -> Next:
        members = [
            publish(total, node) if isinstance(node, list) else publish(leaf, node) for node in tree
        ]
        return gather(members, then=publish(add))

    @work.task
    def leaf(number: int) -> Next:
        return result([number])

    @work.task
    async def add(ctx: Context) -> Next:
        return result([number for part in ctx.results_as(list[int]) for number in part])

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(total, [1, [2, [3], []], [[[4], 5]], [], 6]))

        assert [1, 2, 3, 4, 5, 6] == await run.result(list[int], timeout=PATIENCE)


@behaviour()
async def test_gather_waits_for_descendants(harness: WorkflowHarness[Any]) -> None:
    """A gather waits for what its members set off, joins and delays included."""
    work = Service("work")
    ready = Event("ready", int)

    @work.task
    async def begin() -> Next:
        return gather([publish(split, 3), publish(late)], then=publish(end))

    @work.task
    async def split(number: int) -> Next:
        return publish(split, number - 1) if number else (emit(ready, 7), publish(silent))

    @work.task
    async def silent() -> None:
        return

    @work.task
    async def late() -> Next:
        return join(ready, then=publish(later).after(timedelta(milliseconds=30)))

    @work.task
    async def later(ctx: Context) -> Next:
        return result(ctx.events[ready])

    @work.task
    async def end(ctx: Context) -> Next:
        return result(ctx.results)

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(begin))

        assert [None, 7] == await run.result(timeout=PATIENCE)


@behaviour()
async def test_wide_gather(harness: WorkflowHarness[Any]) -> None:
    """Hundreds of calls run, and their results come in order."""
    work = Service("work")

    @work.task
    async def begin(count: int) -> Next:
        return gather([publish(square, number) for number in range(count)], then=publish(end))

    @work.task
    async def square(number: int) -> Next:
        return result(number * number)

    @work.task
    async def end(ctx: Context) -> Next:
        return result(ctx.results)

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(begin, 300))

        assert [number * number for number in range(300)] == await run.result(timeout=PATIENCE)


@behaviour()
async def test_ping_pong(harness: WorkflowHarness[Any]) -> None:
    """Two services that know of each other by name only play a hundred rounds."""
    left, right = Service("left"), Service("right")

    @left.task
    async def ping(number: int) -> Next:
        return publish("right.pong", number + 1) if number < 100 else result(number)

    @right.task
    async def pong(number: int) -> Next:
        return publish("left.ping", number + 1)

    client, other = await harness.client(), await harness.client()
    async with harness.worker(client, left), harness.worker(other, right):
        run = await client.start(publish(ping, 0))

        assert 100 == await run.result(int, timeout=PATIENCE)


@behaviour()
async def test_delayed_calls(harness: WorkflowHarness[Any]) -> None:
    """A call runs after its delay, or at its moment, and not before."""
    work = Service("work")

    @work.task
    async def begin() -> Next:
        now = datetime.now(UTC)
        return gather(
            [
                publish(tell).after(timedelta(milliseconds=200)),
                publish(tell).at(now + timedelta(milliseconds=200)),
                publish(tell).at(now - timedelta(days=1)),
                publish(tell).after(timedelta(0)),
            ],
            then=publish(end, time.time()),
        )

    @work.task
    async def tell() -> Next:
        return result(time.time())

    @work.task
    async def end(ctx: Context, began: float) -> Next:
        return result([moment - began for moment in ctx.results_as(float)])

    client = await harness.client()
    async with harness.worker(client, work, concurrency=1):  # one call after the other
        run = await client.start(publish(begin))
        after, at, past, none = await run.result(list[float], timeout=PATIENCE)

    # By the server's clock, which on this machine is ours but for its resolution.
    assert after > 0.18
    assert at > 0.18
    assert max(past, none) < min(after, at)


@behaviour()
async def test_delayed_start(harness: WorkflowHarness[Any]) -> None:
    """A run's first call may wait, too."""
    work = Service("work")

    @work.task
    async def tell() -> Next:
        return result(time.monotonic())

    client = await harness.client()
    async with harness.worker(client, work):
        began = time.monotonic()
        run = await client.start(publish(tell).after(timedelta(milliseconds=150)))

        assert await run.result(float, timeout=PATIENCE) - began > 0.13


@behaviour()
async def test_event_from_outside(harness: WorkflowHarness[Any]) -> None:
    """A run waits for an event from outside, and goes on with its first payload."""
    work = Service("work")
    approved = Event("approved", bool, external=True)

    @work.task
    async def ask() -> Next:
        return join(approved, then=publish(end))

    @work.task
    async def end(ctx: Context) -> Next:
        return result(ctx.events[approved])

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(ask))

        async def waits() -> bool:
            return bool(await run.status() is Status.WAITING)

        await eventually(waits)
        assert await client.emit(run.id, approved, True)
        assert await client.emit(run.id, approved, False) is False
        assert await run.result(bool, timeout=PATIENCE) is True
        assert await client.emit(run.id, approved, False) is False


@behaviour()
async def test_event_from_outside_comes_early(harness: WorkflowHarness[Any]) -> None:
    """An event may be emitted before the join that waits for it is registered."""
    work = Service("work")
    approved = Event("approved", int, external=True)

    @work.task
    async def ask() -> Next:
        return join(approved, then=publish(end))

    @work.task
    async def end(ctx: Context) -> Next:
        return result(ctx.events[approved])

    client = await harness.client()
    run = await client.start(publish(ask))

    assert await client.emit(run.id, approved, 7)
    async with harness.worker(client, work):
        assert 7 == await run.result(int, timeout=PATIENCE)


@behaviour()
async def test_stalled_run_says_why(harness: WorkflowHarness[Any]) -> None:
    """A join that can never fire is told at once, with what is missing; an emit goes on."""
    work = Service("work")

    @work.task
    async def begin() -> Next:
        return join("never", then=publish(end)), publish(forgetful)

    @work.task
    async def forgetful() -> Next:
        return emit("something else")

    @work.task
    async def end(ctx: Context) -> Next:
        return result(ctx.events["never"])

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(begin))
        with pytest.raises(RunStalledError) as caught:
            await run.result(timeout=PATIENCE)

        assert "'never'" in str(caught.value)
        assert "work.forgetful" in str(caught.value)
        assert Status.STALLED is await run.wait(timeout=PATIENCE)
        assert await client.emit(run.id, "never", 7)
        assert 7 == await run.result(int, timeout=PATIENCE)


@behaviour()
async def test_one_emitter_twice_and_two_once(harness: WorkflowHarness[Any]) -> None:
    """An event counts once, whoever emits it how often; a join on it twice is a join on it."""
    work = Service("work")

    @work.task
    async def begin() -> Next:
        return (
            join("a", "b", "a", then=publish(end)),
            emit("a", 1),
            emit("a", 2),
            publish(again),
        )

    @work.task
    async def again() -> Next:
        return emit("a", 3), publish(last)

    @work.task
    async def last() -> Next:
        return emit("b", 4)

    @work.task
    async def end(ctx: Context) -> Next:
        return result([ctx.events["a"], ctx.events["b"], len(ctx.events)])

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(begin))

        assert [1, 4, 2] == await run.result(timeout=PATIENCE)


@behaviour()
async def test_gather_wider_than_one_step(harness: WorkflowHarness[Any]) -> None:
    """A thousand members and the results of all of them, in order; with another gather inside."""
    work = Service("work")

    @work.task
    async def fan(size: int) -> Next:
        return gather([publish(leaf, number) for number in range(size)], then=publish(total))

    @work.task
    async def leaf(number: int) -> Next:
        if number == 500:
            return gather([publish(leaf, 7), publish(leaf, 8)], then=publish(total))
        return result(number)

    @work.task
    async def total(ctx: Context) -> Next:
        return result([len(ctx.results), *ctx.results][:600])

    client = await harness.client()
    async with harness.worker(client, work):
        run = await client.start(publish(fan, 1000))
        found = await run.result(timeout=PATIENCE)

    assert [1000, *range(500), [2, 7, 8], *range(501, 599)] == found
