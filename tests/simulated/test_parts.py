"""The same shapes with limits so low that every decision and every result goes in parts."""

from __future__ import annotations

import pytest
from tests.simulated import limits
from tests.simulated.shapes import SERVICES, SHAPES

from pwf.testing import explore


@pytest.fixture(autouse=True)
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a step bear one call, or one result."""
    limits.lower(monkeypatch)


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_in_parts_survives_all_faults(shape: str, concurrency: int) -> None:
    """Nothing is lost, doubled or stuck, whatever goes wrong between two parts."""
    found = explore(*SERVICES, start=SHAPES[shape], faults=1, concurrency=concurrency)

    assert found.refused > 0
