"""The demo at work: a run, the workers on it, and, where that is wanted, their deaths."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import attrs

from pwf.cli._audit import Witness
from pwf.cli._crew import Crew
from pwf.cli._index import Report, index, library
from pwf.cli._journal import VARIABLE, Journal, Reader
from pwf.cli._options import Connection
from pwf.cli._progress import Standing, make_display
from pwf.cli._worker import Serving
from pwf.client import Client
from pwf.worker import Worker
from pwf_core.directives import publish
from pwf_core.errors import PwfError

__all__ = ["Outcome", "Plan", "WorkersDieError", "perform"]

# Counting keeps a processor busy: one call at a time, and a few at hand so that it never waits.
_CONCURRENCY, _THREADS = 8, 1
_LEASE = timedelta(seconds=2)  # shorter than the default, because nobody wants to watch it run out
_LOOK = 0.1  # seconds between two looks at the journal
# From one kill to the next, at random, as a part of all files. Were it a time, a slow machine would
# spend all of it on starting workers.
_KILL_AFTER = (0.03, 0.2)
# Then killing ends. The last calls would be hit again and again, and a call that five workers in a
# row have died with becomes a dead letter: rightly, for all that pwf can tell.
_KILL_UNTIL = 0.9
_GIVE_UP = 4  # deaths in a row that we have not caused


@attrs.frozen(kw_only=True)
class Plan:
    """What is to be done.

    Attributes:
        root: Index the Python files below this folder,
        limit: so many of them at most,
        expected: which are these, by folder.
        workers: How many processes; 0 for a worker in this one.
        kill: Whether to kill them at random.
        folder: For the journal, and what else has to lie somewhere meanwhile.
    """

    root: str
    limit: int | None
    expected: dict[str, list[str]]
    url: str
    namespace: str
    workers: int
    kill: bool
    folder: Path

    @property
    def total(self) -> int:
        """How many files."""
        return sum(map(len, self.expected.values()))

    @property
    def journal(self) -> Path:
        """Where handlers note that they run."""
        return self.folder / "journal"


@attrs.frozen(kw_only=True)
class Outcome:
    """What it came to.

    Attributes:
        seconds: From the start of the run to its result.
        witness: What was executed.
        killed: How many workers were killed.
    """

    run_id: str
    report: Report
    seconds: float
    witness: Witness
    killed: int


async def perform(client: Client, plan: Plan) -> Outcome:
    """Start the run, keep workers at it, and return what it came to; SIGTERM cancels that."""
    main = asyncio.current_task()
    assert main is not None
    # Workers and folders must not stay behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    witness = Witness()
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(client)
        crew = await _engage(stack, backend, plan)
        started = time.monotonic()
        run = await backend.start(publish(index, plan.root, plan.limit))
        reader = Reader(plan.journal, run.id)
        display = stack.enter_context(make_display(plan.total))
        waiting = asyncio.ensure_future(run.result(Report))
        stack.callback(waiting.cancel)
        next_kill = _draw(_KILL_AFTER)
        while not (await asyncio.wait([waiting], timeout=_LOOK))[0]:
            witness.hear(reader.read())
            if crew is not None:
                _check(crew, plan)
                done = len(witness.counted) / plan.total
                if plan.kill and next_kill <= done < _KILL_UNTIL and _kill_one(crew, witness):
                    next_kill = done + _draw(_KILL_AFTER)
            display.update(_standing(crew, plan, witness))
        report = waiting.result()
        seconds = time.monotonic() - started
        witness.hear(reader.read())
        display.update(_standing(crew, plan, witness))
    witness.hear(reader.read())  # what was done after the end, if anything was
    return Outcome(
        run_id=run.id,
        report=report,
        seconds=seconds,
        witness=witness,
        killed=crew.killed if crew is not None else 0,
    )


async def _engage(stack: AsyncExitStack, backend: Client, plan: Plan) -> Crew | None:
    """Have workers work: processes, or else one worker in this process."""
    if not plan.workers:
        make = Worker(
            backend,
            library,
            concurrency=_CONCURRENCY,
            threads=_THREADS,
            resources=[lambda: Journal(plan.journal)],
        )
        await stack.enter_async_context(make)
        return None
    serving = Serving(
        concurrency=_CONCURRENCY,
        threads=_THREADS,
        lease=_LEASE,
        resource=("pwf.cli._journal:open_journal",),
        log_level="warning",
    )
    where = Connection(url=plan.url, namespace=plan.namespace)
    crew = Crew(
        ["worker", "pwf.cli._index:library", *serving.arguments(), *where.arguments()],
        plan.workers,
        environment={**where.environment(), VARIABLE: str(plan.journal)},
        stderr=stack.enter_context((plan.folder / "workers.log").open("ab")),
    )
    return await stack.enter_async_context(crew)


def _standing(crew: Crew | None, plan: Plan, witness: Witness) -> Standing:
    return Standing(
        done=len(witness.counted),
        workers=len(crew.pids) if crew is not None else 0,
        killed=crew.killed if crew is not None and plan.kill else None,
    )


def _draw(bounds: tuple[float, float]) -> float:
    return random.uniform(*bounds)  # noqa: S311 -- chance, no secret


def _kill_one(crew: Crew, witness: Witness) -> bool:
    """Kill one that has work to lose; whether there was one."""
    busy = [pid for pid in crew.pids if pid in witness.at_work]
    if not busy:
        return False
    crew.kill(random.choice(busy))  # noqa: S311
    return True


def _check(crew: Crew, plan: Plan) -> None:
    """Give up if workers die that we have not killed.

    Raises:
        WorkersDieError: If they do.
    """
    if crew.failing >= _GIVE_UP:
        raise WorkersDieError((plan.folder / "workers.log").read_text(errors="replace"))


class WorkersDieError(PwfError):
    """The demo's own workers do not stay alive."""

    def __init__(self, log: str) -> None:
        lines = log.strip().splitlines()
        super().__init__(
            f"The workers die; the last one said: {lines[-1] if lines else '(nothing)'}"
        )
