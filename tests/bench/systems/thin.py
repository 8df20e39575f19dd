"""The thinnest loop over Redis Streams: the messages of a workflow, and nothing that remembers it.

A consumer group, batches of 64, one round trip a batch: what follows is added, what was read is
acknowledged, and the next batch is read. Joins are counted in the worker's own memory. What dies with
it is lost, doubles are not noticed: no system that promises anything can be faster over Streams.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import redis.asyncio as redis
from tests.bench.systems.speaking import NAMESPACE, REDIS, About, batches, end, main

BATCH = 64
STREAM = f"{NAMESPACE}:thin"
GROUP = "thin"
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode

Message = tuple[Any, ...]


class Handlers:
    """What follows from a message."""

    def __init__(self) -> None:
        self._arrived: Counter[tuple[str, int]] = Counter()
        self._sums: Counter[tuple[str, int]] = Counter()

    async def __call__(self, message: Message) -> list[Message]:
        """Handle one message, and return those that follow."""
        kind, mark, run, *rest = message
        match kind, rest:
            case "step", [left, value]:
                if left > 1:
                    return [("step", mark, run, left - 1, value + 1)]
                end(mark, run, value + 1)
            case "fork", [width]:
                return [("branch", mark, run, width, number) for number in range(width)]
            case "branch", [width, number]:
                self._arrived[mark, run] += 1
                self._sums[mark, run] += number
                if self._arrived[mark, run] == width:
                    return [("joined", mark, run, self._sums[mark, run])]
            case "joined", [value]:
                end(mark, run, value)
        return []


async def serve() -> None:
    """Run handlers until killed."""
    server: Any = redis.from_url(REDIS)
    handlers = Handlers()
    place = (GROUP, "one", {STREAM: ">"}, BATCH)
    await server.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    entries: Any = []
    while True:
        if not entries:
            entries = await server.xreadgroup(*place, block=1000)
            continue
        pipe = server.pipeline(transaction=False)
        for _, fields in entries[0][1]:
            for follower in await handlers(decode(fields[b"m"])):
                pipe.xadd(STREAM, {"m": encode(follower)})
        pipe.xack(STREAM, GROUP, *[name for name, _ in entries[0][1]])
        pipe.xreadgroup(*place)
        entries = (await pipe.execute())[-1]


class System:
    """The client's side."""

    def __init__(self, server: redis.Redis) -> None:
        self._server = server

    async def chains(self, mark: str, runs: int, steps: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        await self._add([("step", mark, run, steps, 0) for run in range(runs)])

    async def forks(self, mark: str, runs: int, width: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        await self._add([("fork", mark, run, width) for run in range(runs)])

    async def starts(self, mark: str, count: int, *, batched: bool) -> None:
        """See `speaking.Client`."""
        messages = [("step", mark, run, 1, 0) for run in range(count)]
        await self._add(messages, size=BATCH if batched else 1)

    async def _add(self, messages: list[Message], size: int = BATCH) -> None:
        for batch in batches(messages, size):
            if len(batch) == 1:
                await self._server.xadd(STREAM, {"m": encode(batch[0])})
                continue
            pipe = self._server.pipeline(transaction=False)
            for message in batch:
                pipe.xadd(STREAM, {"m": encode(message)})
            await pipe.execute()


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect."""
    async with redis.from_url(REDIS) as server:
        yield System(server)


def worker() -> None:
    """Serve."""
    asyncio.run(serve())


ABOUT = About(
    settings="redis-py on asyncio; one pipeline per batch of 64 adds, acknowledges and reads.",
    not_guaranteed="Anything: no workflow state, no recovery, joins counted in memory.",
    packages=("redis", "hiredis"),
    cannot={"W7": "it remembers nothing, by design"},
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
