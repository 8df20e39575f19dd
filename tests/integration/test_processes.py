"""Worker processes that are stopped, killed and poisoned, on every durable backend."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.workflows import (
    blocking,
    chain,
    fan,
    hang_once,
    innocent,
    poison,
    seizing,
    stubborn,
)

from pwf import Client, Run, RunFailedError, Status, connect, publish

ROOT = Path(__file__).parents[2]
LIMIT = 60.0  # seconds; generous, and never waited for in full
LEASE = 0.5

ON_THREADS = """
import logging, sys
from datetime import timedelta
from pwf import BlockingWorker, connect_blocking
from tests.integration.workflows import service

logging.basicConfig(level=logging.INFO)
with connect_blocking(sys.argv[1]) as backend:
    BlockingWorker(backend, service, lease=timedelta(seconds=float(sys.argv[2]))).run()
"""


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("rabbit", marks=[pytest.mark.redis, pytest.mark.rabbit]),
    ],
)
def url(request: pytest.FixtureRequest) -> str:
    """A fresh namespace on a durable backend."""
    space = f"namespace=t{uuid.uuid4().hex[:12]}"
    redis = request.getfixturevalue("redis_url")
    if request.param == "redis":
        return f"{redis}?{space}"
    amqp = request.getfixturevalue("amqp_url")
    return f"{amqp}?{space}&store={redis}&heartbeat=2"  # a paused worker is noticed sooner


class Crew:
    """Worker processes of one test."""

    def __init__(self, url: str, folder: Path) -> None:
        self.log = folder / "log"
        self.log.touch()
        self._errors = (folder / "errors").open("w+", encoding="utf-8")
        self._url = url
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *, blocking: bool = False) -> subprocess.Popen[bytes]:
        """Start a worker, by the command line or with a program on threads."""
        options = ["--url", self._url, "--lease", f"{LEASE}s"]
        command = ["-m", "pwf.cli", "worker", "tests.integration.workflows:service", *options]
        if blocking:
            command = ["-c", ON_THREADS, self._url, str(LEASE)]
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "PWF_TEST_LOG": str(self.log), "PYTHONPATH": str(ROOT)},
            stderr=self._errors,
        )
        self._processes.append(process)
        return process

    def let_go(self, attempt: int | None = None) -> None:
        """Have `hang_once` finish from now on, or one attempt of `stubborn`."""
        Path(f"{self.log}.go{attempt or ''}").touch()

    def stop(self) -> None:
        """End what still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self._errors.close()

    def lines(self) -> list[str]:
        """Return what handlers have told."""
        return self.log.read_text(encoding="utf-8").splitlines()

    def logged(self) -> str:
        """Return what workers have logged."""
        return Path(self._errors.name).read_text(encoding="utf-8")

    async def wait_for(self, text: str) -> None:
        """Wait until a handler has told this, or a worker has logged it."""
        async with asyncio.timeout(LIMIT):
            while text not in self.lines() and text not in self.logged():  # noqa: ASYNC110 -- a file has no event to wait for
                await asyncio.sleep(0.02)


@pytest.fixture
def crew(url: str, tmp_path: Path) -> Iterator[Crew]:
    """Worker processes on the backend."""
    crew = Crew(url, tmp_path)
    try:
        yield crew
    finally:
        crew.stop()


def run(main: Callable[[Client], Any], url: str) -> Any:
    """Run *main* with an open client."""

    async def outer() -> Any:
        async with connect(url) as backend:
            return await main(backend)

    return asyncio.run(outer())


def test_killed_worker_is_replaced(url: str, crew: Crew) -> None:
    """Its call runs again, on another worker, when the lease is over; the attempt counts."""

    async def main(backend: Client) -> Any:
        first = crew.start()
        run = await backend.start(publish(hang_once))
        await crew.wait_for("hang_once 1")
        crew.let_go()
        first.kill()
        crew.start()
        return await run.result(timeout=LIMIT)

    assert run(main, url) == 2


@pytest.mark.parametrize("blocking", [False, True], ids=["asyncio", "threads"])
def test_stopped_worker_hands_back_at_once(url: str, crew: Crew, *, blocking: bool) -> None:
    """SIGTERM, and again to hurry: exit code 0, and no attempt is counted."""

    async def main(backend: Client) -> Any:
        first = crew.start(blocking=blocking)
        run = await backend.start(publish(hang_once))
        await crew.wait_for("hang_once 1")
        crew.let_go()
        first.send_signal(signal.SIGTERM)
        # Two signals at once count as one.
        await crew.wait_for("leaving")
        first.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.wait, LIMIT) == 0
        crew.start()
        return await run.result(timeout=LIMIT)

    assert run(main, url) == 1


