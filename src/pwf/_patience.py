"""How long to go on asking a server that does not answer."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pwf_core.errors import StoreClosedError, StoreFullError, UnavailableError

__all__ = ["Patience", "patiently", "patiently_blocking"]

T = TypeVar("T")

_BUDGET = 5.0  # seconds: a server that was restarted is back by then
_FIRST = 0.05  # seconds: a restarted Redis is back in about 0.1
_LONGEST = 1.0
_QUIET = 2.0


class Patience:
    """Exponential pauses with full jitter, until *budget* seconds are over.

    Args:
        budget: Seconds from the first failure; None for no end.
    """

    def __init__(self, budget: float | None = _BUDGET) -> None:
        self._budget = budget
        self._deadline: float | None = None
        self._bound = _FIRST
        self._quiet_until = 0.0

    def forget(self) -> None:
        """Begin anew, after an answer; what was said lately is still not said again."""
        self._deadline, self._bound = None, _FIRST

    def next_pause(self) -> float | None:
        """Return how long to wait before the next try, in seconds; None to give up."""
        now = time.monotonic()
        if self._budget is not None:
            if self._deadline is None:
                self._deadline = now + self._budget
            if now >= self._deadline:
                return None
        pause = random.uniform(_FIRST / 2, self._bound)  # noqa: S311 -- spreads retries, no secret
        self._bound = min(self._bound * 2, _LONGEST)
        return pause

    def report(self, logger: logging.Logger, error: Exception) -> None:
        """Log *error*, at most once in `_QUIET` seconds: an outage must not fill the disk."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            logger.warning("%s Trying again.", error)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Return what *ask* does, asked again while the backend cannot be reached.

    Raises:
        StoreFullError: At once; so are errors of a connection that has been closed.
        UnavailableError: If that goes on for five seconds.
    """
    patience: Patience | None = None
    while True:
        try:
            return await ask()
        except (StoreFullError, StoreClosedError):
            raise
        except UnavailableError:
            patience = patience or Patience()
            pause = patience.next_pause()
            if pause is None:
                raise
            await asyncio.sleep(pause)


def patiently_blocking(ask: Callable[[], T]) -> T:
    """Blocking twin of `patiently`."""
    patience: Patience | None = None
    while True:
        try:
            return ask()
        except (StoreFullError, StoreClosedError):
            raise
        except UnavailableError:
            patience = patience or Patience()
            pause = patience.next_pause()
            if pause is None:
                raise
            time.sleep(pause)
