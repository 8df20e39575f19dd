"""Clients and workers of either flavour on servers that a test may harm, and a service to run there.

The blocking flavour runs behind a thin shim, so that one test speaks for both.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import attrs

from pwf import (
    BlockingWorker,
    Context,
    Health,
    Next,
    Service,
    UnavailableError,
    Worker,
    connect,
    connect_blocking,
    publish,
    result,
)
from pwf.testing.servers import LOOPBACK, PrivateServer, RabbitServer, RedisServer
from pwf_core.testing.shims import unblocked_client, unblocked_worker
from pwf_rabbit.topology import Topology

__all__ = [
    "DRIVERS",
    "LIMIT",
    "Flavour",
    "Pair",
    "Replicated",
    "Work",
    "ctl",
    "eventually",
    "free_port",
    "fresh_name",
    "held_and_lost",
    "opened",
    "paired",
    "until",
    "with_options",
    "works",
]

LIMIT = 20.0  # seconds; generous, and never waited for in full


@attrs.frozen
class Flavour:
    """Asyncio or threads."""

    blocking: bool

    @asynccontextmanager
    async def client(self, url: str) -> AsyncIterator[Any]:
        """Give out an open client of *url*."""
        if not self.blocking:
            async with connect(url) as client:
                yield client
            return
        client = unblocked_client(connect_blocking(url))
        await client.__enter__()
        try:
            yield client
        finally:
            await client.close()

    def worker(self, client: Any, *services: Service, **options: Any) -> Any:
        """Return a worker, to be entered."""
        if not self.blocking:
            return Worker(client, *services, **options)
        return unblocked_worker(BlockingWorker(client._port, *services, **options))

    async def health(self, worker: Any) -> Any:
        """Return how *worker* stands."""
        return await worker.health() if self.blocking else worker.health()


# Who works, and the client library that speaks to RabbitMQ; threads have pika alone.
DRIVERS = ((Flavour(False), "aio-pika"), (Flavour(False), "pika"), (Flavour(True), "pika"))


@attrs.frozen
class Pair:
    """RabbitMQ and Redis, in a namespace of their own.

    Attributes:
        flavour: Who works there.
        driver: The client library that speaks to RabbitMQ.
        amqp: The URL of that server.
        store: The URL of Redis.
        space: The namespace.
    """

    flavour: Flavour
    driver: str
    amqp: str
    store: str
    space: str

    def url(self, **options: object) -> str:
        """Return the URL of both as one backend."""
        return paired(self.amqp, self.store, namespace=self.space, driver=self.driver, **options)

    @property
    def queue(self) -> str:
        """The name of the queue of the service that works there."""
        return Topology(self.space).queue("work").name


class Work:
    """A service whose handlers can be held.

    Attributes:
        service: Its tasks are `chain` (n calls, one after the other), and those that are held:
            `hold` (a sync one, in a thread), `linger` (an async one) and `block` (which lets the
            loop do nothing else) go on with a chain, `fork` with two of them, after `rest` nothing
            comes.
        held: The attempts of handlers that have been started and are to be held.
        go: Lets them finish.
        rested: Lets `rest` finish.
    """

    def __init__(self) -> None:
        self.service = Service("work")
        self.held: list[int] = []
        self.go = threading.Event()
        self.rested = threading.Event()

        @self.service.task
        async def chain(n: int) -> Next:
            return publish("work.chain", n - 1) if n else result("done")

        @self.service.task
        def hold(ctx: Context) -> Next:
            self.held.append(ctx.attempt)
            self.go.wait(LIMIT)
            return publish("work.chain", 1)

        @self.service.task
        async def linger(ctx: Context) -> Next:
            self.held.append(ctx.attempt)
            await eventually(self.go.is_set)
            return publish("work.chain", 1)

        @self.service.task
        async def block(ctx: Context) -> Next:
            self.held.append(ctx.attempt)
            self.go.wait(LIMIT)
            return publish("work.chain", 1)

        @self.service.task
        def fork(ctx: Context) -> Next:
            self.held.append(ctx.attempt)
            self.go.wait(LIMIT)
            return publish("work.chain", 1), publish("work.chain", 1)

        @self.service.task
        def rest(ctx: Context) -> Next:
            self.held.append(ctx.attempt)
            self.rested.wait(LIMIT)
            return result("done")

    def let_go(self) -> None:
        """Let all of them finish."""
        self.go.set()
        self.rested.set()


async def works(client: Any) -> None:
    """Check that a new run is taken and finished."""
    run = await client.start(publish("work.chain", 3))
    assert await run.result(timeout=LIMIT) == "done"


@asynccontextmanager
async def opened(flavour: Flavour, url: str) -> AsyncIterator[Any]:
    """Give out an open client, however often it takes: on a busy machine a short time-out is over."""
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(LIMIT):
            client = None
            while client is None:
                with suppress(UnavailableError):
                    client = await stack.enter_async_context(flavour.client(url))
        yield client


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 -- nobody notifies of these
            await asyncio.sleep(0.01)


async def until(condition: Callable[[Health], object], flavour: Flavour, worker: Any) -> Health:
    """Wait until the worker's health is like that, and return it."""
    async with asyncio.timeout(LIMIT):
        while not condition(health := await flavour.health(worker)):  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0.02)
    return health


def fresh_name() -> str:
    """Return a namespace that nobody has used."""
    return f"t{uuid.uuid4().hex[:12]}"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((LOOPBACK, 0)) as one:
        port: int = one.getsockname()[1]
    return port


def with_options(url: str, **options: object) -> str:
    """Return *url* with these in its query."""
    query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in options.items())
    return f"{url}{'&' if '?' in url else '?'}{query}"


def paired(broker: str, store: str, **options: object) -> str:
    """Return the URL of a backend made of two."""
    return with_options(broker, store=store, **options)


def ctl(server: RabbitServer, *command: str) -> str:
    """Tell the node of *server* something that only its own tool can; it takes a second."""
    program = server.find().with_name("rabbitmqctl")
    done = subprocess.run(
        [program, "-q", "-n", server.node, *command],
        env=server._environment(),
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    return done.stdout


@attrs.define
class Replicated:
    """A Redis and its replica."""

    master: RedisServer
    replica: RedisServer

    def ask(self, server: PrivateServer, *command: str | int) -> Any:
        """Tell one of the servers something."""
        from redis import Redis

        with Redis(LOOPBACK, server.port) as admin:
            return admin.execute_command(*command)

    def replicated(self) -> None:
        """Wait until the replica has everything."""
        from redis import Redis

        with Redis(LOOPBACK, self.master.port) as admin:
            admin.set("fence", "1")
            assert admin.wait(1, int(LIMIT * 1000)) == 1

    def part(self) -> None:
        """Keep the replica, as such, from hearing more."""
        self.ask(self.replica, "REPLICAOF", LOOPBACK, 1)


async def held_and_lost(client: Any, work: Work, servers: Replicated) -> tuple[list[Any], Any]:
    """Return three runs that the replica knows, under way, and one that it has not heard of."""
    held = await client.start_many([publish("work.hold") for _ in range(3)])
    await eventually(lambda: len(work.held) == 3)
    await asyncio.to_thread(servers.replicated)
    servers.part()
    lost = await client.start(publish("work.chain", 1))
    assert await lost.result(timeout=LIMIT) == "done"
    return held, lost
