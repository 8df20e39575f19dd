"""The blocking twin of the client, for programs without an event loop."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import attrs

from pwf import _requests as requests
from pwf._patience import patiently_blocking
from pwf._waiting import Effect, Listen, Look, Pause, Wait, wait_for_end
from pwf_core.capabilities import Capabilities
from pwf_core.commands import Answer, Command, Reply
from pwf_core.directives import Publish
from pwf_core.errors import RunNotFoundError
from pwf_core.events import Event
from pwf_core.ids import RunId
from pwf_core.names import check_name
from pwf_core.ports import BlockingBackend, BlockingWatch
from pwf_core.steps import drive
from pwf_core.views import DeadLetter, Outcome, RunView, Status

__all__ = ["BlockingClient", "BlockingRun"]

T = TypeVar("T")


@attrs.frozen
class BlockingRun:
    """Blocking twin of `Run`."""

    id: RunId
    _client: BlockingClient = attrs.field(repr=False, eq=False)

    def status(self) -> Status:
        """See `Run.status`."""
        (view,) = self._client.port.read([self.id])
        return requests.outcome_of(self.id, view).status

    def view(self) -> RunView:
        """See `Run.view`."""
        (view,) = self._client.port.read([self.id])
        if view is None:
            raise RunNotFoundError(self.id)
        return view

    def cancel(self, *, reason: str = "") -> bool:
        """See `Run.cancel`."""
        (reply,) = self._client.port.apply([requests.make_cancel(self.id, reason)])
        return reply is Answer.DONE or self.status() is Status.CANCELLED

    def wait(self, *, timeout: float | timedelta | None = None) -> Status:
        """See `Run.wait`; a server that has fallen silent may take its own time-out longer."""
        return self._end(timeout).status

    @overload
    def result(self, /, *, timeout: float | timedelta | None = None) -> Any: ...
    @overload
    def result(self, type_: type[T], /, *, timeout: float | timedelta | None = None) -> T: ...
    def result(self, type_: Any = Any, /, *, timeout: float | timedelta | None = None) -> Any:
        """See `Run.result`, and `wait`."""
        outcome = self._end(timeout)
        requests.raise_for(self.id, outcome)
        return requests.value_of(self.id, outcome, type_)

    def _end(self, timeout: float | timedelta | None) -> Outcome:
        limit = requests.seconds(timeout)
        port = self._client.port
        with ExitStack() as stack:
            watch: BlockingWatch | None = None

            def perform(step: Effect) -> object:
                nonlocal watch
                match step:
                    case Listen():
                        watch = stack.enter_context(port.watch(self.id))
                        return None
                    case Look():
                        (view,) = port.read([self.id])
                        return view
                    case Wait():
                        assert watch is not None
                        return watch.wait(step.timeout)
                    case Pause():
                        time.sleep(step.seconds)
                        return None

            return drive(wait_for_end(self.id, limit), perform)


class BlockingClient:
    """Blocking twin of `Client`. Made by `connect_blocking`; threads may share it.

    It opens at first use, so it may be made at import time, before a web server forks its workers;
    after a fork the child opens connections of its own.
    """

    def __init__(self, make_port: Callable[[], BlockingBackend]) -> None:
        self._make_port = make_port
        self._port = make_port()  # opens nothing; what is wrong with the options shows here
        self._owner: int | None = None  # the process that has opened it
        self._lock = threading.Lock()

    @property
    def port(self) -> BlockingBackend:
        """The backend, open, and of this process."""
        if self._owner != os.getpid():
            with self._lock:
                if self._owner is not None and self._owner != os.getpid():
                    self._port = self._make_port()  # the parent keeps its own
                if self._owner != os.getpid():
                    try:
                        self._port.open()
                    except BaseException:
                        self._port.close()
                        raise
                    self._owner = os.getpid()
        return self._port

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do."""
        return self._port.capabilities

    def __enter__(self) -> Self:
        _ = self.port
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """See `Client.close`; the client may be used again, and opens again then."""
        with self._lock:
            if self._owner == os.getpid():
                self._owner = None
                self._port.close()
                self._port = self._make_port()

    def start(self, first: Publish, /, *, key: str | None = None) -> BlockingRun:
        """See `Client.start`."""
        start = requests.make_start(first, key, partitions=self.port.capabilities.partitions)
        (reply,) = self._apply([start])
        return BlockingRun(requests.read_started(start, reply), self)

    def start_many(
        self,
        firsts: Iterable[Publish],
        /,
        *,
        keys: Iterable[str] | None = None,
    ) -> list[BlockingRun]:
        """See `Client.start_many`."""
        starts = requests.make_starts(firsts, keys, partitions=self.port.capabilities.partitions)
        replies = self._apply(starts)
        return [
            BlockingRun(requests.read_started(start, reply), self)
            for start, reply in zip(starts, replies, strict=True)
        ]

    def run(self, run_id: str, /) -> BlockingRun:
        """See `Client.run`."""
        return BlockingRun(requests.check_run_id(run_id), self)

    @overload
    def emit(self, run_id: str, event: Event[None], /) -> bool: ...
    @overload
    def emit(self, run_id: str, event: Event[T], payload: T, /) -> bool: ...
    @overload
    def emit(self, run_id: str, event: str, payload: Any = None, /) -> bool: ...
    def emit(self, run_id: str, event: Event[Any] | str, payload: Any = None, /) -> bool:
        """See `Client.emit`."""
        emit = requests.make_emit(run_id, event, payload)
        (reply,) = self._apply([emit])
        if reply is Answer.ENDED and self.port.read([emit.run_id]) == [None]:
            raise RunNotFoundError(run_id)
        return reply is Answer.DONE

    def purge(self, service: str, /) -> int:
        """See `Client.purge`."""
        return self.port.purge(check_name(service, "service"))

    def dead_letters(
        self,
        service: str | None = None,
        /,
        *,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """See `Client.dead_letters`."""
        requests.check_listing(service, limit)
        return self.port.dead_letters(service, limit)

    def requeue(self, letter: DeadLetter, /) -> bool:
        """See `Client.requeue`."""
        (reply,) = self._apply([requests.make_requeue(letter)])
        return reply is Answer.DONE

    def discard(self, letter: DeadLetter, /) -> bool:
        """See `Client.discard`."""
        (reply,) = self._apply([requests.make_discard(letter)])
        return reply is Answer.DONE

    def _apply(self, commands: Sequence[Command]) -> list[Reply]:
        if len(commands) <= requests.BATCH:
            return patiently_blocking(functools.partial(self._send, commands))
        replies: list[Reply] = []
        for first in range(0, len(commands), requests.BATCH):
            replies += self._apply(commands[first : first + requests.BATCH])
        return replies

    def _send(self, commands: Sequence[Command]) -> list[Reply]:
        return self.port.apply(commands)  # which may have to be opened first
