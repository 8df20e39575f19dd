"""Celery: chains and chords, acknowledged late, on Redis or RabbitMQ; results and joins in Redis.

Sources: "Optimizing" and "Canvas" of its user guide; "Using Redis", "Using RabbitMQ".
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from celery import Celery, chain, chord, group
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
# Of solo, threads and prefork with 1 to 16, prefork with four was best all in all.
POOL = os.environ.get("BENCH_POOL", "prefork")
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "4"))

# How often it looks for what is to come back: every 100 s by default.
SWEEPING = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1} if RECOVERY else {}

app = Celery("bench", broker=RABBIT if ON_RABBIT else REDIS, backend=REDIS)
app.conf.update(
    task_default_queue=NAMESPACE,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=64,
    worker_concurrency=1 if POOL == "solo" else CONCURRENCY,
    task_track_started=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options=(
        {"confirm_publish": True}
        if ON_RABBIT
        else {"visibility_timeout": RECOVERY or 3600, **SWEEPING}
    ),
)


@app.task(ignore_result=True)
def hop(value: int, mark: str, run: int, work_ms: int) -> int:
    """Add one."""
    step(mark, run, work_ms)
    return value + 1


@app.task(ignore_result=True)
def last(value: int, mark: str, run: int, work_ms: int) -> None:
    """Add one, and end."""
    step(mark, run, work_ms)
    end(mark, run, value + 1)


@app.task(ignore_result=True)
def root(mark: str, run: int, work_ms: int) -> None:
    """Be what comes before the fork."""
    step(mark, run, work_ms)


@app.task
def branch(number: int, mark: str, run: int, work_ms: int) -> int:
    """Give the join a number; a chord needs its results."""
    step(mark, run, work_ms)
    return number


@app.task(ignore_result=True)
def joined(numbers: list[int], mark: str, run: int, work_ms: int) -> None:
    """Sum up."""
    step(mark, run, work_ms)
    end(mark, run, sum(numbers))


class System:
    """The client's side."""

    def chains(self, mark: str, runs: int, steps: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        for run in range(runs):
            signatures = [hop.s(mark, run, work_ms) for _ in range(steps - 1)]
            signatures.append(last.s(mark, run, work_ms))
            signatures[0] = signatures[0].clone(args=(0,))
            chain(*signatures).apply_async()

    def forks(self, mark: str, runs: int, width: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        for run in range(runs):
            branches = group(branch.si(number, mark, run, work_ms) for number in range(width))
            join = chord(branches, joined.s(mark, run, work_ms))
            chain(root.si(mark, run, work_ms), join).apply_async()

    def starts(self, mark: str, count: int, *, batched: bool) -> None:
        """See `speaking.Client`."""
        for run in range(count):
            last.apply_async((0, mark, run, 0))


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect; the pool of producers opens itself."""
    yield System()


def worker() -> None:
    """Be `celery worker`."""
    app.worker_main(
        [
            *("worker", "--loglevel=ERROR", f"--pool={POOL}"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
    )


ABOUT = About(
    settings=f"`--pool={POOL}` of {CONCURRENCY} (its default kind, which was best: a parent with four "
    "children, so more processes than any other row), `acks_late`, `reject_on_worker_lost`, prefetch 64, no gossip, mingle, heartbeat or "
    "events, results only where a chord needs them; joins by `chord` on the Redis result backend."
    + (" Classic queue, `confirm_publish`." if ON_RABBIT else ""),
    not_guaranteed="A chain's next step is sent apart from the ack of the last one, so a crash between "
    "the two sends it twice. A chord is counted in Redis apart from the acks, and its body is sent by "
    "the member that counts last: a crash around that sends it twice, or not at all."
    + (
        ""
        if ON_RABBIT
        else " What a dead worker held comes back after `visibility_timeout`, an hour by default; a "
        "longer task runs twice."
    ),
    packages=("celery", "kombu", "amqp", "redis", "hiredis"),
    cannot={"W5 batched": "it publishes one by one"},
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
