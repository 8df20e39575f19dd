"""Redis 6.2, the oldest that will do: a server beside the installed one."""

import os
from pathlib import Path

import pytest

from pwf.testing.servers import RedisServer

__all__ = ["OldestRedis"]


class OldestRedis(RedisServer):
    """The same with the Redis that `$PWF_OLDEST_REDIS` names, as the nox sessions do."""

    @classmethod
    def find(cls) -> Path:
        """Return that server; without it a test is skipped, or fails where `$CI` is set."""
        found = Path(os.environ.get("PWF_OLDEST_REDIS", ""))
        if found.is_file():
            return found
        missing = f"there is no Redis 6.2 at $PWF_OLDEST_REDIS ({found}): run nox, which brings one"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
