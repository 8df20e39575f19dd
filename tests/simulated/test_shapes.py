"""Thirteen shapes, every single fault and about a thousand pairs of them, on both protocols."""

from __future__ import annotations

import math

import pytest
from tests.simulated.shapes import SERVICES, SHAPES

from pwf.testing import Exploration, explore

PAIRS = 1_050  # by shape, concurrency and protocol: 54,600 at most
CONCURRENCIES = (1, 64)
_KINDS = 8  # of faults at each effect


def counts(found: Exploration) -> tuple[int, int]:
    """Return how many single faults and pairs of them there were to try, by the number of effects."""
    singles = [_KINDS * points for points in found.points.values()]
    assert max(singles) <= PAIRS  # so all of them are tried
    return sum(singles), sum(min(PAIRS, math.comb(one, 2)) for one in singles)


@pytest.mark.parametrize("concurrency", CONCURRENCIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_survives_all_faults(shape: str, concurrency: int) -> None:
    """Nothing is lost, doubled or stuck, whatever goes wrong at whichever effect, and twice."""
    found = explore(*SERVICES, start=SHAPES[shape], faults=2, most=PAIRS, concurrency=concurrency)

    fault_free = 2 * len(found.points)
    assert ["fused", "paired"] == list(found.points)
    assert fault_free + sum(counts(found)) == found.runs
    assert found.refused > 0  # late commits did come
