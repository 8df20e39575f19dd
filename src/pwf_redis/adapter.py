"""The Redis adapter behind `redis://host:port/db` and `rediss://…`.

And behind `redis+sentinel://host:port,host:port/name/db` and `rediss+sentinel://…`, see `sentinels`.
Options in the URL: `timeout=` (seconds until a server that does not answer counts as away, 10 unless
said), and for TLS those of `pwf_core.tls`. The server's certificate is always checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from pwf_redis.target import Target

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


def _target_of(url: Url) -> Target:
    require_driver()
    from pwf_redis.sentinels import SentinelTarget
    from pwf_redis.target import Target

    return (SentinelTarget if url.scheme.endswith("+sentinel") else Target).of_url(url)


@attrs.frozen
class _RedisAdapter:
    def backend(self, url: Url, settings: Settings) -> Backend:
        target = _target_of(url)
        from pwf_redis.backend import RedisBackend

        return RedisBackend.on(target, settings)

    def broker(self, url: Url, settings: Settings) -> Broker:
        target = _target_of(url)
        from pwf_redis.streams import RedisStreamsBroker

        return RedisStreamsBroker.on(target, settings)

    def store(self, url: Url, settings: Settings) -> StateStore:
        target = _target_of(url)
        from pwf_redis.store import RedisStateStore

        return RedisStateStore.on(target, settings)

    def blocking_backend(self, url: Url, settings: Settings) -> BlockingBackend:
        target = _target_of(url)
        from pwf_redis.blocking import BlockingRedisBackend

        return BlockingRedisBackend.on(target, settings)

    def blocking_broker(self, url: Url, settings: Settings) -> BlockingBroker:
        target = _target_of(url)
        from pwf_redis.streams import BlockingRedisStreamsBroker

        return BlockingRedisStreamsBroker.on(target, settings)

    def blocking_store(self, url: Url, settings: Settings) -> BlockingStateStore:
        target = _target_of(url)
        from pwf_redis.blocking import BlockingRedisStateStore

        return BlockingRedisStateStore.on(target, settings)


adapter = _RedisAdapter()
