"""The order of it all: every system in turn, over and over, so that a drift of the machine hits all.

A measurement that takes too long says so in its cell. What could not be measured once is not tried
again, and what was very slow is not repeated: the whole run has to end within half an hour.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import attrs
from tests.bench.catalogue import System
from tests.bench.crew import LateError, ProgramError
from tests.bench.environments import EnvironmentFailedError
from tests.bench.results import Results
from tests.bench.session import Servers, Session
from tests.bench.workloads import Scale, Workload, WrongError

from pwf.testing.servers import ServerMissingError, ServerStartError

__all__ = ["Bench"]

_SLOW = 10.0  # seconds: a measurement that takes longer is made once
_ALONE = 4  # minutes for those that need sessions of their own
_AT_ONCE = 2  # systems that are killed and come back side by side: that is no question of speed
_PROBLEMS = (
    EnvironmentFailedError,
    ProgramError,
    ServerMissingError,
    ServerStartError,
    WrongError,
)


@attrs.define
class Bench:
    """One run of the benchmark.

    Attributes:
        minutes: When to be done: what is left of the repetitions is left out.
        results: What was found; filled by `run`, also as far as it comes.
        repeated: How many repetitions there were.
    """

    systems: Sequence[System]
    workloads: Sequence[Workload]
    repetitions: int
    scale: Scale
    minutes: float = 25.0
    repeated: int = 0
    results: Results = attrs.field(factory=Results)
    _settled: set[tuple[str, str]] = attrs.field(factory=set)  # not to be measured (again)

    def run(self) -> Results:
        """Measure everything."""
        began = time.monotonic()
        with Servers() as servers:
            for repetition in range(1, self.repetitions + 1):
                took = (time.monotonic() - began) / 60
                if self.repeated and took * (1 + 1 / self.repeated) > self.minutes - _ALONE:
                    break
                self.repeated = repetition
                for system in self.systems:
                    self._say(f"{repetition}/{self.repetitions} {system.name}:", end="")
                    self._measure_together(system, servers)
                    self._say("")
            alone = [one for one in self.workloads if one.is_alone]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for workload in alone:
                    for _ in pool.map(
                        lambda system, of=workload: self._measure_alone(system, of, servers),
                        self.systems,
                    ):
                        pass
        return self.results

    def _todo(self, system: System, done: Collection[str]) -> list[Workload]:
        return [
            one
            for one in self.workloads
            if not one.is_alone
            and _is_for(one, system)
            and one.name not in done
            and (system.name, one.name) not in self._settled
        ]

    def _measure_together(self, system: System, servers: Servers) -> None:
        """Measure all workloads that share a session; after a failure there is a new one."""
        done: set[str] = set()
        while todo := self._todo(system, done):
            try:
                with Session(system, servers) as session:
                    self.results.describe(system, session.about)
                    for workload in todo:
                        self._measure(session, workload)
                        done.add(workload.name)
            except _Spoilt:
                continue  # what has failed is settled, so there is less to do
            except _PROBLEMS as error:
                for workload in todo:
                    self._give_up(system, workload, str(error))

    def _measure(self, session: Session, workload: Workload) -> None:
        system = session.system
        if reason := self._refusal(session, workload):
            self._give_up(system, workload, reason)
            return
        began = time.monotonic()
        try:
            if workload.needs_no_worker:
                session.stop_worker()
            values = workload.measure(session, self.scale)
        except _PROBLEMS as error:
            late = f"not done within {self.scale.patience:.0f} s: "
            self._give_up(system, workload, late * isinstance(error, LateError) + str(error))
            raise _Spoilt from error
        for name, value in values.items():
            self.results.cell(system.name, name).values.append(float(f"{value:.5g}"))
            if not workload.is_alone:
                self._say(f" {name} {value:,.4g}", end="")
        for figure in workload.figures:
            if figure.name not in values:
                reason = session.about["cannot"].get(figure.name, "")
                self.results.cell(system.name, figure.name).reason = reason
        if time.monotonic() - began > _SLOW:
            self._settled.add((system.name, workload.name))

    def _measure_alone(self, system: System, workload: Workload, servers: Servers) -> None:
        if not _is_for(workload, system):
            return
        try:
            with Session(system, servers, recovery=self.scale.recovery) as session:
                self.results.describe(system, session.about)
                self._measure(session, workload)
        except _Spoilt:
            pass
        except _PROBLEMS as error:
            self._give_up(system, workload, str(error))
        found = self.results.cells[system.name]
        figures = [
            f"{one.name} {found[one.name].median}"
            for one in workload.figures
            if found[one.name].values
        ]
        self._say(f"{system.name}: {', '.join(figures)}")

    def _refusal(self, session: Session, workload: Workload) -> str:
        """Return why not to measure this at all."""
        if reason := session.about["cannot"].get(workload.name, ""):
            return str(reason)
        rate = self.results.median(session.system.name, "W3")
        if workload.name == "W6" and "W3" in session.about["cannot"]:
            return str(session.about["cannot"]["W3"])
        if workload.name == "W6" and self._asks_for("W3"):
            if rate is None:
                return "W3 was too much already"
            needed = self.scale.of(100_000) / rate
            if needed > self.scale.patience:
                return f"would take {needed:.0f} s at the rate of W3"
        return ""

    def _asks_for(self, name: str) -> bool:
        return any(one.name == name for one in self.workloads)

    def _give_up(self, system: System, workload: Workload, reason: str) -> None:
        self._settled.add((system.name, workload.name))
        for figure in workload.figures:
            self.results.cell(system.name, figure.name).reason = reason[:300]
        self._say(f" {workload.name}: {reason[:300]};", end="")

    def _say(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=sys.stderr, flush=True)


class _Spoilt(Exception):  # noqa: N818 -- it is a signal
    """Something failed, and who knows what it has left behind: take another session."""


def _is_for(workload: Workload, system: System) -> bool:
    if system.workloads:
        return workload.name in system.workloads
    return workload.is_common
