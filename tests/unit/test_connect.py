"""What `connect` and `connect_blocking` make of URLs and options."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pwf import (
    ConfigurationError,
    PwfError,
    RunNotFoundError,
    Service,
    Status,
    UnsupportedError,
    Worker,
    connect,
    connect_blocking,
    publish,
    result,
)
from pwf_core.adapters import Url
from pwf_core.signing import Signer

service = Service("s")
KEY = "correct-horse-battery"


@service.task
def answer() -> Any:
    return result(42)


@pytest.fixture(params=[connect, connect_blocking], ids=["connect", "connect_blocking"])
def connect_either(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return request.param


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "no scheme"),
        ("memory:", "no scheme"),
        ("kafka://host", r"No adapter is installed for kafka://.*memory://"),
        ("memory://?retention=soon", "30s, 15m, 12h or 7d"),
        ("memory://?retention=1h&retention=2h", "twice"),
        ("memory://?color=red", "Unknown option color.*Known to memory://"),
        ("memory://?namespace=a b", "namespace"),
        ("memory://?durability=much", "'standard', 'fsync'"),
        ("memory://x/path", "memory://name"),
        ("redis://host:port", "usable URL"),
        (
            "amqp://host?store=redis://host&signing_keys=x",
            r"cannot stand in a URL.*PWF_SIGNING_KEYS",
        ),
        (
            "amqp://host?store=redis://host?signing_keys=x",
            r"cannot stand in a URL.*PWF_SIGNING_KEYS",
        ),
    ],
)
def test_wrong_url_is_one_clear_error(
    connect_either: Callable[..., Any],
    url: str,
    message: str,
) -> None:
    """It says what was asked and what would do, before anything is opened."""
    with pytest.raises(ConfigurationError, match=message):
        connect_either(url)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retention": 3}, "timedelta"),
        ({"retention": timedelta(seconds=-1)}, "0 or more"),
        ({"namespace": "a.b"}, "namespace"),
        ({"durability": "none"}, "durability='none'"),
        ({"durability": ""}, "durability=''"),
        ({"namespace": ""}, "namespace ''"),
        ({"namespace": 5}, "namespace 5"),
        ({"store": ""}, "not a URL"),
        ({"store": 5}, "a string, not int"),
        ({"signing_keys": []}, "holds no key"),
        ({"signing_keys": ["short"]}, "key 1 has 5 bytes"),
    ],
)
def test_wrong_option_is_one_clear_error(
    connect_either: Callable[..., Any],
    options: dict[str, Any],
    message: str,
) -> None:
    """Options are checked as those in the query are."""
    with pytest.raises(ConfigurationError, match=message):
        connect_either("memory://", **options)


@pytest.mark.parametrize(
    ("query", "argument", "both"),
    [
        ("namespace=a", {"namespace": "b"}, ["'b'", "'a'"]),
        ("retention=1h", {"retention": timedelta(hours=2)}, ["2:00:00", "1:00:00"]),
        ("durability=fsync", {"durability": "standard"}, ["'standard'", "'fsync'"]),
        (
            "store=redis://me:s3cret@one",
            {"store": "redis://me:s3cret@two"},
            ["redis://me:***@two", "redis://me:***@one"],
        ),
    ],
)
def test_option_with_two_values_is_refused(
    connect_either: Callable[..., Any],
    query: str,
    argument: dict[str, Any],
    both: list[str],
) -> None:
    """Nothing says which of them was meant."""
    (name,) = argument
    with pytest.raises(ConfigurationError, match=rf"^{name} has two values") as caught:
        connect_either(f"redis://localhost?{query}", **argument)

    assert [one for one in both if one not in str(caught.value)] == []
    assert "s3cret" not in str(caught.value)


def test_option_may_be_said_twice_alike(connect_either: Callable[..., Any]) -> None:
    """As a command line does that passes on what it was given."""
    url = "memory://?namespace=a&retention=1h&durability=standard"

    connect_either(url, namespace="a", retention=timedelta(hours=1), durability="standard")


@pytest.mark.parametrize("option", ["namespace=z", "retention=1h", "durability=fsync", "store=x"])
def test_option_of_both_halves_stands_in_the_first_url(
    connect_either: Callable[..., Any],
    option: str,
) -> None:
    """The store's URL has only what is the store's own."""
    name = option.partition("=")[0]
    with pytest.raises(ConfigurationError) as caught:
        connect_either("amqp://x", store=f"redis://y?{option}")

    assert str(caught.value) == (
        f"{name} stands in the URL of the store, redis://y, but holds for broker and store alike: "
        "say it in the first URL, amqp://x."
    )


@pytest.mark.parametrize("url", ["rediss://h", "embedded:///f", "amqp://h?store=memory://x&"])
def test_every_option_is_in_the_tutorial(connect_either: Callable[..., Any], url: str) -> None:
    """What an adapter knows, its users can find."""
    tutorial = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
    with pytest.raises(ConfigurationError) as caught:
        connect_either(f"{url}{'' if '?' in url else '?'}color=red")
    known = str(caught.value).partition(" are ")[2].rstrip(".").split(", ")

    assert len(known) > 4
    assert [name for name in known if f"`{name}`" not in tutorial] == []


def test_plus_is_no_space() -> None:
    """Not in a scheme, and not in a password."""
    given = Url.parse("amqp://host?store=redis+sentinel://me:a+b@h1,h2:7/m")
    store = Url.parse(given.query["store"])

    assert (store.scheme, store.password) == ("redis+sentinel", "a+b")
    assert str(store) == "redis+sentinel://me:***@h1,h2:7/m"


@pytest.mark.parametrize("url", [5, 0, b"redis://me:s3cret@host"])
def test_url_is_a_string(connect_either: Callable[..., Any], url: Any) -> None:
    """Anything else is refused, and not shown: it may hold a password."""
    with pytest.raises(ConfigurationError, match=f"a string, not {type(url).__name__}") as caught:
        connect_either(url)

    assert "s3cret" not in str(caught.value)


def test_missing_adapters_are_installed_by_an_extra(
    connect_either: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there is nothing to choose from, the error says what to install."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    with pytest.raises(ConfigurationError, match=r"pip install 'pubsub-workflow\[redis\]'"):
        connect_either("redis://host")


def test_memory_refuses_to_promise_what_it_cannot(connect_either: Callable[..., Any]) -> None:
    """An option that the adapter cannot honour is an error at start-up, not ignored."""
    with pytest.raises(UnsupportedError, match="embedded://"):
        connect_either("memory://", durability="fsync")


@pytest.mark.parametrize(
    "url",
    ["memory://", "memory://x?store=memory://x", "redis://host", "embedded:///folder"],
)
@pytest.mark.parametrize("in_environment", [False, True])
def test_signing_is_refused_where_messages_stay_in_the_store(
    connect_either: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    *,
    in_environment: bool,
) -> None:
    """The error says why, and names the variable: it may have come from there."""
    options: dict[str, Any] = {} if in_environment else {"signing_keys": [KEY]}
    if in_environment:
        monkeypatch.setenv("PWF_SIGNING_KEYS", KEY)
    with pytest.raises(UnsupportedError, match=r"Messages .* unset PWF_SIGNING_KEYS") as caught:
        connect_either(url, **options)

    assert KEY not in str(caught.value)


@pytest.mark.parametrize("broker", ["amqp://host", "redis://host"])
def test_brokers_are_given_the_keys(
    connect_either: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    broker: str,
) -> None:
    """From the environment, in order; what is passed goes before."""
    monkeypatch.setenv("PWF_SIGNING_KEYS", f" {KEY}, {KEY[::-1]}\n")
    url = f"{broker}?store=redis://host"

    assert signer_of(connect_either(url)).keys == (KEY.encode(), KEY[::-1].encode())
    assert signer_of(connect_either(url, signing_keys=[b"x" * 16])).keys == (b"x" * 16,)
    assert KEY not in repr(connect_either(url)._port)


def signer_of(client: Any) -> Signer:
    """Return what the broker of a pair signs with."""
    broker = client._port._broker
    owner = broker.consuming if hasattr(broker, "consuming") else broker._options
    found: Signer = owner.signer
    return found


@pytest.mark.parametrize("value", ["", ",", f"{'k' * 16},"])
def test_empty_variable_is_not_taken_for_no_signing(
    connect_either: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    value: str,
) -> None:
    """Whatever was to fill it in has failed, and nobody must find out later."""
    monkeypatch.setenv("PWF_SIGNING_KEYS", value)
    with pytest.raises(ConfigurationError, match=r"PWF_SIGNING_KEYS: key \d has 0 bytes"):
        connect_either("amqp://host?store=redis://host")


def test_broker_without_a_store_says_what_to_add(connect_either: Callable[..., Any]) -> None:
    """RabbitMQ holds messages; state needs Redis beside it."""
    with pytest.raises(PwfError, match=r"store=redis://"):
        connect_either("amqp://localhost")


def test_url_comes_from_the_environment(
    connect_either: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`PWF_URL` is the default, and the error without it says so."""
    monkeypatch.delenv("PWF_URL", raising=False)
    with pytest.raises(ConfigurationError, match="PWF_URL"):
        connect_either()
    monkeypatch.setenv("PWF_URL", "memory://")

    assert connect_either().capabilities.technology == "memory"


