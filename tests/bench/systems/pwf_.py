"""pwf itself, as users run it: `pwf worker` beside a client.

`$BENCH_URL` says which backend, `$BENCH_CLIENT` whether what starts runs is the blocking client.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.bench.systems.speaking import RECOVERY, About, async_step, end, main

from pwf import (
    BlockingClient,
    Client,
    Context,
    Next,
    Run,
    Service,
    Worker,
    connect,
    connect_blocking,
    gather,
    publish,
    result,
)

__all__ = ["bench"]

URL = os.environ.get("BENCH_URL", "memory://")
PROCESSES = os.environ.get("BENCH_WORKERS", "1")
IS_MEMORY = URL.startswith("memory:")
IS_BLOCKING = os.environ.get("BENCH_CLIENT") == "blocking"
EXAMPLE = Path(__file__).parents[3] / "examples" / "registration.py"

bench = Service("bench")


@bench.task
async def step(mark: str, run: int, left: int, value: int, work_ms: int) -> Next:
    """Add one, and hand on to the next step while there is one."""
    await async_step(mark, run, work_ms)
    if left > 1:
        return publish(step, mark, run, left - 1, value + 1, work_ms)
    end(mark, run, value + 1)
    return None


@bench.task
async def fork(mark: str, run: int, width: int, work_ms: int) -> Next:
    """Fan out, and join."""
    await async_step(mark, run, work_ms)
    branches = [publish(branch, mark, run, number, work_ms) for number in range(width)]
    return gather(branches, then=publish(joined, mark, run, work_ms))


@bench.task
async def branch(mark: str, run: int, number: int, work_ms: int) -> Next:
    """Give the join a number."""
    await async_step(mark, run, work_ms)
    return result(number)


@bench.task
async def busy_fork(mark: str, run: int, width: int, busy_us: int) -> Next:
    """Fan out to handlers that compute, and join."""
    branches = [publish(busy_branch, number, busy_us) for number in range(width)]
    return gather(branches, then=publish(joined, mark, run, 0))


@bench.task
async def busy_branch(number: int, busy_us: int) -> Next:
    """Take that much of a core, however many share it, and give the join a number."""
    enough = time.thread_time_ns() + busy_us * 1000
    while time.thread_time_ns() < enough:
        pass
    return result(number)


@bench.task
async def joined(ctx: Context, mark: str, run: int, work_ms: int) -> Next:
    """Sum up."""
    await async_step(mark, run, work_ms)
    end(mark, run, sum(ctx.results))
    return None


class System:
    """The client's side."""

    def __init__(self, backend: Client, starter: Client | BlockingClient) -> None:
        self._backend = backend
        self._starter = starter
        self._runs: list[Run] = []

    async def chains(self, mark: str, runs: int, steps: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        firsts = [publish(step, mark, run, steps, 0, work_ms) for run in range(runs)]
        self._runs += await self._backend.start_many(firsts)

    async def forks(self, mark: str, runs: int, width: int, work_ms: int) -> None:
        """See `speaking.Client`."""
        firsts = [publish(fork, mark, run, width, work_ms) for run in range(runs)]
        self._runs += await self._backend.start_many(firsts)

    async def busy_forks(
        self, mark: str, runs: int, width: int, work_ms: int, busy_us: int
    ) -> None:
        """Do the same with handlers that compute."""
        firsts = [publish(busy_fork, mark, run, width, busy_us) for run in range(runs)]
        self._runs += await self._backend.start_many(firsts)

    async def starts(self, mark: str, count: int, *, batched: bool) -> None:
        """See `speaking.Client`."""
        firsts = [publish("idle.step", mark, run, 1, 0, 0) for run in range(count)]
        match self._starter:
            case BlockingClient() as blocking if batched:
                blocking.start_many(firsts)
            case BlockingClient() as blocking:
                for first in firsts:
                    blocking.start(first)
            case backend if batched:
                await backend.start_many(firsts)
            case backend:
                for first in firsts:
                    await backend.start(first)

    async def registrations(self, count: int) -> None:
        """Have that many users register at once; their workers are here, too."""
        example = _example()
        user = example.User("Ann", email="ann@example.org", card="4000 0001")
        async with (
            Worker(self._backend, example.users),
            Worker(self._backend, example.documents),
        ):
            firsts = [publish(example.register, user) for _ in range(count)]
            runs = await self._backend.start_many(firsts)
            done = await asyncio.gather(*(run.result(example.Registered) for run in runs))
        if {(one.user, len(one.checks), one.pages) for one in done} != {("Ann", 2, 1)}:
            raise AssertionError(f"users registered as {done}"[:200])

    async def statuses(self) -> dict[str, int]:
        """Wait until every run is over that was started since this was asked last; say how."""
        runs, self._runs = self._runs, []
        return Counter([str(one) for one in await asyncio.gather(*(_end_of(run) for run in runs))])


async def _end_of(run: Run) -> str:
    try:
        return (await run.wait(timeout=10)).value
    except TimeoutError:
        return "late"


def _example() -> Any:
    """Import what users are shown; it is in no package."""
    spec = importlib.util.spec_from_file_location("registration", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def client() -> AsyncIterator[System]:
    """Connect; a backend that lives in one process has its worker here."""
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(connect(URL))
        if IS_MEMORY:
            await stack.enter_async_context(Worker(backend, bench))
        starter = stack.enter_context(connect_blocking(URL)) if IS_BLOCKING else backend
        yield System(backend, starter)


def worker() -> None:
    """Become `pwf worker`."""
    arguments = [sys.executable, "-m", "pwf.cli", "worker", "tests.bench.systems.pwf_:bench"]
    arguments += ["--url", URL, "--processes", PROCESSES, "--log-level", "error"]
    if RECOVERY:
        arguments += ["--lease", f"{RECOVERY}s"]
    os.execv(sys.executable, arguments)  # noqa: S606 -- it is to be one process


ABOUT = About(
    settings="`pwf worker` with its defaults: 64 calls at once, a lease of 5 s; `gather` joins.",
    not_guaranteed="Handlers run at least once. Without `durability=fsync`, what a power cut takes: "
    "up to the last two seconds.",
    packages=("redis", "hiredis", "aio-pika", "aiormq", "pika", "msgspec", "attrs", "uvloop"),
)

if __name__ == "__main__":
    main(ABOUT, worker, client)
