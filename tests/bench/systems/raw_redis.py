"""What Redis itself takes: XADD one by one and in pipelines, and pwf's own script, pipelined.

The script's requests are made beforehand, those of a worker that runs chains (64 commits and 64 takes
in each), so that nothing but Redis and a socket is measured.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import redis as blocking_redis
import redis.asyncio as redis
from tests.bench.systems.speaking import NAMESPACE, REDIS, About, batches, main

from pwf import publish
from pwf._ids import new_session
from pwf._requests import make_starts
from pwf_core.commands import Command, Commit
from pwf_core.decide import decide
from pwf_core.ids import ClaimId
from pwf_core.ports import Take
from pwf_core.state import Rules
from pwf_redis.codec import encode_request
from pwf_redis.keys import Keys
from pwf_redis.scripts import EXCHANGE, START, Script

PIPELINE, BATCH, STEPS, LANES = 64, 64, 20, 16
MESSAGE: dict[Any, Any] = {"m": b"x" * 64}
STREAM = f"{NAMESPACE}:raw"
ADDRESS = "bench.step"


class System:
    """The client's side, and the only one."""

    def __init__(self, server: redis.Redis) -> None:
        self._server = server

    async def figures(self, scale: float) -> dict[str, float]:
        """Return each limit, per second."""
        return {
            "XADD one by one": await self._adds(int(5000 * scale), 1),
            "XADD one by one, blocking": self._blocking_adds(int(5000 * scale)),
            "XADD by 64": await self._adds(int(50_000 * scale), PIPELINE),
            "commit script": await self._commits(max(int(LANES * scale), 1)),
        }

    async def _adds(self, count: int, size: int) -> float:
        began = time.perf_counter()
        for batch in batches(range(count), size):
            if size == 1:
                await self._server.xadd(STREAM, MESSAGE)
                continue
            pipe = self._server.pipeline(transaction=False)
            for _ in batch:
                pipe.xadd(STREAM, MESSAGE)
            await pipe.execute()
        return count / (time.perf_counter() - began)

    def _blocking_adds(self, count: int) -> float:
        with blocking_redis.from_url(REDIS) as server:
            server.ping()
            began = time.perf_counter()
            for _ in range(count):
                server.xadd(STREAM, MESSAGE)
            return count / (time.perf_counter() - began)

    async def _commits(self, lanes: int) -> float:
        for script in (START, EXCHANGE):
            await self._server.function_load(script.library.decode())
        requests = [request for _ in range(lanes) for request in lane()]
        key = Keys(NAMESPACE).due
        began = time.perf_counter()
        for batch in batches(requests, 8):
            pipe = self._server.pipeline(transaction=False)
            for script, request in batch:
                pipe.execute_command("FCALL", script.function, 1, key, *request)
            for reply in await pipe.execute():
                if reply[0] != 0:
                    raise RuntimeError(f"the script answered {reply}")
        seconds = time.perf_counter() - began
        if len(reply[1]) != BATCH or await self._server.zcard(key) < lanes * BATCH:
            raise RuntimeError("the script did not do what a worker's does")
        return lanes * BATCH * STEPS / seconds


def lane() -> Iterator[tuple[Script, list[bytes]]]:
    """Yield the requests of a client that starts 64 chains of 20 steps, and of their worker."""
    session = new_session()

    def exchange(commands: list[Command], number: int) -> tuple[Script, list[bytes]]:
        take = Take((ADDRESS.partition(".")[0],), BATCH, ClaimId(f"{session}:{number}"), 5000)
        return EXCHANGE, encode_request(commands, Rules(), "1 fused", sweep=64, take=take)

    body = publish(ADDRESS, "m1", 17, 20, 0, 0)
    starts = make_starts([body] * BATCH, None)
    calls = [(start.run_id, start.call.call_id) for start in starts]
    yield START, encode_request(starts, Rules(), "1 fused", sweep=0)
    yield exchange([], 1)
    for number in range(1, STEPS + 1):
        followers = [body] if number < STEPS else []
        decisions = [decide(call_id, ADDRESS, followers) for _, call_id in calls]
        claim = ClaimId(f"{session}:{number}")
        commits = [
            Commit(run_id, call_id, claim, decision)
            for (run_id, call_id), decision in zip(calls, decisions, strict=True)
        ]
        yield exchange(list(commits), number + 1)
        if followers:
            calls = [
                (run_id, decision.calls[0].call_id)
                for (run_id, _), decision in zip(calls, decisions, strict=True)
            ]


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect."""
    async with redis.from_url(REDIS) as server:
        yield System(server)


def worker() -> None:
    """Be nothing: there is no worker."""


ABOUT = About(
    settings="redis-py on asyncio; the script's requests are encoded beforehand, eight on their way.",
    not_guaranteed="It is no system: only what the server takes.",
    packages=("redis", "hiredis"),
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
