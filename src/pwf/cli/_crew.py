"""Worker processes that are kept alive: started, watched, started again when they die.

A process that dies young has something wrong with it, so the pauses before its successors grow; one
that has lived for a while is replaced at once. Each child reads a pipe from us (`--supervised`):
when we die, by whatever signal, its end tells the child to leave, too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import IO, Self

import attrs

__all__ = ["Crew", "leave_with_parent"]

logger = logging.getLogger("pwf")

_FIRST_PAUSE = 0.2  # seconds
_LONGEST_PAUSE = 30.0
_GROWN_UP = 5.0  # seconds: long enough to import, connect and work


@attrs.define(eq=False)
class Crew:
    """*count* processes of one command; an async context manager.

    Attributes:
        arguments: Those of `pwf`.
        count: How many processes.
        environment: Added to our own; for what must not stand in a list of processes (passwords).
        stderr: Where theirs goes; ours by default.
        grace: How long they may take to leave before they are killed.
        replaced: How many have died and were started again, or will be.
        killed: How many of these died of `kill`.
        failing: How many of the other deaths came in a row, without any process growing up.
    """

    arguments: Sequence[str]
    count: int
    environment: Mapping[str, str] = attrs.field(factory=dict)
    stderr: IO[bytes] | None = None
    grace: timedelta = timedelta(seconds=15)
    replaced: int = attrs.field(default=0, init=False)
    killed: int = attrs.field(default=0, init=False)
    failing: int = attrs.field(default=0, init=False)
    _alive: dict[int, asyncio.subprocess.Process] = attrs.field(factory=dict, init=False)
    _condemned: set[int] = attrs.field(factory=set, init=False)
    _keepers: list[asyncio.Task[None]] = attrs.field(factory=list, init=False)
    _leaving: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    @property
    def pids(self) -> list[int]:
        """The processes that are alive, as far as we have heard."""
        return [pid for pid in self._alive if pid not in self._condemned]

    async def __aenter__(self) -> Self:
        self._keepers = [asyncio.create_task(self._keep()) for _ in range(self.count)]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def kill(self, pid: int) -> None:
        """Kill one of them with SIGKILL; another one takes its place at once."""
        self._condemned.add(pid)
        with suppress(ProcessLookupError):  # it was quicker
            self._alive[pid].kill()

    def terminate(self) -> None:
        """Ask all of them to leave; asked twice, they leave at once."""
        self._leaving.set()
        for process in self._alive.values():
            with suppress(ProcessLookupError):
                process.terminate()

    async def close(self) -> None:
        """Have all of them leave, and wait for that; again is fine."""
        if not self._leaving.is_set():
            self.terminate()
        try:
            await asyncio.wait(self._keepers, timeout=self.grace.total_seconds())
        finally:
            for process in self._alive.values():
                logger.warning("worker %s does not leave; killing it", process.pid)
                with suppress(ProcessLookupError):
                    process.kill()
            await asyncio.wait(self._keepers)

    async def _keep(self) -> None:
        """Keep one place filled."""
        pause = _FIRST_PAUSE
        while not self._leaving.is_set():
            process = await self._start()
            born = time.monotonic()
            code = await process.wait()
            del self._alive[process.pid]
            if self._leaving.is_set():
                return
            self.replaced += 1
            if process.pid in self._condemned:
                self._condemned.discard(process.pid)
                self.killed += code == -signal.SIGKILL
                continue
            if time.monotonic() - born >= _GROWN_UP:
                pause = _FIRST_PAUSE
                self.failing = 0
            self.failing += 1
            logger.warning(
                "worker %s %s; starting another one in %.1f s", process.pid, _end(code), pause
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._leaving.wait()
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pwf.cli", *self.arguments, "--supervised"),
            env={**os.environ, **self.environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=self.stderr,
            start_new_session=True,  # Ctrl-C is for us; they hear of it from us, once
        )
        self._alive[process.pid] = process
        if self._leaving.is_set():
            process.terminate()  # nobody else will tell it any more
        return process


def leave_with_parent() -> Callable[[], None]:
    """In a supervised worker: leave, as on SIGTERM, when the process that started us is gone.

    Returns:
        What ends this.
    """
    loop = asyncio.get_running_loop()
    stdin = sys.stdin.fileno()

    def forget() -> None:
        loop.remove_reader(stdin)

    def on_end() -> None:
        forget()
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(stdin, on_end)
    return forget


def _end(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"died of {signal.Signals(-code).name}"
    except ValueError:
        return f"died of signal {-code}"
