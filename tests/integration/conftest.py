"""Servers that tests of this folder may harm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.sites import DRIVERS, Flavour, Pair, Work, ctl, fresh_name, paired

from pwf.testing.servers import RabbitServer, RedisServer


@pytest.fixture(params=[False, True], ids=["asyncio", "threads"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Either flavour."""
    return Flavour(request.param)


@pytest.fixture(params=DRIVERS, ids=["asyncio-aio-pika", "asyncio-pika", "threads-pika"])
def driving(request: pytest.FixtureRequest) -> tuple[Flavour, str]:
    """A flavour, and the client library that it speaks to RabbitMQ through."""
    found: tuple[Flavour, str] = request.param
    return found


@pytest.fixture
def pair(driving: tuple[Flavour, str], amqp_url: str, own_redis: RedisServer) -> Pair:
    """The shared RabbitMQ with a Redis."""
    return Pair(*driving, amqp_url, own_redis.url, fresh_name())


@pytest.fixture
def harmed_pair(
    driving: tuple[Flavour, str], harmed_rabbit: RabbitServer, own_redis: RedisServer
) -> Pair:
    """A RabbitMQ that may be harmed, with a Redis."""
    return Pair(*driving, harmed_rabbit.url, own_redis.url, fresh_name())


@pytest.fixture
def work() -> Iterator[Work]:
    """A service; its handlers end with the test."""
    work = Work()
    yield work
    work.let_go()


@pytest.fixture
def own_redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """A Redis of the test's own; `redis_server` is asked for so that absence is said alike."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def admin(own_redis: RedisServer) -> Iterator[Any]:
    """An operator of the test's own Redis."""
    redis = pytest.importorskip("redis")
    with redis.Redis.from_url(own_redis.url) as admin:
        yield admin


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("streams", marks=pytest.mark.redis),
        pytest.param("rabbit", marks=[pytest.mark.redis, pytest.mark.rabbit]),
    ],
)
def backend_url(request: pytest.FixtureRequest, own_redis: RedisServer) -> str:
    """A fresh backend: Redis alone, its streams beside its store, or RabbitMQ beside it."""
    if request.param == "redis":
        return own_redis.url
    if request.param == "streams":
        return paired(own_redis.url, own_redis.url)
    return paired(request.getfixturevalue("amqp_url"), own_redis.url, namespace=fresh_name())


@pytest.fixture(scope="session")
def harmed_rabbit(rabbit_server: object) -> Iterator[RabbitServer]:
    """A RabbitMQ that tests may freeze, alarm and cut off, and heal again; it runs all the time.

    It waits for an acknowledgement for two seconds, instead of half an hour, and looks twice a
    second, instead of once a minute.
    """
    with RabbitServer("consumer_timeout = 2000") as server:
        ctl(server, "eval", "application:set_env(rabbit, channel_tick_interval, 500).")
        yield server