@pytest.mark.parametrize("successor", ["works", "is done"])
def test_paused_worker_commits_nothing(url: str, crew: Crew, successor: str) -> None:
    """A worker that slept through its lease is refused, while another one has its call and later."""

    async def main(backend: Client) -> Any:
        first = crew.start()
        run = await backend.start(publish(stubborn))
        await crew.wait_for("stubborn 1")
        first.send_signal(signal.SIGSTOP)
        second = crew.start()
        await crew.wait_for("stubborn 2")
        if successor == "is done":
            crew.let_go(2)
            assert await run.result(timeout=LIMIT) == 2
        first.send_signal(signal.SIGCONT)
        crew.let_go(1)
        refused = "lease lost" if successor == "works" else "ended"
        await crew.wait_for(f"stubborn: {refused} (run {run.id}")
        assert "attempt 1)" in crew.logged()
        crew.let_go(2)
        assert await run.result(timeout=LIMIT) == 2
        assert crew.lines() == ["stubborn 1", "stubborn 2", "innocent 2"]
        second.kill()  # the first still works
        more = await backend.start(publish(chain, 20))
        return await more.result(timeout=LIMIT)

    assert run(main, url) == "done"


@pytest.mark.parametrize("kind", ["exit", "segfault", "kill"])
def test_poison_dies_alone(url: str, crew: Crew, kind: str) -> None:
    """A call that takes its process down five times is buried; those beside it all commit."""

    async def main(backend: Client) -> None:
        bad = await backend.start(publish(poison, kind))
        good = await backend.start_many([publish(innocent, number) for number in range(63)])
        stopping = asyncio.create_task(keep_running(crew))
        try:
            with pytest.raises(RunFailedError, match="worker died"):
                await bad.result(timeout=LIMIT)
            values = [await one.result(int, timeout=LIMIT) for one in good]
        finally:
            stopping.cancel()
            crew.stop()  # the thread that waits for the process ends with it

        assert values == list(range(63))
        assert [letter.address for letter in await backend.dead_letters()] == ["processes.poison"]

    run(main, url)


async def keep_running(crew: Crew) -> None:
    """Start a worker whenever there is none."""
    while True:
        process = crew.start()
        await asyncio.to_thread(process.wait)


def test_handler_that_blocks_the_loop_keeps_its_lease(url: str, crew: Crew) -> None:
    """A handler that never lets its event loop go runs once, though it takes many leases."""

    async def main(backend: Client) -> Any:
        crew.start()
        crew.start()
        run = await backend.start(publish(blocking, 4 * LEASE))
        return await run.result(timeout=LIMIT)

    assert run(main, url) == 1
    assert crew.lines() == ["blocking 1"]


def test_handler_that_holds_the_interpreter_visibly_loses_its_lease(url: str, crew: Crew) -> None:
    """Nothing in its process can renew then: another worker takes over, and the loser says so."""

    async def main(backend: Client) -> Any:
        crew.start()
        crew.start()
        run = await backend.start(publish(seizing, 4 * LEASE))
        await crew.wait_for("lease lost")
        crew.let_go()
        return await run.result(timeout=LIMIT)

    assert run(main, url) == 2


def test_many_kills_lose_nothing(url: str, crew: Crew) -> None:
    """Workers killed again and again in the middle of chains and gathers: all of them finish."""

    async def main(backend: Client) -> None:
        starts = [publish(chain, 30) for _ in range(20)] + [publish(fan, 30) for _ in range(5)]
        runs = await backend.start_many(starts)
        for _ in range(5):
            process = crew.start()
            before = await count_finished(runs)
            async with asyncio.timeout(LIMIT):
                while await count_finished(runs) < min(before + 3, 25):
                    pass  # each look is a round trip
            process.kill()
        crew.start()
        values = [await one.result(timeout=LIMIT) for one in runs]

        assert values == ["done"] * 20 + [sum(range(30))] * 5

    run(main, url)


async def count_finished(runs: list[Run]) -> int:
    """Return how many have finished."""
    return [await one.status() for one in runs].count(Status.FINISHED)
