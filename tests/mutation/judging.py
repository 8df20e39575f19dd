"""Run the tests on one mutant, in a process of its own, until one of them fails.

Nothing of pwf is imported before the fork, so the mutant is what every test imports: constants,
class bodies and tables are judged like any other code. Only what belongs to others is loaded before.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import attrs
import pytest
from tests.mutation.mutators import Mutant

__all__ = ["Ended", "Stage", "Verdict", "judge", "preload", "source_of"]

# A mutant that hangs is killed by the processor time that it takes: how long it takes on the clock
# says more about the machine. (One that idles is left to the time-out of any test, which is long.)
_ABOVE = 5  # times what a stage needs on the real code
_SECONDS = 5  # for any stage
_BROKEN = 70  # the exit code of a trial that could not be held
_MEMORY = 2**31
_SPARING = (
    "--exitfirst", "--assert=plain", "-p", "no:cacheprovider",
)  # fmt: skip
_THEIRS = (  # what the tests import that is not ours; only saves time
    "_pytest.assertion.rewrite", "asyncio", "concurrent.futures", "cyclopts", "hypothesis.stateful",
    "hypothesis.strategies", "msgspec", "redis.asyncio", "pika", "aio_pika", "xml.dom.minidom",
)  # fmt: skip


class Verdict(Enum):
    """What the tests made of a mutant."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"


@attrs.frozen
class Stage:
    """Tests that are collected and run together: the most telling stages come first."""

    arguments: tuple[str, ...]
    seconds: float = 0  # of processor time on the real code


@attrs.frozen
class Ended:
    """How a trial ended: the verdict, the test that failed first, and the time of each stage."""

    verdict: Verdict
    by: str
    seconds: tuple[float, ...] = ()


def preload() -> None:
    """Import what all mutants share."""
    for name in _THEIRS:
        importlib.import_module(name)
    gc.freeze()


def source_of(module: str) -> Path:
    """Return the file of a module of ours, without importing it."""
    package, _, name = module.partition(".")
    spec = importlib.util.find_spec(package)
    assert spec is not None
    (folder,) = spec.submodule_search_locations or ()
    return Path(folder, *name.split(".")).with_suffix(".py")


def judge(
    trials: Iterable[tuple[Mutant, Sequence[Stage]]], processes: int
) -> Iterator[tuple[Mutant, Ended]]:
    """Judge mutants side by side, and yield each as soon as it is known."""
    running: dict[int, tuple[Mutant, int]] = {}
    for mutant, stages in trials:
        if len(running) == processes:
            yield _ended(running)
        told, tell = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(told)
            _try(mutant, stages, tell)
        os.close(tell)
        running[pid] = mutant, told
    while running:
        yield _ended(running)


def _ended(running: dict[int, tuple[Mutant, int]]) -> tuple[Mutant, Ended]:
    pid, status = os.wait()
    mutant, told = running.pop(pid)
    with os.fdopen(told) as read:
        report = read.read()
    if os.WIFSIGNALED(status):
        return mutant, Ended(Verdict.TIMED_OUT, signal.Signals(os.WTERMSIG(status)).name)
    code = os.waitstatus_to_exitcode(status)
    if code == _BROKEN:
        raise RuntimeError(report)
    failed, *seconds = report.splitlines()
    verdict = Verdict.KILLED if code else Verdict.SURVIVED
    return mutant, Ended(verdict, failed, tuple(map(float, seconds)))


# -- in the process of one mutant ------------------------------------------------------------------


def _try(mutant: Mutant, stages: Sequence[Stage], tell: int) -> None:
    """Run the stages until a test fails; does not return."""
    code = _BROKEN
    told = ""
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        sys.meta_path.insert(0, _Finder(mutant))
        code, told = _run(stages)
    except BaseException:  # noqa: BLE001 -- it ends here, whatever it is
        told = traceback.format_exc()
    finally:
        os.write(tell, told.encode())
        os._exit(code)


def _run(stages: Sequence[Stage]) -> tuple[int, str]:
    first = _FirstFailure()
    seconds = []
    code = 0
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    for stage in stages:
        began = _used()
        if stage.seconds:
            limit = int(began + _ABOVE * stage.seconds + _SECONDS)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
        code = pytest.main(
            [*_SPARING, *stage.arguments],
            plugins=[first],
        )
        seconds.append(_used() - began)
        if code:
            break
    return int(code), "\n".join([first.name, *map(str, seconds), ""])


def _used() -> float:
    times = os.times()
    return times.user + times.system


class _FirstFailure:
    """A pytest plugin: keeps the name of the first test, or file, that fails."""

    def __init__(self) -> None:
        self.name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid.replace("\n", " ")


class _Finder(MetaPathFinder):
    """Has the mutant imported instead of its module."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        source = str(source_of(fullname))
        loader = _Loader(fullname, source)
        loader.mutant = self._mutant
        return importlib.util.spec_from_file_location(fullname, source, loader=loader)


class _Loader(SourceFileLoader):
    mutant: Mutant

    def get_code(self, fullname: str) -> CodeType:
        return self.mutant.compile(self.path)
