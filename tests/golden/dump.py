"""A namespace of Redis as something that can be read, kept in a file, and put into another server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import redis

__all__ = ["Dump", "dump", "load"]

Dump: TypeAlias = dict[str, dict[str, Any]]
"""Name without the namespace's prefix -> {type: content}; bytes are written as Latin-1."""


def dump(server: redis.Redis, prefix: str) -> Dump:
    """Return all keys under *prefix*, but for those that expire by themselves."""
    found: Dump = {}
    for key in sorted(server.scan_iter(f"{prefix}*", count=1000)):
        if server.pttl(key) < 0:
            kind = server.type(key).decode()
            found[_text(key).removeprefix(prefix)] = {kind: _READ[kind](server, key)}
    return found


def load(server: redis.Redis, prefix: str, content: Dump) -> None:
    """Put *content* under *prefix*."""
    for name, value in content.items():
        ((kind, what),) = value.items()
        _WRITE[kind](server, _bytes(prefix + name), what)


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _hash(server: redis.Redis, key: bytes) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in sorted(server.hgetall(key).items())}


def _zset(server: redis.Redis, key: bytes) -> dict[str, int]:
    return {_text(name): int(score) for name, score in server.zrange(key, 0, -1, withscores=True)}


def _stream(server: redis.Redis, key: bytes) -> dict[str, list[str]]:
    # Field by field: their order is part of the entry.
    return {
        _text(entry): [_text(part) for pair in fields.items() for part in pair]
        for entry, fields in server.xrange(key)
    }


def _add_entries(server: redis.Redis, key: bytes, entries: dict[str, list[str]]) -> None:
    for entry, parts in entries.items():
        server.execute_command("XADD", key, entry, *map(_bytes, parts))


_READ: dict[str, Callable[[redis.Redis, bytes], object]] = {
    "string": lambda server, key: _text(server.get(key)),
    "hash": _hash,
    "zset": _zset,
    "list": lambda server, key: [_text(one) for one in server.lrange(key, 0, -1)],
    "stream": _stream,
}
_WRITE: dict[str, Callable[[redis.Redis, bytes, Any], object]] = {
    "string": lambda server, key, what: server.set(key, _bytes(what)),
    "hash": lambda server, key, what: server.hset(
        key, mapping={_bytes(name): _bytes(value) for name, value in what.items()}
    ),
    "zset": lambda server, key, what: server.zadd(
        key, {_bytes(name): score for name, score in what.items()}
    ),
    "list": lambda server, key, what: server.rpush(key, *map(_bytes, what)),
    "stream": _add_entries,
}
