"""Calling handlers: what kind they are, and what a sync one comes to."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from types import CoroutineType
from typing import Any

__all__ = ["call_anywhere", "call_sync", "gather_returned", "is_async"]


@lru_cache(maxsize=4096)
def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling *fn* gives something to await, without running any of it."""
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def call_sync(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
    """Call a sync handler and return what it returned, or all that it yielded."""
    try:
        returned = fn(*args, **kwargs)
        return list(returned) if inspect.isgenerator(returned) else returned
    except StopIteration as error:  # no future can carry it; Python does the same for coroutines
        raise RuntimeError("the handler raised StopIteration") from error


async def gather_returned(returned: Any) -> object:
    """Await what an async handler gave, and return what it returned or all that it yielded."""
    if type(returned) is CoroutineType:  # mostly; the checks below take longer than many a handler
        return await returned
    if inspect.isasyncgen(returned):
        return [directive async for directive in returned]
    return await returned if inspect.isawaitable(returned) else returned


def call_anywhere(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    can_be_stopped: Callable[[Callable[[], None]], None],
) -> object:
    """Call a handler of any kind, from a thread without an event loop.

    If it is an async one, *can_be_stopped* is given what cancels it, from any thread.
    """
    returned = call_sync(fn, args, kwargs)
    if not (inspect.isasyncgen(returned) or inspect.isawaitable(returned)):
        return returned

    async def main() -> object:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop() -> None:
            with suppress(RuntimeError):  # the loop is closed: it has ended by itself
                loop.call_soon_threadsafe(task.cancel)

        can_be_stopped(stop)
        return await gather_returned(returned)

    return asyncio.run(main())
