"""`python -m tests.mutation [MODULE ...]`: judge all mutants, and print the score of each module."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Mapping

import attrs
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.judging import Ended, Stage, Verdict, judge, preload, source_of
from tests.mutation.mutators import Mutant, control, mutants

__all__ = ["MODULES"]

_LEAST = 0.85  # of the mutants of each module must be killed
MODULES = ("state", "transition", "lifecycle", "joins", "scopes", "protocol")
_MORE = ("engine", "decide", "paired")  # if asked for

_UNIT = tuple(
    f"tests/unit/test_{name}.py"
    for name in (
        "decide", "engine", "paired", "retries", "ids", "directives", "service", "requests",
        "redis_parts", "simulation", "ports", "wire", "values", "exploration",
    )
)  # fmt: skip
_SIMULATED = ("tests/simulated/test_trees.py", "-k", "[0]")
_CONTRACT = (
    "tests/contract/test_runs.py",
    "tests/contract/test_stores.py",
    "-k",
    "memory-store]",  # on virtual time, as all that judges: else a busy machine would kill mutants
)
_FIRST = {
    "protocol": ("tests/unit/test_protocol.py",),
    "engine": ("tests/unit/test_engine.py",),
    "decide": ("tests/unit/test_decide.py",),
    "paired": ("tests/unit/test_paired.py",),
}
_MACHINE = (
    "tests/unit/test_transition.py",
    "tests/unit/test_lifecycle.py",
    "tests/unit/test_protocol.py",
)


def stages_of(module: str) -> list[Stage]:
    """Return what judges that module, the most telling first."""
    first = _FIRST.get(module, _MACHINE)
    others = tuple(one for one in (*_MACHINE, *_UNIT) if one not in first)
    return [Stage(arguments) for arguments in (first, others, _CONTRACT, _SIMULATED)]


@attrs.define
class Score:
    """What has come of the mutants of one module."""

    killed: int = 0
    timed_out: int = 0
    equivalent: int = 0
    survived: int = 0

    @property
    def total(self) -> int:
        """How many there were."""
        return self.killed + self.timed_out + self.equivalent + self.survived

    def count(self, verdict: Verdict, *, listed: bool) -> None:
        """Count one more, which is *listed* among the equivalents or not."""
        match verdict:
            case Verdict.KILLED:
                self.killed += 1
            case Verdict.TIMED_OUT:
                self.timed_out += 1
            case Verdict.SURVIVED if listed:
                self.equivalent += 1
            case Verdict.SURVIVED:
                self.survived += 1

    def of(self, total: int) -> float:
        """Return the share of those that a test has noticed."""
        return (self.killed + self.timed_out) / total if total else 1.0

    @property
    def raw(self) -> float:
        """The score of all mutants."""
        return self.of(self.total)

    @property
    def adjusted(self) -> float:
        """The score of all but those listed as equivalent."""
        return self.of(self.total - self.equivalent)

    def __add__(self, other: Score) -> Score:
        return Score(*map(sum, zip(attrs.astuple(self), attrs.astuple(other), strict=True)))


def main() -> int:
    """Return 0 if every module reaches the least score and the list of equivalents is true."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {(*MODULES, *_MORE)}")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--sample", type=int, help="judge only so many, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stages", type=int, help="only so many of the stages of tests")
    parser.add_argument("--verbose", action="store_true", help="tell which test killed what")
    options = parser.parse_args()
    os.environ["HYPOTHESIS_PROFILE"] = "mutation"
    os.nice(10)
    began = time.monotonic()
    preload()
    names = options.modules or list(MODULES)
    sources = {name: source_of(f"pwf_core.{name}") for name in names}
    controls = {name: control(f"pwf_core.{name}", sources[name]) for name in names}
    stages = _measured(controls, options.stages)
    trials = [
        (one, stages[name]) for name in names for one in mutants(f"pwf_core.{name}", sources[name])
    ]
    if options.sample:
        trials = random.Random(options.seed).sample(trials, min(options.sample, len(trials)))
    scores = {name: Score() for name in names}
    wrong = []
    for mutant, ended in judge(trials, options.processes):
        name = mutant.module.removeprefix("pwf_core.")
        survived = ended.verdict is Verdict.SURVIVED
        listed = mutant.name in EQUIVALENT.get(name, {})
        scores[name].count(ended.verdict, listed=listed)
        if listed and not survived:
            wrong.append(f"not equivalent: {_told(mutant, ended)}")
        if options.verbose or (survived and not listed):
            print(_told(mutant, ended), flush=True)
    _measured(controls, 1)  # whoever edits a file meanwhile has all the rest killed
    _print(scores)
    print(f"\n{time.monotonic() - began:.0f} seconds", *wrong, sep="\n")
    return 1 if wrong or any(score.adjusted < _LEAST for score in scores.values()) else 0


def _measured(controls: Mapping[str, Mutant], most: int | None) -> dict[str, list[Stage]]:
    """Return the stages by module with the time that they take on the real code, which must pass."""
    measured = {}
    for name, real in controls.items():
        stages = stages_of(name)[:most]
        ((_, ended),) = judge([(real, stages)], 1)
        if ended.verdict is not Verdict.SURVIVED:
            sys.exit(f"the tests fail with {name} as it is: {ended.by or 'none ran'}")
        measured[name] = [
            attrs.evolve(stage, seconds=seconds)
            for stage, seconds in zip(stages, ended.seconds, strict=True)
        ]
    return measured


def _told(mutant: Mutant, ended: Ended) -> str:
    by = f"   [{ended.by}]" if ended.by else ""
    return f"{ended.verdict.value}: {mutant.module}:{mutant.line}: {mutant.name}{by}"


def _print(scores: dict[str, Score]) -> None:
    lines = [*scores.items(), ("all", sum(scores.values(), Score()))]
    print(
        f"\n{'module':12}{'mutants':>8}{'killed':>8}{'timed out':>11}{'survived':>10}"
        f"{'equivalent':>12}{'score':>9}{'without equivalents':>21}"
    )
    for name, one in lines:
        print(
            f"{name:12}{one.total:8}{one.killed:8}{one.timed_out:11}{one.survived:10}"
            f"{one.equivalent:12}{one.raw:9.1%}{one.adjusted:21.1%}"
        )


if __name__ == "__main__":
    sys.exit(main())
