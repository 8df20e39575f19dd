"""Calling handlers: what kind they are, and what a sync one comes to."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
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
    if inspect.isasyncgen(returned):
        return [directive async for directive in returned]
    return await returned if inspect.isawaitable(returned) else returned


def call_anywhere(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
    """Call a handler of any kind, from a thread without an event loop."""
    returned = call_sync(fn, args, kwargs)
    if inspect.isasyncgen(returned) or inspect.isawaitable(returned):
        return asyncio.run(gather_returned(returned))
    return returned
