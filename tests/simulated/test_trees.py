"""Random workflows with random faults: 2,000 of the many that a soak explores."""

from __future__ import annotations

import pytest
from tests.simulated.soak import explore_tree

_AT_ONCE = 50


@pytest.mark.parametrize("first", range(0, 2_000, _AT_ONCE))
def test_tree_survives_random_faults(first: int) -> None:
    """One, two and three faults change nothing."""
    for number in range(first, first + _AT_ONCE):
        explore_tree(number)
