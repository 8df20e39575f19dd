"""How far the demo is: a live bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import attrs

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Display", "Standing", "make_display"]

_LINE_EVERY = 1.0  # seconds


@attrs.frozen(kw_only=True)
class Standing:
    """How far it is.

    Attributes:
        done: Files counted.
        workers: Processes at work; 0 where the work is done in this one.
        killed: Processes killed; None where that is not done.
    """

    done: int
    workers: int
    killed: int | None


class Display(AbstractContextManager["Display"], Protocol):
    """Shows a standing."""

    def update(self, standing: Standing) -> None:
        """Show this one now, or when it is time for a new one."""
        ...


def make_display(total: int) -> Display:
    """Return what suits stdout."""
    return _Bar(total) if sys.stdout.isatty() else _Lines(total)


def _aside(standing: Standing) -> str:
    words = []
    if standing.workers:
        words.append(f"{standing.workers} {'worker' if standing.workers == 1 else 'workers'}")
    if standing.killed is not None:
        words.append(f"{standing.killed} killed")
    return ", ".join(words)


class _Bar(Display):
    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress: Progress = Progress(
            TextColumn("files"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[aside]}"),
        )
        self._task = self._progress.add_task("", total=total, rate="", aside="")
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, standing: Standing) -> None:
        rate = standing.done / max(time.monotonic() - self._start, 0.001)
        self._progress.update(
            self._task,
            completed=standing.done,
            rate=f"{rate:.0f}/s",
            aside=_aside(standing),
        )


class _Lines(Display):
    def __init__(self, total: int) -> None:
        self._total = total
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def update(self, standing: Standing) -> None:
        now = time.monotonic()
        if now - self._shown < _LINE_EVERY:
            return
        self._shown = now
        rate = standing.done / (now - self._start)
        aside = _aside(standing)
        print(
            f"{standing.done}/{self._total} files, {rate:.0f}/s" + (f", {aside}" if aside else ""),
            flush=True,
        )
