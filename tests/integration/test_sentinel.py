"""Sentinels move a name to another master: whoever has their URL follows, and needs no operator."""

from __future__ import annotations

import asyncio
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from tests.integration.certificates import Authority
from tests.integration.sites import (
    LIMIT,
    Flavour,
    Replicated,
    Work,
    eventually,
    free_port,
    fresh_name,
    held_and_lost,
    paired,
    until,
    with_options,
    works,
)
from tests.least import PASSWORD, redis_user

from pwf import (
    ConfigurationError,
    PwfError,
    RunNotFoundError,
    StoreUnavailableError,
    publish,
)
from pwf.testing.servers import LOOPBACK, RedisServer
from pwf_core.adapters import Settings, Url
from pwf_redis.adapter import adapter

redis = pytest.importorskip("redis")
hiredis = pytest.importorskip("hiredis")

from pwf_redis.checks import NEEDED  # noqa: E402

NAME = "mymaster"


class SentinelServer(RedisServer):
    """A private sentinel; takes lines of its configuration."""

    program = "redis-server --sentinel"

    def _launch(self) -> subprocess.Popen[bytes]:
        configuration = self.folder / "sentinel.conf"
        lines = [f"bind {LOOPBACK}", f"port {self.port}", f"dir {self.folder}", *self._config]
        configuration.write_text("\n".join(lines) + "\n")
        return self._spawn(self.find(), configuration, "--sentinel")

    def _answers(self, connection: Any) -> bool:
        connection.sendall(b"PING\r\n")
        return bool(connection.recv(64))  # one with a password says that it wants it


def url_of(*ports: int, path: str = f"/{NAME}/0", scheme: str = "redis+sentinel") -> str:
    """Return the URL of those sentinels."""
    return f"{scheme}://{','.join(f'{LOOPBACK}:{port}' for port in ports)}{path}"


@attrs.define
class Site(Replicated):
    """A master, its replica, and three sentinels."""

    sentinels: list[SentinelServer]

    @property
    def url(self) -> str:
        """What clients connect to."""
        return url_of(*(one.port for one in self.sentinels))

    def knows_all(self, sentinel: SentinelServer) -> bool:
        """Whether a sentinel could act."""
        with redis.Redis(port=sentinel.port) as admin:
            found = admin.sentinel_master(NAME)
        return bool(found["num-other-sentinels"] == 2 and found["num-slaves"] == 1)

    def is_master(self, server: RedisServer) -> bool:
        """Whether a server has that role."""
        return bool(self.ask(server, "ROLE")[0] == b"master")


@contextmanager
def watched(*config: str) -> Iterator[Site]:
    """Give out a master that is like that, with its replica and sentinels."""
    with ExitStack() as stack:
        master = stack.enter_context(RedisServer("repl-diskless-sync-delay 0", *config))
        replica = stack.enter_context(RedisServer(f"replicaof {LOOPBACK} {master.port}"))
        watch = [
            f"sentinel monitor {NAME} {LOOPBACK} {master.port} 2",
            f"sentinel down-after-milliseconds {NAME} 500",
            f"sentinel failover-timeout {NAME} 1000",
        ]
        sentinels = [stack.enter_context(SentinelServer(*watch)) for _ in range(3)]
        site = Site(master, replica, sentinels)
        asyncio.run(eventually(lambda: all(map(site.knows_all, sentinels))))
        try:
            yield site
        finally:
            for server in (master, replica):  # one that is asked to stop waits for its replicas
                with suppress(RuntimeError):
                    server.kill()


@pytest.fixture
def site(redis_server: RedisServer) -> Iterator[Site]:
    """`redis_server` is asked for so that absence is said alike."""
    with watched() as site:
        yield site


@pytest.fixture
def careful_site(redis_server: RedisServer) -> Iterator[Site]:
    """One whose master takes no writes while it is alone."""
    with watched("min-replicas-to-write 1") as site:
        yield site


@pytest.fixture(params=[pytest.param("redis"), pytest.param("rabbit", marks=pytest.mark.rabbit)])
def url(request: pytest.FixtureRequest, site: Site) -> str:
    """The URL of a backend whose Redis has those sentinels."""
    if request.param == "redis":
        return site.url
    return paired(request.getfixturevalue("amqp_url"), site.url, namespace=fresh_name())


