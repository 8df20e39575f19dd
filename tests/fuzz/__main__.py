"""`python -m tests.fuzz --messages 1000000 --seed 1`: fuzz all decoders, and print what came of it."""

from __future__ import annotations

import argparse
import itertools
import sys
import time

from tests.fuzz.bytes import bodies
from tests.fuzz.trying import DECODERS, SLOW, attempt

__all__: list[str] = []

_SHOWN = 20


def main() -> int:
    """Return 0 if nothing was wrong, or slow."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    found = attempt(itertools.islice(bodies(options.seed), options.messages))
    for line in found.wrong[:_SHOWN]:
        print(line)
    print(f"{'messages':24}{found.bodies:14,}   seed {options.seed}")
    print(f"{'decoders':24}{len(DECODERS):14,}")
    print(f"{'gave a value':24}{found.values:14,}")
    print(f"{'CodecError':24}{found.refused:14,}")
    print(f"{'anything else':24}{len(found.wrong):14,}")
    print(f"{'slowest, ms':24}{found.slowest * 1000:14.1f}   at most {SLOW * 1000:.0f}")
    print(f"{'seconds':24}{time.monotonic() - began:14.0f}")
    return 1 if found.wrong or found.slowest > SLOW else 0


if __name__ == "__main__":
    sys.exit(main())
