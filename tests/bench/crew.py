"""Worker and client processes of one system: started, asked, killed, and never left behind."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from pwf.testing.servers import _Guard

__all__ = ["ROOT", "Asked", "LateError", "Program", "ProgramError"]

ROOT = Path(__file__).parents[2]
_LEAVING = 5.0  # seconds that a program may take to leave in order


class ProgramError(RuntimeError):
    """A program ended, or answered that something went wrong."""


class LateError(ProgramError):
    """A program did not answer in time."""


class Program:
    """A process, with all that it starts, in a group of its own that dies with us.

    Args:
        command: What to run.
        environment: Added to our own.
        log: The file that takes what it says on stderr.
        speaks: Whether it answers questions; else its stdout goes to the log, too.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        speaks: bool = False,
    ) -> None:
        self._guard = _Guard(Path(mkdtemp(prefix="pwf-bench-")))
        self._log = log
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.PIPE if speaks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if speaks else sink,
                stderr=sink,
                process_group=self._guard.group,
                text=True,
            )
        if speaks:
            threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def hear(self, patience: float) -> Asked:
        """Return its next answer.

        Raises:
            LateError: If there is none within *patience* seconds.
            ProgramError: If it ended, or says that something went wrong.
        """
        try:
            line = self._lines.get(timeout=patience)
        except queue.Empty:
            raise LateError(f"no answer within {patience:.0f} s") from None
        if not line:
            raise ProgramError(f"it ended: {self.last_words()}")
        answer: Asked = json.loads(line)
        if problem := answer.get("problem"):
            raise ProgramError(problem)
        return answer

    def ask(self, patience: float, do: str, **arguments: Any) -> Asked:
        """Have it *do* something, and return its answer; raises what `hear` does."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ProgramError(f"it ended: {self.last_words()}") from error
        return self.hear(patience)

    def last_words(self) -> str:
        """Return the last line of its log that is not empty."""
        lines = self._log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "(no word)")

    def kill(self) -> None:
        """End it and all it started with SIGKILL, at once."""
        os.killpg(self._guard.group, signal.SIGKILL)
        self._process.wait()
        self._close()

    def leave(self) -> None:
        """Have it leave in order; what is left after a while is killed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        else:
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LEAVING)
        self.kill()

    def _close(self) -> None:
        self._guard.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was to be flushed has nobody to read it
                    pipe.close()


Asked = dict[str, Any]
