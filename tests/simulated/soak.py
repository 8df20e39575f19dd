"""Random workflows with random faults on simulated servers, by seed.

`python -m tests.simulated.soak --seeds 1000` explores the workflows 0 to 999 of the chaos soak, each
with one, two and three faults drawn by its number, on both protocols; one that fails is told with
what it takes to see it again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import attrs
import msgspec
from tests.chaos.shapes import Node, draw
from tests.chaos.workflows import alpha, beta, run_node

from pwf.testing import Exploration, ExplorationError, explore

__all__ = ["at_once", "explore_tree"]

_CONCURRENCIES = (1, 2, 64, 256)  # calls at once: batches of one, of few, of all that there is
_CHUNK = 100  # workflows that a process takes at a time


def explore_tree(number: int) -> Exploration:
    """Explore the random workflow of that number.

    Raises:
        ExplorationError: If a fault is not survived.
    """
    return explore(
        alpha,
        beta,
        start=run_node(at_once(draw(0, number).root)),
        faults=3,
        most=1,
        seed=number,
        concurrency=_CONCURRENCIES[number % len(_CONCURRENCIES)],
    )


def at_once(node: Node) -> Node:
    """Return *node* with handlers that take no time: it would be real time."""
    children = tuple(at_once(child) for child in node.children)
    return msgspec.structs.replace(node, work_ms=0, children=children)


@attrs.frozen
class _Figures:
    workflows: int = 0
    runs: int = 0
    refused: int = 0
    failures: tuple[str, ...] = ()

    def __add__(self, other: _Figures) -> _Figures:
        return _Figures(
            self.workflows + other.workflows,
            self.runs + other.runs,
            self.refused + other.refused,
            self.failures + other.failures,
        )


def _explore_trees(numbers: range) -> _Figures:
    figures = _Figures()
    for number in numbers:
        try:
            found = explore_tree(number)
        except ExplorationError as error:
            figures += _Figures(workflows=1, failures=(f"workflow {number}: {error}",))
        else:
            figures += _Figures(workflows=1, runs=found.runs, refused=found.refused)
    return figures


def _chunks(numbers: range) -> Iterator[range]:
    for first in range(0, len(numbers), _CHUNK):
        yield numbers[first : first + _CHUNK]


def main() -> int:
    """Explore as many as were asked for; return 0 if all survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100_000, help="how many (default: 100,000)")
    parser.add_argument("--first", type=int, default=0, help="where to begin (default: 0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: one a core")
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.seeds)
    total = _Figures()
    began = time.monotonic()
    with ProcessPoolExecutor(options.processes) as processes:
        for figures in processes.map(_explore_trees, _chunks(numbers)):
            total += figures
            for failure in figures.failures:
                print(failure, flush=True)
            if sys.stderr.isatty():
                print(f"\r{total.workflows:,} workflows", end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    print(f"{'workflows':24}{total.workflows:12,}")
    print(f"{'runs with faults and without':24}{total.runs:8,}")
    print(f"{'late commits refused':24}{total.refused:12,}")
    print(f"{'failures':24}{len(total.failures):12,}")
    print(f"{'seconds':24}{seconds:12,.0f}")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
