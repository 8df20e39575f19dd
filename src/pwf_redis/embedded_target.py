"""How to connect to an embedded server: where it listens is known once it runs."""

from __future__ import annotations

import attrs

from pwf_redis import keeper
from pwf_redis.embedded import EmbeddedServer
from pwf_redis.target import BlockingConnection, Connection, Target

__all__ = ["EmbeddedTarget"]


@attrs.frozen(kw_only=True)
class EmbeddedTarget(Target):
    """The server of a folder.

    Attributes:
        server: Started when it is first needed, and again should it and its keeper be killed.
    """

    server: EmbeddedServer

    def acquire(self) -> None:
        self.server.acquire()

    def release(self) -> None:
        self.server.release()

    def _here_and_now(self) -> Target:
        # New connections are rare, and to ask a Unix socket takes a fraction of a millisecond. Only
        # where its server, or both it and its keeper, were killed does this block for longer.
        if not keeper.ask(self.server.socket, "PING"):
            self.server.ensure()
        return Target.of_socket(self.server.socket, timeout=self.timeout)

    def connection(self) -> Connection:
        return self._here_and_now().connection()

    def blocking_connection(self) -> BlockingConnection:
        return self._here_and_now().blocking_connection()
