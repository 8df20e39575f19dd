"""Procrastinate: tasks that defer what comes next, on PostgreSQL.

Sources: its documentation ("Launch a worker", "Optimize", "Retry stalled jobs").
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import procrastinate
from tests.bench.systems.speaking import (
    NAMESPACE,
    POSTGRES,
    RECOVERY,
    About,
    async_step,
    batches,
    end,
    main,
)

CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "64"))
BATCH = 500

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=POSTGRES, max_size=20))


@app.task(name="hop", queue=NAMESPACE)
async def hop(mark: str, run: int, left: int, value: int, work_ms: int) -> None:
    """Add one, and defer the next step while there is one."""
    await async_step(mark, run, work_ms)
    if left > 1:
        follower = {"mark": mark, "run": run, "left": left - 1, "value": value + 1}
        await hop.defer_async(**follower, work_ms=work_ms)
    else:
        end(mark, run, value + 1)


@app.periodic(cron="* * * * * */1" if RECOVERY else "*/10 * * * *")
@app.task(name="retry_stalled", queue=NAMESPACE, queueing_lock="retry_stalled", pass_context=True)
async def retry_stalled(context: procrastinate.JobContext, timestamp: int) -> None:
    """Retry what dead workers held, as its documentation has it."""
    manager = context.app.job_manager
    for job in await manager.get_stalled_jobs(seconds_since_heartbeat=RECOVERY or 30):
        await manager.retry_job(job)


class System:
    """The client's side."""

    async def chains(self, mark: str, runs: int, steps: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        await self._defer(mark, runs, steps, work_ms, BATCH)

    async def starts(self, mark: str, count: int, *, batched: bool) -> None:
        """See `speaking.Client`."""
        await self._defer(mark, count, 1, 0, BATCH if batched else 1)

    async def _defer(self, mark: str, runs: int, steps: int, work_ms: int, size: int) -> None:
        names = {"mark": mark, "left": steps, "value": 0, "work_ms": work_ms}
        for some in batches(range(runs), size):
            if len(some) == 1:
                await hop.defer_async(run=some[0], **names)
            else:
                await hop.batch_defer_async(*({"run": run, **names} for run in some))


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect; fails until the worker has made the tables."""
    async with app.open_async():
        if not await app.check_connection_async():
            raise RuntimeError("there are no tables yet")
        yield System()


async def _work() -> None:
    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        await app.run_worker_async(
            queues=[NAMESPACE],
            concurrency=CONCURRENCY,
            fetch_job_polling_interval=1.0,
            delete_jobs="always",
            **({"update_heartbeat_interval": 1, "stalled_worker_timeout": 3} if RECOVERY else {}),
        )


def worker() -> None:
    """Make the tables, and work."""
    asyncio.run(_work())


_NO_JOINS = "it has no joins: users would count in tables of their own"
ABOUT = About(
    settings=f"One worker, {CONCURRENCY} jobs at once, LISTEN/NOTIFY, ended jobs deleted; a step defers the "
    "next one itself.",
    not_guaranteed="It has no workflows: the next step is deferred in a transaction of its own, so a "
    "crash before the job is marked as done defers it twice. What a dead worker held stays "
    "`doing` unless users retry stalled jobs themselves.",
    packages=("procrastinate", "psycopg"),
    cannot={"W2": _NO_JOINS, "W3": _NO_JOINS, "W6": _NO_JOINS, "W7 forks": _NO_JOINS},
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
