"""The list of adapters and flavours that the contract suite runs on. A new one is a line here."""

from functools import partial

import pytest
from tests.clusters import redis_cluster
from tests.oldest import OldestRedis

from pwf.testing.servers import ValkeyServer

from .memory import (
    MemoryBackendHarness,
    MemoryBrokerHarness,
    MemoryPairedHarness,
    MemoryPairedWorkflowHarness,
    MemoryStoreHarness,
    MemoryWorkflowHarness,
)
from .on_cluster import ClusterBackendHarness, ClusterStoreHarness, ClusterWorkflowHarness
from .on_rabbit import (
    LeastRabbitBackendHarness,
    LeastRabbitBrokerHarness,
    LeastRabbitWorkflowHarness,
    RabbitBackendHarness,
    RabbitBrokerHarness,
    RabbitWorkflowHarness,
)
from .on_redis import (
    RedisBackendHarness,
    RedisBrokerHarness,
    RedisPairedHarness,
    RedisPairedWorkflowHarness,
    RedisStoreHarness,
    RedisWorkflowHarness,
)

KEYS = (b"a key that signs and verifies", b"a key that verifies")
MARKS = {
    "redis_url": pytest.mark.redis,
    "valkey_url": pytest.mark.redis,
    "oldest_url": pytest.mark.redis,
    "cluster_url": pytest.mark.redis,
    "amqp_url": pytest.mark.rabbit,
    "least_amqp_url": pytest.mark.rabbit,
}


def one(name, make, *servers, blocking=False, **options):
    """Register a flavour: its harness, the servers that it needs, what else it takes."""
    marks = [MARKS[server] for server in servers]
    return pytest.param(
        (partial(make, blocking=blocking, **options), servers), id=name, marks=marks
    )


def both(name, make, *servers, **options):
    """Register the async flavour and the blocking one."""
    return [
        one(name, make, *servers, **options),
        one(f"{name}-blocking", make, *servers, blocking=True, **options),
    ]


def rabbit(make, *servers):
    """Register both drivers and both kinds of queues."""
    name = "+redis" * ("redis_url" in servers)
    return [
        one(f"aio-pika{name}", make, *servers, options="driver=aio-pika"),
        one(f"aio-pika-classic{name}", make, *servers, options="driver=aio-pika&queue=classic"),
        one(f"pika-async{name}", make, *servers, options="driver=pika"),
        one(f"pika{name}-blocking", make, *servers, blocking=True, options="driver=pika"),
    ]


def least(make, *servers, blocking=False):
    """Register a user of RabbitMQ who may make no queues; one flavour is enough for most suites."""
    name = "-least" + "+redis" * ("redis_url" in servers)
    driver = "pika" if blocking else "aio-pika"
    return one(
        f"{driver}{name}" + "-blocking" * blocking,
        make,
        *("least_amqp_url", *servers),
        blocking=blocking,
        options=f"driver={driver}",
    )


BROKERS = [
    *both("memory", MemoryBrokerHarness),
    *both("redis", RedisBrokerHarness, "redis_url"),
    *rabbit(RabbitBrokerHarness, "amqp_url"),
    least(LeastRabbitBrokerHarness),
    least(LeastRabbitBrokerHarness, blocking=True),
    one("redis-6.2", RedisBrokerHarness, "oldest_url"),
    one("redis-signed", RedisBrokerHarness, "redis_url", signing_keys=KEYS),
    one(
        "aio-pika-signed",
        RabbitBrokerHarness,
        "amqp_url",
        options="driver=aio-pika",
        signing_keys=KEYS,
    ),
    one(
        "pika-signed-blocking",
        RabbitBrokerHarness,
        "amqp_url",
        options="driver=pika",
        signing_keys=KEYS,
        blocking=True,
    ),
]
STORES = [
    *both("memory-store", MemoryStoreHarness),
    *both("redis-store", RedisStoreHarness, "redis_url"),
    one("cluster-store", ClusterStoreHarness, "cluster_url"),
]
BACKENDS = [
    *both("memory", MemoryBackendHarness),
    *both("memory+memory", MemoryPairedHarness),
    *both("redis", RedisBackendHarness, "redis_url"),
    one("valkey", RedisBackendHarness, "valkey_url"),
    one("redis-6.2", RedisBackendHarness, "oldest_url"),
    *both("cluster", ClusterBackendHarness, "cluster_url"),
    *both("redis+redis", RedisPairedHarness, "redis_url"),
    *rabbit(RabbitBackendHarness, "amqp_url", "redis_url"),
]
LEAST_BACKENDS = [least(LeastRabbitBackendHarness, "redis_url", blocking=True)]
WORKFLOWS = [
    *both("memory", MemoryWorkflowHarness),
    *both("memory+memory", MemoryPairedWorkflowHarness),
    *both("redis", RedisWorkflowHarness, "redis_url"),
    one("valkey", RedisWorkflowHarness, "valkey_url"),
    one("redis-6.2", RedisWorkflowHarness, "oldest_url"),
    *both("cluster", ClusterWorkflowHarness, "cluster_url"),
    *both("redis+redis", RedisPairedWorkflowHarness, "redis_url"),
    *rabbit(RabbitWorkflowHarness, "amqp_url", "redis_url"),
    least(LeastRabbitWorkflowHarness, "redis_url"),
]


def made(request):
    make, servers = request.param
    urls = {_KINDS.get(server, server): request.getfixturevalue(server) for server in servers}
    return make(**urls)


_KINDS = {"valkey_url": "redis_url", "oldest_url": "redis_url", "cluster_url": "redis_url"}


@pytest.fixture(scope="session")
def valkey_url():
    """The URL of a private Valkey: the server that `embedded://` brings, on a port."""
    with ValkeyServer() as server:
        yield server.url


@pytest.fixture(scope="session")
def oldest_url():
    """The URL of a private Redis 6.2."""
    with OldestRedis() as server:
        yield server.url


@pytest.fixture(scope="session")
def cluster_url():
    """The URL of a private cluster of three masters."""
    with redis_cluster() as cluster:
        yield cluster.url


@pytest.fixture(params=BROKERS)
def broker_harness(request):
    return made(request)


@pytest.fixture(params=STORES)
def store_harness(request):
    return made(request)


@pytest.fixture(params=[*BACKENDS, *LEAST_BACKENDS])
def backend_harness(request):
    return made(request)


@pytest.fixture(params=[*STORES, *BACKENDS])
def run_harness(request):
    return made(request)


@pytest.fixture(params=WORKFLOWS)
def workflow_harness(request):
    return made(request)
