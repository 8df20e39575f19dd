"""RabbitMQ behind TLS, through each driver: whom it trusts, and that everything works there."""

import asyncio
import socket
import uuid

import pytest
from tests.integration.certificates import Authority

from pwf import BlockingWorker, Next, Service, Worker, connect, connect_blocking, publish, result
from pwf.testing.servers import LOOPBACK, RabbitServer
from pwf_core.adapters import Settings, Url
from pwf_core.errors import BrokerUnavailableError, ConfigurationError
from pwf_rabbit.adapter import adapter

pytest.importorskip("aio_pika")
pytest.importorskip("pika")

pytestmark = pytest.mark.rabbit

service = Service("s")
DRIVERS = ["aio-pika", "pika", "pika-blocking"]


@service.task
def double(number: int) -> Next:
    return publish(answer, 2 * number)


@service.task
def answer(number: int) -> Next:
    return result(number)


def free_port():
    with socket.create_server((LOOPBACK, 0)) as one:
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def port(rabbit_server, authority):
    """That of a server that shows a certificate for loopback, and wants to see one.

    `rabbit_server` is asked for so that absence is said alike.
    """
    (cert, key), port = authority.sign("server"), free_port()
    lines = [
        f"listeners.ssl.1 = {LOOPBACK}:{port}",
        f"ssl_options.cacertfile = {authority.ca}",
        f"ssl_options.certfile = {cert}",
        f"ssl_options.keyfile = {key}",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = true",
    ]
    with RabbitServer(*lines):
        yield port


@pytest.fixture(scope="module")
def ours(authority):
    """The options that name our own certificate."""
    cert, key = authority.sign("client")
    return f"certfile={cert}&keyfile={key}"


@pytest.fixture(params=DRIVERS)
def driver(request):
    return request.param


def opened(url, driver):
    """Open a broker there and close it."""
    where = Url.parse(f"{url}&driver={driver.removesuffix('-blocking')}&timeout=5")
    if driver.endswith("blocking"):
        broker = adapter.blocking_broker(where, Settings())
        try:
            broker.open()
        finally:
            broker.close()
        return

    async def main():
        broker = adapter.broker(where, Settings())
        try:
            await broker.open()
        finally:
            await broker.close()

    asyncio.run(main())


class TestRefusing:
    def test_an_unknown_authority(self, port, driver, ours):
        with pytest.raises(ConfigurationError, match=r"cannot be trusted.*ca_certs=") as caught:
            opened(f"amqps://guest:guest@{LOOPBACK}:{port}/?{ours}", driver)

        assert f"{LOOPBACK}:{port}" in str(caught.value)

    def test_a_certificate_for_another_host(self, port, driver, ours, authority):
        """It is one for the address, and this is the name."""
        with pytest.raises(ConfigurationError, match=r"cannot be trusted.*'localhost'") as caught:
            opened(f"amqps://guest:guest@localhost:{port}/?ca_certs={authority.ca}&{ours}", driver)

        assert f"localhost:{port}" in str(caught.value)

    def test_to_be_without_a_certificate(self, port, driver, authority):
        """Here it is the server that refuses."""
        with pytest.raises(BrokerUnavailableError, match=f"{LOOPBACK}:{port}"):
            opened(f"amqps://guest:guest@{LOOPBACK}:{port}/?ca_certs={authority.ca}", driver)

    def test_to_speak_in_the_clear(self, port, driver):
        with pytest.raises(BrokerUnavailableError, match=f"{LOOPBACK}:{port}"):
            opened(f"amqp://guest:guest@{LOOPBACK}:{port}/?heartbeat=10", driver)


class TestCarrying:
    @pytest.fixture(params=["ca_certs", "SSL_CERT_FILE"])
    def trusting(self, request, authority, monkeypatch):
        """The option that names the authority, where the environment does not."""
        if request.param == "ca_certs":
            return f"&ca_certs={authority.ca}"
        monkeypatch.setenv(request.param, str(authority.ca))
        return ""

    @pytest.fixture
    def url(self, port, ours, trusting, redis_url):
        url = f"amqps://guest:guest@{LOOPBACK}:{port}/?{ours}{trusting}"
        return f"{url}&store={redis_url}&namespace=tls-{uuid.uuid4().hex[:8]}"

    @pytest.mark.parametrize("driver", ["aio-pika", "pika"])
    def test_everything(self, url, driver):
        async def main():
            async with connect(f"{url}&driver={driver}") as backend, Worker(backend, service):
                run = await backend.start(publish(double, 21))
                return await run.result(int, timeout=30)

        assert asyncio.run(main()) == 42

    def test_everything_blocking(self, url):
        with connect_blocking(url) as backend, BlockingWorker(backend, service):
            assert backend.start(publish(double, 21)).result(int, timeout=30) == 42
