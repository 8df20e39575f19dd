"""The client: starts runs, waits for them, looks after them. What `connect` returns."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import attrs

from pwf import _requests as requests
from pwf._combining import Combiner
from pwf._patience import patiently
from pwf._waiting import Effect, Listen, Look, Pause, Wait, wait_for_end
from pwf_core.capabilities import Capabilities
from pwf_core.commands import Answer, Command, Reply
from pwf_core.directives import Publish
from pwf_core.errors import ConfigurationError, RunNotFoundError
from pwf_core.events import Event
from pwf_core.ids import RunId
from pwf_core.names import check_name
from pwf_core.ports import Backend, Watch
from pwf_core.steps import drive_async
from pwf_core.views import DeadLetter, Outcome, RunView, Status

__all__ = ["Client", "Run"]

T = TypeVar("T")


@attrs.frozen
class Run:
    """One execution of a workflow.

    Attributes:
        id: Names it; `client.run(id)` gives this handle again, anywhere.
    """

    id: RunId
    _port: Backend = attrs.field(repr=False, eq=False)

    async def status(self) -> Status:
        """Return how the run stands.

        Raises:
            RunNotFoundError: If it is not known (any more).
            UnavailableError: If the backend cannot be reached.
        """
        (view,) = await self._port.read([self.id])
        return requests.outcome_of(self.id, view).status

    async def view(self) -> RunView:
        """Return the run with its open calls and joins, for people.

        Raises:
            RunNotFoundError: If it is not known (any more).
            UnavailableError: If the backend cannot be reached.
        """
        (view,) = await self._port.read([self.id])
        if view is None:
            raise RunNotFoundError(self.id)
        return view

    async def cancel(self, *, reason: str = "") -> bool:
        """End the run as cancelled: what has not started never will, no join or gather fires.

        Handlers that run learn it by `ctx.cancelled`, async ones by being cancelled, when their
        lease is renewed next; what they return is dropped.

        Args:
            reason: For people.

        Returns:
            Whether the run is cancelled, by this or by an earlier call; False if it had ended
            otherwise.

        Raises:
            RunNotFoundError: If it is not known (any more).
            UnavailableError: If the backend cannot be reached.
        """
        (reply,) = await self._port.apply([requests.make_cancel(self.id, reason)])
        # The reply to one that did it may have been lost.
        return reply is Answer.DONE or await self.status() is Status.CANCELLED

    async def wait(self, *, timeout: float | timedelta | None = None) -> Status:
        """Wait until the run is finished, failed or stalled, and return which.

        Args:
            timeout: How long to wait, in seconds or as a timedelta; None for ever.

        Raises:
            TimeoutError: If it takes longer; the run goes on.
            RunNotFoundError: If it is not known (any more).
            UnavailableError: If the backend cannot be asked, until the time is over, or for five
                seconds where there is no limit; the run may have ended.
            ConfigurationError: If *timeout* is something else, or negative.
        """
        return (await self._end(timeout)).status

    @overload
    async def result(self, /, *, timeout: float | timedelta | None = None) -> Any: ...
    @overload
    async def result(self, type_: type[T], /, *, timeout: float | timedelta | None = None) -> T: ...
    async def result(
        self,
        type_: Any = Any,
        /,
        *,
        timeout: float | timedelta | None = None,
    ) -> Any:
        """Wait for the run and return the value that it was given; None without one.

        Args:
            type_: What to decode the value to; builtins by default.
            timeout: How long to wait, in seconds or as a timedelta; None for ever.

        Raises:
            TimeoutError: If it takes longer; the run goes on.
            RunFailedError: If it failed.
            RunStalledError: If nothing is left that could fire its joins.
            RunNotFoundError: If it is not known (any more).
            UnavailableError: As for `wait`.
            CodecError: If the value is not of that type.
            ConfigurationError: As for `wait`.
        """
        outcome = await self._end(timeout)
        requests.raise_for(self.id, outcome)
        return requests.value_of(self.id, outcome, type_)

    async def _end(self, timeout: float | timedelta | None) -> Outcome:
        limit = requests.seconds(timeout)
        async with AsyncExitStack() as stack:
            watch: Watch | None = None

            async def perform(step: Effect) -> object:
                nonlocal watch
                match step:
                    case Listen():
                        async with asyncio.timeout(step.timeout):
                            watch = await stack.enter_async_context(self._port.watch(self.id))
                        return None
                    case Look():
                        async with asyncio.timeout(step.timeout):
                            (view,) = await self._port.read([self.id])
                        return view
                    case Wait():
                        assert watch is not None
                        return await watch.wait(step.timeout)
                    case Pause():
                        await asyncio.sleep(step.seconds)
                        return None

            return await drive_async(wait_for_end(self.id, limit), perform)


class Client:
    """A connection to a backend. Made by `connect`; use it as an async context manager.

    Any number of tasks of one event loop may share it.
    """

    def __init__(self, port: Backend) -> None:
        self._port = port
        self._is_open = False
        self._combiner = Combiner(self._apply)

    @property
    def port(self) -> Backend:
        """The backend, open.

        Raises:
            ConfigurationError: If this client has not been entered.
        """
        if not self._is_open:
            raise ConfigurationError(
                "This client is not open: use it as `async with connect(...) as backend:`.",
            )
        return self._port

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do."""
        return self._port.capabilities

    async def __aenter__(self) -> Self:
        try:
            await self._port.open()
        except BaseException:
            await self._port.close()
            raise
        self._is_open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of everything that was opened; again is fine."""
        self._is_open = False
        await self._port.close()

    async def start(self, first: Publish, /, *, key: str | None = None) -> Run:
        """Start a run.

        Args:
            first: Its first call, made by `publish`.
            key: Names the run for those who start it: the same key gives the same run, however
                often and from wherever it is started. It stays known for an hour after the run is
                deleted. Any text of up to 1,024 bytes as UTF-8.

        Raises:
            DirectiveError: If *first* is no `publish(...)`, or *key* cannot be a key.
            KeyConflictError: If the key names a run of another task or other arguments.
            StoreFullError: If the backend has no room; nothing was started.
            UnavailableError: If the backend cannot be reached: if it refuses for five seconds, or
                lets its time-out (10 seconds unless the URL says otherwise) pass twice. Without a
                key, nobody knows whether the run was started. With one, start it again.
        """
        start = requests.make_start(first, key, partitions=self.port.capabilities.partitions)
        return Run(requests.read_started(start, await self._combiner.ask(start)), self.port)

    async def start_many(
        self,
        firsts: Iterable[Publish],
        /,
        *,
        keys: Iterable[str] | None = None,
    ) -> list[Run]:
        """Start a run for each of *firsts*, many per round trip.

        Raises:
            DirectiveError: As for `start`, or if there is not one key per start; none was started.
            KeyConflictError: If a key names a run of another task or other arguments; the others
                are started all the same.
            StoreFullError: If the backend has no room; some may have been started.
            UnavailableError: As for `start`.
        """
        starts = requests.make_starts(firsts, keys, partitions=self.port.capabilities.partitions)
        replies = await self._apply(starts)
        return [
            Run(requests.read_started(start, reply), self.port)
            for start, reply in zip(starts, replies, strict=True)
        ]

    def run(self, run_id: str, /) -> Run:
        """Return the handle of a run, without asking whether it exists.

        Raises:
            DirectiveError: If no run can have that id.
        """
        return Run(requests.check_run_id(run_id), self.port)

    @overload
    async def emit(self, run_id: str, event: Event[None], /) -> bool: ...
    @overload
    async def emit(self, run_id: str, event: Event[T], payload: T, /) -> bool: ...
    @overload
    async def emit(self, run_id: str, event: str, payload: Any = None, /) -> bool: ...
    async def emit(self, run_id: str, event: Event[Any] | str, payload: Any = None, /) -> bool:
        """Emit an event into a run from outside, before or after a join on it is registered.

        Returns:
            Whether this was the first write of it in a run that goes on; else nothing changed.

        Raises:
            RunNotFoundError: If the run is not known (any more).
            CodecError: If *payload* is not of the event's type.
            DirectiveError: If *event* is no event, or no run can have that id.
            UnavailableError: If the backend cannot be reached; emit it again.
        """
        emit = requests.make_emit(run_id, event, payload)
        reply = await self._combiner.ask(emit)
        if reply is Answer.ENDED and (await self.port.read([emit.run_id])) == [None]:
            raise RunNotFoundError(run_id)
        return reply is Answer.DONE

    async def purge(self, service: str, /) -> int:
        """Empty the queue of *service*, its delayed calls included, and return how many calls went.

        Calls that are running are left to finish. The runs of those that went end as failed.

        Raises:
            UnavailableError: If the backend cannot be reached; some may be gone already.
        """
        return await self.port.purge(check_name(service, "service"))

    async def dead_letters(
        self,
        service: str | None = None,
        /,
        *,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """Return the calls whose attempts are exhausted, oldest first.

        Args:
            service: Only those of this service.
            limit: At most so many.
        """
        requests.check_listing(service, limit)
        return await self.port.dead_letters(service, limit)

    async def requeue(self, letter: DeadLetter, /) -> bool:
        """Run a dead letter again, its attempts counted from zero; say whether it was dead."""
        (reply,) = await self._apply([requests.make_requeue(letter)])
        return reply is Answer.DONE

    async def discard(self, letter: DeadLetter, /) -> bool:
        """Give a dead letter up for good: its run ends as failed; say whether it was dead."""
        (reply,) = await self._apply([requests.make_discard(letter)])
        return reply is Answer.DONE

    def _apply(self, commands: Sequence[Command]) -> Coroutine[Any, Any, list[Reply]]:
        if len(commands) <= requests.BATCH:
            return patiently(functools.partial(self.port.apply, commands))
        return self._apply_in_parts(commands)

    async def _apply_in_parts(self, commands: Sequence[Command]) -> list[Reply]:
        replies: list[Reply] = []
        for first in range(0, len(commands), 2 * requests.BATCH):
            # Two at a time: while the server works on one, the other is encoded.
            middle, last = first + requests.BATCH, first + 2 * requests.BATCH
            parts = (commands[first:middle], commands[middle:last])
            asking = (self._apply(part) for part in parts if part)
            for found in await asyncio.gather(*asking, return_exceptions=True):
                if isinstance(found, BaseException):
                    raise found
                replies += found
        return replies
