"""The Redis adapter behind `redis://host:port/db` and `rediss://…`.

Options in the URL: `timeout=` (seconds until a server that does not answer counts as away, 10 unless
said), and for TLS those of `pwf_core.tls`. The server's certificate is always checked.
"""

from __future__ import annotations

import attrs

from pwf_core.adapters import Settings, Url
from pwf_core.errors import ConfigurationError
from pwf_core.ports import (
    Backend,
    BlockingBackend,
    BlockingBroker,
    BlockingStateStore,
    Broker,
    StateStore,
)

__all__ = ["adapter", "require_driver"]


def require_driver(extra: str = "redis") -> None:
    """Check that the driver is installed.

    Args:
        extra: The extra that brings it for the URL at hand.

    Raises:
        ConfigurationError: If it is not, with the line that installs it.
    """
    try:
        import hiredis
        import redis.asyncio

        del hiredis, redis
    except ImportError as error:
        raise ConfigurationError(
            f"The Redis adapter needs its driver: run `pip install 'pubsub-workflow[{extra}]'`.",
        ) from error


@attrs.frozen
class _RedisAdapter:
    def backend(self, url: Url, settings: Settings) -> Backend:
        require_driver()
        from pwf_redis.backend import RedisBackend
        from pwf_redis.target import Target

        return RedisBackend.on(Target.of_url(url), settings)

    def broker(self, url: Url, settings: Settings) -> Broker:
        require_driver()
        from pwf_redis.streams import RedisStreamsBroker
        from pwf_redis.target import Target

        return RedisStreamsBroker.on(Target.of_url(url), settings)

    def store(self, url: Url, settings: Settings) -> StateStore:
        require_driver()
        from pwf_redis.store import RedisStateStore
        from pwf_redis.target import Target

        return RedisStateStore.on(Target.of_url(url), settings)

    def blocking_backend(self, url: Url, settings: Settings) -> BlockingBackend:
        require_driver()
        from pwf_redis.blocking import BlockingRedisBackend
        from pwf_redis.target import Target

        return BlockingRedisBackend.on(Target.of_url(url), settings)

    def blocking_broker(self, url: Url, settings: Settings) -> BlockingBroker:
        require_driver()
        from pwf_redis.streams import BlockingRedisStreamsBroker
        from pwf_redis.target import Target

        return BlockingRedisStreamsBroker.on(Target.of_url(url), settings)

    def blocking_store(self, url: Url, settings: Settings) -> BlockingStateStore:
        require_driver()
        from pwf_redis.blocking import BlockingRedisStateStore
        from pwf_redis.target import Target

        return BlockingRedisStateStore.on(Target.of_url(url), settings)


adapter = _RedisAdapter()
