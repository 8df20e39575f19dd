"""What is left in the servers: by the public API, and by looking into Redis and RabbitMQ themselves.

Once every run is over and its retention too, nothing may be left but what is meant to stay: the
format, empty queues, wake-up tokens; for some minutes, the last exchange of each worker; for an hour,
the pointers of users' keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import attrs
import msgspec
import redis
from tests.chaos.shapes import Node, number_of
from tests.chaos.site import NAMESPACE, Site
from tests.chaos.workflows import alpha, beta

from pwf import Client, RunNotFoundError, connect

__all__ = ["Leftovers", "describe", "give_up_dead_letters", "look", "memory", "wait_for_nothing"]

_SERVICES = (alpha.name, beta.name)


@attrs.frozen
class Leftovers:
    """What is left.

    Attributes:
        runs: Their ids.
        pointers: How many keys of users are kept.
        messages: In queues.
        others: Whatever else there is and should not be, for people.
    """

    runs: tuple[str, ...]
    pointers: int
    messages: int
    others: tuple[str, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is left that should not be."""
        return not (self.runs or self.messages or self.others)


def memory(site: Site) -> int:
    """Return how many bytes the data of Redis take."""
    found: list[int] = [store.info("memory")["used_memory_dataset"] for store in _stores(site)]
    return sum(found)


def look(site: Site) -> Leftovers:
    """Return what is left now."""
    runs, others, pointers, messages = [], [], 0, 0
    for store, raw in _keys(site):
        name = raw.decode().partition("}:")[2]
        kind, _, rest = name.partition(":")
        match kind:
            case "run":
                runs.append(rest)
            case "key":
                pointers += 1
            case "queue":
                messages += store.xlen(raw)
            case "wake" if store.llen(raw) <= 1:
                pass
            case "format":
                pass
            case "take" if store.pttl(raw) > 0:
                pass  # the last exchange of a worker that is gone; it goes by itself
            case "due" | "dead":
                others.append(f"{store.zcard(raw)} entries in {kind}")
            case _:
                others.append(name)
    messages += sum(_depths(site))
    return Leftovers(tuple(runs), pointers, messages, tuple(others))


async def wait_for_nothing(site: Site, patience: float) -> Leftovers:
    """Wait until nothing is left, and return what is left all the same."""
    left = await asyncio.to_thread(look, site)
    try:
        async with asyncio.timeout(patience):
            while not left.is_nothing:
                await asyncio.sleep(0.5)
                left = await asyncio.to_thread(look, site)
    except TimeoutError:
        pass
    return left


async def give_up_dead_letters(site: Site, doomed: set[int]) -> tuple[int, list[str]]:
    """Discard all dead letters; return how many were meant, and which were not."""
    meant, others = 0, []
    async with connect(site.direct_url) as backend:
        while letters := await backend.dead_letters(limit=100):
            for letter in letters:
                path = _path_in(letter.body)
                if letter.address.endswith(".doom") and number_of(path) in doomed:
                    meant += 1
                else:
                    reason = letter.reason.strip().splitlines()[-1:]
                    others.append(f"{letter.address} of {path} ({letter.run_id}): {reason}")
                await backend.discard(letter)
    return meant, others


async def describe(site: Site, run_ids: list[str]) -> list[str]:
    """Return how runs stand, for people."""
    async with connect(site.direct_url) as backend:
        return [await _describe(backend, run_id) for run_id in run_ids]


async def _describe(backend: Client, run_id: str) -> str:
    try:
        return repr(await backend.run(run_id).view())
    except RunNotFoundError:
        return f"run {run_id} is not known"


def _path_in(body: bytes) -> str:
    """Return the path of the node that a call has as its argument."""
    found = msgspec.msgpack.decode(body)
    values = found.values() if isinstance(found, dict) else found
    for value in values:
        if isinstance(value, dict):
            return msgspec.convert(value, Node).path
    return "-1/?"


def _depths(site: Site) -> Iterator[int]:
    """Yield how many messages are ready in each queue of RabbitMQ."""
    if "rabbit" not in site.servers:
        return
    import pika
    from pika.exceptions import ChannelClosedByBroker

    connection = pika.BlockingConnection(pika.URLParameters(site.servers["rabbit"].url))
    with closing(connection):
        for name in (*_SERVICES, "rejected.messages"):
            channel = connection.channel()
            try:
                found = channel.queue_declare(f"pwf.{NAMESPACE}.{name}", passive=True)
            except ChannelClosedByBroker:
                continue  # nothing was ever set aside
            yield found.method.message_count


def _stores(site: Site) -> Iterator[redis.Redis]:
    for port in site.redis_ports:
        with closing(redis.Redis(port=port)) as store:
            yield store


def _keys(site: Site) -> Iterator[tuple[redis.Redis, bytes]]:
    """Yield each key of the namespace, and where it is."""
    for store in _stores(site):
        for key in store.scan_iter(f"pwf:{{{NAMESPACE}:*", count=1000):
            yield store, key
