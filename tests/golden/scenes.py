"""Runs in every state that a store can hold: how each gets there, and how it ends after a deploy.

A scene is a service of its own, so that writing one moves no other. The handlers stand for the code
of users, which a deploy may leave as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import attrs

from pwf import (
    Context,
    Event,
    Next,
    Retry,
    Service,
    Status,
    emit,
    gather,
    join,
    publish,
    result,
    tolerate,
)
from pwf_core.directives import Publish

__all__ = ["BROKEN", "SCENES", "Scene"]

BROKEN: set[str] = set()
"""Addresses whose handlers fail, while files are written."""

LARGE = "x" * 1000
"""More than a call's record holds in itself."""

FOR_EVER = timedelta(days=365 * 90)

approved = Event("approved", int, external=True)
checked = Event("checked", str)
forgotten = Event("forgotten", int)


@attrs.frozen(kw_only=True)
class Scene:
    """One run.

    Attributes:
        service: What it runs on; its name is the scene's.
        first: What it is started with.
        rounds: How many calls have been taken, one after the other.
        hold: Whether the last one taken is still leased.
        lose: Whether its lease has ended since.
        unknown: Whether no worker knew its tasks.
        unsent: Whether its first message has not reached the broker.
        parts: Whether decisions go in parts, of one call each.
        over: Whether its retention is over.
        act: What has been done to it at last, given the client and the run.
        events: What has to be emitted for it to end.
        requeue: Whether its dead letter has to be requeued for it to end.
        status: How it ends; None if nothing of it is left then.
        value: Its result then.
    """

    service: Service
    first: Publish
    rounds: int = 0
    hold: bool = False
    lose: bool = False
    unknown: bool = False
    unsent: bool = False
    parts: bool = False
    over: bool = False
    act: Callable[[Any, Any], object] | None = None
    events: Sequence[tuple[str, object]] = ()
    requeue: bool = False
    status: Status | None = Status.FINISHED
    value: object = None


def _simple(name: str, **options: Any) -> Scene:
    """Return a scene of two calls, one after the other."""
    service = Service(name)

    @service.task
    def first(number: int, text: str) -> Next:
        return publish(last, number + 1, text)

    @service.task
    def last(number: int, text: str) -> Next:
        return result([number, len(text)])

    first_call = publish(first, 1, "one").after(options.pop("delay", timedelta(0)))
    return Scene(service=service, first=first_call, value=[2, 3], **options)


def _large() -> Scene:
    service = Service("large")

    @service.task
    def first(text: str) -> Next:
        return (
            publish(second, text),
            join(checked, then=publish(last, text)),
            join(
                checked, then=publish(last, text), timeout=FOR_EVER, on_timeout=publish(last, text)
            ),
        )

    @service.task
    def second(text: str) -> Next:
        return emit(checked, text), publish(last, text)

    @service.task
    def last(text: str) -> Next:
        return result(text)

    return Scene(service=service, first=publish(first, LARGE), rounds=1, value=LARGE)


def _in_parts() -> Scene:
    """Return a scene of a decision whose parts are still to be made into calls."""
    service = Service("parts")

    @service.task
    def first() -> Next:
        members = [publish(leaf, number) for number in range(3)]
        return gather(members, then=publish(total)), publish(quiet)

    @service.task
    def quiet() -> Next:
        return None

    @service.task
    def leaf(number: int) -> Next:
        return result(number)

    @service.task
    def total(ctx: Context) -> Next:
        return result([*ctx.results])

    return Scene(service=service, first=publish(first), rounds=1, parts=True, value=[0, 1, 2])


def _failing(name: str, attempts: int, **options: Any) -> Scene:
    service = Service(name)

    @service.task(retry=Retry(attempts=attempts, base=timedelta(minutes=1)))
    def fragile() -> Next:
        if fragile.address in BROKEN:
            raise RuntimeError("it is broken: 😱")
        return result("mended")

    return Scene(service=service, first=publish(fragile), rounds=1, value="mended", **options)


