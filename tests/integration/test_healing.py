"""Workers heal by themselves from whatever an operator, or a server, does to them.

Each test lets a worker of either flavour work, does the harm under its feet, and wants new runs to
be taken, with nobody's help.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.sites import LIMIT, Flavour, Pair, Work, ctl, eventually, until, works

from pwf import RunNotFoundError, connect, publish
from pwf.testing.servers import RabbitServer
from pwf_core.ids import ClaimId
from pwf_core.ports import Take

pika = pytest.importorskip("pika")


@asynccontextmanager
async def working(flavour: Flavour, url: str, work: Work, **options: Any) -> AsyncIterator[Any]:
    """Give out a client whose worker has done something already."""
    async with flavour.client(url) as client, flavour.worker(client, work.service, **options):
        await works(client)
        yield client


def test_flushed_store(flavour: Flavour, backend_url: str, work: Work, admin: Any) -> None:
    """FLUSHALL takes all runs; they are unknown from then on, and new ones are taken."""

    async def main() -> None:
        async with working(flavour, backend_url, work) as client:
            old = await client.start_many([publish("work.hold") for _ in range(3)])
            await eventually(lambda: len(work.held) == 3)
            later = await client.start(publish("work.chain", 1).after(timedelta(seconds=1)))
            admin.flushall()
            work.go.set()

            await works(client)
            for run in [*old, later]:
                with pytest.raises(RunNotFoundError):
                    await run.result(timeout=LIMIT)
            await works(client)

    asyncio.run(main())


def test_store_flushed_again_and_again(
    flavour: Flavour, backend_url: str, work: Work, admin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is half done at that moment; queues and groups are made anew."""

    async def end(run: Any) -> str:
        try:
            return str(await run.result(timeout=LIMIT))
        except RunNotFoundError:
            return "forgotten"

    async def main() -> None:
        async with working(flavour, backend_url, work) as client:
            ends = []
            for _ in range(30):
                runs = await client.start_many([publish("work.chain", 5) for _ in range(5)])
                ends += [asyncio.create_task(end(run)) for run in runs]
                admin.flushall()
            assert set(await asyncio.gather(*ends)) <= {"done", "forgotten"}
            await works(client)

    asyncio.run(main())
    assert "bug" not in caplog.text


def test_scripts_flushed_under_load(
    flavour: Flavour, backend_url: str, work: Work, admin: Any
) -> None:
    """SCRIPT FLUSH and FUNCTION FLUSH in a loop: all is loaded again, and nothing is lost or said."""

    async def main() -> None:
        async with working(flavour, backend_url, work) as client:
            runs = await client.start_many([publish("work.chain", 20) for _ in range(20)])
            ends = asyncio.gather(*(run.result(timeout=LIMIT) for run in runs))
            while not ends.done():
                await asyncio.to_thread(admin.script_flush)
                await asyncio.to_thread(admin.function_flush)

            assert await ends == ["done"] * 20

    asyncio.run(main())


def test_connections_closed_by_redis(
    flavour: Flavour,
    backend_url: str,
    work: Work,
    admin: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CLIENT KILL, again and again: of connections that lie idle, wait, listen or work.

    More and more seldom, so that a busy machine gets to connecting in between. What a stream has
    delivered by a reply that was cut off is looked for after half a minute otherwise.
    """
    monkeypatch.setattr("pwf_redis.consuming.ABANDONED_MS", 1000)
    monkeypatch.setattr("pwf_redis.consuming.LOOK_EVERY", 0.5)

    async def main() -> None:
        async with working(flavour, backend_url, work) as client:
            runs = await client.start_many([publish("work.chain", 20) for _ in range(20)])
            ends = asyncio.gather(*(run.result(timeout=3 * LIMIT) for run in runs))
            pause = 0.02
            while not ends.done():
                for kind in ("normal", "pubsub"):
                    admin.client_kill_filter(_type=kind, skipme=True)
                await asyncio.sleep(pause)
                pause *= 1.05

            assert await ends == ["done"] * 20

    asyncio.run(main())


@contextmanager
def operator(amqp_url: str) -> Iterator[Any]:
    """Give out a channel of somebody else."""
    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
    try:
        yield connection.channel()
    finally:
        connection.close()


@pytest.mark.redis
@pytest.mark.rabbit
def test_deleted_queue(pair: Pair, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server cancels its consumer; it is made anew, and the store publishes what was in it."""
    monkeypatch.setattr("pwf_rabbit.intake._RENEWAL", 1.0)
    flavour, url = pair.flavour, pair.url()
    options = {"lease": timedelta(minutes=5), "threads" if flavour.blocking else "concurrency": 2}

    async def main() -> None:
        async with working(flavour, url, work, **options) as client:
            runs = await client.start_many([publish("work.hold") for _ in range(70)])
            await eventually(lambda: len(work.held) == 2)
            with operator(pair.amqp) as channel:
                channel.queue_delete(pair.queue)
            await let_a_minute_pass(url)
            work.go.set()

            assert [await run.result(timeout=LIMIT) for run in runs] == ["done"] * 70
            assert work.held == [1] * 70

    asyncio.run(main())


@pytest.mark.redis
@pytest.mark.rabbit
def test_queue_that_became_another(pair: Pair, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that cannot consume says so by its health, lives on, and works once it can."""
    monkeypatch.setattr("pwf._health._OVERDUE", 1.5)
    flavour, name = pair.flavour, pair.queue

    async def main() -> None:
        worker: Any
        async with (
            flavour.client(pair.url()) as client,
            flavour.worker(client, work.service) as worker,
        ):
            await works(client)
            held = await client.start(publish("work.hold"))
            await eventually(lambda: work.held)
            with operator(pair.amqp) as channel:
                channel.queue_delete(name)
                channel.queue_declare(name, durable=True, arguments={"x-queue-type": "classic"})
                bad = await until(lambda one: not one.is_serving and one.problem, flavour, worker)
                channel.queue_delete(name)
            work.go.set()
            assert "exists with another" in bad.problem
            assert await held.result(timeout=LIMIT) == "done"
            await until(lambda one: one.is_serving and not one.problem, flavour, worker)

    asyncio.run(main())


@pytest.mark.redis
@pytest.mark.rabbit
def test_connections_closed_by_rabbit(
    harmed_pair: Pair, harmed_rabbit: RabbitServer, work: Work
) -> None:
    """All of them are closed while handlers run and calls wait; nobody misses one."""

    async def main() -> None:
        async with working(harmed_pair.flavour, harmed_pair.url(), work) as client:
            held = await client.start_many([publish("work.hold") for _ in range(3)])
            await eventually(lambda: len(work.held) == 3)
            runs = await client.start_many([publish("work.chain", 50) for _ in range(30)])
            closed = asyncio.to_thread(ctl, harmed_rabbit, "close_all_connections", "for a test")
            closing = asyncio.create_task(closed)
            ends = [await run.result(timeout=LIMIT) for run in runs]
            await closing
            await works(client)
            work.go.set()
            ends += [await run.result(timeout=LIMIT) for run in held]
            await works(client)

            assert ends == ["done"] * 33
            assert work.held == [1] * 3

    asyncio.run(main())


async def let_a_minute_pass(url: str) -> None:
    """Move on what is due then, as any worker does."""
    async with connect(url) as client:
        client.port._store.operations.now_ms = int(time.time() * 1000) + 61_000
        await client.port.exchange([], Take(("nobody",), 0, ClaimId("t:1"), 1000))
