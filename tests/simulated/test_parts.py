"""The same shapes with limits so low that every decision and every result goes in parts."""

from __future__ import annotations

import functools

import pytest
from tests.simulated.shapes import SERVICES, SHAPES

from pwf.testing import explore
from pwf_core import engine, scopes, staging


@pytest.fixture(autouse=True)
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a step bear one call, or one result."""
    monkeypatch.setattr(engine, "in_parts", functools.partial(staging.in_parts, most_calls=1))
    monkeypatch.setattr(engine, "MOST_CALLS", 1)
    monkeypatch.setattr(staging, "MOST_CALLS", 1)
    monkeypatch.setattr(scopes, "BROUGHT", 0)
    monkeypatch.setattr(scopes, "PAGE", 1)


@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_in_parts_survives_all_faults(shape: str, concurrency: int) -> None:
    """Nothing is lost, doubled or stuck, whatever goes wrong between two parts."""
    found = explore(*SERVICES, start=SHAPES[shape], faults=1, concurrency=concurrency)

    assert found.refused > 0