async def start_in_the_end(client: Any) -> Any:
    """Start a run as soon as that can be: sentinels that do not agree at once wait and vote again."""
    async with asyncio.timeout(LIMIT):
        while True:
            with suppress(StoreUnavailableError):
                return await client.start(publish("work.chain", 3), key="in the end")


@pytest.mark.redis
def test_master_dies(flavour: Flavour, url: str, site: Site, work: Work) -> None:
    """The sentinels promote the replica; what never reached it is not known."""

    async def main() -> None:
        async with (
            flavour.client(url) as client,
            flavour.worker(client, work.service, lease=timedelta(minutes=1)) as worker,
        ):
            await works(client)
            held, lost = await held_and_lost(client, work, site)
            waiting = [asyncio.create_task(run.result(timeout=LIMIT)) for run in held]
            site.master.kill()

            new = await start_in_the_end(client)
            assert await new.result(timeout=LIMIT) == "done"
            assert site.is_master(site.replica)
            work.go.set()
            assert await asyncio.gather(*waiting) == ["done"] * 3
            with pytest.raises(RunNotFoundError):
                await lost.result(timeout=LIMIT)
            more = await client.start_many([publish("work.chain", 1) for _ in range(50)])
            assert len({run.id for run in [*held, lost, new, *more]}) == 55
            assert [await run.result(timeout=LIMIT) for run in more] == ["done"] * 50
            assert work.held == [1] * 3
            await until(lambda one: not one.problem, flavour, worker)

    asyncio.run(main())


@pytest.mark.redis
def test_master_is_replaced(flavour: Flavour, careful_site: Site, work: Work) -> None:
    """Everybody goes to the new one long before the old one is told, and while a sentinel is away."""
    site = careful_site

    async def main() -> None:
        async with (
            flavour.client(site.url) as client,
            flavour.worker(client, work.service),
        ):
            await works(client)
            held = await client.start_many([publish("work.hold") for _ in range(3)])
            await eventually(lambda: len(work.held) == 3)
            await asyncio.to_thread(site.replicated)
            site.sentinels[0].kill()
            site.ask(site.sentinels[1], "SENTINEL", "FAILOVER", NAME)
            await eventually(lambda: site.is_master(site.replica))
            for _ in range(5):
                await works(client)
            assert site.is_master(site.master)
            work.go.set()
            assert [await run.result(timeout=LIMIT) for run in held] == ["done"] * 3
            assert work.held == [1] * 3

    asyncio.run(main())


class _Answering(socketserver.BaseRequestHandler):
    server: Stub

    def handle(self) -> None:
        reader = hiredis.Reader()
        while data := self.request.recv(65536):
            reader.feed(data)
            while (command := reader.gets()) is not False:
                is_question = command[0] == b"SENTINEL"
                self.request.sendall(self.server.reply if is_question else b"+OK\r\n")


class Stub(socketserver.ThreadingTCPServer):
    """A sentinel that has one answer."""

    daemon_threads = True

    def __init__(self, reply: bytes) -> None:
        super().__init__((LOOPBACK, 0), _Answering)
        self.reply = reply


@contextmanager
def saying(reply: bytes) -> Iterator[int]:
    """Give out the port of a sentinel that says *reply*."""
    with Stub(reply) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def naming(port: int) -> bytes:
    """Return what a sentinel says whose master has that port."""
    host, text = LOOPBACK.encode(), str(port).encode()
    return b"*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(host), host, len(text), text)


NOBODY = b"*-1\r\n"


def use(flavour: Flavour, url: str) -> None:
    """Open a store there, and close it."""
    settings = Settings(namespace=fresh_name())
    if flavour.blocking:
        blocking_store = adapter.blocking_store(Url.parse(url), settings)
        blocking_store.open()
        blocking_store.close()
        return

    async def main() -> None:
        store = adapter.store(Url.parse(url), settings)
        await store.open()
        await store.close()

    asyncio.run(main())


