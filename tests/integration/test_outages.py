"""Servers that are full, frozen, away or alarmed: what clients are told, and what workers do meanwhile.

Each test ends with the server as it was, and wants everything to go on with nobody's help.
"""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from tests.chaos.proxy import Proxy
from tests.integration.sites import (
    DRIVERS,
    LIMIT,
    Flavour,
    Pair,
    Work,
    ctl,
    eventually,
    fresh_name,
    until,
    works,
)

from pwf import StoreFullError, StoreUnavailableError, UnavailableError, publish
from pwf.testing.plugin import go_without
from pwf.testing.servers import LOOPBACK, RabbitServer, RedisServer


async def refused_as_full(client: Any) -> None:
    """Check that a start is refused at once, with the error that says why."""
    began = time.monotonic()
    with pytest.raises(StoreFullError):
        await client.start(publish("work.chain", 1))
    assert time.monotonic() - began < 5


def test_full_memory(flavour: Flavour, backend_url: str, work: Work, admin: Any) -> None:
    """Starts are refused; what frees room settles, beside what has to wait for it."""

    async def main() -> None:
        worker: Any
        async with (
            flavour.client(backend_url) as client,
            flavour.worker(client, work.service) as worker,
        ):
            await works(client)
            held = await client.start(publish("work.fork"))
            resting = await client.start_many([publish("work.rest") for _ in range(3)])
            await eventually(lambda: len(work.held) == 4)
            admin.config_set("maxmemory", 1)
            await refused_as_full(client)

            work.go.set()
            await until(lambda health: "full" in health.problem, flavour, worker)
            work.rested.set()
            assert [await run.result(timeout=LIMIT) for run in resting] == ["done"] * 3

            admin.config_set("maxmemory", 0)
            assert await held.result(timeout=LIMIT) == "done"
            await works(client)
            assert work.held == [1] * 4

    asyncio.run(main())


@pytest.fixture
def small_disk(redis_server: RedisServer) -> Iterator[Path]:
    """A file system of four megabytes; `redis_server` is asked for so that absence is said alike."""
    folder = Path(tempfile.mkdtemp(prefix="pwf-disk-"))
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
        mounted = subprocess.run(command, check=False, capture_output=True, text=True)
        if mounted.returncode:
            go_without(f"Mounting is not allowed here ({mounted.stderr.strip()}).")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)
    finally:
        folder.rmdir()


async def start_many_times(client: Any, accepted: list[Any]) -> None:
    """Start runs until that fails; the page that a file has begun has room for some."""
    while True:
        accepted.append(await client.start(publish("work.chain", 1)))


