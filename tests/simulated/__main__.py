"""`python -m tests.simulated`: every shape with its single and double faults; print the figures."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import attrs
from tests.simulated.shapes import SERVICES, SHAPES
from tests.simulated.test_shapes import CONCURRENCIES, PAIRS, counts

from pwf.testing import ExplorationError, explore


@attrs.frozen
class _Found:
    shape: str
    concurrency: int
    singles: int = 0
    doubles: int = 0
    refused: int = 0
    problem: str = ""


def _explore(shape: str, concurrency: int) -> _Found:
    try:
        found = explore(
            *SERVICES, start=SHAPES[shape], faults=2, most=PAIRS, concurrency=concurrency
        )
    except ExplorationError as error:
        return _Found(shape, concurrency, problem=str(error))
    return _Found(shape, concurrency, *counts(found), refused=found.refused)


def main() -> int:
    """Explore all; return 0 if everything was survived."""
    began = time.monotonic()
    plans = [(shape, concurrency) for shape in SHAPES for concurrency in CONCURRENCIES]
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        founds = list(processes.map(_explore, *zip(*plans, strict=True)))
    print(f"{'workflow':16}{'calls at once':>14}{'faults':>10}{'pairs':>10}{'late, refused':>15}")
    for one in founds:
        print(
            f"{one.shape:16}{one.concurrency:14}{one.singles:10,}{one.doubles:10,}{one.refused:15,}"
        )
    problems = [one for one in founds if one.problem]
    for one in problems:
        print(f"! {one.shape}, {one.concurrency} at once: {one.problem}")
    print(
        f"{'all':30}{sum(one.singles for one in founds):10,}{sum(one.doubles for one in founds):10,}"
        f"{sum(one.refused for one in founds):15,}"
    )
    print(f"lost, doubled, stuck or left behind: {len(problems)} workflows")
    print(f"seconds: {time.monotonic() - began:.0f}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
