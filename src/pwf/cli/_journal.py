"""A witness of what is executed, apart from any store: a file to which every execution adds lines.

One line when a handler starts, one when it ends, each in a single `write` to a file opened for
appending: lines of many processes do not mix, and one that was written survives any SIGKILL.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from pwf.logs import current_call
from pwf_core.context import Context
from pwf_core.errors import ConfigurationError

__all__ = ["VARIABLE", "Journal", "Line", "Reader", "open_journal"]

VARIABLE = "PWF_DEMO_JOURNAL"
"""Names the file, for worker processes."""


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One line: a handler has started or ended.

    Attributes:
        task: Address of the handler.
        what: The file or folder that the call is about.
    """

    word: Literal["start", "end"]
    run_id: str
    call_id: str
    attempt: int
    pid: int
    task: str
    what: str


class Journal:
    """The writing side; a worker's resource, so handlers find it by `ctx.resource(Journal)`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)

    @contextmanager
    def execution(self, ctx: Context, what: str) -> Iterator[None]:
        """Note that a handler starts, and that it has come through."""
        self._write("start", ctx, what)
        yield
        self._write("end", ctx, what)

    def _write(self, word: Literal["start", "end"], ctx: Context, what: str) -> None:
        call = current_call.get()
        task = call.address if call else ""
        line = Line(word, ctx.run_id, ctx.call_id, ctx.attempt, os.getpid(), task, what)
        os.write(self._file, msgspec.json.encode(line) + b"\n")


def open_journal() -> Journal:
    """Return the journal that the environment names; for `pwf worker --resource`.

    Raises:
        ConfigurationError: If it names none.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        raise ConfigurationError(f"{VARIABLE} names no file; `pwf demo` sets it for its workers.")
    return Journal(Path(path))


class Reader:
    """The reading side: gives every line once, in the order of writing.

    Args:
        path: The file; it need not be there yet.
        run_id: The run of interest. Workers may be at work on another one, left by a demo that was
            interrupted.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self._path = path
        self._run_id = run_id
        self._read = 0

    def read(self) -> list[Line]:
        """Return the lines that were added since the last time."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]  # the last line may be half written
        self._read += len(whole)
        lines = (msgspec.json.decode(line, type=Line) for line in whole.splitlines())
        return [line for line in lines if line.run_id == self._run_id]
