"""TLS options: the same for both adapters, read at once, and none that switches verification off."""

import ssl

import pytest

from pwf_core.adapters import Settings, Url
from pwf_core.errors import ConfigurationError
from pwf_rabbit.adapter import adapter as rabbit
from pwf_rabbit.options import Options

pytest.importorskip("redis")

from pwf_redis.adapter import adapter as redis
from pwf_redis.sentinels import SentinelTarget
from pwf_redis.target import Target

ADAPTERS = {"redis": redis, "rediss": redis, "amqp": rabbit, "amqps": rabbit}


def refusal(url):
    parsed = Url.parse(url)
    with pytest.raises(ConfigurationError) as caught:
        ADAPTERS[parsed.scheme].broker(parsed, Settings())
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
class TestOptions:
    @pytest.mark.parametrize("option", ["ca_certs", "certfile", "keyfile"])
    def test_need_tls(self, scheme, option):
        """Who names a file, and forgets the s, is not served in the clear."""
        assert f"{option}= is for {scheme}://" in refusal(f"{scheme[:-1]}://host?{option}=/x")

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("ca_certs=/nowhere", "ca_certs='/nowhere' cannot be used"),
            ("ca_certs=", "names no file"),
            ("certfile=/nowhere", "certfile='/nowhere' cannot be used"),
            ("certfile=/nowhere&keyfile=/no", "keyfile='/no' cannot be used"),
            ("keyfile=/nowhere", "needs certfile="),
        ],
    )
    def test_are_checked_at_once(self, scheme, query, said):
        assert said in refusal(f"{scheme}://host?{query}")

    def test_name_certificates(self, scheme, tmp_path):
        path = tmp_path / "x"
        path.write_text("nothing of the kind")

        assert f"ca_certs={str(path)!r}" in refusal(f"{scheme}://host?ca_certs={path}")

    @pytest.mark.parametrize(
        "query",
        [
            *("verify=0", "insecure=1", "no_verify_ssl=1", "check_hostname=false", "ssl=0"),
            *("ssl_cert_reqs=none", "ssl_check_hostname=false", "cert_reqs=none", "tls=0"),
        ],
    )
    def test_never_switch_verification_off(self, scheme, query):
        """What other libraries take for it is unknown here."""
        assert "Unknown option" in refusal(f"{scheme}://host?{query}")


@pytest.mark.parametrize("kind", ["connection", "blocking_connection"])
def test_redis_is_verified(kind):
    """Both of the driver's classes, whatever their defaults."""
    behind = SentinelTarget.of_url(Url.parse("rediss+sentinel://host/m"))
    for target in (Target.of_url(Url.parse("rediss://host")), behind, *behind.sentinels.order):
        connection = getattr(target, kind)()

        assert connection.cert_reqs == ssl.CERT_REQUIRED
        assert connection.check_hostname is True


def test_rabbitmq_is_verified():
    context = Options.read(Url.parse("amqps://host"), Settings()).ssl_context()

    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname is True
    assert Options.read(Url.parse("amqp://host"), Settings()).ssl_context() is None
