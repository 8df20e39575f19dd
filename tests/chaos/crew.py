"""Worker and client processes: started, killed, paused, brought back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import attrs
from tests.chaos.diary import VARIABLE, Diary, What

__all__ = ["Crew", "Slot"]

ROOT = Path(__file__).parents[2]

_GLANCE = 0.2  # seconds between two looks at the workers

# What each worker serves, and how many calls at once, drawn at each start: batches of one, of many, and
# of hundreds. All services have one to spare, and one that keeps up with the work.
SERVED = (
    (("alpha", "beta"), (64, 256)),
    (("alpha", "beta"), (64, 256)),
    (("alpha",), (1, 256)),
    (("beta",), (1, 256)),
)


@attrs.define(eq=False)
class Slot:
    """A place for a worker, where one process follows another."""

    services: tuple[str, ...]
    concurrencies: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None
    is_paused: bool = False


class Crew:
    """All processes of a soak that are not servers; a context manager that leaves none behind.

    Attributes:
        slots: The workers.
        clients: The clients.
        faults: What was wrong with processes, for people.
        restarts: How many workers ended by themselves, having found no server.
    """

    def __init__(self, url: str, folder: Path, diary: Diary, *, lease: float, seed: int) -> None:
        self._url = url
        self._diary = diary
        self._lease = lease
        self._chance = random.Random(f"{seed}:concurrency")
        self._environment = {
            **os.environ,
            VARIABLE: str(folder / "diary"),
            "PWF_URL": url,
            "PYTHONPATH": str(ROOT),
        }
        self._folder = folder
        self._stack = ExitStack()
        self.slots = [Slot(*served) for served in SERVED]
        self.clients: list[subprocess.Popen[bytes]] = []
        self.faults: list[str] = []
        self.restarts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in (*self.clients, *(slot.process for slot in self.slots)):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self._stack.close()

    # -- clients ----------------------------------------------------------------------------------

    def start_clients(self, count: int, seed: int, *, limit: int, rate: float) -> None:
        """Start clients that share the numbers of runs among them."""
        for number in range(count):
            options = {"seed": seed, "first": number, "stride": count, "limit": limit, "rate": rate}
            arguments = [f"--{name}={value}" for name, value in options.items()]
            module = ["-m", "tests.chaos.client", f"--url={self._url}"]
            self.clients.append(self._spawn("client", *module, *arguments))

    async def dismiss_clients(self, patience: float) -> None:
        """Have clients wait for the runs under way, and leave; after *patience* seconds, anyhow."""
        for deadline in (patience, 10.0):
            for client in self.clients:
                client.terminate()
            waits = [asyncio.to_thread(_wait, client, deadline) for client in self.clients]
            if all(await asyncio.gather(*waits)):
                break
        codes = [client.poll() for client in self.clients]
        if any(codes):
            self.faults.append(f"clients ended with {codes}: see {self._folder / 'client.log'}")

    # -- workers ----------------------------------------------------------------------------------

    def fill(self) -> None:
        """Start a worker wherever there is none."""
        for slot in self.slots:
            if slot.process is None:
                self._start_worker(slot)

    async def supervise(self) -> None:
        """Start workers again that have ended by themselves, as any process manager does.

        A worker that finds no server when it starts says so and leaves with 1; once it has begun it
        stays, whatever happens.
        """
        while True:
            await asyncio.sleep(_GLANCE)
            for slot in self.slots:
                if slot.process is not None and slot.process.poll() is not None:
                    self._diary.write(What.DIED, pid=slot.process.pid)
                    if slot.process.returncode != 1:
                        self.faults.append(f"a worker ended with {slot.process.returncode}")
                    self.restarts += 1
                    self._start_worker(slot)

    def _start_worker(self, slot: Slot) -> None:
        services = [f"tests.chaos.workflows:{name}" for name in slot.services]
        options = ["--lease", f"{self._lease}s", "--grace", "5s", "--log-level=warning"]
        options.append(f"--concurrency={self._chance.choice(slot.concurrencies)}")
        slot.process = self._spawn("worker", "-m", "pwf.cli", "worker", *services, *options)
        slot.is_paused = False

    def kill(self, slot: Slot) -> bool:
        """Kill the worker there, and say whether there was one."""
        process = slot.process
        if process is None or process.poll() is not None:
            return False
        process.kill()
        note = "paused" if slot.is_paused else ""
        self._diary.write(What.KILLED, pid=process.pid, note=note)
        process.wait()
        slot.process = None
        return True

    async def pause(self, slot: Slot, seconds: float) -> bool:
        """Stop the worker there for so long, and say whether there was one."""
        process = slot.process
        if process is None or process.poll() is not None or slot.is_paused:
            return False
        process.send_signal(signal.SIGSTOP)
        slot.is_paused = True
        self._diary.write(What.PAUSED, pid=process.pid)
        try:
            await asyncio.sleep(seconds)
        finally:
            if slot.process is process:  # else it was killed meanwhile
                self._diary.write(What.RESUMED, pid=process.pid)
                process.send_signal(signal.SIGCONT)
                slot.is_paused = False
        return True

    async def dismiss_workers(self, patience: float) -> None:
        """Have all workers leave in order."""
        processes = [slot.process for slot in self.slots if slot.process is not None]
        for process in processes:
            process.terminate()
        waits = [asyncio.to_thread(_wait, process, patience) for process in processes]
        await asyncio.gather(*waits)
        codes = [process.poll() for process in processes]
        if any(code != 0 for code in codes):
            self.faults.append(f"after SIGTERM, workers ended with {codes}")

    def complaints(self) -> list[str]:
        """Return lines in what workers and clients have logged that should never stand there."""
        signs = ("Traceback", "this is a bug", "Error:", "never retrieved")
        lines = [
            line
            for name in ("worker", "client")
            for line in self.log(name).read_text(errors="replace").splitlines()
            if any(sign in line for sign in signs)
        ]
        return [line for line in lines if "NotThisTimeError" not in line]

    def log(self, name: str) -> Path:
        """Return the file that takes what processes say."""
        return self._folder / f"{name}.log"

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, env=self._environment, stderr=log
            )


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
