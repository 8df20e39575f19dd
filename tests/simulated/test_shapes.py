"""Thirteen shapes, every single fault and hundreds of pairs of them, on both protocols."""

from __future__ import annotations

import math

import pytest
from tests.simulated.shapes import SERVICES, SHAPES

from pwf.testing import Exploration, explore
from pwf.testing._deployment import kinds_of
from pwf.testing._workers import Protocol

PAIRS = 750  # by shape, concurrency and protocol: 97,500 at most
CONCURRENCIES = (1, 2, 64)


def counts(found: Exploration) -> tuple[int, int]:
    """Return how many single faults and pairs of them there were to try, by the number of effects."""
    singles = [len(kinds_of(Protocol(name))) * points for name, points in found.points.items()]
    assert max(singles) <= PAIRS  # so all of them are tried
    return sum(singles), sum(min(PAIRS, math.comb(one, 2)) for one in singles)


@pytest.mark.parametrize("concurrency", CONCURRENCIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_survives_all_faults(shape: str, concurrency: int) -> None:
    """Nothing is lost, doubled or stuck, whatever goes wrong at whichever effect, and twice."""
    found = explore(*SERVICES, start=SHAPES[shape], faults=2, most=PAIRS, concurrency=concurrency)

    fault_free = 2 * len(found.points)
    assert (2 if concurrency == 1 else 4) == len(found.points)
    assert fault_free + sum(counts(found)) == found.runs
    assert found.refused > 0  # late commits did come
