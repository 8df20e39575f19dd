"""`python -m tests.bench`: measure, print the table, keep the results; or judge them (`--gate`)."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.bench.catalogue import SYSTEMS, System
from tests.bench.crew import ROOT
from tests.bench.measuring import Bench
from tests.bench.ratios import comparable, fallen, gate_systems
from tests.bench.report import table, write_docs
from tests.bench.results import Results, machine_facts
from tests.bench.workloads import WORKLOADS, Scale

__all__: list[str] = []

DOCS = ROOT / "docs"
RECORDED = DOCS / "benchmarks.json"


def main() -> int:
    """Do what the command line says; return 1 if the gate finds that something has fallen."""
    options = _options()
    # Leave as after Ctrl-C: nothing stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = Results.read(options.results) if options.results else _measure(options)
    print(table(results), flush=True)
    if options.write_docs:
        write_docs(results, DOCS)
        print(f"Written: {DOCS}/benchmarks.md, .svg and .json")
    return _judge(results) if options.gate else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", help="workloads, such as W1,W3 or raw (default: all)")
    parser.add_argument("--systems", help="such as pwf-redis,thin,celery-redis (default: all)")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of all sizes: 0.1 for a quick run"
    )
    parser.add_argument(
        "--patience", type=float, default=40.0, help="seconds for one measurement (default: 40)"
    )
    parser.add_argument(
        "--minutes", type=float, default=25.0, help="leave out repetitions after (default: 25)"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / ".nox" / "bench.json", help="where the results go"
    )
    parser.add_argument("--results", type=Path, help="read these results instead of measuring")
    parser.add_argument("--write-docs", action="store_true", help="make this what docs/ says")
    parser.add_argument(
        "--gate",
        action="store_true",
        help="fail if a ratio is worse by more than a fifth than the one in docs/benchmarks.json",
    )
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> Results:
    began = time.monotonic()
    known = [one.name for one in WORKLOADS]
    only = _chosen(options.only, known, "workloads")
    bench = Bench(
        systems=_systems(options),
        workloads=[one for one in WORKLOADS if one.name in only],
        repetitions=options.repetitions,
        scale=Scale(options.scale, options.patience),
        minutes=options.minutes,
    )
    try:
        bench.run()
    finally:  # after Ctrl-C, what there is
        bench.results.facts = {
            **machine_facts(),
            "repetitions": bench.repeated,
            "scale": options.scale,
            "minutes": round((time.monotonic() - began) / 60, 1),
        }
        bench.results.write(options.output)
    return bench.results


def _systems(options: argparse.Namespace) -> list[System]:
    if options.systems is None and options.gate and RECORDED.exists():
        return gate_systems(Results.read(RECORDED))
    chosen = _chosen(options.systems, [one.name for one in SYSTEMS], "systems")
    return [one for one in SYSTEMS if one.name in chosen]


def _chosen(wish: str | None, known: list[str], what: str) -> list[str]:
    """Return the names in *wish*, all if it is None; a name may stand for those that it begins."""
    if wish is None:
        return known
    chosen: list[str] = []
    for name in wish.split(","):
        found = [one for one in known if one == name] or [
            one for one in known if one.startswith(f"{name}-")
        ]
        if not found:
            sys.exit(f"There are no {what} {name!r}; known are {', '.join(known)}.")
        chosen += found
    return chosen


def _judge(results: Results) -> int:
    if not RECORDED.exists():
        print(f"There is nothing to compare with: {RECORDED} is made by --write-docs.")
        return 1
    recorded = Results.read(RECORDED)
    worse = fallen(results, recorded)
    if not worse:
        print(f"None of {len(comparable(results, recorded))} ratios is worse by more than a fifth.")
        return 0
    print("\n".join(["These are worse by more than a fifth:", *worse]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