def fill(folder: Path) -> Path:
    """Leave no byte free, and return the file to delete."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


@pytest.mark.redis
@pytest.mark.parametrize(
    ("fsync", "refusal"), [("everysec", StoreFullError), ("always", StoreUnavailableError)]
)
def test_full_disk(
    flavour: Flavour,
    fsync: str,
    refusal: type[UnavailableError],
    small_disk: Path,
    work: Work,
) -> None:
    """A server that writes now and then refuses, one that has to write at once ends itself."""

    async def main(server: RedisServer) -> None:
        worker: Any
        async with (
            flavour.client(server.url) as client,
            flavour.worker(client, work.service) as worker,
        ):
            await works(client)
            held = await client.start_many([publish("work.hold") for _ in range(3)])
            await eventually(lambda: len(work.held) == 3)
            ballast = fill(small_disk)
            accepted: list[Any] = []
            with pytest.raises(refusal):
                await start_many_times(client, accepted)
            work.go.set()
            await until(lambda health: health.problem, flavour, worker)

            ballast.unlink()
            if refusal is StoreUnavailableError:
                server.restart()
            ends = [await run.result(timeout=LIMIT) for run in [*held, *accepted]]
            assert set(ends) == {"done"}
            await works(client)

    with RedisServer(f"dir {small_disk}", f"appendfsync {fsync}") as server:
        asyncio.run(main(server))


class Steps:
    """What is done to a server that several use at once: each next thing once all want it."""

    def __init__(self, parties: int, *deeds: Callable[[], object]) -> None:
        self._deeds = list(deeds)
        self._barrier = asyncio.Barrier(parties)

    async def next(self) -> None:
        """Return when it is done."""
        if await self._barrier.wait() == 0:
            await asyncio.to_thread(self._deeds.pop(0))
        await self._barrier.wait()


def with_each_driver(
    live: Callable[[Pair, Steps], Coroutine[Any, Any, None]],
    server: RabbitServer,
    store: RedisServer,
    *deeds: Callable[[], object],
) -> None:
    """Have all drivers live through what is done to one server."""

    async def main() -> None:
        steps = Steps(len(DRIVERS), *deeds)
        async with asyncio.TaskGroup() as group:
            for flavour, driver in DRIVERS:
                pair = Pair(flavour, driver, server.url, store.url, fresh_name())
                group.create_task(live(pair, steps))

    asyncio.run(main())


@pytest.mark.redis
@pytest.mark.rabbit
def test_alarms(harmed_rabbit: RabbitServer, own_redis: RedisServer) -> None:
    """RabbitMQ is short of memory, later of disk: the store takes what is published meanwhile."""

    def alarm(deed: str, then: str) -> None:
        """Set a limit, and wait until the server says of what it is short."""
        look = "[What || {{_, What, _}, _} <- rabbit_alarm:get_alarms()]."
        deadline = time.monotonic() + LIMIT
        while ctl(harmed_rabbit, "eval", f"{deed}, {look}").strip() != then:
            assert time.monotonic() < deadline, f"the alarms never were {then}"

    async def live(pair: Pair, steps: Steps) -> None:
        flavour, work = pair.flavour, Work()
        worker: Any
        async with (
            flavour.client(pair.url(timeout=2)) as client,
            flavour.worker(client, work.service) as worker,
        ):
            await works(client)
            for _ in range(2):
                work.held.clear()
                work.go.clear()
                runs = await client.start_many([publish("work.hold") for _ in range(3)])
                await eventually(lambda: len(work.held) == 3)
                await steps.next()
                began = time.monotonic()
                runs.append(await client.start(publish("work.chain", 1)))
                assert time.monotonic() - began < 5
                work.go.set()
                ill = await until(lambda one: one.problem and not one.running, flavour, worker)
                assert "short of memory or disk" in ill.problem
                await steps.next()
                assert [await run.result(timeout=LIMIT) for run in runs] == ["done"] * 4
                assert work.held == [1] * 3
                await until(lambda one: not one.problem, flavour, worker)

    with_each_driver(
        live,
        harmed_rabbit,
        own_redis,
        lambda: alarm("vm_memory_monitor:set_vm_memory_high_watermark(0.0000001)", "[memory]"),
        lambda: alarm("vm_memory_monitor:set_vm_memory_high_watermark(0.4)", "[]"),
        lambda: alarm("rabbit_disk_monitor:set_disk_free_limit(1000000000000000)", "[disk]"),
        lambda: alarm("rabbit_disk_monitor:set_disk_free_limit(1000000)", "[]"),
    )


@pytest.mark.redis
def test_frozen_redis(
    flavour: Flavour, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose server does not answer says that it does not serve; then it does again."""
    monkeypatch.setattr("pwf._health._OVERDUE", 1.5)

    async def main() -> None:
        steps = Steps(1, own_redis.pause, own_redis.resume)
        await freeze(flavour, f"{own_redis.url}?timeout=0.5", own_redis.port, steps)

    asyncio.run(main())


