"""Everything that can be set about a connection, read from a URL once."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from enum import StrEnum
from urllib.parse import unquote

import attrs

from pwf_core.adapters import Durability, Settings, Url
from pwf_core.errors import ConfigurationError, UnsupportedError
from pwf_core.signing import Signer
from pwf_core.tls import TLS_OPTIONS, TlsFiles
from pwf_rabbit.topology import QueueKind, Topology

__all__ = ["Driver", "Options"]

_LONGEST = 600
_PORTS = {"amqp": 5672, "amqps": 5671}
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\],]+))(?::(\d{1,5}))?")  # host, or address


class Driver(StrEnum):
    """A client library, by the name of its package."""

    AIO_PIKA = "aio-pika"
    PIKA = "pika"


@attrs.frozen(kw_only=True)
class Options:
    """Where the server is, and how to use it.

    Attributes:
        nodes: Host and port of each node of the cluster; most often there is one.
        vhost: The virtual host, "/" unless the URL's path names another.
        tls: Whether the connection is encrypted, and the server's certificate verified.
        files: Whom to trust beside the system's authorities, and our own certificate.
        topology: Names and arguments of queues.
        prefetch: How many AMQP messages per service may be here at the most without being acked; up
            to 16 calls travel in each. 64 keeps a worker busy over one round trip when calls travel
            alone. Where handlers are slow, fewer are fetched, down to one.
        heartbeat: Seconds that both sides agree on: whoever has nothing to say shows twice within them
            that it is there. The server gives up a silent worker, and frees what it pushed to it,
            after two to three heartbeats; we give up a silent server after up to four (of less than
            5 seconds: some seconds later, which the drivers add). 0 turns it off.
        timeout: Seconds that one operation may take, connecting included.
        driver: The client library; None leaves it to the flavour: aio-pika for the async one, pika
            for the blocking one. pika carries two to three times as much where calls travel alone.
        signer: Signs messages; None where they are not signed.
    """

    nodes: tuple[tuple[str, int], ...] = (("localhost", 5672),)
    username: str = "guest"
    password: str = attrs.field(default="guest", repr=False)
    vhost: str = "/"
    tls: bool = False
    files: TlsFiles = attrs.field(default=TlsFiles())
    topology: Topology = attrs.field(default=Topology("default"))
    prefetch: int = 64
    heartbeat: int = 5  # RabbitMQ's advice is 5 to 20; an event loop blocked for 10 is not yet lost
    timeout: float = 10.0
    driver: Driver | None = None
    signer: Signer | None = None

    @classmethod
    def read(cls, url: Url, settings: Settings) -> Options:
        """Return what *url* says.

        Raises:
            ConfigurationError: If an option is unknown, its value cannot be, or a file not be used.
            UnsupportedError: If it asks for durability that its queues cannot give.
        """
        url.refuse_unknown("driver", "heartbeat", "prefetch", "queue", "timeout", *TLS_OPTIONS)
        if url.scheme not in _PORTS:
            raise ConfigurationError(f"{url}: RabbitMQ is reached by amqp:// or amqps://.")
        kind = url.option("queue", _kind, QueueKind.QUORUM)
        if settings.durability is Durability.FSYNC and kind is not QueueKind.QUORUM:
            raise UnsupportedError(
                "Classic queues confirm messages before they are on disk, so durability='fsync' "
                "cannot hold with queue=classic. Leave that option out: quorum queues can.",
            )
        found = cls(
            nodes=_nodes(url),
            username=url.username or "guest",
            password=url.password if url.username else "guest",
            vhost=_vhost(url.path),
            tls=url.scheme == "amqps",
            files=TlsFiles.read(url, "amqps"),
            topology=Topology(settings.namespace, kind),
            prefetch=url.option("prefetch", _whole(1, 65535), 64),
            heartbeat=url.option("heartbeat", _whole(0, 3600), 5),
            timeout=url.option("timeout", _seconds, 10.0),
            driver=url.option("driver", _driver, None),
            signer=settings.signer,
        )
        found.ssl_context()  # a file that cannot be used is said here, not at every connection
        return found

    @property
    def host(self) -> str:
        """The host to connect to: that of the first node."""
        return self.nodes[0][0]

    @property
    def port(self) -> int:
        """The port to connect to."""
        return self.nodes[0][1]

    @property
    def where(self) -> str:
        """The names of all nodes, for people; without the password."""
        return ", ".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes
        )

    def apart(self) -> list[Options]:
        """Return the same for each node alone, so that what fails there names that node."""
        return [attrs.evolve(self, nodes=(node,)) for node in self.nodes]

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return what verifies the server; None where nothing is encrypted.

        Trusted are the authorities of the system, or of `$SSL_CERT_FILE` in their place, and those
        that the URL names. Files are read anew each time, so that they can be replaced.

        Raises:
            ConfigurationError: If a file cannot be used.
        """
        if not self.tls:
            return None
        context = ssl.create_default_context()
        self.files.load_into(context)
        return context


def _nodes(url: Url) -> tuple[tuple[str, int], ...]:
    usual = _PORTS[url.scheme]
    if "," not in url.host:
        if "@" in url.raw.rpartition("@")[0] and "," in url.raw:
            raise ConfigurationError(
                "User and password stand once, before the first node: amqp://user:password@one:5672,"
                "two:5672/vhost. An @ that is part of a password is written %40.",
            )
        return ((url.host or "localhost", url.port or usual),)
    nodes = []
    for text in url.host.split(","):
        found = _NODE.fullmatch(text)
        port = int((found and found[3]) or usual)
        if found is None or not 0 < port < 65536:  # noqa: PLR2004 -- as many as there are
            raise ConfigurationError(
                f"{url}: {text!r} is no node. Nodes are written host:port, an address of IPv6 in "
                "brackets, with commas and nothing else between them.",
            )
        nodes.append((found[1] or found[2], port))
    return tuple(nodes)


def _kind(text: str) -> QueueKind:
    try:
        return QueueKind(text)
    except ValueError:
        raise ValueError("it is quorum or classic") from None


def _driver(text: str) -> Driver | None:
    try:
        return Driver(text)
    except ValueError:
        raise ValueError("it is aio-pika or pika") from None


def _whole(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise ValueError(f"it is a whole number from {least} to {most}")
        return number

    return convert


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"it is a number of seconds, above 0 and up to {_LONGEST}")
    return seconds


def _vhost(path: str) -> str:
    name = path.removeprefix("/")
    if "/" in name:
        raise ConfigurationError(f"The virtual host {name!r} has a slash; write it as %2F.")
    return unquote(name) or "/"
