"""Where a Redis server is and how to connect to it, from a URL and its options."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

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
    "database",
    "hang_up",
    "hosts_of",
    "network_arguments",
    "seconds",
    "socket_of",
    "transport_of",
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


def transport_of(connection: Connection) -> asyncio.Transport:
    """Return a connection's transport, to read from it without the driver; it is connected."""
    transport: Any = connection._writer.transport  # type: ignore[attr-defined]  # noqa: SLF001 -- the driver's own
    return cast("asyncio.Transport", transport)


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


def database(url: Url, text: str) -> int:
    """Return the number of the database that *url* has as *text*.

    Raises:
        ConfigurationError: If it is none.
    """
    if not (text or "0").isdecimal():
        raise ConfigurationError(f"{url}: the path of a Redis URL is a database number.")
    return int(text or "0")


def hosts_of(url: Url, port: int) -> list[tuple[str, int]]:
    """Return the hosts of *url*, and their ports: *port* where none is said.

    Raises:
        ConfigurationError: If a port cannot be.
    """
    if "," not in url.host:
        return [(url.host, url.port or port)]
    try:
        each = [urlsplit(f"//{one}") for one in url.host.split(",")]
        return [(one.hostname or "", one.port or port) for one in each]
    except ValueError:  # not shown: it may be a part of a password
        raise ConfigurationError(
            f"One of the hosts in {url.scheme}://… has a port that is none."
        ) from None


def network_arguments(url: Url, secure: str) -> dict[str, Any]:
    """Return what the driver's connection classes need for any host that *url* leads to.

    Args:
        url: Its options.
        secure: The scheme of URLs whose connections are encrypted.

    Raises:
        ConfigurationError: If a file cannot be used, or there are any without encryption.
    """
    files = TlsFiles.read(url, secure)
    if url.scheme != secure:
        return {"socket_keepalive": True}
    # The driver reads them at each connection, and would take a missing one for an outage.
    files.load_into(ssl.create_default_context())
    return {
        "socket_keepalive": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": files.ca_certs or None,
        "ssl_certfile": files.certfile or None,
        "ssl_keyfile": files.keyfile or None,
    }


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
        if "," in url.host:
            raise ConfigurationError(
                f"A URL of {url.scheme}:// has one host. Those of several sentinels begin with "
                f"{url.scheme}+sentinel://.",
            )
        host, port = url.host or "localhost", url.port or _PORT
        return cls(
            where=f"{host}:{port}",
            timeout=url.option("timeout", seconds, DEFAULT_TIMEOUT),
            arguments={
                "host": host,
                "port": port,
                "db": database(url, url.path.strip("/")),
                "username": url.username or None,
                "password": url.password or None,
                **network_arguments(url, "rediss"),
            },
            tls=url.scheme == "rediss",
        )

    @classmethod
    def of_socket(cls, path: str, *, timeout: float = DEFAULT_TIMEOUT) -> Target:
        """Return the target of a Unix socket."""
        return cls(where=path, timeout=timeout, arguments={"path": path})

    def acquire(self) -> None:
        """Make sure that there is a server to connect to; again is fine. May block."""

    def release(self) -> None:
        """Say that this process does not need the server any more; again is fine."""

    def is_current(self, connection: Connection | BlockingConnection) -> bool:
        """Whether an idle connection still leads to where a new one would."""
        return True

    def doubt(self) -> None:
        """Note that a connection to where it leads now does not work."""

    def _kind(self, flavour: Any) -> Any:
        """Return which of the driver's classes for connections, of one flavour, is wanted."""
        if "path" in self.arguments:
            return flavour.UnixDomainSocketConnection
        return flavour.SSLConnection if self.tls else flavour.Connection

    def connection(self) -> Connection:
        """Return a new connection for an event loop; it opens itself when used.

        Its own time-outs and retries are off: a round trip has one deadline, and is repeated by
        those who know that it may be.
        """
        connection = self._kind(async_driver)(
            socket_timeout=None,
            socket_connect_timeout=self.timeout,
            retry=AsyncRetry(NoBackoff(), 0),
            protocol=2,
            **self.arguments,
        )
        return cast("Connection", connection)

    def blocking_connection(self) -> BlockingConnection:
        """Return a new connection for threads; it opens itself when used."""
        connection = self._kind(driver)(
            socket_timeout=self.timeout,
            socket_connect_timeout=self.timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **self.arguments,
        )
        return cast("BlockingConnection", connection)