class TestWhoCannotBeFound:
    """One line says who was asked, what the answer was, and what to do."""

    def refused(self, flavour: Flavour, kind: type[PwfError], *ports: int) -> str:
        with pytest.raises(kind) as caught:
            use(flavour, url_of(*ports))
        text = str(caught.value)
        assert "\n" not in text
        assert all(f"{LOOPBACK}:{port}" in text for port in ports)
        return text

    def test_because_no_sentinel_is_there(self, flavour: Flavour) -> None:
        text = self.refused(flavour, StoreUnavailableError, free_port(), free_port())
        assert "No sentinel says where the master 'mymaster' of Redis is" in text
        assert text.count("Are they running") == 1

    def test_because_none_knows_the_name(self, flavour: Flavour) -> None:
        with saying(NOBODY) as one, saying(NOBODY) as other:
            text = self.refused(flavour, ConfigurationError, one, other)
        assert text.count("knows no such master") == 2
        assert "sentinel monitor" in text

    def test_because_those_who_may_know_are_away(self, flavour: Flavour) -> None:
        with saying(NOBODY) as one:
            text = self.refused(flavour, StoreUnavailableError, one, free_port())
        assert "knows no such master" in text
        assert "Are they running" in text

    def test_because_they_want_a_password(self, flavour: Flavour) -> None:
        with saying(b"-NOAUTH Authentication required.\r\n") as one:
            assert "sentinel_password=" in self.refused(flavour, ConfigurationError, one)

    @pytest.mark.redis
    def test_because_it_is_no_sentinel(self, flavour: Flavour, redis_server: RedisServer) -> None:
        text = self.refused(flavour, ConfigurationError, redis_server.port)
        assert "unknown command" in text
        assert "addresses of sentinels" in text

    def test_because_it_is_away(self, flavour: Flavour) -> None:
        port = free_port()
        with saying(naming(port)) as one:
            text = self.refused(flavour, StoreUnavailableError, one)
        assert f"{LOOPBACK}:{port}" in text
        assert "cannot be reached" in text

    @pytest.mark.redis
    def test_because_it_is_a_replica(self, flavour: Flavour, redis_server: RedisServer) -> None:
        with (
            RedisServer(f"replicaof {LOOPBACK} {redis_server.port}") as replica,
            saying(naming(replica.port)) as one,
        ):
            text = self.refused(flavour, StoreUnavailableError, one)
            assert f"{LOOPBACK}:{replica.port} is a replica" in text
            with saying(naming(redis_server.port)) as other:  # which is not behind
                settings = Settings(namespace=fresh_name())
                store = adapter.blocking_store(Url.parse(url_of(one, other)), settings)
                with pytest.raises(StoreUnavailableError):
                    store.open()
                store.open()
                store.close()


@pytest.mark.redis
def test_silent_sentinels_are_skipped(flavour: Flavour, redis_server: RedisServer) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent, saying(naming(redis_server.port)) as one:
        ports = silent.getsockname()[1], free_port(), one
        use(flavour, with_options(url_of(*ports), timeout=2))


@pytest.mark.redis
def test_both_are_encrypted(flavour: Flavour, tmp_path: Path) -> None:
    """Sentinels and the master show certificates, and want to see one."""
    authority = Authority(tmp_path)
    cert, key = authority.sign("server")
    tls = [f"tls-cert-file {cert}", f"tls-key-file {key}", f"tls-ca-cert-file {authority.ca}"]
    ours = dict(zip(("certfile", "keyfile"), authority.sign("client"), strict=True))
    port, other = free_port(), free_port()
    monitor = f"sentinel monitor {NAME} {LOOPBACK} {port} 1"
    with (
        RedisServer(*tls, f"tls-port {port}"),
        SentinelServer(*tls, f"tls-port {other}", "tls-replication yes", monitor),
    ):
        url = with_options(url_of(other, scheme="rediss+sentinel"), **ours)
        use(flavour, with_options(url, ca_certs=authority.ca))
        with pytest.raises(StoreUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            use(flavour, url)


@pytest.mark.redis
def test_sentinels_have_users_of_their_own(flavour: Flavour, redis_url: str) -> None:
    """And the master's need not be allowed more than elsewhere."""
    url = Url.parse(redis_user(redis_url, "*", NEEDED, "sue"))
    monitor = f"sentinel monitor {NAME} {LOOPBACK} {url.port} 1"
    with SentinelServer(f"user guard on >{PASSWORD} +@all", "requirepass x", monitor) as server:
        plain = url_of(server.port).replace("//", f"//sue:{PASSWORD}@")
        use(flavour, f"{plain}?sentinel_username=guard&sentinel_password={PASSWORD}")
        for wrong in (plain, f"{plain}?sentinel_username=guard&sentinel_password={PASSWORD}x"):
            with pytest.raises(ConfigurationError, match="sentinel_password") as caught:
                use(flavour, wrong)
            assert PASSWORD not in str(caught.value)
