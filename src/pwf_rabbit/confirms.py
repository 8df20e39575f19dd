"""Which published messages of a channel still wait for their confirm. Nothing here does I/O."""

from __future__ import annotations

import asyncio

from pwf_rabbit.link import Sent

__all__ = ["Confirms"]


class Confirms:
    """Futures of what was published on one channel, by number, counted up from 1.

    A server returns an unroutable message before it confirms it.
    """

    def __init__(self) -> None:
        self._last = 0
        self._waiting: dict[int, asyncio.Future[Sent]] = {}  # in order of their numbers
        self._returned: set[int] = set()
        self._is_over = False

    def expect(self) -> tuple[int, asyncio.Future[Sent]]:
        """Return the number of the next message, and the future of what becomes of it."""
        self._last += 1
        future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        if self._is_over:
            future.set_result(Sent.UNKNOWN)
        else:
            self._waiting[self._last] = future
        return self._last, future

    def returned(self, number: int) -> None:
        """Note that the server sent a message back."""
        if number in self._waiting:
            self._returned.add(number)

    def confirmed(self, number: int, *, multiple: bool, accepted: bool) -> None:
        """Note an answer of the server; *multiple*: for all up to that number."""
        if not multiple:
            self._settle(number, accepted=accepted)
            return
        while self._waiting and (first := next(iter(self._waiting))) <= number:
            self._settle(first, accepted=accepted)

    def lost(self) -> None:
        """Note that no more answers come."""
        self._is_over = True
        for future in self._waiting.values():
            if not future.done():
                future.set_result(Sent.UNKNOWN)
        self._waiting.clear()

    def _settle(self, number: int, *, accepted: bool) -> None:
        future = self._waiting.pop(number, None)
        returned = number in self._returned
        self._returned.discard(number)
        if future is None or future.done():  # done: who published it has given up
            return
        if returned:
            future.set_result(Sent.RETURNED)
        else:
            future.set_result(Sent.CONFIRMED if accepted else Sent.REFUSED)
