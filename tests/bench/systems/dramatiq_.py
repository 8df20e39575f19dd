"""Dramatiq: pipelines, and groups with completion callbacks, on Redis or RabbitMQ.

Sources: its guide ("Message Pipelines", "Message Groups"), "Advanced Topics" (Redis, RabbitMQ).
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import dramatiq
from dramatiq import group, pipeline
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AgeLimit, GroupCallbacks, Pipelines, Retries, ShutdownNotifications
from dramatiq.rate_limits.backends import RedisBackend
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend as RedisResults
from tests.bench.systems.speaking import (
    NAMESPACE,
    RABBIT,
    RECOVERY,
    REDIS,
    About,
    end,
    main,
    step,
)

ON_RABBIT = os.environ.get("BENCH_BROKER") == "rabbit"
THREADS = os.environ.get("BENCH_CONCURRENCY", "8")
HEARTBEAT_TIMEOUT = 1000 * (RECOVERY or 60)

MIDDLEWARE = [
    AgeLimit(),
    ShutdownNotifications(),
    Retries(),
    Pipelines(),
    GroupCallbacks(RedisBackend(url=REDIS)),
]
broker: dramatiq.Broker
if ON_RABBIT:
    broker = RabbitmqBroker(url=RABBIT, confirm_delivery=True, middleware=MIDDLEWARE)
else:
    # Maintenance, which finds what dead workers held, is drawn: 1,000 in a million by default.
    chance = {"maintenance_chance": 100_000} if RECOVERY else {}
    broker = RedisBroker(
        url=REDIS, heartbeat_timeout=HEARTBEAT_TIMEOUT, middleware=MIDDLEWARE, **chance
    )
broker.add_middleware(Results(backend=RedisResults(url=REDIS)))
dramatiq.set_broker(broker)

actor = partial(dramatiq.actor, queue_name=NAMESPACE)


@actor()
def hop(mark: str, run: int, work_ms: int, value: int) -> int:
    """Add one."""
    step(mark, run, work_ms)
    return value + 1


@actor()
def last(mark: str, run: int, work_ms: int, value: int) -> None:
    """Add one, and end."""
    step(mark, run, work_ms)
    end(mark, run, value + 1)


@actor()
def fork(mark: str, run: int, width: int, work_ms: int) -> None:
    """Fan out, and join."""
    step(mark, run, work_ms)
    branches = group(
        branch.message(number, mark, run, work_ms).copy(message_id=name_of(mark, run, number))
        for number in range(width)
    )
    branches.add_completion_callback(joined.message(width, mark, run, work_ms))
    branches.run()


@actor(store_results=True)
def branch(number: int, mark: str, run: int, work_ms: int) -> int:
    """Give the join a number."""
    step(mark, run, work_ms)
    return number


@actor()
def joined(width: int, mark: str, run: int, work_ms: int) -> None:
    """Sum up: the callback of a group is handed no results, so it reads them."""
    step(mark, run, work_ms)
    backend = broker.get_results_backend()
    message = branch.message()
    results = [
        message.copy(message_id=name_of(mark, run, number)).get_result(backend=backend)
        for number in range(width)
    ]
    end(mark, run, sum(results))


def name_of(mark: str, run: int, number: int) -> str:
    """Return the id of a branch. Each carries the whole callback, so ids in that would weigh n times n."""
    return f"{mark}-{run}-{number}"


class System:
    """The client's side."""

    def chains(self, mark: str, runs: int, steps: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        for run in range(runs):
            hops = [hop.message(mark, run, work_ms) for _ in range(steps - 1)]
            hops[0] = hop.message(mark, run, work_ms, 0)
            pipeline([*hops, last.message(mark, run, work_ms)]).run()

    def forks(self, mark: str, runs: int, width: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        for run in range(runs):
            fork.send(mark, run, width, work_ms)

    def starts(self, mark: str, count: int, *, batched: bool) -> None:
        """See `speaking.Client`."""
        for run in range(count):
            last.send(mark, run, 0, 0)


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect; the broker opens itself."""
    yield System()


def worker() -> None:
    """Become `dramatiq`."""
    arguments = [sys.executable, "-m", "dramatiq", "tests.bench.systems.dramatiq_"]
    arguments += ["--processes", "1", "--threads", THREADS, "--skip-logging"]
    os.execv(sys.executable, arguments)  # noqa: S606 -- it is to be one process


ABOUT = About(
    settings=f"One process of {THREADS} threads (its default; more were slower), default prefetch, "
    "only the middleware that is needed; joins by `GroupCallbacks` and `Results` on Redis. It "
    "acknowledges after the work." + (" `confirm_delivery`." if ON_RABBIT else ""),
    not_guaranteed="A pipeline's next message is sent apart from the ack, so a crash between the two "
    "sends it twice. A group is counted by a barrier in Redis, apart from the ack: a member that "
    "runs twice counts twice. "
    + (
        ""
        if ON_RABBIT
        else "What a dead worker held comes back after `heartbeat_timeout` (a minute), when "
        "maintenance happens to be drawn."
    ),
    packages=("dramatiq", "pika", "redis", "hiredis"),
    cannot={"W5 batched": "it publishes one by one"},
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
