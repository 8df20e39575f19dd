"""Every wait for a server has an end: what clients and workers do while nobody answers.

A proxy falls silent, or stops in the middle of a reply, before anybody connects or while they are
connected; each call then ends with a typed error, by its deadline.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest
from tests.chaos.proxy import Proxy
from tests.integration.sites import LIMIT, Flavour, Pair, Work, fresh_name, opened, works

from pwf import RunCancelledError, UnavailableError, publish
from pwf.testing.servers import LOOPBACK, RabbitServer, RedisServer
from pwf_core.adapters import Settings, Url
from pwf_core.commands import Message
from pwf_core.ids import ClaimId
from pwf_core.ports import Take
from pwf_core.testing.shims import unblocked
from pwf_rabbit.adapter import adapter
from pwf_rabbit.topology import Topology
from pwf_redis.links import BlockingLinks, Links
from pwf_redis.target import Target, transport_of

pika = pytest.importorskip("pika")

TIMEOUT = 1.0  # seconds, of one round trip
ONCE = 2 * TIMEOUT + 2  # it may have to connect first; and this machine is busy
PATIENT = 2 * TIMEOUT + 5 + 2  # a client asks again for five seconds


@pytest.fixture(params=["hush", "break_off"])
def fault(request: pytest.FixtureRequest) -> Callable[[Proxy], None]:
    """What becomes of connections, those there are and new ones."""

    def strike(proxy: Proxy) -> None:
        getattr(proxy, request.param)()

    return strike


def through(server: RedisServer | RabbitServer) -> Proxy:
    """Return a proxy in front of a server."""
    return Proxy(LOOPBACK, server.port, random.Random(1))


async def ends(within: float, asked: Awaitable[object]) -> None:
    """Check that it ends in time, with the error that says why."""
    began = time.monotonic()
    with pytest.raises((UnavailableError, TimeoutError)):
        await asked
    assert time.monotonic() - began < within


@pytest.mark.redis
def test_connecting_to_redis(
    flavour: Flavour, own_redis: RedisServer, fault: Callable[[Proxy], None]
) -> None:
    """A client that cannot open says so."""

    async def open_one(url: str) -> None:
        async with flavour.client(url):
            pass

    async def main() -> None:
        async with through(own_redis) as proxy:
            fault(proxy)
            await ends(ONCE, open_one(f"redis://{LOOPBACK}:{proxy.port}/0?timeout={TIMEOUT}"))

    asyncio.run(main())


@pytest.mark.redis
def test_asking_redis(
    flavour: Flavour, own_redis: RedisServer, fault: Callable[[Proxy], None], work: Work
) -> None:
    """All that clients and workers ask, at once, each on a connection of its own."""

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))  # all at once
        async with through(own_redis) as proxy:
            url = f"redis://{LOOPBACK}:{proxy.port}/0?timeout={TIMEOUT}"
            async with opened(flavour, url) as client:
                run = await client.start(publish("work.chain", 1))
                port = unblocked(client._port.port) if flavour.blocking else client.port
                take = Take(("work",), 1, ClaimId("s:1"), 1000)

                async def watch() -> None:
                    async with port.watch(run.id):
                        pass

                fault(proxy)
                await asyncio.gather(
                    ends(PATIENT, client.start(publish("work.chain", 1))),
                    ends(PATIENT, client.emit(run.id, "event", 1)),
                    ends(PATIENT, run.result()),
                    ends(1 + ONCE, run.result(timeout=1)),
                    ends(ONCE, run.status()),
                    ends(ONCE, run.cancel()),
                    ends(ONCE, client.dead_letters()),
                    ends(ONCE, client.purge("work")),
                    ends(ONCE, watch()),
                    ends(ONCE, port.exchange([], take)),
                    ends(1 + ONCE, port.idle(take, 1.0)),
                )
                proxy.heal()
                async with flavour.worker(client, work.service):
                    await works(client)

    asyncio.run(main())


@pytest.mark.redis
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_idle_connections_that_were_reset(own_redis: RedisServer, loop: str) -> None:
    """Each loop has its own word for that; another connection is made, and nobody hears of it."""

    async def main() -> None:
        links = Links(Target.of_url(Url.parse(own_redis.url)))
        links.open()
        for _ in range(3):
            assert await links.ask([("PING",)]) == [b"PONG"]
            (idle,) = links._idle
            transport_of(idle.connection).abort()  # what a reset does
            await asyncio.sleep(0)
        await links.close()

    pytest.importorskip(loop).run(main())


@pytest.mark.redis
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_large_request_that_is_given_up(own_redis: RedisServer, loop: str) -> None:
    """Whether it was sent does not matter any more: its connection ends, once, and quietly."""

    async def main() -> None:
        problems: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: problems.append(what))
        links = Links(Target.of_url(Url.parse(own_redis.url)))
        links.open()
        for _ in range(3):
            asking = asyncio.create_task(links.ask([("ECHO", b"x" * 30_000_000)]))
            await asyncio.wait([asking], timeout=0.001)  # so that it is being sent
            asking.cancel()
            await asyncio.wait([asking])
            assert await links.ask([("PING",)]) == [b"PONG"]
        await links.close()
        assert problems == []

    pytest.importorskip(loop).run(main())


@pytest.mark.redis
def test_connections_that_have_gone_deaf(
    flavour: Flavour, own_redis: RedisServer, work: Work
) -> None:
    """They are given up by those who are not answered; whoever waits or comes hears of the ends."""

    async def main() -> None:
        async with through(own_redis) as proxy:
            url = f"redis://{LOOPBACK}:{proxy.port}/0?timeout={TIMEOUT}"
            async with (
                flavour.client(own_redis.url) as healthy,
                opened(flavour, url) as client,
                flavour.worker(healthy, work.service),
            ):
                first = await client.start(publish("elsewhere.never", 1))
                waiting = asyncio.ensure_future(first.result(timeout=LIMIT))
                assert "done" == await (await client.start(publish("work.chain", 1))).result(
                    timeout=LIMIT
                )
                proxy.deafen()
                began = time.monotonic()
                later = await client.start(publish("work.chain", 1))
                assert "done" == await later.result(timeout=LIMIT)
                assert time.monotonic() - began < 3 * TIMEOUT + 2
                await first.cancel()
                with pytest.raises(RunCancelledError):
                    await waiting

    asyncio.run(main())


@pytest.mark.redis
@pytest.mark.rabbit
def test_rabbit(pair: Pair, rabbit_server: RabbitServer, fault: Callable[[Proxy], None]) -> None:
    """A client that cannot open says so; one that is open starts runs, which the store keeps."""

    async def open_one(url: str) -> None:
        async with pair.flavour.client(url):
            pass

    async def main() -> None:
        async with through(rabbit_server) as proxy:
            url = attrs.evolve(pair, amqp=f"amqp://{LOOPBACK}:{proxy.port}/").url(timeout=TIMEOUT)
            async with (
                opened(pair.flavour, url) as client,
                pair.flavour.worker(client, Work().service),
            ):
                await works(client)
                fault(proxy)
                began = time.monotonic()
                await client.start(publish("work.chain", 1))
                await client.start(publish("work.chain", 1))
                assert time.monotonic() - began < 2 * ONCE
                await ends(ONCE, open_one(url))
                proxy.heal()
                await works(client)

    asyncio.run(main())


@pytest.mark.redis
def test_redis_driver_repeats_nothing(flavour: Flavour, own_redis: RedisServer, admin: Any) -> None:
    """A lost reply is an error. Only on a connection that lay idle we ask again, and once."""

    async def main() -> None:
        async with through(own_redis) as proxy:
            target = Target.of_url(Url.parse(f"redis://{LOOPBACK}:{proxy.port}/0"))
            links = unblocked(BlockingLinks(target)) if flavour.blocking else Links(target)
            assert await links.ask([("PING",)]) == [b"PONG"]
            proxy.lose_replies()
            with pytest.raises(UnavailableError):
                await links.ask([("INCR", "count")])
            assert proxy.struck == {"cut after reply": 2}
            assert int(admin.get("count")) <= 2
            await links.close()

    asyncio.run(main())


@pytest.mark.rabbit
def test_rabbit_driver_repeats_nothing(
    driving: tuple[Flavour, str], rabbit_server: RabbitServer
) -> None:
    """A lost confirm is an error, and the message is in its queue once."""
    flavour, driver = driving
    settings = Settings(namespace=fresh_name())
    name = Topology(settings.namespace).queue("a").name

    async def main() -> None:
        async with through(rabbit_server) as proxy:
            url = Url.parse(f"amqp://{LOOPBACK}:{proxy.port}/?driver={driver}")
            broker: Any = adapter.broker(url, settings)
            if flavour.blocking:
                broker = unblocked(adapter.blocking_broker(url, settings))
            await broker.open()
            assert await broker.publish([Message("1" * 32, "2" * 32, 0, "a.task")]) == [True]
            proxy.lose_replies()
            with pytest.raises(UnavailableError):
                await broker.publish([Message("3" * 32, "4" * 32, 0, "a.task")])
            await broker.close()

    asyncio.run(main())
    with pika.BlockingConnection(pika.URLParameters(rabbit_server.url)) as connection:
        declared = connection.channel().queue_declare(name, passive=True)
        assert declared.method.message_count == 2