@pytest.mark.redis
@pytest.mark.rabbit
def test_frozen_rabbit(
    harmed_rabbit: RabbitServer, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, although the store answers all the time."""
    monkeypatch.setattr("pwf._health._OVERDUE", 1.5)

    async def live(pair: Pair, steps: Steps) -> None:
        url = pair.url(timeout=1, heartbeat=1)
        await freeze(pair.flavour, url, harmed_rabbit.port, steps)

    deeds = harmed_rabbit.pause, harmed_rabbit.resume
    try:
        with_each_driver(live, harmed_rabbit, own_redis, *deeds)
    finally:
        harmed_rabbit.resume()  # others use it


async def freeze(flavour: Flavour, url: str, port: int, steps: Steps) -> None:
    """Let a worker idle while the server stands still, until its health tells, and go on."""
    worker: Any
    async with flavour.client(url) as client, flavour.worker(client, Work().service) as worker:
        await works(client)
        await until(lambda one: one.is_serving, flavour, worker)
        await steps.next()
        ill = await until(lambda one: not one.is_serving and one.problem, flavour, worker)
        assert str(port) in ill.problem
        await steps.next()
        await until(lambda one: one.is_serving and not one.problem, flavour, worker)
        await works(client)


OUTAGE = 4.0  # seconds; enough to tell a rate


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """How many lines have been logged, by anybody, since the last look."""
    caplog.set_level(logging.INFO)

    def count() -> int:
        number = len(caplog.records)
        caplog.clear()
        return number

    return count


@pytest.mark.redis
def test_outage_of_redis_is_quiet(
    flavour: Flavour, own_redis: RedisServer, work: Work, lines: Callable[[], int]
) -> None:
    """No more than two lines a second, with handlers that end and clients that ask meanwhile."""

    async def main() -> None:
        async with (
            flavour.client(own_redis.url) as client,
            flavour.worker(client, work.service, lease=timedelta(seconds=1)),
        ):
            await works(client)
            held = await client.start_many([publish("work.hold") for _ in range(10)])
            await eventually(lambda: len(work.held) == 10)
            lines()
            own_redis.kill()
            work.go.set()
            with pytest.raises(StoreUnavailableError):
                await client.start(publish("work.chain", 1))  # which takes its time
            assert lines() <= 2 * OUTAGE
            own_redis.restart()
            assert [await run.result(timeout=LIMIT) for run in held] == ["done"] * 10
            await works(client)

    asyncio.run(main())


@pytest.mark.redis
@pytest.mark.rabbit
def test_outage_of_rabbit_is_quiet(
    pair: Pair, rabbit_server: RabbitServer, work: Work, lines: Callable[[], int]
) -> None:
    """As above; both connections of a worker are lost, and work goes on in the store."""

    async def main() -> None:
        flavour = pair.flavour
        async with Proxy(LOOPBACK, rabbit_server.port, random.Random(1)) as proxy:
            url = attrs.evolve(pair, amqp=f"amqp://{LOOPBACK}:{proxy.port}/").url(timeout=2)
            async with flavour.client(url) as client, flavour.worker(client, work.service):
                await works(client)
                await client.start_many([publish("work.hold") for _ in range(10)])
                await eventually(lambda: len(work.held) == 10)
                lines()
                proxy.shut()
                work.go.set()
                began = time.monotonic()
                while time.monotonic() - began < OUTAGE:
                    await client.start(publish("work.chain", 1))
                    await asyncio.sleep(0.1)
                assert lines() <= 2 * OUTAGE
                await proxy.reopen()
                await works(client)

    asyncio.run(main())


@pytest.mark.redis
def test_flickering_redis_is_quiet(
    flavour: Flavour, own_redis: RedisServer, work: Work, lines: Callable[[], int]
) -> None:
    """No more either where every other round trip is lost."""

    async def main() -> None:
        async with Proxy(LOOPBACK, own_redis.port, random.Random(1)) as proxy:
            url = f"redis://{LOOPBACK}:{proxy.port}/0"
            async with flavour.client(url) as client, flavour.worker(client, work.service):
                await works(client)
                runs = await client.start_many([publish("work.chain", 100) for _ in range(3)])
                lines()
                began = time.monotonic()
                while time.monotonic() - began < OUTAGE:
                    proxy.cut()
                    await asyncio.sleep(0.002)
                assert lines() <= 2 * OUTAGE
                assert [await run.result(timeout=LIMIT) for run in runs] == ["done"] * 3

    asyncio.run(main())
