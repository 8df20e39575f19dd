"""Waiting for what must come, with one generous limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pwf_core.testing.harness import PATIENCE

__all__ = ["eventually"]

_PAUSE = 0.02  # seconds between two looks at something that nobody notifies of


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(_PAUSE)
