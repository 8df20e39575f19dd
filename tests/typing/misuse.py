"""Misuses of the public face: mypy --strict and pyright reject every marked line, and no other.

Read by type checkers, never run. The mark is `# type: ignore`, which both heed: a checker that
accepts a marked line reports the mark as unnecessary. It carries no error code, because codes differ
between the two, and between releases of either.
"""

# mypy: warn-unused-ignores, disable-error-code=ignore-without-code
# pyright: reportUnnecessaryTypeIgnoreComment=true
# ruff: noqa: PGH003

from __future__ import annotations

from collections.abc import Iterator

import attrs

import pwf
from pwf import (
    BlockingWorker,
    Client,
    Context,
    Directive,
    Event,
    Next,
    Retry,
    Service,
    Worker,
    connect_blocking,
    emit,
    gather,
    join,
    publish,
    result,
)


@attrs.frozen
class User:
    name: str


ANN = User("Ann")
users = Service("users")
verified = Event("verified", str)
charged = Event("charged", User)
pinged = Event("pinged")


@users.task
def register(user: User) -> Next:
    return None


@users.task(retry=Retry(attempts=2))
def verify(address: str, loud: bool = False) -> Next:
    return None


@users.task
async def finalize(ctx: Context, user: User) -> Next:
    return None


@users.task
def count(ctx: Context, n: int) -> Iterator[Directive]:
    yield emit(pinged)


@users.declare
def generate(name: str, *, pages: int = 1) -> None: ...


# --- names -----------------------------------------------------------------------------------------

pwf.Wroker  # type: ignore
pwf.client_of  # type: ignore

# --- arguments of publish --------------------------------------------------------------------------

publish(verify, 1)  # type: ignore
publish(verify)  # type: ignore
publish(verify, "x", "y")  # type: ignore
publish(verify, "x", quiet=True)  # type: ignore
publish(verify, "x", False, 3)  # type: ignore
publish(register, "Ann")  # type: ignore
publish(finalize, 3)  # type: ignore
publish(finalize)  # type: ignore
publish(finalize, Context.for_test(), ANN)  # type: ignore
publish(count, "x")  # type: ignore
publish(generate)  # type: ignore
publish(generate, "x", 2)  # type: ignore
publish(register, ANN, delay=3)  # type: ignore
publish(register, ANN).after(3600)  # type: ignore
publish(register, ANN).at("tomorrow")  # type: ignore
publish(len, "x")  # type: ignore

# --- the other directives --------------------------------------------------------------------------

emit(verified, 3)  # type: ignore
emit(verified)  # type: ignore
emit(charged, "x")  # type: ignore
emit(pinged, 3)  # type: ignore
join(verified, then=verify)  # type: ignore
join(verified)  # type: ignore
join(3, then=publish(register, ANN))  # type: ignore
gather([verified], then=publish(register, ANN))  # type: ignore
gather(publish(register, ANN), then=publish(register, ANN))  # type: ignore
gather([publish(register, ANN)])  # type: ignore
gather([], then=publish(register, ANN), on_failure="ignore")  # type: ignore
join(verified, then=publish(register, ANN), timeout=3)  # type: ignore
result()  # type: ignore

# --- what a handler returns ------------------------------------------------------------------------


@users.task  # type: ignore
def returns_a_value(n: int) -> int:
    return n


@users.task(retry=None)  # type: ignore
async def returns_text(n: int) -> str:
    return ""


@users.task  # type: ignore
def yields_values(n: int) -> Iterator[int]:
    yield n


@users.task
def returns_a_task(n: int) -> Next:
    return verify  # type: ignore


@users.task
def forgets_emit(n: int) -> Next:
    return verified  # type: ignore


@users.task(retries=3)  # type: ignore
def unknown_option(n: int) -> Next:
    return None


# --- a task is called as its handler is ------------------------------------------------------------

verify(1)  # type: ignore
finalize(ANN)  # type: ignore
count(3)  # type: ignore

# --- contexts, clients and workers -----------------------------------------------------------------


@users.task
def reads_events(ctx: Context) -> Next:
    number: int = ctx.events[verified]  # type: ignore
    numbers: list[int] = ctx.results_as(str)  # type: ignore
    return result([number, numbers])


Retry(attempts="3")  # type: ignore
Retry(5)  # type: ignore
Service("users").task(timeout=30)(print)  # type: ignore


async def clients(backend: Client) -> None:
    await backend.start(register, ANN)  # type: ignore
    await backend.start(publish(register, ANN), "key")  # type: ignore
    run = await backend.start(publish(register, ANN), key="k")
    number: int = await run.result(str)  # type: ignore
    await backend.emit(run.id, verified, 3)  # type: ignore
    await backend.emit(run.id, verified)  # type: ignore
    Worker(backend, users, lease=5)  # type: ignore
    Worker(backend, "users")  # type: ignore
    Worker(connect_blocking("memory://"), users)  # type: ignore
    BlockingWorker(backend, users)  # type: ignore
    run.id = number  # type: ignore
