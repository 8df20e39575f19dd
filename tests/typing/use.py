"""Uses of the public face that mypy --strict and pyright accept, with the types that they infer.

Read by type checkers, never run; `misuse.py` holds what they must reject.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import attrs
import msgspec

from pwf import (
    BlockingClient,
    BlockingRun,
    BlockingWorker,
    Client,
    Context,
    DeadLetter,
    Directive,
    Event,
    Next,
    Publish,
    Retry,
    Run,
    Service,
    Status,
    Worker,
    connect,
    connect_blocking,
    emit,
    gather,
    join,
    publish,
    result,
    tolerate,
)

# --- values that travel: attrs classes, dataclasses, msgspec structs, builtins ---------------------


@attrs.frozen
class User:
    name: str
    email: str


@dataclass
class Card:
    number: str


class Count(msgspec.Struct, frozen=True):
    n: int


class Pool:
    """A resource."""


# --- events ----------------------------------------------------------------------------------------

verified = Event("verified", str)
charged = Event("charged", Card)
counted = Event("counted", Count)
tagged = Event("tagged", list[int])
pinged = Event("pinged")
approved = Event("approved", bool, external=True)
maybe = Event[str | None]("maybe", str | None)

assert_type(verified, Event[str])
assert_type(charged, Event[Card])
assert_type(tagged, Event[list[int]])
assert_type(pinged, Event[None])
assert_type(approved, Event[bool])
assert_type(maybe, Event[str | None])

# --- handlers: sync and async, returning and yielding, with and without a Context ------------------

users = Service("users")


@users.task
async def register(user: User) -> Next:
    return (
        publish(verify, user.email),
        publish("documents.generate", user.name, pages=3),
        join(verified, charged, pinged, "other", then=publish(finalize, user)),
    )


@users.task(retry=Retry(attempts=5, base=timedelta(seconds=1), on=(OSError, ValueError)))
def verify(address: str, loud: bool = False) -> Next:
    return emit(verified, address.upper() if loud else address)


@users.task
def finalize(ctx: Context, user: User) -> Next:
    assert_type(ctx.events[verified], str)
    assert_type(ctx.events[charged], Card)
    assert_type(ctx.events[tagged], list[int])
    assert_type(ctx.events[maybe], str | None)
    assert_type(ctx.events["by name"], Any)
    assert_type(verified in ctx.events, bool)
    assert_type(ctx.results, list[Any])
    assert_type(ctx.results_as(Count), list[Count])
    assert_type(ctx.resource(Pool), Pool)
    assert_type(ctx.effect("charge"), str)
    assert_type(ctx.attempt, int)
    return result(ctx.events[verified])


@users.task(retry=Retry())
async def charge(ctx: Context, user: User, cents: int = 1) -> Next:
    if ctx.cancelled:
        return None
    return [publish(verify, user.email).after(timedelta(hours=1)), emit(charged, Card("4242"))]


@users.task(name="count-down", timeout=timedelta(minutes=5))
def count(n: int) -> Iterator[Directive]:
    for _ in range(n):
        yield publish(verify, "ann@example.org")
    yield gather([publish(count, n)], then=publish(charge, ANN), on_failure=tolerate(0.1))
    yield join(
        "other",
        then=publish(charge, ANN),
        timeout=timedelta(days=1),
        on_timeout=publish(count, 3),
    )
    yield gather([publish(count, n - 1), publish(count, n=2)], then=publish(charge, ANN))


@users.task
async def stream(ctx: Context, n: int) -> AsyncIterator[Directive]:
    yield publish(stream, n - 1)
    yield emit(pinged)


@users.task
async def nothing(n: int) -> None: ...


@users.task
def anything(value: Any) -> Next:
    return result(value)


@users.task
def something(value: object, n: int) -> Next:
    return result(n)


@users.task()
def no_arguments() -> Publish:
    return publish(nothing, 1)


ANN = User("Ann", "ann@example.org")

# --- tasks of another code base --------------------------------------------------------------------

documents = Service("documents")


@documents.declare
def generate(name: str, *, pages: int = 1) -> None: ...


# --- publish takes the handler's own parameters, without the Context -------------------------------

assert_type(publish(register, ANN), Publish)
assert_type(publish(finalize, user=ANN), Publish)
assert_type(publish(verify, "x", loud=True), Publish)
assert_type(publish(charge, ANN, 2), Publish)
assert_type(publish(count, 3), Publish)
assert_type(publish(stream, 3), Publish)
assert_type(publish(anything, 3), Publish)
assert_type(publish(something, "x", 3), Publish)
assert_type(publish(no_arguments), Publish)
assert_type(publish(generate, "x", pages=2), Publish)
assert_type(publish("documents.generate", "x", 2), Publish)
assert_type(publish(verify, "x").after(timedelta(hours=1)), Publish)
assert_type(publish(verify, "x").at(datetime.now(UTC)), Publish)

# --- a task is still its handler -------------------------------------------------------------------


async def unit_tests(ctx: Context) -> None:
    assert_type(verify("x"), Next)
    assert_type(finalize(ctx, ANN), Next)
    assert_type(await register(ANN), Next)
    assert_type(await nothing(1), None)
    assert_type(list(count(1)), list[Directive])
    assert_type([directive async for directive in stream(ctx, 1)], list[Directive])
    assert_type(no_arguments(), Publish)
    assert_type(verify.address, str)
    assert_type(
        Context.for_test(events={verified: "x", "other": 1}, results=[Count(1)], attempt=2), Context
    )


# --- the client, the worker, and the blocking twin -------------------------------------------------


async def clients() -> None:
    async with (
        connect("memory://", retention=timedelta(hours=1)) as backend,
        Worker(backend, users, documents, concurrency=8, resources=[make_pool]) as worker,
    ):
        assert_type(backend, Client)
        assert_type(worker, Worker)
        run = await backend.start(publish(register, ANN).after(timedelta(1)), key="k")
        assert_type(run, Run)
        assert_type(await run.status(), Status)
        assert_type(await run.wait(timeout=timedelta(seconds=3)), Status)
        assert_type(await run.cancel(reason="enough"), bool)
        assert_type(await run.result(Count, timeout=3), Count)
        assert_type(await run.result(list[Count]), list[Count])
        assert_type(await run.result(timeout=30), Any)
        assert_type(await backend.start_many([publish(count, 1)], keys=["k"]), list[Run])
        assert_type(await backend.emit(run.id, approved, True), bool)
        assert_type(await backend.emit(run.id, pinged), bool)
        assert_type(await backend.emit("id", "by name", {"a": 1}), bool)
        assert_type(await backend.purge("users"), int)
        letters = await backend.dead_letters("users", limit=10)
        assert_type(letters, list[DeadLetter])
        assert_type(await backend.requeue(letters[0]), bool)


def blocking_clients() -> None:
    with (
        connect_blocking("memory://") as backend,
        BlockingWorker(backend, users, threads=4) as worker,
    ):
        assert_type(backend, BlockingClient)
        assert_type(worker, BlockingWorker)
        run = backend.start(publish(register, ANN), key="k")
        assert_type(run, BlockingRun)
        assert_type(run.status(), Status)
        assert_type(run.result(Count, timeout=3), Count)
        assert_type(run.result(), Any)
        assert_type(backend.emit(run.id, approved, True), bool)


def make_pool() -> AbstractContextManager[Pool] | AbstractAsyncContextManager[Pool]:
    raise NotImplementedError
