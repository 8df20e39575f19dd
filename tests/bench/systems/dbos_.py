"""DBOS: workflows whose steps are checkpoints in PostgreSQL, enqueued by its client.

Sources: its documentation ("Workflows", "Queues", "DBOS Client", "Configuration").
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbos import DBOS, DBOSClient
from tests.bench.systems.speaking import NAMESPACE, POSTGRES, About, async_step, end, main

CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "64"))
POLLING = 0.05  # seconds; one by default
URL = POSTGRES


@DBOS.step()
async def hop(value: int, mark: str, run: int, work_ms: int) -> int:
    """Add one."""
    await async_step(mark, run, work_ms)
    return value + 1


@DBOS.workflow()
async def chain(mark: str, run: int, steps: int, work_ms: int) -> None:
    """Run the steps one after the other."""
    value = 0
    for _ in range(steps):
        value = await hop(value, mark, run, work_ms)
    end(mark, run, value)


@DBOS.step()
async def root(mark: str, run: int, work_ms: int) -> None:
    """Be what comes before the fork."""
    await async_step(mark, run, work_ms)


@DBOS.step()
async def branch(number: int, mark: str, run: int, work_ms: int) -> int:
    """Give the join a number."""
    await async_step(mark, run, work_ms)
    return number


@DBOS.workflow()
async def fork(mark: str, run: int, width: int, work_ms: int) -> None:
    """Run steps at once, and join."""
    await root(mark, run, work_ms)
    values = await asyncio.gather(*(branch(number, mark, run, work_ms) for number in range(width)))
    await async_step(mark, run, work_ms)
    end(mark, run, sum(values))


class System:
    """The client's side."""

    def __init__(self, dbos: DBOSClient) -> None:
        self._dbos = dbos

    def chains(self, mark: str, runs: int, steps: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        for run in range(runs):
            self._enqueue("chain", mark, run, steps, work_ms)

    def forks(self, mark: str, runs: int, width: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        for run in range(runs):
            self._enqueue("fork", mark, run, width, work_ms)

    def starts(self, mark: str, count: int, *, batched: bool) -> None:
        """See `speaking.Client`."""
        for run in range(count):
            self._enqueue("chain", mark, run, 1, 0)

    def _enqueue(self, workflow: str, *args: object) -> None:
        self._dbos.enqueue({"workflow_name": workflow, "queue_name": NAMESPACE}, *args)


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect; fails until the worker has made the tables."""
    dbos = DBOSClient(system_database_url=URL)
    if dbos.retrieve_queue(NAMESPACE) is None:
        raise RuntimeError("there is no queue yet")
    yield System(dbos)
    dbos.destroy()


def worker() -> None:
    """Make the tables, and work."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": URL,
            "log_level": "ERROR",
            "sys_db_pool_size": 20,
            "executor_id": "one",
            "application_version": "1",
        }
    )
    DBOS.launch()
    DBOS.register_queue(NAMESPACE, worker_concurrency=CONCURRENCY, polling_interval_sec=POLLING)
    threading.Event().wait()


ABOUT = About(
    settings=f"Async workflows and steps, {CONCURRENCY} workflows at once from a queue that is polled "
    f"every {POLLING:g} s (one second by default), a pool of 20 connections; a chain is one workflow "
    "of steps in one process, a fork-join one workflow that awaits steps together.",
    not_guaranteed="Steps run at least once. A workflow belongs to one process at a time, which replays "
    "it from its checkpoints after a crash, so its code has to be deterministic; another process "
    "takes it over only where Conductor, or an operator, says so.",
    packages=("dbos", "sqlalchemy", "psycopg"),
    cannot={"W5 batched": "its client enqueues one by one"},
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
