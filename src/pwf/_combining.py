"""Sharing round trips: what many tasks ask at the same moment goes out together.

Nobody waits for others to come. Who finds no round trip under way makes one at once; those who ask
while one is, as in `asyncio.gather(*(backend.start(...) for ...))`, share the next, which goes out in
the same turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from pwf._requests import BATCH
from pwf_core.commands import Command, Reply

__all__ = ["Combiner"]

_Asked: TypeAlias = tuple[Command, asyncio.Future[Reply]]


class Combiner:
    """Combines what the tasks of one event loop ask.

    Args:
        apply: Makes a round trip.
    """

    def __init__(self, apply: Callable[[Sequence[Command]], Awaitable[list[Reply]]]) -> None:
        self._apply = apply
        self._under_way = 0
        self._asked: list[_Asked] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, command: Command) -> Reply:
        """Apply *command* and return its reply; raises as *apply* does."""
        if not self._under_way:
            self._under_way += 1
            try:
                (reply,) = await self._apply([command])
            finally:
                self._under_way -= 1
            return reply
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._send)
        self._asked.append((command, future))
        return await future

    def _send(self) -> None:
        asked, self._asked = self._asked, []
        for first in range(0, len(asked), BATCH):
            task = asyncio.create_task(self._answer(asked[first : first + BATCH]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, asked: Sequence[_Asked]) -> None:
        self._under_way += 1
        try:
            replies = await self._apply([command for command, _ in asked])
        except Exception as error:  # noqa: BLE001 -- it is for those who asked
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), reply in zip(asked, replies, strict=True):
                if not future.done():  # else who asked has gone
                    future.set_result(reply)
        finally:
            self._under_way -= 1
