"""Taskiq with taskiq-pipelines, on Redis streams or RabbitMQ; results in Redis.

Sources: the READMEs of taskiq-redis, taskiq-aio-pika and taskiq-pipelines; "CLI" of its guide.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from taskiq import AsyncBroker
from taskiq.serializers import ORJSONSerializer
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.queue import Queue, QueueType
from taskiq_pipelines import Pipeline, PipelineMiddleware
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker
from tests.bench.systems.speaking import (
    NAMESPACE,
    RABBIT,
    RECOVERY,
    REDIS,
    About,
    async_step,
    batches,
    end,
    main,
)

ON_RABBIT = os.environ.get("BENCH_BROKER") == "rabbit"
CONCURRENCY = os.environ.get("BENCH_CONCURRENCY", "512")
CHECK_INTERVAL = 0.05
AT_ONCE = 64  # sends of the client that are under way together

broker: AsyncBroker
if ON_RABBIT:
    broker = AioPikaBroker(RABBIT, qos=64)
    broker = broker.with_queue(Queue(name=NAMESPACE, type=QueueType.CLASSIC, durable=True))
else:
    broker = RedisStreamBroker(
        REDIS,
        queue_name=NAMESPACE,
        consumer_id="0",
        idle_timeout=1000 * (RECOVERY or 600),
        unacknowledged_lock_timeout=5,
    )
broker = (
    broker.with_result_backend(RedisAsyncResultBackend(REDIS, result_ex_time=600))
    .with_serializer(ORJSONSerializer())
    .with_middlewares(PipelineMiddleware())
)


@broker.task("hop")
async def hop(value: int, mark: str, run: int, work_ms: int) -> int:
    """Add one."""
    await async_step(mark, run, work_ms)
    return value + 1


@broker.task("last")
async def last(value: int, mark: str, run: int, work_ms: int) -> None:
    """Add one, and end."""
    await async_step(mark, run, work_ms)
    end(mark, run, value + 1)


@broker.task("root")
async def root(width: int, mark: str, run: int, work_ms: int) -> list[int]:
    """Return what to map over."""
    await async_step(mark, run, work_ms)
    return list(range(width))


@broker.task("branch")
async def branch(number: int, mark: str, run: int, work_ms: int) -> int:
    """Give the join a number."""
    await async_step(mark, run, work_ms)
    return number


@broker.task("joined")
async def joined(numbers: list[int], mark: str, run: int, work_ms: int) -> None:
    """Sum up."""
    await async_step(mark, run, work_ms)
    end(mark, run, sum(numbers))


class System:
    """The client's side."""

    async def chains(self, mark: str, runs: int, steps: int, work_ms: int) -> None:
        """See `speaking.Client`."""

        async def start(run: int) -> None:
            names = {"mark": mark, "run": run, "work_ms": work_ms}
            line: Any = Pipeline(broker, hop)
            for _ in range(steps - 2):
                line = line.call_next(hop, **names)
            await line.call_next(last, **names).kiq(0, **names)

        await at_once(start(run) for run in range(runs))

    async def forks(self, mark: str, runs: int, width: int, work_ms: int) -> None:
        """See `speaking.Client`."""

        async def start(run: int) -> None:
            names = {"mark": mark, "run": run, "work_ms": work_ms}
            line: Any = Pipeline(broker, root)
            line = line.map(branch, check_interval=CHECK_INTERVAL, **names)
            await line.call_next(joined, **names).kiq(width, **names)

        await at_once(start(run) for run in range(runs))

    async def starts(self, mark: str, count: int, *, batched: bool) -> None:
        """See `speaking.Client`."""
        for run in range(count):
            await last.kiq(0, mark, run, 0)


async def at_once(starts: Iterable[Awaitable[None]]) -> None:
    """Await all, some at a time."""
    for batch in batches(starts, AT_ONCE):
        await asyncio.gather(*batch)


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect."""
    await broker.startup()
    yield System()
    await broker.shutdown()


def worker() -> None:
    """Become `taskiq worker`."""
    arguments = ["-m", "taskiq", "worker", "tests.bench.systems.taskiq_:broker", "--workers", "1"]
    arguments += ["--max-async-tasks", CONCURRENCY, "--log-level", "ERROR"]
    arguments += ["--ack-type", "when_saved"]
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 -- it is to be one process


ABOUT = About(
    settings=f"One worker with uvloop, up to {CONCURRENCY} tasks at once, orjson, acknowledged once "
    "saved (its default); chains by taskiq-pipelines, joins by its `map`, whose waiting task looks "
    f"for results every {CHECK_INTERVAL:g} s and holds a slot of the worker meanwhile."
    + (" Classic queue, confirms." if ON_RABBIT else ""),
    not_guaranteed="The next step is sent apart from the ack, so a crash between the two sends it "
    "twice. The task that waits for a `map` forgets nothing, but more maps than slots are a "
    "deadlock, and results expire. "
    + (
        ""
        if ON_RABBIT
        else "What a dead worker held comes back after `idle_timeout`, ten minutes by default, and only when "
        "new messages arrive; a task that takes longer runs twice."
    ),
    packages=("taskiq", "taskiq-redis", "taskiq-aio-pika", "taskiq-pipelines", "redis", "uvloop"),
    cannot={"W5 batched": "it sends one by one"},
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