def _joins(name: str, **options: Any) -> Scene:
    """Return a scene of joins on one event from inside and one from outside."""
    service = Service(name)

    @service.task
    def first() -> Next:
        return (
            publish(check),
            join(checked, then=publish(note)),
            join(checked, approved, then=publish(last, "approved")),
            join(checked, approved, then=publish(note)),
        )

    @service.task
    def check() -> Next:
        return emit(checked, "by a check")

    @service.task
    def note(ctx: Context) -> Next:
        return None

    @service.task
    def last(ctx: Context, word: str) -> Next:
        return result([word, ctx.events[checked], ctx.events[approved]])

    return Scene(
        service=service,
        first=publish(first),
        events=[("approved", 5)],
        value=["approved", "by a check", 5],
        **options,
    )


def _timeout(name: str, timeout: timedelta, **options: Any) -> Scene:
    service = Service(name)

    @service.task
    def first() -> Next:
        return join(
            approved,
            then=publish(last, "in time"),
            timeout=timeout,
            on_timeout=publish(last, "too late"),
        )

    @service.task
    def last(ctx: Context, word: str) -> Next:
        return result(word)

    return Scene(service=service, first=publish(first), rounds=1, **options)


def _stalled() -> Scene:
    service = Service("stalled")

    @service.task
    def first() -> Next:
        return join(forgotten, then=publish(last))

    @service.task
    def last(ctx: Context) -> Next:
        return result(ctx.events[forgotten])

    return Scene(
        service=service,
        first=publish(first),
        rounds=1,
        events=[("forgotten", 7)],
        value=7,
    )


def _gather(rounds: int) -> Scene:
    service = Service(f"gather-{rounds}")

    @service.task
    def first() -> Next:
        members = [publish(leaf, 1), publish(inner, 10), publish(leaf, 3)]
        return gather(members, then=publish(add, LARGE))

    @service.task
    def inner(base: int) -> Next:
        return gather([publish(leaf, base + n) for n in range(3)], then=publish(add, ""))

    @service.task
    def leaf(number: int) -> Next:
        return result(number)

    @service.task
    def add(ctx: Context, text: str) -> Next:
        return result(sum(ctx.results))

    return Scene(service=service, first=publish(first), rounds=rounds, value=1 + 33 + 3)


def _tolerant() -> Scene:
    service = Service("tolerant")

    @service.task
    def first() -> Next:
        members = [publish(fragile), publish(leaf), publish(leaf)]
        return gather(members, then=publish(last), on_failure=tolerate(1))

    @service.task(retry=Retry(attempts=1))
    def fragile() -> Next:
        raise RuntimeError("never")

    @service.task
    def leaf() -> Next:
        return result(1)

    @service.task
    def last(ctx: Context) -> Next:
        return result([ctx.results, list(ctx.failures)])

    return Scene(
        service=service,
        first=publish(first),
        rounds=3,
        value=[[None, 1, 1], [0]],
    )


def _discard(client: Any, run: Any) -> None:
    (letter,) = client.dead_letters("discarded")
    assert client.discard(letter)


# Scenes in which time passes stand first: it passes for all that are there by then.
SCENES: tuple[Scene, ...] = (
    _simple("lost", rounds=1, hold=True, lose=True),
    _simple("expired", rounds=2, over=True, status=None),
    _simple("queued"),
    _simple("half-way", rounds=1),
    _simple("unsent", unsent=True),
    _simple("leased", rounds=1, hold=True),
    _simple("timed", delay=timedelta(hours=1)),
    _simple("parked", rounds=1, unknown=True),
    _simple("finished", rounds=2),
    _simple(
        "cancelled",
        rounds=1,
        act=lambda _, run: run.cancel(),
        status=Status.CANCELLED,
    ),
    _failing("retried", 5),
    _failing("dead", 1, requeue=True),
    _failing("discarded", 1, act=_discard, status=Status.FAILED),
    _large(),
    _joins("joins-1", rounds=1),
    _joins("joins-2", rounds=2),
    _joins("joins-3", rounds=3),
    _timeout("patient", FOR_EVER, events=[("approved", 5)], value="in time"),
    _timeout("late", timedelta(hours=1), value="too late"),
    _stalled(),
    *(_gather(rounds) for rounds in (1, 2, 3, 5, 7)),
    _tolerant(),
    _in_parts(),  # the last: any later exchange would go on with it
)
