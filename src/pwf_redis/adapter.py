"""The Redis adapter behind `redis://host:port/db` and `rediss://…`.

And behind `redis+sentinel://host:port,host:port/name/db`, see `sentinels`, and
`redis+cluster://host:port,host:port`, see `cluster`; encrypted with `rediss+…`.
Options in the URL: `timeout=` (seconds until a server that does not answer counts as away, 10 unless
said), and for TLS those of `pwf_core.tls`. The server's certificate is always checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pwf_core.adapters import Settings, Url
from pwf_core.errors import ConfigurationError, UnsupportedError
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
    if url.scheme.endswith("+sentinel"):
        from pwf_redis.sentinels import SentinelTarget

        return SentinelTarget.of_url(url)
    if url.scheme.endswith("+cluster"):
        from pwf_redis.cluster import ClusterTarget

        return ClusterTarget.of_url(url)
    from pwf_redis.target import Target

    return Target.of_url(url)


def _target_of_streams(url: Url) -> Target:
    if url.scheme.endswith("+cluster"):
        raise UnsupportedError(
            "Redis Streams as a mere broker lie in one slot, so a cluster would be of no use. As a "
            f"backend, {url} needs nothing beside it: leave store= out."
        )
    return _target_of(url)


@attrs.frozen
class _RedisAdapter:
    def backend(self, url: Url, settings: Settings) -> Backend:
        target = _target_of(url)
        from pwf_redis.backend import RedisBackend

        return RedisBackend.on(target, settings)

    def broker(self, url: Url, settings: Settings) -> Broker:
        target = _target_of_streams(url)
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
        target = _target_of_streams(url)
        from pwf_redis.streams import BlockingRedisStreamsBroker

        return BlockingRedisStreamsBroker.on(target, settings)

    def blocking_store(self, url: Url, settings: Settings) -> BlockingStateStore:
        target = _target_of(url)
        from pwf_redis.blocking import BlockingRedisStateStore

        return BlockingRedisStateStore.on(target, settings)


adapter = _RedisAdapter()
