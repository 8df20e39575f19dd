"""How a client waits for the end of a run; the same for both flavours, and sans-IO.

A time-out says that the run goes on, so it is only ever told after a look that has just found it so:
the last thing that is done before it. An outage is told as one. Asking takes time, too: where a
server says nothing at all, the error may come a second after the limit; a blocking call cannot be
given up half-way, and then it comes once the adapter's own patience is over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeAlias

import attrs
from msgspec import Struct

from pwf._patience import Patience
from pwf._requests import outcome_of
from pwf_core.errors import StoreClosedError, StoreUnavailableError, UnavailableError
from pwf_core.ids import RunId
from pwf_core.steps import Steps
from pwf_core.views import Outcome, RunView, Status

__all__ = ["ANSWER", "RECHECK", "Effect", "Listen", "Look", "Pause", "Wait", "wait_for_end"]

# A notification can get lost with a connection; a waiting client looks again this often, in seconds.
RECHECK = 5.0
# Seconds that an answer may take, however short the limit: 0 means "as it stands now".
ANSWER = 1.0
_OVER = {Status.FINISHED, Status.FAILED, Status.CANCELLED}


class Listen(Struct, frozen=True):
    """Watch the run; a TimeoutError after *timeout* seconds, from drivers that can give up."""

    timeout: float | None


class Look(Struct, frozen=True):
    """Read the run; a TimeoutError as with `Listen`."""

    timeout: float | None


class Wait(Struct, frozen=True):
    """Wait for what is listened for, at most *timeout* seconds."""

    timeout: float


class Pause(Struct, frozen=True):
    """Let that many seconds pass."""

    seconds: float


Effect: TypeAlias = Listen | Look | Wait | Pause


@attrs.frozen
class _Limit:
    seconds: float | None
    _clock: Callable[[], float]
    _deadline: float

    @classmethod
    def begin(cls, seconds: float | None, clock: Callable[[], float]) -> _Limit:
        return cls(seconds, clock, math.inf if seconds is None else clock() + seconds)

    @property
    def left(self) -> float:
        return max(self._deadline - self._clock(), 0)

    @property
    def answer(self) -> float | None:
        return None if self.seconds is None else max(self.left, ANSWER)


def wait_for_end(
    run_id: RunId,
    seconds: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> Steps[Effect, Outcome]:
    """Listen, look and wait until the run has ended.

    Args:
        run_id: The run.
        seconds: For how long; None for ever.
        clock: Counts seconds.

    Raises:
        TimeoutError: If it goes on.
        RunNotFoundError: If it is not known (any more).
        UnavailableError: If nobody can tell.
    """
    limit = _Limit.begin(seconds, clock)
    silence = StoreUnavailableError(
        f"Run {run_id} cannot be looked at: its store has not answered in time.",
    )
    yield from _ask(Listen, limit, silence)
    while True:
        view: RunView | None = yield from _ask(Look, limit, silence)
        outcome = outcome_of(run_id, view)
        if outcome.status.is_final:
            return outcome
        if not limit.left:
            raise TimeoutError(f"Run {run_id} has not ended within {seconds} seconds.")
        heard: Outcome | None = yield Wait(min(RECHECK, limit.left))
        if heard is not None and heard.status in _OVER:
            return heard  # with retention 0 there is nothing left to look at


def _ask(
    what: type[Listen | Look], limit: _Limit, trouble: UnavailableError
) -> Steps[Effect, RunView | None]:
    """Ask, once the server can be reached: one that restarts is back soon."""
    patience = Patience() if limit.seconds is None else Patience(budget=None)
    while True:
        try:
            view: RunView | None = yield what(limit.answer)
        except TimeoutError as error:
            raise trouble from error
        except StoreClosedError:
            raise
        except UnavailableError as error:
            trouble = error
        else:
            return view
        pause = patience.next_pause()
        if pause is None or not limit.left:
            raise trouble
        yield Pause(min(pause, limit.left))
