"""The systems that are measured: which program, on which servers, with which options."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any
from urllib.parse import quote

import attrs

__all__ = ["SYSTEMS", "Kind", "Server", "System", "by_name"]


class Server(Enum):
    """A private server that a system needs."""

    REDIS = "redis"
    DURABLE_REDIS = "durable redis"  # appendfsync always
    RABBIT = "rabbit"
    POSTGRES = "postgres"


class Kind(Enum):
    """What a system is measured as."""

    PWF = "pwf"
    PEER = "peer"
    LIMIT = "limit"


@attrs.frozen
class System:
    """One row of the table.

    Attributes:
        name: Names it on command lines and in results.
        title: The same for people.
        kind: What it is measured as.
        program: Its module in `tests.bench.systems`.
        servers: What it needs.
        peer: The environment that it runs in; "" for ours.
        workers: Worker processes; 0 where the client does all.
        backend: For pwf, its URL, with places for the servers' own.
        options: Further variables of its environment.
        workloads: What to measure, if not all.
    """

    name: str
    title: str
    kind: Kind
    program: str
    servers: tuple[Server, ...] = ()
    peer: str = ""
    workers: int = 1
    backend: str = ""
    options: Mapping[str, str] = attrs.field(factory=dict)
    workloads: tuple[str, ...] = ()

    @property
    def on_rabbit(self) -> bool:
        """Whether RabbitMQ carries its messages."""
        return Server.RABBIT in self.servers

    def url(self, servers: Mapping[str, str], namespace: str) -> str:
        """Return the URL of pwf's backend on *servers* (URLs by the name of the kind)."""
        places = {name: quote(url, safe="") for name, url in servers.items()}
        return self.backend.format(**servers, quoted=places.get("redis", ""), namespace=namespace)


_ON_REDIS, _ON_BOTH = (Server.REDIS,), (Server.RABBIT, Server.REDIS)
_FUSED = "{redis}?namespace={namespace}"
_PAIRED = "{rabbit}?namespace={namespace}&store={quoted}"
_SPEEDS = "W1 W2 W3 W4 W5"


def _pwf(
    name: str,
    title: str,
    servers: tuple[Server, ...],
    backend: str,
    *,
    workloads: str = "",
    workers: int = 1,
    **options: str,
) -> System:
    asked = tuple(workloads.split())
    return System(
        name,
        title,
        Kind.PWF,
        "pwf_",
        servers,
        workers=workers,
        backend=backend,
        workloads=asked,
        options=options,
    )


def _raw(name: str, server: Server) -> System:
    program = name.replace("-", "_")
    title = name.replace("raw-redis", "raw Redis").replace("raw-", "raw ")
    return System(name, title, Kind.LIMIT, program, (server,), workers=0, workloads=("raw",))


def _peer(name: str, title: str, peer: str, servers: tuple[Server, ...], **options: str) -> System:
    return System(name, title, Kind.PEER, f"{peer}_", servers, peer, options=options)


def _on_rabbit(name: str, title: str, options: str = "", **how: Any) -> System:
    return _pwf(
        f"pwf-rabbit{name}", f"pwf, RabbitMQ + Redis{title}", _ON_BOTH, _PAIRED + options, **how
    )


# In the order of measuring. What pwf is compared with comes next to it, for machines change their speed.
SYSTEMS = (
    _pwf("pwf-memory", "pwf, memory", (), "memory://", workloads=_SPEEDS + " W6 W8", workers=0),
    _pwf("pwf-redis", "pwf, Redis", _ON_REDIS, _FUSED, workloads=_SPEEDS + " W6 W7 W9"),
    System("thin", "thin loop over Redis Streams", Kind.LIMIT, "thin", _ON_REDIS),
    _raw("raw-redis", Server.REDIS),
    _pwf(
        "pwf-redis-threads",
        "pwf, Redis, blocking client",
        _ON_REDIS,
        _FUSED,
        workloads="W5",
        BENCH_CLIENT="blocking",
    ),
    _pwf(
        "pwf-redis-2",
        "pwf, Redis, 2 processes",
        _ON_REDIS,
        _FUSED,
        workloads="W1 W2 W3 W6 W9",
        workers=2,
    ),
    _pwf(
        "pwf-redis-fsync",
        "pwf, Redis, fsync",
        (Server.DURABLE_REDIS,),
        _FUSED + "&durability=fsync",
        workloads=_SPEEDS,
    ),
    _on_rabbit("", ", quorum"),
    _raw("raw-aio-pika", Server.RABBIT),
    _on_rabbit("-2", ", quorum, 2 processes", workloads="W1 W2 W3", workers=2),
    _on_rabbit("-classic", ", classic", "&queue=classic", workloads=_SPEEDS + " W7"),
    _on_rabbit("-pika", ", quorum, pika", "&driver=pika", workloads=_SPEEDS),
    _raw("raw-pika", Server.RABBIT),
    _peer("celery-redis", "Celery, Redis", "celery", _ON_REDIS),
    _peer("celery-rabbit", "Celery, RabbitMQ", "celery", _ON_BOTH, BENCH_BROKER="rabbit"),
    _peer("dramatiq-redis", "Dramatiq, Redis", "dramatiq", _ON_REDIS),
    _peer("dramatiq-rabbit", "Dramatiq, RabbitMQ", "dramatiq", _ON_BOTH, BENCH_BROKER="rabbit"),
    _peer("taskiq-redis", "Taskiq, Redis", "taskiq", _ON_REDIS),
    _peer("taskiq-rabbit", "Taskiq, RabbitMQ", "taskiq", _ON_BOTH, BENCH_BROKER="rabbit"),
    _peer("saq", "SAQ, Redis", "saq", _ON_REDIS),
    _peer("streaq", "streaQ, Redis", "streaq", _ON_REDIS),
    _peer("dbos", "DBOS, PostgreSQL", "dbos", (Server.POSTGRES,)),
    _peer("procrastinate", "Procrastinate, PostgreSQL", "procrastinate", (Server.POSTGRES,)),
)

_BY_NAME = {system.name: system for system in SYSTEMS}


def by_name(name: str) -> System:
    """Return the system of that name.

    Raises:
        KeyError: If there is none.
    """
    return _BY_NAME[name]
