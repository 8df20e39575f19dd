"""How adapters are found and made: by URL, each through one object behind an entry point.

The entry point group `pwf.adapters` maps a URL scheme to an `Adapter`. The driving side parses the
URL, takes out what every adapter understands (`Settings`) and hands over the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Protocol, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

from pwf_core.errors import ConfigurationError, UnsupportedError
from pwf_core.ports import (
    Backend,
    BlockingBackend,
    BlockingBroker,
    BlockingStateStore,
    Broker,
    StateStore,
)
from pwf_core.signing import Signer
from pwf_core.state import Rules

__all__ = ["ENTRY_POINTS", "Adapter", "Durability", "Settings", "Url"]

ENTRY_POINTS = "pwf.adapters"

T = TypeVar("T")

_HOSTS = re.compile(r"[^:/?#]*://(?:[^/?#]*@)?([^/?#]*)")  # what follows the last @


class Durability(StrEnum):
    """What must be on disk before work counts as accepted."""

    # Survives the death of any process of ours. A power cut may take the last two seconds; so may a
    # kill of Redis with its usual `appendfsync everysec`, which holds writes back while the disk is
    # busy.
    STANDARD = "standard"
    FSYNC = "fsync"  # survives all of that


@attrs.frozen(kw_only=True)
class Url:
    """A backend's URL, taken apart. Its text and repr never show the password.

    Attributes:
        raw: The URL as given, without its query; holds the password.
        scheme: What comes before "://".
        host: Or "". Where the URL names several nodes of a cluster, all of them as they stand there,
            each with its port: "one:5672,two:5672".
        port: Or None, as it is where there are several.
        path: With its leading slash, or "".
        query: Options that are the adapter's own; of one, the store's URL, the value is a secret.
    """

    raw: str = attrs.field(repr=False)
    scheme: str
    username: str = ""
    password: str = attrs.field(default="", repr=False)
    host: str = ""
    port: int | None = None
    path: str = ""
    query: Mapping[str, str] = attrs.field(factory=dict, repr=lambda query: repr([*query]))

    @classmethod
    def parse(cls, text: str) -> Url:
        """Return *text* taken apart.

        Raises:
            ConfigurationError: If it is no URL, an option stands twice in its query, or one that
                has to stay secret stands there at all.
        """
        if not isinstance(text, str):  # its value is not shown: a password may be in it
            raise ConfigurationError(f"A URL is a string, not {type(text).__name__}. {_FORMS}")
        hosts = _HOSTS.match(text)
        several = ""
        try:
            if hosts is not None and "," in hosts[1]:  # urllib knows URLs of one host alone
                several = hosts[1]
                parts = urlsplit(text[: hosts.start(1)] + text[hosts.end(1) :])
            else:
                parts = urlsplit(text)
            port = parts.port
            pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            # Neither the text nor urllib's words: a password may be in them.
            raise ConfigurationError(
                "This is not a usable URL: its port or its query cannot be read. Special characters "
                f"in a password are written %23 (#), %2F (/), %3F (?), %40 (@). {_FORMS}",
            ) from None
        # Where a password has a bare ?, its rest looks like options, and they would be named in errors.
        options = [one for one in parts.query.split("&") if not one.startswith("store=")]
        if "@" in parts.path or any("@" in one for one in options) or parts.fragment:
            raise ConfigurationError(
                "This is not a usable URL: '@' stands after its host, or it has a '#'. Special "
                f"characters in a password are written %23 (#), %2F (/), %3F (?), %40 (@). {_FORMS}",
            )
        if not parts.scheme or "://" not in text:
            raise ConfigurationError(f"This is not a URL: it has no scheme. {_FORMS}")
        query = dict(pairs)
        if len(query) != len(pairs):
            raise ConfigurationError(f"An option stands twice in the query of {parts.scheme}://…")
        if "signing_keys" in query:
            raise ConfigurationError(
                "signing_keys cannot stand in a URL, because URLs end up in logs and in lists of "
                "processes. Pass them to connect(), or set PWF_SIGNING_KEYS.",
            )
        return cls(
            raw=f"{parts.scheme}://{parts.netloc}{several}{parts.path}",
            scheme=parts.scheme,
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            host=several or parts.hostname or "",
            port=port,
            path=parts.path,
            query=query,
        )

    def without(self, *names: str) -> Url:
        """Return this URL without those options."""
        rest = {name: value for name, value in self.query.items() if name not in names}
        return attrs.evolve(self, query=rest)

    def option(self, name: str, convert: Callable[[str], T], default: T) -> T:
        """Return an option of the query.

        Raises:
            ConfigurationError: If *convert* raises ValueError or KeyError for it.
        """
        if name not in self.query:
            return default
        text = self.query[name]
        try:
            return convert(text)
        except (ValueError, KeyError, OverflowError) as error:
            raise ConfigurationError(
                f"Option {name}={text!r} in the URL {self}: {error}"
            ) from error

    def refuse_unknown(self, *known: str) -> None:
        """Check that the query has no other options than *known*.

        Raises:
            ConfigurationError: If it has.
        """
        unknown = sorted(set(self.query) - set(known))
        if unknown:
            raise ConfigurationError(
                f"Unknown option {', '.join(unknown)} in the URL {self}. "
                f"Known to {self.scheme}:// are {', '.join(sorted([*known, *_COMMON]))}.",
            )

    def __str__(self) -> str:
        user = (
            f"{self.username}:***@" if self.password else f"{self.username}@" * bool(self.username)
        )
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{user}{self.host}{port}{self.path}"


_FORMS = (
    "Known forms are memory://, embedded:///folder, redis://host:port/db and "
    "amqp://user:password@host:port/vhost?store=redis://host:port/db."
)
_COMMON = ("durability", "namespace", "retention", "store")  # read by pwf.connect


@attrs.frozen(kw_only=True)
class Settings:
    """What every adapter understands.

    Attributes:
        namespace: Keeps deployments apart that share a server; part of every key and queue name.
        rules: Retention, and whether the store is one half of a pair.
        durability: What must be on disk before work counts as accepted.
        signing_keys: Whoever has none of these cannot make messages; for brokers alone, and a store
            beside one passes over them. Without any, messages are not signed.
    """

    namespace: str = "default"
    rules: Rules = attrs.field(factory=Rules)
    durability: Durability = Durability.STANDARD
    signing_keys: tuple[bytes, ...] = attrs.field(default=(), repr=False)

    @property
    def signer(self) -> Signer | None:
        """What signs messages; None where they are not signed."""
        return Signer(self.namespace, self.signing_keys) if self.signing_keys else None

    def refuse_signing(self, why: str) -> None:
        """Check that no signing is asked for.

        Args:
            why: It has no place in this adapter; a sentence.

        Raises:
            UnsupportedError: If it is.
        """
        if self.signing_keys:
            raise UnsupportedError(
                f"{why} Signing is for a broker beside a store, such as amqp://…?store=redis://…; "
                "here, leave signing_keys out and unset PWF_SIGNING_KEYS.",
            )


class Adapter(Protocol):
    """Makes ports of one technology; nothing is opened here.

    A technology that is only a broker or only a store raises `UnsupportedError` from the others,
    saying what it needs beside it. A backend refuses `settings.signing_keys`. All raise `ConfigurationError` for options they do not know, and
    for a missing package, with the pip line that installs it.
    """

    def backend(self, url: Url, settings: Settings) -> Backend:
        """Return a backend that needs nothing beside it."""
        ...

    def broker(self, url: Url, settings: Settings) -> Broker:
        """Return one half of a pair."""
        ...

    def store(self, url: Url, settings: Settings) -> StateStore:
        """Return the other half; `settings.rules.paired` is True."""
        ...

    def blocking_backend(self, url: Url, settings: Settings) -> BlockingBackend:
        """Return the blocking twin of `backend`."""
        ...

    def blocking_broker(self, url: Url, settings: Settings) -> BlockingBroker:
        """Return the blocking twin of `broker`."""
        ...

    def blocking_store(self, url: Url, settings: Settings) -> BlockingStateStore:
        """Return the blocking twin of `store`."""
        ...
