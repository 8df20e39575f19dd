"""What a worker has under way: calls that it runs, and round trips that it makes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from pwf_core.commands import Command, Granted
from pwf_core.context import Context
from pwf_core.ports import Take
from pwf_core.protocol import Effect, Invoke, Outcome
from pwf_core.steps import Steps

__all__ = ["Exchange", "RunningCall"]


@attrs.define(eq=False)
class RunningCall:
    """A granted call on its way through the protocol.

    Attributes:
        grant: What was granted.
        steps: Its protocol.
        invoke: What to run; None once that does not matter any more: the handler is through, or
            its call was handed back, or lost with its lease.
        keep_until: From then on, by the loop's clock, its lease is not renewed any more: the loop
            should have ended it long ago, and cannot, because something holds it up.
        concluded: Whether nothing but the answer to its conclusion is missing.
    """

    grant: Granted
    steps: Steps[Effect, tuple[Outcome, str]]
    invoke: Invoke | None = None
    keep_until: float = math.inf
    concluded: bool = False

    @property
    def context(self) -> Context | None:
        """The handler's context, while there is one running."""
        return self.invoke.context if self.invoke is not None else None


@attrs.frozen(eq=False)
class Exchange:
    """One round trip to make; to be repeated as it is if the backend was away.

    If the store was full, and nothing else went wrong, a new one may take its place.

    Attributes:
        commands: What to apply.
        take: What there is room for.
        calls: Whom each reply is for.
        lane: Which of those that may be under way at a time.
        comes_first: Whether it has to be answered before the next one goes: it carries a part of a
            decision, and those come in order.
        frees: Whether a suspect that is held may begin once this is answered.
    """

    commands: Sequence[Command]
    take: Take
    calls: Sequence[RunningCall | None]
    lane: int
    comes_first: bool
    frees: bool
