"""What the measurements of RabbitMQ's clients share: sizes, names, and which figures there are."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.bench.systems.speaking import NAMESPACE

__all__ = ["BODY", "CHAINS", "IN_FLIGHT", "KINDS", "PREFETCH", "STEPS", "figures", "queue_name"]

KINDS = ("quorum", "classic")
BODY = b"x" * 128
IN_FLIGHT = 256  # publishes that wait for their confirmation
PREFETCH = 256
CHAINS, STEPS = 200, 20

Measure = Callable[[str, int], Awaitable[int]]


def queue_name(kind: str, what: str) -> str:
    """Return a queue of its own for a figure."""
    return f"{NAMESPACE}.raw.{kind}.{what}"


async def figures(measures: Mapping[str, Measure], count: int) -> dict[str, float]:
    """Return each figure on each kind of queue, per second.

    Args:
        measures: By name; each takes a queue's kind and a count, and returns how many it has done.
        count: Of messages.
    """
    found: dict[str, Any] = {}
    for kind in KINDS:
        for name, measure in measures.items():
            began = time.perf_counter()
            done = await measure(kind, count)
            found[f"{name} {kind}"] = done / (time.perf_counter() - began)
    return found
