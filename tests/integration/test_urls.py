"""What `connect` makes of real URLs, with real servers behind them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from pwf import (
    Client,
    Next,
    Run,
    RunNotFoundError,
    Service,
    Worker,
    connect,
    publish,
    result,
)
from pwf_core.ids import ClaimId
from pwf_core.ports import Take
from pwf_memory.clock import VirtualClock

LIMIT = 30.0  # seconds; generous, and never waited for in full
MINUTE_MS = 60_000


@pytest.fixture
def namespace() -> str:
    """Keeps this test apart from all others on the same server."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(
    params=[
        pytest.param("memory", id="memory"),
        pytest.param("redis", id="redis", marks=pytest.mark.redis),
        pytest.param("rabbit", id="rabbit", marks=[pytest.mark.redis, pytest.mark.rabbit]),
    ],
)
def url(request: pytest.FixtureRequest) -> str:
    """A backend of each kind."""
    if request.param == "memory":
        return "memory://"
    redis: str = request.getfixturevalue("redis_url")
    return (
        redis
        if request.param == "redis"
        else f"{request.getfixturevalue('amqp_url')}?store={redis}"
    )


async def pass_time(client: Client, advance: Callable[[], None]) -> None:
    """Have time pass, and a worker make the round trip that moves on what is due."""
    advance()
    await client.port.exchange([], Take(("s",), 0, ClaimId(f"{uuid.uuid4().hex}:1"), 1000))


def stop_clock(client: Client) -> Callable[[int], None]:
    """Have the store of *client* go by a clock that stands still; return what moves it on."""
    port: Any = client.port
    if hasattr(port, "tables"):
        port.tables.clock = clock = VirtualClock()
        return clock.advance
    operations = getattr(port, "_store", port).operations
    operations.now_ms = int(time.time() * 1000)

    def advance(ms: int) -> None:
        operations.now_ms += ms

    return advance


def test_retention_of_nothing_is_a_minute(url: str, namespace: str) -> None:
    """Whoever waits gets the result, early or late; after a minute the run is not known."""
    service = Service("s")

    @service.task
    def answer() -> Next:
        return result(42)

    async def main() -> None:
        async with connect(url, namespace=namespace, retention=timedelta(0)) as backend:
            advance = stop_clock(backend)
            run = await backend.start(publish(answer))
            early = asyncio.create_task(run.result(int, timeout=LIMIT))
            async with Worker(backend, service):
                assert await early == 42
            await pass_time(backend, lambda: advance(MINUTE_MS - 1))
            assert await run.result(int, timeout=LIMIT) == 42
            await pass_time(backend, lambda: advance(1))
            with pytest.raises(RunNotFoundError):
                await run.status()

    asyncio.run(main())


@pytest.mark.redis
@pytest.mark.rabbit
def test_clients_of_different_urls_share_nothing(
    redis_url: str,
    amqp_url: str,
    namespace: str,
) -> None:
    """In one process, with the same namespace, service, task and key: each has runs of its own."""
    urls = [
        "memory://one",
        "memory://two",
        redis_url,
        f"{amqp_url}?store={redis_url.removesuffix('/0')}/1",
    ]

    def service_of(number: int) -> Service:
        service = Service("s")

        @service.task
        def where(start: int) -> Next:
            return result([number, start])

        return service

    async def main() -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connect(one, namespace=namespace)) for one in urls
            ]
            runs: list[list[Run]] = [[] for _ in urls]
            for start in range(10):
                for client, mine in zip(clients, runs, strict=True):
                    mine.append(await client.start(publish("s.where", start), key=f"k{start}"))
                if start == 4:  # the others are started while workers run
                    for number, client in enumerate(clients):
                        await stack.enter_async_context(Worker(client, service_of(number)))

            for number, mine in enumerate(runs):
                found = await asyncio.gather(*(run.result(timeout=LIMIT) for run in mine))
                assert found == [[number, start] for start in range(10)]
            for client, mine in zip(clients, runs, strict=True):
                for other in clients:
                    if other is not client:
                        with pytest.raises(RunNotFoundError):
                            await other.run(mine[0].id).status()
                        with pytest.raises(RunNotFoundError):
                            await other.emit(mine[0].id, "e")

    asyncio.run(main())
