"""Twelve shapes and one more, every single fault and a thousand pairs of them, on both protocols."""

from __future__ import annotations

import math

import pytest
from tests.simulated.shapes import SERVICES, SHAPES

from pwf.testing import explore

_PAIRS = 1_000  # by shape, concurrency and protocol: 52,000 at most
_KINDS = 8  # of faults at each effect


@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_survives_all_faults(shape: str, concurrency: int) -> None:
    """Nothing is lost, doubled or stuck, whatever goes wrong at whichever effect, and twice."""
    found = explore(*SERVICES, start=SHAPES[shape], faults=2, most=_PAIRS, concurrency=concurrency)

    singles = [_KINDS * points for points in found.points.values()]
    expected = sum(2 + one + min(_PAIRS, math.comb(one, 2)) for one in singles)
    assert ["fused", "paired"] == list(found.points)
    assert max(singles) <= _PAIRS  # so all of them were tried
    assert expected == found.runs
    assert found.refused > 0  # late commits did come
