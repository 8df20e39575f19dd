"""The handlers: two services that run the nodes of `shapes.py`, and tell the diary of every attempt.

Both services have the same tasks, so that any node can live in either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

from tests.chaos.diary import Diary, What, own_diary
from tests.chaos.shapes import NOWHERE, Kind, Node, task_of

from pwf import Context, Event, Next, Retry, Service, emit, gather, join, publish, result

__all__ = ["ANSWER", "alpha", "beta", "run_node"]

alpha = Service("alpha")
beta = Service("beta")

ANSWER = Event("answer", int, external=True)

SOON = timedelta(milliseconds=20)
OVERDUE = timedelta(milliseconds=300)
FLAKY = Retry(attempts=5, base=SOON)
DOOMED = Retry(attempts=2, base=SOON)


class NotThisTimeError(Exception):
    """What a handler raises that is to fail."""


def on_both(retry: Retry = FLAKY) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a handler with both services."""

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        for service in (alpha, beta):
            service.task(retry=retry)(fn)
        return fn

    return register


@cache
def diary() -> Diary:
    """Return this process's diary."""
    return own_diary()


@contextmanager
def telling(ctx: Context, task: str, path: str) -> Iterator[None]:
    """Tell the diary of an attempt."""
    facts: dict[str, Any] = {
        "run": ctx.run_id,
        "call": ctx.call_id,
        "attempt": ctx.attempt,
        "task": task,
        "path": path,
    }
    diary().write(What.BEGAN, **facts)
    try:
        yield
    except BaseException:
        diary().write(What.RAISED, **facts)
        raise
    diary().write(What.DONE, **facts)


def run_node(node: Node) -> Any:
    """Return the directive that runs *node*."""
    call = publish(f"{node.service}.{task_of(node)}", node)
    return call.after(timedelta(milliseconds=node.delay_ms)) if node.delay_ms else call


def hand_over(value: int, to: str) -> Next:
    """Return the directive that gives *value* to whoever waits for it."""
    if to == NOWHERE:
        return None
    return emit(to, value) if to else result(value)


@on_both()
async def step(ctx: Context, node: Node) -> Next:
    """Run a node."""
    with telling(ctx, "step", node.path):
        if node.work_ms:
            await asyncio.sleep(node.work_ms / 1000)
        if ctx.attempt <= node.fails:
            raise NotThisTimeError
        return decide(node)


@on_both()
def work(ctx: Context, node: Node) -> Next:
    """Run a leaf in a thread."""
    with telling(ctx, "work", node.path):
        if node.work_ms:
            time.sleep(node.work_ms / 1000)
        if ctx.attempt <= node.fails:
            raise NotThisTimeError
        return hand_over(node.value, node.to)


@on_both(DOOMED)
async def doom(ctx: Context, node: Node) -> Next:
    """Fail, always."""
    with telling(ctx, "doom", node.path):
        if node.work_ms:
            await asyncio.sleep(node.work_ms / 1000)
        raise NotThisTimeError


@on_both()
async def total(ctx: Context, path: str, to: str, value: int) -> Next:
    """Sum up the results of a gather; members that failed have none."""
    with telling(ctx, "total", path):
        return hand_over(value + sum(one or 0 for one in ctx.results), to)


@on_both()
async def joined(ctx: Context, path: str, to: str, value: int) -> Next:
    """Sum up the events of a join."""
    with telling(ctx, "joined", path):
        return hand_over(value + sum(ctx.events[name] for name in ctx.events), to)


@on_both()
async def register(ctx: Context, node: Node) -> Next:
    """Register the join of a node whose events are on their way already."""
    with telling(ctx, "register", node.path):
        return join_of(node)


def decide(node: Node) -> Next:
    """Return what follows from a node that has done its work."""
    then = (node.path, node.to, node.value)
    children = [run_node(child) for child in node.children]
    match node.kind:
        case Kind.CHAIN | Kind.FORK:
            return children
        case Kind.GATHER:
            return gather(children, then=publish(f"{node.service}.total", *then))
        case Kind.COLLECT:
            last = publish(f"{node.service}.total", *then)
            return gather(children, then=last, on_failure="collect")
        case Kind.JOIN:
            return [*children, join_of(node)]
        case Kind.LATE:
            return [*children, publish(f"{node.service}.register", node).after(OVERDUE)]
        case Kind.OVERDUE:
            never = publish(f"{node.service}.doom", node)
            event = f"never {node.path}"
            return join(event, then=never, timeout=OVERDUE, on_timeout=children[0])
        case Kind.ASK:
            return join(ANSWER, then=publish(f"{node.service}.joined", node.path, node.to, 0))
        case _:
            return hand_over(node.value, node.to)


def join_of(node: Node) -> Any:
    """Return the join on the sums of a node's children."""
    then = publish(f"{node.service}.joined", node.path, node.to, node.value)
    return join(*[child.to for child in node.children], then=then)
