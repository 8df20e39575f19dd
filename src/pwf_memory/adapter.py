"""The memory adapter behind `memory://` (private) and `memory://name` (shared in this process)."""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

import attrs

from pwf_core.adapters import Durability, Settings, Url
from pwf_core.errors import ConfigurationError, UnsupportedError
from pwf_memory.backend import BlockingMemoryBackend, MemoryBackend
from pwf_memory.broker import BlockingMemoryBroker, MemoryBroker, Queues
from pwf_memory.store import BlockingMemoryStateStore, MemoryStateStore
from pwf_memory.tables import Tables

__all__ = ["adapter"]

# Alive as long as somebody is connected to them.
_tables: WeakValueDictionary[tuple[str, str, bool], Tables] = WeakValueDictionary()
_queues: WeakValueDictionary[tuple[str, str], Queues] = WeakValueDictionary()
_lock = threading.Lock()


def _find_tables(url: Url, settings: Settings) -> Tables:
    _check(url, settings)
    if not url.host:
        return Tables(settings.rules)
    name = (url.host, settings.namespace, settings.rules.paired)
    with _lock:
        found = _tables.get(name)
        if found is None:
            found = _tables[name] = Tables(settings.rules)
    if found.rules != settings.rules:
        raise ConfigurationError(
            f"{url} is already open in this process with another retention; use the same one, "
            "or another name.",
        )
    return found


def _find_queues(url: Url, settings: Settings) -> Queues:
    _check(url, settings)
    if not url.host:
        return Queues()
    with _lock:
        return _queues.setdefault((url.host, settings.namespace), Queues())


def _check(url: Url, settings: Settings) -> None:
    url.refuse_unknown()
    if url.path.strip("/") or url.port or url.username:
        raise ConfigurationError(f"{url}: write memory:// or memory://name, and nothing more.")
    if settings.durability is not Durability.STANDARD:
        raise UnsupportedError(
            "memory:// keeps nothing over the end of the program, so durability='fsync' cannot "
            "hold. embedded:///folder is durable without a server to install.",
        )


def _refuse_signing(settings: Settings) -> None:
    settings.refuse_signing(
        "Messages of memory:// never leave the process, so nobody can forge one."
    )


@attrs.frozen
class _MemoryAdapter:
    def backend(self, url: Url, settings: Settings) -> MemoryBackend:
        _refuse_signing(settings)
        return MemoryBackend(_find_tables(url, settings))

    def broker(self, url: Url, settings: Settings) -> MemoryBroker:
        _refuse_signing(settings)
        return MemoryBroker(_find_queues(url, settings))

    def store(self, url: Url, settings: Settings) -> MemoryStateStore:
        return MemoryStateStore(_find_tables(url, settings))

    def blocking_backend(self, url: Url, settings: Settings) -> BlockingMemoryBackend:
        _refuse_signing(settings)
        return BlockingMemoryBackend(_find_tables(url, settings))

    def blocking_broker(self, url: Url, settings: Settings) -> BlockingMemoryBroker:
        _refuse_signing(settings)
        return BlockingMemoryBroker(_find_queues(url, settings))

    def blocking_store(self, url: Url, settings: Settings) -> BlockingMemoryStateStore:
        return BlockingMemoryStateStore(_find_tables(url, settings))


adapter = _MemoryAdapter()
