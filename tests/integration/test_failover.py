"""Redis fails over to a replica: what was replicated goes on, and nobody spins meanwhile.

Clients use one address, behind which the master is replaced, as a proxy or a name in the DNS does.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from tests.chaos.proxy import Proxy
from tests.integration.sites import (
    LIMIT,
    Flavour,
    Replicated,
    Work,
    eventually,
    fresh_name,
    held_and_lost,
    paired,
    until,
    works,
)

from pwf import RunNotFoundError, StoreUnavailableError, publish
from pwf.testing.servers import LOOPBACK, RedisServer

redis = pytest.importorskip("redis")


class Servers(Replicated):
    """A master and its replica."""

    def promote(self) -> None:
        """Make the replica a master."""
        self.ask(self.replica, "REPLICAOF", "NO", "ONE")

    def demote(self) -> None:
        """Make the master a replica of the other."""
        self.ask(self.master, "REPLICAOF", LOOPBACK, self.replica.port)


@pytest.fixture
def servers(redis_server: RedisServer) -> Iterator[Servers]:
    """`redis_server` is asked for so that absence is said alike."""
    with (
        RedisServer("repl-diskless-sync-delay 0") as master,
        RedisServer(f"replicaof {LOOPBACK} {master.port}", "repl-ping-replica-period 1") as replica,
    ):
        yield Servers(master, replica)


@pytest.fixture(params=[pytest.param("redis"), pytest.param("rabbit", marks=pytest.mark.rabbit)])
def at(request: pytest.FixtureRequest) -> Callable[[int], str]:
    """The URL of a backend whose Redis has that port."""
    if request.param == "redis":
        return lambda port: f"redis://{LOOPBACK}:{port}/0"
    amqp, space = request.getfixturevalue("amqp_url"), fresh_name()
    return lambda port: paired(amqp, f"redis://{LOOPBACK}:{port}/0", namespace=space)


@asynccontextmanager
async def address(servers: Servers) -> AsyncIterator[Proxy]:
    """The address that clients use."""
    async with Proxy(LOOPBACK, servers.master.port, random.Random(1)) as proxy:
        yield proxy


@pytest.mark.redis
def test_master_dies(
    flavour: Flavour,
    at: Callable[[int], str],
    servers: Servers,
    work: Work,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the replica takes no writes everybody waits; what never reached it is not known."""

    async def main() -> None:
        worker: Any
        async with (
            address(servers) as proxy,
            flavour.client(at(proxy.port)) as client,
            flavour.worker(client, work.service, lease=timedelta(minutes=1)) as worker,
        ):
            await works(client)
            held, lost = await held_and_lost(client, work, servers)
            servers.master.kill()
            proxy.upstream = (LOOPBACK, servers.replica.port)
            caplog.clear()
            caplog.set_level(logging.INFO)
            await until(lambda one: "replica" in one.problem, flavour, worker)
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError):
                await client.start(publish("work.chain", 1))  # which takes its time
            assert len(caplog.records) <= 2 * (time.monotonic() - began)

            servers.promote()
            work.go.set()
            assert [await run.result(timeout=LIMIT) for run in held] == ["done"] * 3
            with pytest.raises(RunNotFoundError):
                await lost.result(timeout=LIMIT)
            await works(client)
            more = await client.start_many([publish("work.chain", 1) for _ in range(50)])
            assert len({run.id for run in [*held, lost, *more]}) == 54
            assert [await run.result(timeout=LIMIT) for run in more] == ["done"] * 50
            assert work.held == [1] * 3

    asyncio.run(main())


@pytest.mark.redis
def test_master_changes_roles(
    flavour: Flavour, at: Callable[[int], str], servers: Servers, work: Work
) -> None:
    """Connections to what is a replica now are given up, and those who waited there wait again."""

    async def main() -> None:
        async with (
            address(servers) as proxy,
            flavour.client(at(proxy.port)) as client,
            flavour.worker(client, work.service),
        ):
            await works(client)
            held = await client.start_many([publish("work.hold") for _ in range(3)])
            await eventually(lambda: len(work.held) == 3)
            await asyncio.to_thread(servers.replicated)
            servers.promote()
            servers.demote()
            proxy.upstream = (LOOPBACK, servers.replica.port)
            work.go.set()
            assert [await run.result(timeout=LIMIT) for run in held] == ["done"] * 3
            began = time.monotonic()
            for _ in range(5):
                await works(client)
            assert time.monotonic() - began < 5 * 0.9  # woken, not found by a look each second
            assert work.held == [1] * 3

    asyncio.run(main())
