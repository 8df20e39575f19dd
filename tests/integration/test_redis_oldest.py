"""Redis 6.2, the oldest that will do, where it does or says something otherwise than later ones.

It tells of errors within scripts in words of its own, and knows no flags by which a script may run on
a full server. That it carries everything else, the contract suite shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from tests.integration import test_redis_backend, test_redis_servers
from tests.integration.test_failover import Servers, test_master_changes_roles
from tests.integration.test_outages import test_full_memory
from tests.oldest import OldestRedis

from pwf.testing.servers import LOOPBACK, RedisServer

__all__ = ["test_full_memory", "test_master_changes_roles"]  # run again, on the servers below

pytestmark = pytest.mark.redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with OldestRedis() as server:
        yield server


@pytest.fixture(params=["redis"])
def backend_url(own_redis: RedisServer) -> str:
    return own_redis.url


@pytest.fixture
def servers() -> Iterator[Servers]:
    """A master and its replica."""
    with ExitStack() as stack:
        master = stack.enter_context(OldestRedis("repl-diskless-sync-delay 0"))
        config = (f"replicaof {LOOPBACK} {master.port}", "repl-ping-replica-period 1")
        yield Servers(master, stack.enter_context(OldestRedis(*config)))


@pytest.fixture
def at() -> Callable[[int], str]:
    """Redis alone."""
    return lambda port: f"redis://{LOOPBACK}:{port}/0"


class TestFullServer(test_redis_backend.TestFullServer):
    @pytest.fixture
    def full(self, own_redis: RedisServer) -> RedisServer:
        return own_redis


class TestMinimalUser(test_redis_servers.TestMinimalUser):
    @pytest.fixture
    def server(self, own_redis: RedisServer) -> RedisServer:
        return own_redis
