"""What was found: every repetition, the machine, the versions; written as JSON and read again."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import attrs
import msgspec
from tests.bench.catalogue import SYSTEMS, System

__all__ = ["Cell", "Described", "Results", "machine_facts"]


@attrs.define
class Cell:
    """One figure of one system.

    Attributes:
        values: One per repetition.
        reason: Why there is none, or none further; for people.
    """

    values: list[float] = attrs.field(factory=list)
    reason: str = ""

    @property
    def median(self) -> float | None:
        """The median of all repetitions."""
        return statistics.median(self.values) if self.values else None


@attrs.define
class Described:
    """What a system says of itself, and what it was measured as."""

    title: str
    kind: str
    settings: str = ""
    not_guaranteed: str = ""
    cannot: dict[str, str] = attrs.field(factory=dict)
    versions: dict[str, str] = attrs.field(factory=dict)


@attrs.define
class Results:
    """Everything that one run of the benchmark has found.

    Attributes:
        facts: About the machine and the run.
        systems: By name, in the order of the table.
        cells: System -> figure -> what was found.
    """

    facts: dict[str, Any] = attrs.field(factory=dict)
    systems: dict[str, Described] = attrs.field(factory=dict)
    cells: dict[str, dict[str, Cell]] = attrs.field(factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what `write` has written."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def write(self, path: Path) -> None:
        """Write it all down, values rounded to what they can mean."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    def cell(self, system: str, figure: str) -> Cell:
        """Return a cell, made if there was none."""
        return self.cells.setdefault(system, {}).setdefault(figure, Cell())

    def median(self, system: str, figure: str) -> float | None:
        """Return the median of a figure, None if there is none."""
        cell = self.cells.get(system, {}).get(figure)
        return cell.median if cell else None

    def describe(self, system: System, about: dict[str, Any]) -> None:
        """Keep what a system says of itself."""
        self.systems[system.name] = Described(
            system.title,
            system.kind.value,
            about["settings"],
            about["not_guaranteed"],
            about["cannot"],
            about["versions"],
        )
        order = [one.name for one in SYSTEMS]
        self.systems = dict(sorted(self.systems.items(), key=lambda item: order.index(item[0])))


def machine_facts() -> dict[str, Any]:
    """Return what figures depend on: the machine, the servers, the day."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "cpu": _line_of("/proc/cpuinfo", "model name") or platform.processor(),
        "memory": _line_of("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "system": platform.platform(aliased=True, terse=True),
        "python": platform.python_version(),
        "servers": {name: _said(command) for name, command in _VERSIONS.items()},
    }


_POSTGRES = max(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), default="postgres")
_VERSIONS = {
    "Redis": ["redis-server", "--version"],
    "RabbitMQ": ["dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"],
    "Erlang": ["dpkg-query", "-W", "-f", "${Version}", "erlang-base"],
    "PostgreSQL": [_POSTGRES, "--version"],
}


def _line_of(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _said(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
