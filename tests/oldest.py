"""Redis 6.2, the oldest that will do: a server beside the installed one."""

import os
from pathlib import Path

from pwf.testing.plugin import go_without
from pwf.testing.servers import RedisServer

__all__ = ["OldestRedis"]


class OldestRedis(RedisServer):
    """The same with the Redis that `$PWF_OLDEST_REDIS` names, as the nox sessions do."""

    @classmethod
    def find(cls) -> Path:
        """Return that server; without it a test is skipped, or fails where `$CI` is set."""
        found = Path(os.environ.get("PWF_OLDEST_REDIS", ""))
        if not found.is_file():
            go_without(f"There is no Redis 6.2 at $PWF_OLDEST_REDIS ({found}): nox brings one.")
        return found
