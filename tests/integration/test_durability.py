"""What is left of the work when Redis comes back without the last that it was told."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis
from tests.chaos.shapes import draw, sum_of
from tests.chaos.workflows import alpha, beta, run_node
from tests.simulated.soak import at_once

from pwf import Run, RunNotFoundError, Worker, connect, connect_blocking, publish
from pwf.testing import RabbitServer, RedisServer, ValkeyServer

LIMIT = 110.0  # seconds; what the broker had and the store forgot comes again after a minute
RUNS = 60


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("rabbit", marks=[pytest.mark.redis, pytest.mark.rabbit]),
    ],
)
def backend(request: pytest.FixtureRequest) -> str:
    """Which of the durable backends; skipped without its servers."""
    request.getfixturevalue("redis_server")
    name: str = request.param
    return name


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis whose log nobody rewrites."""
    with RedisServer("appendfsync no", "auto-aof-rewrite-percentage 0") as server:
        yield server


@pytest.fixture
def url(backend: str, server: RedisServer, request: pytest.FixtureRequest) -> str:
    """The URL of a backend with that Redis."""
    if backend == "redis":
        return server.url
    return f"{request.getfixturevalue('amqp_url')}?namespace=t{server.port}&store={server.url}"


def cut_tail(server: RedisServer, share: float) -> None:
    """Take away the last part of what the log has; mostly in the middle of a transaction."""
    (log,) = Path(server.folder).rglob("*.incr.aof")
    os.truncate(log, int(log.stat().st_size * (1 - share)))


@pytest.mark.timeout(300)
def test_tail_of_the_log_is_lost(url: str, server: RedisServer) -> None:
    """Runs that the store still knows end as they must, the others are not known; none is stuck."""
    plans = [plan for plan in (draw(3, n) for n in range(2 * RUNS)) if plan.kind == "plain"]
    plans = plans[:RUNS]

    async def end(run: Run, value: int) -> str:
        try:
            found = await run.result(int, timeout=LIMIT)
        except RunNotFoundError:
            return "forgotten"
        return "right" if found == value else f"{found} instead of {value}"

    async def main() -> Counter[str]:
        async with (
            connect(url, retention=timedelta(days=1)) as client,
            Worker(client, alpha, beta, concurrency=4),
        ):
            runs = [await client.start(run_node(at_once(plan.root))) for plan in plans]
            await runs[RUNS // 3].wait(timeout=LIMIT)
            last = await client.start(run_node(at_once(plans[0].root)))
            server.kill()  # at once: hardly anything is in the log behind the last start
            cut_tail(server, 0.3)
            await asyncio.to_thread(server.restart)
            assert await end(last, sum_of(plans[0].root)) == "forgotten"
            ends = [end(run, sum_of(plan.root)) for run, plan in zip(runs, plans, strict=True)]
            return Counter(await asyncio.gather(*ends))

    found = asyncio.run(main())
    assert set(found) <= {"right", "forgotten"}, found
    assert found["right"] >= RUNS // 3


def waits(server: RedisServer) -> int:
    """Return how often the server was asked whether what was written is on its disk."""
    with Redis.from_url(server.url) as redis:
        return redis.info("commandstats").get("cmdstat_waitaof", {"calls": 0})["calls"]


@pytest.mark.parametrize("durability", ["standard", "fsync"])
def test_disk_is_asked_before_a_start_returns(
    backend: str, durability: str, request: pytest.FixtureRequest
) -> None:
    """Where the server flushes each second, fsync waits for it, at start and at each commit."""
    with ValkeyServer("appendfsync everysec") as server:
        url = f"{server.url}?durability={durability}"
        if backend == "rabbit":
            amqp = request.getfixturevalue("amqp_url")
            options = f"namespace=t{server.port}&durability={durability}"
            url = f"{amqp}?{options}&store={server.url}"
        with connect_blocking(url) as client:
            before = waits(server)
            client.start(publish("nobody.task"))
            assert (waits(server) > before) == (durability == "fsync")

        async def main() -> None:
            async with connect(url) as client, Worker(client, alpha, beta):
                before = waits(server)
                run = await client.start(run_node(at_once(draw(3, 1).root)))
                await run.wait(timeout=LIMIT)
                assert (waits(server) - before >= 2) == (durability == "fsync")

        asyncio.run(main())


@pytest.mark.redis
@pytest.mark.rabbit
@pytest.mark.timeout(300)
def test_nothing_is_lost_with_fsync(redis_server: object, rabbit_server: object) -> None:
    """Both servers are killed at once: whatever was accepted is known, and ends as it must."""
    plans = [plan for plan in (draw(3, n) for n in range(2 * RUNS)) if plan.kind == "plain"]
    plans = plans[:RUNS]

    async def main(redis: RedisServer, rabbit: RabbitServer) -> None:
        url = f"{rabbit.url}?store={redis.url}&durability=fsync"
        async with connect(url) as client, Worker(client, alpha, beta, concurrency=4):
            runs = [await client.start(run_node(at_once(plan.root))) for plan in plans]
            await runs[0].wait(timeout=LIMIT)
            async with asyncio.timeout(LIMIT):
                while not are_written_down(rabbit, ("alpha", "beta")):  # noqa: ASYNC110 -- a file has no event
                    await asyncio.sleep(0.05)
            late = [await client.start(run_node(at_once(plan.root))) for plan in plans]
            redis.kill()
            rabbit.kill()
            await asyncio.to_thread(redis.restart)
            await asyncio.to_thread(rabbit.restart)
            values = [await run.result(int, timeout=LIMIT) for run in [*runs, *late]]
            assert values == [sum_of(plan.root) for plan in plans] * 2

    with RedisServer("appendfsync always") as redis, RabbitServer() as rabbit:
        asyncio.run(main(redis, rabbit))


def are_written_down(server: RabbitServer, services: tuple[str, ...]) -> bool:
    """Whether the node would know these queues again; 3.10 notes them down after a while."""
    found = b"".join(file.read_bytes() for file in server.folder.rglob("names.dets"))
    return all(f"pwf.default.{name}".encode() in found for name in services)
