"""How long to go on asking a server that does not answer."""

from __future__ import annotations

import logging
import random
import time

__all__ = ["Patience"]

_FIRST = 0.05  # seconds: a restarted Redis is back in about 0.1
_LONGEST = 1.0
_QUIET = 2.0


class Patience:
    """Exponential pauses with full jitter, until *budget* seconds are over.

    Args:
        budget: Seconds from the first failure; None for no end.
    """

    def __init__(self, budget: float | None = 5.0) -> None:
        self._budget = budget
        self._deadline: float | None = None
        self._bound = _FIRST
        self._quiet_until = 0.0

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
