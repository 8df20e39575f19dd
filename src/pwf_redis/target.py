"""Where a Redis server is and how to connect to it, from a URL and its options."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

import attrs
import redis.asyncio.connection as async_driver
import redis.connection as driver
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from pwf_core.adapters import Url
from pwf_core.errors import ConfigurationError
from pwf_core.tls import TLS_OPTIONS, TlsFiles

__all__ = [
    "DEFAULT_TIMEOUT",
    "OPTIONS",
    "BlockingConnection",
    "Connection",
    "Target",
    "hang_up",
    "seconds",
    "socket_of",
]

# Seconds until a server that does not answer counts as away. Scripts take milliseconds; a server
# that writes a snapshot or waits for its disk may pause for a second or two.
DEFAULT_TIMEOUT = 10.0
_PORT = 6379
OPTIONS = ("timeout", *TLS_OPTIONS)


def seconds(text: str) -> float:
    """Return the value of an option that is a time."""
    value = float(text)
    if not 0.1 <= value <= 3600:  # noqa: PLR2004 -- a tenth of a second, an hour
        raise ValueError("it is a number of seconds from 0.1 to 3600")
    return value


class Connection(Protocol):
    """The slice of redis-py's asyncio connections that is used here."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a socket."""
        ...

    async def connect(self) -> None:
        """Connect and log in, unless that is done."""
        ...

    async def send_packed_command(self, command: Sequence[bytes], check_health: bool) -> None:  # noqa: FBT001 -- the driver's
        """Send bytes."""
        ...

    async def send_command(self, *args: str, check_health: bool) -> None:
        """Send one command."""
        ...

    async def read_response(self) -> object:
        """Return the next reply, or raise it if it is an error."""
        ...

    async def disconnect(self, nowait: bool) -> None:  # noqa: FBT001 -- the driver's
        """Close the socket."""
        ...


class BlockingConnection(Protocol):
    """The slice of redis-py's blocking connections that is used here."""

    def connect(self) -> None:
        """Connect and log in, unless that is done."""
        ...

    def send_packed_command(self, command: Sequence[bytes], check_health: bool) -> None:  # noqa: FBT001 -- the driver's
        """Send bytes."""
        ...

    def send_command(self, *args: str, check_health: bool) -> None:
        """Send one command."""
        ...

    def can_read(self) -> bool:
        """Whether `read_response` has something to begin with."""
        ...

    def read_response(self) -> object:
        """Return the next reply, or raise it if it is an error."""
        ...

    def disconnect(self) -> None:
        """Close the socket; for the thread that uses it."""
        ...


def socket_of(connection: BlockingConnection) -> socket.socket | None:
    """Return a connection's socket, to wait for it or to hang up; None if it has none."""
    found: socket.socket | None = getattr(connection, "_sock", None)
    return found


def hang_up(connection: BlockingConnection) -> None:
    """End what another thread waits for on *connection*; that thread sees it end and closes it.

    To close it from here would free the number of a socket that is being read, and let the reader
    go on with whatever gets that number next.
    """
    found = socket_of(connection)
    if found is not None:
        with suppress(OSError):
            # Of the plain socket: a TLS one would also drop what its reader is using.
            socket.socket.shutdown(found, socket.SHUT_RDWR)


@attrs.frozen(kw_only=True)
class Target:
    """One server.

    Attributes:
        where: Its name for people; never holds the password.
        timeout: Seconds that connecting, or one round trip, may take.
        arguments: For the driver's connection classes; may hold the password.
    """

    where: str
    timeout: float = DEFAULT_TIMEOUT
    arguments: dict[str, Any] = attrs.field(factory=dict, repr=False)
    tls: bool = False

    @classmethod
    def of_url(cls, url: Url) -> Target:
        """Return the target of `redis://` or `rediss://`.

        Raises:
            ConfigurationError: If the URL or an option makes no sense, or a file cannot be used.
        """
        url.refuse_unknown(*OPTIONS)
        tls = url.scheme == "rediss"
        database = url.path.strip("/") or "0"
        if not database.isdecimal():
            raise ConfigurationError(f"{url}: the path of a Redis URL is a database number.")
        arguments: dict[str, Any] = {
            "host": url.host or "localhost",
            "port": url.port or _PORT,
            "db": int(database),
            "username": url.username or None,
            "password": url.password or None,
            "socket_keepalive": True,
        }
        files = TlsFiles.read(url, "rediss")
        if tls:
            # The driver reads them at each connection, and would take a missing one for an outage.
            files.load_into(ssl.create_default_context())
            arguments |= {
                "ssl_cert_reqs": "required",
                "ssl_check_hostname": True,
                "ssl_ca_certs": files.ca_certs or None,
                "ssl_certfile": files.certfile or None,
                "ssl_keyfile": files.keyfile or None,
            }
        return cls(
            where=f"{arguments['host']}:{arguments['port']}",
            timeout=url.option("timeout", seconds, DEFAULT_TIMEOUT),
            arguments=arguments,
            tls=tls,
        )

    @classmethod
    def of_socket(cls, path: str, *, timeout: float = DEFAULT_TIMEOUT) -> Target:
        """Return the target of a Unix socket."""
        return cls(where=path, timeout=timeout, arguments={"path": path})

    def acquire(self) -> None:
        """Make sure that there is a server to connect to; again is fine. May block."""

    def release(self) -> None:
        """Say that this process does not need the server any more; again is fine."""

    def connection(self) -> Connection:
        """Return a new connection for an event loop; it opens itself when used.

        Its own time-outs and retries are off: a round trip has one deadline, and is repeated by
        those who know that it may be.
        """
        kind: Any = async_driver.Connection
        if "path" in self.arguments:
            kind = async_driver.UnixDomainSocketConnection
        elif self.tls:
            kind = async_driver.SSLConnection
        connection = kind(
            socket_timeout=None,
            socket_connect_timeout=self.timeout,
            retry=AsyncRetry(NoBackoff(), 0),
            protocol=2,
            **self.arguments,
        )
        return cast("Connection", connection)

    def blocking_connection(self) -> BlockingConnection:
        """Return a new connection for threads; it opens itself when used."""
        kind: Any = driver.Connection
        if "path" in self.arguments:
            kind = driver.UnixDomainSocketConnection
        elif self.tls:
            kind = driver.SSLConnection
        connection = kind(
            socket_timeout=self.timeout,
            socket_connect_timeout=self.timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **self.arguments,
        )
        return cast("BlockingConnection", connection)
