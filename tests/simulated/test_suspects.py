"""A call that takes its worker down each time, beside others: it alone is buried, whatever else happens."""

from __future__ import annotations

import pytest

from pwf import Next, Service, publish
from pwf.testing import Exploration, explore
from pwf.testing._deployment import CrashError

__all__ = ["explore_guilty"]

work = Service("suspects")


@work.task
def begins() -> Next:
    return [publish(innocent, 1), publish(guilty), publish(innocent, 2), publish(innocent, 3)]


@work.task
def guilty() -> Next:
    raise CrashError


@work.task
def innocent(n: int) -> Next:
    return publish(ends, n)


@work.task
def ends(n: int) -> Next:
    return None


def explore_guilty(concurrency: int) -> Exploration:
    """Explore it with the faults that one can have beside five lost workers."""
    return explore(work, start=publish(begins), most=250, concurrency=concurrency)


@pytest.mark.parametrize("concurrency", [1, 2, 64])
def test_innocent_calls_survive(concurrency: int) -> None:
    """Those beside it are lost twice at the most before they run apart from it, and commit."""
    explore_guilty(concurrency)
