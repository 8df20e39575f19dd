"""What every measured system shares: how it is spoken to, and the tally that its handlers keep.

Standard library only: peers run in environments of their own, without pwf.

A system is a program with two faces. `worker` runs handlers until it is killed. `client` first says
what it is, then reads one JSON object a line from stdin and answers with one a line on stdout:

    > {"do": "chains", "mark": "m1", "runs": 200, "steps": 20, "work_ms": 0}
    < {"began": 4000000000, "ended": 4003000000}            (monotonic, in ns)
    < {"problem": "what went wrong"}

Handlers append to the tally, a file that outlives them: one line for each run that ends, and where
handlers have work to do (W7), one for each step. The clock is the system's monotonic one, which all
processes share, so what a run took is known exactly, however coarsely the tally is read.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any, Protocol

__all__ = ["NAMESPACE", "POSTGRES", "RABBIT", "RECOVERY", "REDIS", "About", "Client", "end", "main"]

REDIS = os.environ.get("BENCH_REDIS", "")
RABBIT = os.environ.get("BENCH_RABBIT", "")
POSTGRES = os.environ.get("BENCH_POSTGRES", "")
NAMESPACE = os.environ.get("BENCH_NAMESPACE", "bench")  # names of queues begin with it
RECOVERY = int(os.environ.get("BENCH_RECOVERY", "0"))  # seconds to turn time-outs down to, or 0

_tally = os.open(
    os.environ.get("BENCH_TALLY", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
)


@dataclass(frozen=True)
class About:
    """What a system says of itself.

    Attributes:
        settings: How it is set up here, and why that is its best.
        not_guaranteed: What it does not promise while it is being measured.
        packages: Whose versions are to be recorded.
        cannot: Workload (or figure) -> why it cannot do that.
    """

    settings: str
    not_guaranteed: str
    packages: tuple[str, ...] = ()
    cannot: dict[str, str] = field(default_factory=dict)


class Client(Protocol):
    """What a system's client does. Methods may be async; they return once all is durably started.

    Every run is named by *mark* and its number, and ends by a call of `end`.
    """

    def chains(self, mark: str, runs: int, steps: int, work_ms: int) -> Any:
        """Start runs of *steps* calls, one after the other, each adding one to the value."""

    def forks(self, mark: str, runs: int, width: int, work_ms: int) -> Any:
        """Start runs of one call, then *width* at once, then one that sums up their numbers."""

    def starts(self, mark: str, count: int, *, batched: bool) -> Any:
        """Start *count* runs, one by one or in batches, while no worker runs."""


def step(mark: str, run: int, work_ms: int) -> None:
    """Be a step of a workflow, in a thread."""
    if work_ms:
        time.sleep(work_ms / 1000)
        _note(mark, run, "step", 0)


async def async_step(mark: str, run: int, work_ms: int) -> None:
    """Be a step of a workflow, on an event loop."""
    if work_ms:
        await asyncio.sleep(work_ms / 1000)
        _note(mark, run, "step", 0)


def end(mark: str, run: int, value: int) -> None:
    """Note that a run has come to its end, with *value*."""
    _note(mark, run, "end", value)


def _note(mark: str, run: int, what: str, value: int) -> None:
    os.write(_tally, f"{mark} {run} {what} {value} {time.monotonic_ns()}\n".encode())


def batches(values: Iterable[Any], size: int) -> Iterable[list[Any]]:
    """Return *values* in lists of *size*."""
    batch: list[Any] = []
    for value in values:
        batch.append(value)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def main(
    about: About,
    worker: Callable[[], None],
    client: Callable[[], AbstractAsyncContextManager[Any]],
) -> None:
    """Be the worker or the client, as the command line says."""
    if sys.argv[1:] == ["worker"]:
        worker()
    else:
        asyncio.run(_serve(about, client))


async def _serve(about: About, client: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=out, flush=True)

    async with client() as system:
        answer(**asdict(about), versions=_versions(about.packages))
        while line := await asyncio.to_thread(sys.stdin.readline):
            wish = json.loads(line)
            began = time.monotonic_ns()
            try:
                value = getattr(system, wish.pop("do"))(**wish)
                if inspect.isawaitable(value):
                    value = await value
            except Exception as error:  # noqa: BLE001 -- the harness decides what it means
                traceback.print_exc()
                answer(problem=f"{type(error).__name__}: {error}")
            else:
                answer(began=began, ended=time.monotonic_ns(), value=value)


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
