"""The log outside the store: one JSON line per event, appended by every process.

A line is written by one `write` on a file opened with O_APPEND, so that lines of many processes do
not mix and a SIGKILL loses none that was written. Times are those of the monotonic clock, which all
processes of a Linux machine share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

__all__ = ["VARIABLE", "Diary", "Entry", "What", "own_diary", "read"]

VARIABLE = "PWF_CHAOS_DIARY"
"""The environment variable that names the file."""


class What(StrEnum):
    """What happened."""

    # Told by workers, about an attempt:
    BEGAN = "began"
    DONE = "done"  # the handler returned; whether that was committed, nobody knows yet
    RAISED = "raised"
    # Told by clients, about a run:
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"  # the start got no answer, so there may be a run or not
    CANCELLED = "cancelled"  # note: yes, no, or maybe
    ENDED = "ended"
    UNFINISHED = "unfinished"  # the client left before it saw the end
    # Told by whoever makes the faults:
    FAULT = "fault"
    KILLED = "killed"
    PAUSED = "paused"
    RESUMED = "resumed"
    DIED = "died"  # a process ended by itself
    DOWN = "down"
    UP = "up"


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event.

    Attributes:
        t: When, in seconds of the monotonic clock.
        pid: The process that it is about.
        number: Of the run, as the client counts.
        path: Of the node within the workflow; begins with the run's number.
        note: More about it; for faults the kind, for servers the name.
    """

    t: float
    pid: int
    what: What
    number: int = -1
    run: str = ""
    call: str = ""
    attempt: int = 0
    task: str = ""
    path: str = ""
    status: str = ""
    value: int | None = None
    note: str = ""


class Diary:
    """An open diary."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        self._encoder = msgspec.json.Encoder()

    def write(
        self,
        what: What,
        *,
        pid: int | None = None,
        number: int = -1,
        run: str = "",
        call: str = "",
        attempt: int = 0,
        task: str = "",
        path: str = "",
        status: str = "",
        value: int | None = None,
        note: str = "",
    ) -> float:
        """Append an entry about this process (or another one), and return its time."""
        now = time.monotonic()
        about = os.getpid() if pid is None else pid
        entry = Entry(
            *(now, about, what, number, run, call, attempt, task, path, status, value, note)
        )
        os.write(self._file, self._encoder.encode(entry) + b"\n")
        return now

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def own_diary() -> Diary:
    """Return the diary that the environment names; without one, nobody is told."""
    return Diary(Path(os.environ.get(VARIABLE, os.devnull)))


def read(path: Path) -> Iterator[Entry]:
    """Yield the entries in the order in which they were written."""
    decoder = msgspec.json.Decoder(Entry)
    with path.open("rb") as lines:
        for line in lines:
            yield decoder.decode(line)
