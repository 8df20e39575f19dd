"""Where the master of a name is just now: its sentinels are asked each time that a connection is made.

`redis+sentinel://user:password@host1:26379,host2:26379/mymaster/0`: who connects anew finds the master
that there is, and from then on nobody of the process uses connections to another. Those end anyway:
sentinels cut them off, and what is written there is refused, which `links` takes as a sign. `ROLE` is
asked first of all on each, because sentinels learn late of what others have decided.
See https://redis.io/docs/latest/develop/reference/sentinel-clients/.

redis-py's own `Sentinel` is not used: its clients repeat commands, and it does not look at the role.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import attrs
import redis.asyncio.connection as async_driver
import redis.connection as driver
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from pwf_core.adapters import Url
from pwf_core.errors import ConfigurationError, PwfError, StoreUnavailableError
from pwf_core.steps import Steps, drive, drive_async
from pwf_redis.errors import words_of
from pwf_redis.target import (
    DEFAULT_TIMEOUT,
    OPTIONS,
    BlockingConnection,
    Connection,
    Target,
    database,
    hosts_of,
    network_arguments,
    seconds,
    socket_of,
)

__all__ = ["SentinelTarget"]

_PORT = 26379
_FORM = "redis+sentinel://host:26379,host:26379/mymaster/0"
_OPTIONS = (*OPTIONS, "db", "sentinel_username", "sentinel_password")
_MASTER = b"master"
_UNSAID = (_MASTER,)  # who may not ask learns it all the same when a replica refuses to write

_ARE_THEY_UP = "Are they running, and is that where they listen?"
_ARE_THEY_SENTINELS = "Are these the addresses of sentinels?"
_IS_THAT_ITS_NAME = "Is that its name in their `sentinel monitor`?"
_MAY_WE = "What they ask for is given by sentinel_username= and sentinel_password= in the URL."


@attrs.define(eq=False)
class Sentinels:
    """Those who watch over the master of a name; for any thread.

    Attributes:
        name: The master's.
        order: The first of them is asked first.
        address: Host and port of the master that was found last.
    """

    name: str
    order: list[Target]
    address: tuple[str, int] | None = None

    @property
    def question(self) -> tuple[str, str, str]:
        """What sentinels are asked; they answer with host and port, or nothing."""
        return ("SENTINEL", "get-master-addr-by-name", self.name)

    def find(self) -> Steps[Target, tuple[Target, str, int]]:
        """Ask one sentinel after the other; return who knows, with the master's host and port.

        Raises:
            StoreUnavailableError: If nobody knows, and somebody could not be asked.
            ConfigurationError: If all of them have answered, and nobody knows.
        """
        problems: list[str] = []
        advice: dict[str, None] = {}
        for sentinel in tuple(self.order):
            try:
                reply = yield sentinel
            except (ResponseError, AuthenticationError) as error:
                problem = words_of(error).rstrip(".")
                cure = _ARE_THEY_SENTINELS if "unknown command" in problem else _MAY_WE
            except Exception as error:  # noqa: BLE001 -- whatever it is, another one may answer
                problem, cure = words_of(error).rstrip(".") or "no answer in time", _ARE_THEY_UP
            else:
                if reply is not None:
                    return sentinel, reply[0].decode(), int(reply[1])
                problem, cure = "knows no such master", _IS_THAT_ITS_NAME
            problems.append(f"{sentinel.where} ({problem})")
            advice[cure] = None
        kind: type[PwfError] = ConfigurationError
        if _ARE_THEY_UP in advice:
            kind = StoreUnavailableError
        raise kind(
            f"No sentinel says where the master {self.name!r} of Redis is: "
            f"{', '.join(problems)}. {' '.join(advice)}",
        )

    def check_role(self, role: Any, sentinel: Target, host: str, port: int) -> None:
        """Make sure that a server is what *sentinel* has said.

        Raises:
            StoreUnavailableError: If it is not.
        """
        if role[0] != _MASTER:
            raise StoreUnavailableError(
                f"Redis at {host}:{port} is a replica, but the sentinel at {sentinel.where} takes it for "
                f"the master {self.name!r}; a failover is going on.",
            )

    def believe(self, sentinel: Target, host: str, port: int) -> None:
        """Take it that the master is there, and ask *sentinel* first from now on."""
        self.address = (host, port)
        self.order[:] = sorted(self.order, key=lambda one: one is not sentinel)

    def doubt(self, sentinel: Target) -> None:
        """Ask *sentinel* last from now on: it may be behind the others."""
        self.order[:] = sorted(self.order, key=lambda one: one is sentinel)


@attrs.frozen(kw_only=True)
class SentinelTarget(Target):
    """The master of a name.

    Attributes:
        sentinels: Who knows where it is.
    """

    sentinels: Sentinels

    @classmethod
    def of_url(cls, url: Url) -> SentinelTarget:
        """Return the target of `redis+sentinel://` or `rediss+sentinel://`.

        Raises:
            ConfigurationError: If the URL or an option makes no sense, or a file cannot be used.
        """
        url.refuse_unknown(*_OPTIONS)
        name, _, number = url.path.strip("/").partition("/")
        hosts = hosts_of(url, _PORT)
        if not name or not all(host for host, _ in hosts):
            raise ConfigurationError(f"{url}: this takes sentinels and a master's name: {_FORM}.")
        if number and url.query.get("db", number) != number:
            raise ConfigurationError(f"{url}: db= names another database than the path.")
        timeout = url.option("timeout", seconds, DEFAULT_TIMEOUT)
        network = network_arguments(url, "rediss+sentinel")
        tls = url.scheme == "rediss+sentinel"
        order = [
            Target(
                where=f"{host}:{port}",
                # A thread may take it twice, and all of them no longer than one server may.
                timeout=timeout / len(hosts) / 2,
                arguments={
                    "host": host,
                    "port": port,
                    "username": url.query.get("sentinel_username") or None,
                    "password": url.query.get("sentinel_password") or None,
                    **network,
                },
                tls=tls,
            )
            for host, port in hosts
        ]
        master = unquote(name)
        return cls(
            where=f"{master} (sentinels {', '.join(one.where for one in order)})",
            timeout=timeout,
            arguments={
                "db": database(url, number or url.query.get("db", "")),
                "username": url.username or None,
                "password": url.password or None,
                **network,
            },
            tls=tls,
            sentinels=Sentinels(master, order),
        )

    def _kind(self, flavour: Any) -> Any:
        plain, encrypted = _KINDS[flavour]

        def make(**arguments: Any) -> object:
            made = (encrypted if self.tls else plain)(**arguments)
            made.sentinels = self.sentinels
            return made

        return make

    def is_current(self, connection: Connection | BlockingConnection) -> bool:
        """Whether a connection leads to the master that was found last."""
        here: Any = connection
        return (here.host, here.port) == self.sentinels.address


class _Connection(async_driver.Connection):
    """A connection to the master, for an event loop."""

    sentinels: Sentinels

    async def connect(self) -> None:
        """Find the master and connect to it, unless that is done."""
        if self.is_connected:
            return
        sentinel, self.host, self.port = await drive_async(self.sentinels.find(), self._ask)
        connection: Any = super()
        try:
            await connection.connect()
            self.sentinels.check_role(await self._role(), sentinel, self.host, self.port)
        except BaseException:
            self.sentinels.doubt(sentinel)  # it may be behind the others
            await connection.disconnect(nowait=True)
            raise
        self.sentinels.believe(sentinel, self.host, self.port)

    async def _role(self) -> object:
        await self.send_command("ROLE", check_health=False)
        try:
            return await self.read_response()
        except NoPermissionError:
            return _UNSAID

    async def _ask(self, sentinel: Target) -> object:
        connection = sentinel.connection()
        try:
            async with asyncio.timeout(sentinel.timeout):
                await connection.connect()
                await connection.send_command(*self.sentinels.question, check_health=False)
                return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)


class _TlsConnection(_Connection, async_driver.SSLConnection):
    pass


class _BlockingConnection(driver.Connection):
    """A connection to the master, for threads."""

    sentinels: Sentinels

    def connect(self) -> None:
        """Find the master and connect to it, unless that is done."""
        if socket_of(self) is not None:
            return
        sentinel, self.host, self.port = drive(self.sentinels.find(), self._ask)
        connection: Any = super()
        try:
            connection.connect()
            self.sentinels.check_role(self._role(), sentinel, self.host, self.port)
        except BaseException:
            self.sentinels.doubt(sentinel)
            connection.disconnect()
            raise
        self.sentinels.believe(sentinel, self.host, self.port)

    def _role(self) -> object:
        connection: Any = self
        connection.send_command("ROLE", check_health=False)
        try:
            return connection.read_response()
        except NoPermissionError:
            return _UNSAID

    def _ask(self, sentinel: Target) -> object:
        connection = sentinel.blocking_connection()
        try:
            connection.connect()
            connection.send_command(*self.sentinels.question, check_health=False)
            return connection.read_response()
        finally:
            connection.disconnect()


class _BlockingTlsConnection(_BlockingConnection, driver.SSLConnection):
    pass


_KINDS: dict[Any, tuple[Any, Any]] = {
    async_driver: (_Connection, _TlsConnection),
    driver: (_BlockingConnection, _BlockingTlsConnection),
}
