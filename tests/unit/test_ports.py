"""Async and blocking ports are the same ports, and so are their implementations."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from pwf_core import ports
from pwf_core.paired import BlockingPaired, Paired

PORTS = [
    (ports.Backend, ports.BlockingBackend),
    (ports.Broker, ports.BlockingBroker),
    (ports.StateStore, ports.BlockingStateStore),
    (ports.Watch, ports.BlockingWatch),
]
ADAPTERS = [
    ("pwf_memory.backend", "MemoryBackend", "pwf_memory.backend", "BlockingMemoryBackend"),
    ("pwf_memory.broker", "MemoryBroker", "pwf_memory.broker", "BlockingMemoryBroker"),
    ("pwf_memory.store", "MemoryStateStore", "pwf_memory.store", "BlockingMemoryStateStore"),
    ("pwf_redis.backend", "RedisBackend", "pwf_redis.blocking", "BlockingRedisBackend"),
    ("pwf_redis.store", "RedisStateStore", "pwf_redis.blocking", "BlockingRedisStateStore"),
    ("pwf_redis.streams", "RedisStreamsBroker", "pwf_redis.streams", "BlockingRedisStreamsBroker"),
    ("pwf_rabbit.aio", "AioPikaBroker", "pwf_rabbit.blocking", "PikaBroker"),
]


def face(cls):
    """Return what can be called on *cls*: parameters and annotations, modulo await."""
    found = {}
    for name, member in inspect.getmembers(cls):
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            found[name] = "property"
        elif inspect.isfunction(member):
            signature = inspect.signature(member)
            returns = re.sub(
                r"AbstractAsync(ContextManager)", r"Abstract\1", str(signature.return_annotation)
            )
            found[name] = (
                [
                    (one.name, one.kind, one.default, str(one.annotation))
                    for one in signature.parameters.values()
                ],
                returns.replace("Blocking", ""),
            )
    return found


def shape(cls, like):
    """Return the parameters of those methods of *cls* that *like* has."""
    return {
        name: [one[:3] for one in what[0]] if isinstance(what, tuple) else what
        for name, what in face(cls).items()
        if name in face(like)
    }


@pytest.mark.parametrize(("port", "twin"), PORTS, ids=lambda one: one.__name__)
def test_twins_have_one_face(port, twin):
    """Names, parameters, defaults and annotations are the same, modulo await."""
    assert face(port) == face(twin)


@pytest.mark.parametrize(("port", "twin"), PORTS[:3], ids=lambda one: one.__name__)
def test_only_the_blocking_twin_blocks(port, twin):
    """All that may wait is awaited on one side, and nothing is on the other."""
    at_once = {"watch", "leases"}  # they give what is waited for, or used by a thread
    for name, _ in inspect.getmembers(port, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.iscoroutinefunction(getattr(port, name)) is (name not in at_once), name
            assert not inspect.iscoroutinefunction(getattr(twin, name)), name


def test_paired_has_the_face_of_a_backend():
    """Both flavours of Paired are backends, to the letter."""
    assert shape(ports.Backend, ports.Backend) == shape(Paired, ports.Backend)
    assert shape(ports.BlockingBackend, ports.Backend) == shape(BlockingPaired, ports.Backend)


@pytest.mark.parametrize(("module", "name", "twin_module", "twin_name"), ADAPTERS)
def test_adapters_have_the_face_of_their_port(module, name, twin_module, twin_name):
    """Every adapter takes what its port says, in both flavours."""
    for extra in ("redis", "aio_pika", "pika"):
        if module.startswith(("pwf_redis", "pwf_rabbit")):
            pytest.importorskip(extra)
    cls = getattr(importlib.import_module(module), name)
    twin = getattr(importlib.import_module(twin_module), twin_name)
    kind = next(one for one in ("Backend", "Broker", "StateStore") if name.endswith(one))
    port = getattr(ports, kind)

    assert shape(port, port) == shape(cls, port)
    assert shape(port, port) == shape(twin, port)