def test_password_is_never_shown() -> None:
    """Neither the text nor the repr of a URL has it."""
    url = Url.parse("amqp://me:s3cret@host:5672/v?store=x")

    assert "s3cret" not in f"{url} {url!r}"
    assert str(url) == "amqp://me:***@host:5672/v"


@pytest.mark.parametrize(
    "hosts", ["one:5672,two:5673", "one,two,three", "[::1]:1,[::2]:2", "one,[::1]"]
)
def test_url_of_several_nodes_keeps_them(hosts: str) -> None:
    """As they stand there, for the adapter that knows of clusters; the rest is read as ever."""
    url = Url.parse(f"amqp://me:s3cret,{hosts}@{hosts}/v?store=x")

    assert (url.host, url.port, url.path) == (hosts, None, "/v")
    assert (url.username, url.password) == ("me", f"s3cret,{hosts}")
    assert url.raw == f"amqp://me:s3cret,{hosts}@{hosts}/v"
    assert str(url) == f"amqp://me:***@{hosts}/v"


def test_shared_memory_is_one_backend_for_both_flavours() -> None:
    """`memory://name` is the same for every client of the process, `memory://` is private."""

    async def main() -> tuple[Any, Any]:
        async with connect("memory://both") as backend, Worker(backend, service):
            with connect_blocking("memory://both") as other:
                run = await asyncio.to_thread(other.start, publish(answer))
            value = await backend.run(run.id).result(int, timeout=10)
            async with connect("memory://") as private:
                with pytest.raises(RunNotFoundError):
                    await private.run(run.id).status()
            return value, await backend.run(run.id).status()

    assert asyncio.run(main()) == (42, Status.FINISHED)


def test_client_that_is_not_open_says_so() -> None:
    """On every backend alike, so that a test on memory finds it."""

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="async with connect"):
            await connect("memory://").start(publish(answer))

    asyncio.run(main())


def test_blocking_client_opens_by_itself_and_again() -> None:
    """It may be made at import time, and be closed twice."""
    backend = connect_blocking("memory://again")
    keeper = connect_blocking("memory://again")
    keeper.start(publish(answer), key="k")
    first = backend.start(publish(answer), key="k")
    backend.close()
    backend.close()

    assert backend.start(publish(answer), key="k").id == first.id
