"""streaQ: tasks that depend on others, enqueued together, on Redis Streams.

Sources: its documentation ("Task dependency graph", "Worker", "Task").
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streaq import Worker
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

CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "64"))
AT_ONCE = 500  # tasks in one call of `enqueue_many`

streaq: Worker[Any] = Worker(
    redis_url=REDIS or "redis://localhost",
    queue_name=NAMESPACE,
    concurrency=CONCURRENCY,
    idle_timeout=RECOVERY or 60,
    anyio_kwargs={"use_uvloop": True},
)


@streaq.task(name="hop", silent=True, ttl=0)
async def hop(value: int, mark: str, run: int, work_ms: int) -> tuple[int, str, int, int]:
    """Add one; what a task returns is what the next one is called with."""
    await async_step(mark, run, work_ms)
    return value + 1, mark, run, work_ms


@streaq.task(name="last", silent=True, ttl=0)
async def last(value: int, mark: str, run: int, work_ms: int) -> None:
    """Add one, and end."""
    await async_step(mark, run, work_ms)
    end(mark, run, value + 1)


@streaq.task(name="root", silent=True, ttl=0)
async def root(mark: str, run: int, work_ms: int) -> None:
    """Be what comes before the fork."""
    await async_step(mark, run, work_ms)


@streaq.task(name="branch", silent=True)
async def branch(number: int, mark: str, run: int, work_ms: int) -> int:
    """Give the join a number."""
    await async_step(mark, run, work_ms)
    return number


@streaq.task(name="joined", silent=True, ttl=0)
async def joined(ids: list[str], mark: str, run: int, work_ms: int) -> None:
    """Sum up: a task that depends on many is handed no results, so it reads them."""
    await async_step(mark, run, work_ms)
    total = 0
    for some in batches(ids, 500):
        found = await streaq.redis.mget([streaq.results_key + one for one in some])
        total += sum([(await streaq.deserialize(raw))["r"] for raw in found])
    end(mark, run, total)


class System:
    """The client's side."""

    async def chains(self, mark: str, runs: int, steps: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        for run in range(runs):
            line: Any = hop.enqueue(0, mark, run, work_ms)
            for _ in range(steps - 2):
                line = line.then(hop)
            await line.then(last)

    async def forks(self, mark: str, runs: int, width: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        for run in range(runs):
            first = root.enqueue(mark, run, work_ms)
            middle = [
                branch.enqueue(number, mark, run, work_ms).start(after=first.id)
                for number in range(width)
            ]
            ids = [one.id for one in middle]
            end_ = joined.enqueue(ids, mark, run, work_ms).start(after=ids)
            # What others wait for is to be there before them, so the first comes last.
            for some in batches([end_, *middle, first], AT_ONCE):
                await streaq.enqueue_many(some)

    async def starts(self, mark: str, count: int, *, batched: bool) -> None:
        """See `speaking.Client`."""
        tasks = [last.enqueue(0, mark, run, 0) for run in range(count)]
        if batched:
            for some in batches(tasks, AT_ONCE):
                await streaq.enqueue_many(some)
        else:
            for task in tasks:
                await task


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect."""
    async with streaq:
        yield System()


def worker() -> None:
    """Work."""
    streaq.run_sync()


ABOUT = About(
    settings=f"One worker with uvloop, {CONCURRENCY} tasks at once, silent, no results but those that a "
    "join reads; `then` for chains, `after` for joins, all tasks of a run enqueued beforehand.",
    not_guaranteed="A task's end and the enqueueing of those that wait for it are two steps: a crash "
    "between them leaves these where they are, for ever. What a dead worker held comes back after "
    "`idle_timeout`, a minute by default.",
    packages=("streaq", "coredis", "anyio", "uvloop"),
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
