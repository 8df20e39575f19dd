"""SAQ: tasks that enqueue what comes next, and `Queue.map` for joins, on Redis.

Sources: its README and documentation ("Getting started", `Queue.map`, monitoring by heartbeat).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from saq import Job, Queue, Worker
from tests.bench.systems.speaking import (
    NAMESPACE,
    RECOVERY,
    REDIS,
    About,
    async_step,
    batches,
    end,
    main,
)

CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "256"))
AT_ONCE = 20  # its own limit of operations that are under way together

# A job that is not done after this counts as stuck, and is swept; its default is ten seconds.
PATIENCE = {"timeout": RECOVERY or 60, "retries": 3}

# Each job in the making holds a connection, and redis-py allows for 100 unless told.
queue = Queue.from_url(f"{REDIS}?max_connections=1000", name=NAMESPACE)
Ctx = dict[str, Any]


async def hop(ctx: Ctx, *, mark: str, run: int, left: int, value: int, work_ms: int) -> None:
    """Add one, and enqueue the next step while there is one."""
    await async_step(mark, run, work_ms)
    if left > 1:
        follower = {"mark": mark, "run": run, "left": left - 1, "value": value + 1}
        await queue.enqueue("hop", **follower, work_ms=work_ms, **PATIENCE)
    else:
        end(mark, run, value + 1)


async def fork(ctx: Ctx, *, mark: str, run: int, width: int, work_ms: int) -> None:
    """Fan out, wait for all, and enqueue the join."""
    await async_step(mark, run, work_ms)
    numbers = [{"number": number} for number in range(width)]
    names = {"mark": mark, "run": run, "work_ms": work_ms}
    values = await queue.map("branch", numbers, retries=3, **names)
    await queue.enqueue("joined", values=values, **names, **PATIENCE)


async def branch(ctx: Ctx, *, mark: str, run: int, number: int, work_ms: int) -> int:
    """Give the join a number."""
    await async_step(mark, run, work_ms)
    return number


async def joined(ctx: Ctx, *, mark: str, run: int, values: list[int], work_ms: int) -> None:
    """Sum up."""
    await async_step(mark, run, work_ms)
    end(mark, run, sum(values))


class System:
    """The client's side."""

    async def chains(self, mark: str, runs: int, steps: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        await enqueue(
            "hop",
            [
                {"mark": mark, "run": run, "left": steps, "value": 0, "work_ms": work_ms}
                for run in range(runs)
            ],
        )

    async def forks(self, mark: str, runs: int, width: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        await enqueue(
            "fork",
            [{"mark": mark, "run": run, "width": width, "work_ms": work_ms} for run in range(runs)],
        )

    async def starts(self, mark: str, count: int, *, batched: bool) -> None:
        """See `speaking.Client`."""
        wishes = [
            {"mark": mark, "run": run, "left": 1, "value": 0, "work_ms": 0} for run in range(count)
        ]
        await enqueue("hop", wishes, AT_ONCE if batched else 1)


async def enqueue(name: str, wishes: list[dict[str, Any]], size: int = AT_ONCE) -> None:
    """Enqueue jobs, *size* at a time."""
    for batch in batches(wishes, size):
        jobs = [Job(name, kwargs=wish, **PATIENCE) for wish in batch]
        await asyncio.gather(*(queue.enqueue(job) for job in jobs))


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect."""
    await queue.connect()
    yield System()
    await queue.disconnect()


def worker() -> None:
    """Work, as `saq` does with these settings."""
    import uvloop

    functions = [hop, fork, branch, joined]
    timers = {"sweep": 1} if RECOVERY else {}

    async def run() -> None:
        await queue.connect()
        await Worker(queue, functions, concurrency=CONCURRENCY, timers=timers).start()

    uvloop.run(run())


ABOUT = About(
    settings=f"One worker with uvloop and hiredis, {CONCURRENCY} jobs at once, so that as many "
    "forks may wait and leave room for their branches; a step enqueues the next one itself, a fork "
    "awaits `Queue.map`.",
    not_guaranteed="It has no workflows: a crash between enqueueing the next step and finishing the "
    "job enqueues it twice. A fork waits in the memory of its worker: the join is lost with it, "
    "until the fork itself is swept and all its branches run again. Swept are jobs that take "
    "longer than their time-out, one after the other, with a pause of up to five seconds for each.",
    packages=("saq", "redis", "hiredis", "uvloop"),
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
