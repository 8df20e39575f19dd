"""Sans-IO: logic as a generator that yields what is to be done and is sent what came of it.

Nothing here performs anything. `drive` runs such a generator for callers whose effects are plain
calls; the asyncio twin is `drive_async`, the same with one `await`. A crash is "stop iterating".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

__all__ = ["Steps", "drive", "drive_async"]

T = TypeVar("T")
E = TypeVar("E")

Steps: TypeAlias = Generator[E, Any, T]
"""Logic that yields effects of type E and ends with a T."""


def drive(steps: Steps[E, T], perform: Callable[[E], object]) -> T:
    """Run *steps*, performing each effect; errors are thrown into the logic, which decides."""
    try:
        effect = next(steps)
        while True:
            try:
                reply = perform(effect)
            except Exception as error:  # noqa: BLE001 -- the logic decides what a failure means
                effect = steps.throw(error)
            else:
                effect = steps.send(reply)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def drive_async(steps: Steps[E, T], perform: Callable[[E], Awaitable[object]]) -> T:
    """Run *steps*, awaiting each effect."""
    try:
        effect = next(steps)
        while True:
            try:
                reply = await perform(effect)
            except Exception as error:  # noqa: BLE001 -- the logic decides what a failure means
                effect = steps.throw(error)
            else:
                effect = steps.send(reply)
    except StopIteration as stop:
        value: T = stop.value
        return value
