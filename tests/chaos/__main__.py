"""`python -m tests.chaos --minutes 1 --seed 1 --backend all`: soak, print the figures, and judge."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys

from tests.chaos.report import table
from tests.chaos.site import BACKENDS
from tests.chaos.soak import Settings, soak

__all__: list[str] = []


def main() -> int:
    """Soak each backend that was asked for; return 0 if nothing was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=2.0, help="of faults on each backend (default: 2)"
    )
    parser.add_argument("--seed", type=int, help="of workflows and faults (default: drawn)")
    parser.add_argument("--backend", choices=(*BACKENDS, "all"), default="all")
    parser.add_argument("--keep", action="store_true", help="keep diary and logs in any case")
    options = parser.parse_args()
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # leave as after Ctrl-C: nothing stays
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    verdicts = []
    for backend in BACKENDS if options.backend == "all" else (options.backend,):
        print(f"Soaking {backend}: --minutes {options.minutes:g} --seed {seed}", flush=True)
        settings = Settings(
            backend=backend, seed=seed, seconds=options.minutes * 60, keep=options.keep
        )
        verdict = asyncio.run(soak(settings))
        print(table(verdict), flush=True)
        verdicts.append(verdict)
    good = all(verdict.is_good for verdict in verdicts)
    print("Nothing was missed." if good else f"MISSED; again with --seed {seed}.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
