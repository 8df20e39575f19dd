"""Every adapter has the methods and signatures of the port that it claims to be.

Read by type checkers, never run.
"""

from __future__ import annotations

from pwf_core.adapters import Adapter
from pwf_core.paired import BlockingPaired, Paired
from pwf_core.ports import (
    Backend,
    BlockingBackend,
    BlockingBroker,
    BlockingStateStore,
    Broker,
    Clock,
    StateStore,
)
from pwf_memory.adapter import adapter as memory_adapter
from pwf_memory.backend import BlockingMemoryBackend, MemoryBackend
from pwf_memory.broker import BlockingMemoryBroker, MemoryBroker
from pwf_memory.clock import SystemClock, VirtualClock
from pwf_memory.store import BlockingMemoryStateStore, MemoryStateStore
from pwf_rabbit.adapter import adapter as rabbit_adapter
from pwf_rabbit.aio import AioPikaBroker
from pwf_rabbit.blocking import PikaBroker
from pwf_redis.adapter import adapter as redis_adapter
from pwf_redis.backend import RedisBackend
from pwf_redis.blocking import BlockingRedisBackend, BlockingRedisStateStore
from pwf_redis.embedded import adapter as embedded_adapter
from pwf_redis.store import RedisStateStore
from pwf_redis.streams import BlockingRedisStreamsBroker, RedisStreamsBroker

# --- any broker with any store ---------------------------------------------------------------------


def paired(port: Paired) -> Backend:
    return port


def blocking_paired(port: BlockingPaired) -> BlockingBackend:
    return port


# --- memory ----------------------------------------------------------------------------------------


def memory_backend(port: MemoryBackend) -> Backend:
    return port


def memory_broker(port: MemoryBroker) -> Broker:
    return port


def memory_store(port: MemoryStateStore) -> StateStore:
    return port


def blocking_memory_backend(port: BlockingMemoryBackend) -> BlockingBackend:
    return port


def blocking_memory_broker(port: BlockingMemoryBroker) -> BlockingBroker:
    return port


def blocking_memory_store(port: BlockingMemoryStateStore) -> BlockingStateStore:
    return port


def system_clock(port: SystemClock) -> Clock:
    return port


def virtual_clock(port: VirtualClock) -> Clock:
    return port


# --- Redis -----------------------------------------------------------------------------------------


def redis_backend(port: RedisBackend) -> Backend:
    return port


def redis_broker(port: RedisStreamsBroker) -> Broker:
    return port


def redis_store(port: RedisStateStore) -> StateStore:
    return port


def blocking_redis_backend(port: BlockingRedisBackend) -> BlockingBackend:
    return port


def blocking_redis_broker(port: BlockingRedisStreamsBroker) -> BlockingBroker:
    return port


def blocking_redis_store(port: BlockingRedisStateStore) -> BlockingStateStore:
    return port


# --- RabbitMQ --------------------------------------------------------------------------------------


def rabbit_broker(port: AioPikaBroker) -> Broker:
    return port


def blocking_rabbit_broker(port: PikaBroker) -> BlockingBroker:
    return port


# --- behind the entry points -----------------------------------------------------------------------

adapters: list[Adapter] = [memory_adapter, redis_adapter, embedded_adapter, rabbit_adapter]
