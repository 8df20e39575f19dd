"""Whether a worker does its work: to be alive is not enough."""

from __future__ import annotations

import math
import time

import attrs

from pwf._options import IDLE_RECHECK

__all__ = ["Health", "Pulse"]

# A worker asks for calls every second at least; a lost connection is rebuilt within one or two.
_OVERDUE = 10 * IDLE_RECHECK


@attrs.frozen
class Health:
    """How a worker stands.

    Attributes:
        is_serving: Whether it takes calls: it has begun, is not leaving, and the backend has
            answered, without a problem, within the last ten seconds.
        silence: Seconds since the backend last answered and all of it worked; infinite before
            it first did.
        running: How many calls it runs.
        problem: What does not work, such as a broker that is away; "" if all did when the
            backend was last asked.
    """

    is_serving: bool
    silence: float
    running: int
    problem: str


class Pulse:
    """Notes what the backend answers; may be read from any thread."""

    def __init__(self) -> None:
        self._answered = -math.inf
        self._problem = ""

    def answered(self, problem: str = "") -> None:
        """Note an answer, and what does not work although there was one."""
        if not problem:
            self._answered = time.monotonic()
        self._problem = problem

    def failed(self, error: Exception) -> None:
        """Note that there was none."""
        self._problem = str(error)

    def health(self, *, running: int, leaving: bool) -> Health:
        """Return how things stand."""
        silence = time.monotonic() - self._answered
        return Health(silence < _OVERDUE and not leaving, silence, running, self._problem)
