"""Threads for handlers, where one that hangs holds up nobody: not the others, nor the process's end.

The pool of the standard library has a fixed number of threads, counts a stuck one among them for
ever, and makes the interpreter wait for it when it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

import attrs

__all__ = ["Threads"]

_Job: TypeAlias = Callable[[], object]


@attrs.define(eq=False)
class Threads:
    """Runs jobs at once, each in a thread that is idle or new; who calls sees to it that few run."""

    _idle: list[SimpleQueue[_Job | None]] = attrs.field(factory=list, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    def run(self, job: _Job) -> None:
        """Have *job* run, which raises nothing."""
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = SimpleQueue()
            threading.Thread(
                target=self._work, args=(inbox,), name="pwf-handler", daemon=True
            ).start()
        inbox.put(job)

    def close(self) -> None:
        """Let idle threads go, and each of the others once its job is done; again is fine."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for inbox in idle:
            inbox.put(None)

    def _work(self, inbox: SimpleQueue[_Job | None]) -> None:
        while (job := inbox.get()) is not None:
            job()
            del job  # what it holds is not kept while nothing is to do
            with self._lock:
                if self._is_closed:
                    return
                self._idle.append(inbox)
