"""A workbench: takes calls and concludes them, one step at a time, on a store or on a backend.

Most of what a run does is the same wherever it lives. Tests of that use a `Bench` and run on both:
over a store, a list stands in for the broker; over a backend, calls come by exchange.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from pwf_core.commands import (
    Answer,
    Command,
    Emit,
    Granted,
    Message,
    Reply,
    Settle,
    Start,
    Started,
)
from pwf_core.decisions import NewCall, NewGather, NewJoin
from pwf_core.ids import ClaimId, RunId, placed
from pwf_core.names import service_of
from pwf_core.ports import Applied, Backend, StateStore, Take
from pwf_core.testing.harness import PATIENCE, Harness
from pwf_core.testing.making import (
    LEASE,
    SERVICE,
    call,
    claim,
    commit,
    decision,
    new_run_id,
    start,
)
from pwf_core.views import CallView, Outcome, RunView, Status

__all__ = ["Bench", "open_bench"]

_SWEEP = 1000
_IDLE = 0.05  # seconds: a broker may take a moment to deliver


class Bench(ABC):
    """A worker reduced to its hands."""

    def __init__(self, harness: Harness[Any], port: Any) -> None:
        self.harness = harness
        self.port = port
        self._session = secrets.token_hex(8)
        self._takes = 0

    @abstractmethod
    async def another(self) -> Bench:
        """Return a bench on another connection, from which this one gets calls as well."""

    @abstractmethod
    async def do(self, *commands: Command) -> list[Reply]:
        """Apply *commands*, and see to it that what follows is delivered."""

    @abstractmethod
    async def grants(
        self,
        *services: str,
        limit: int = _SWEEP,
        lease_ms: int = LEASE,
        suspects: bool = True,
        claim_id: ClaimId | None = None,
    ) -> list[Granted]:
        """Fire what is due, and return the calls that are there to run."""

    async def take(
        self,
        count: int,
        *services: str,
        lease_ms: int = LEASE,
        suspects: bool = True,
    ) -> list[Granted]:
        """Return the next *count* calls."""
        found: list[Granted] = []
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                found += await self.grants(
                    *services, limit=count - len(found), lease_ms=lease_ms, suspects=suspects
                )
                if len(found) < count:
                    await self.wait(*services)

        assert count == len(found)
        return found

    async def take_one(self, address: str = "", *, lease_ms: int = LEASE) -> Granted:
        """Return the next call, which is one to *address*."""
        service = service_of(address) or SERVICE
        (grant,) = await self.take(1, service, lease_ms=lease_ms)

        assert (address or grant.address) == grant.address
        return grant

    async def nothing(self, *services: str) -> None:
        """Show that no call is there to run, by others that come after it and arrive alone.

        There is one in each partition: those that nobody believes to have work are asked as well.
        """
        for service in services or (SERVICE,):
            await self.grants(service, limit=0)  # what is due is not to come behind the fences
            fences = self._fences(f"{service}.fence")
            await self.do(*fences)
            found: list[Granted] = []
            async with asyncio.timeout(PATIENCE):
                while len(found) < len(fences):
                    found += await self.grants(service)
                    if len(found) < len(fences):
                        await self.wait(service)

            assert [one.call.address for one in fences] == [one.address for one in found]
            await self.do(*map(commit, found))

    def _fences(self, address: str) -> list[Start]:
        """Return the starts of one run in each partition."""
        count = self.port.capabilities.partitions
        if count == 1:
            return [start(call(address))]
        return [Start(placed(new_run_id(), number), call(address)) for number in range(count)]

    def start(self, first: NewCall | None = None, *, key: str = "", fingerprint: str = "") -> Start:
        """Return the command that starts a run of its own at this port."""
        partitions = self.port.capabilities.partitions
        return start(first, key=key, fingerprint=fingerprint, partitions=partitions)

    async def begin(self, first: NewCall | None = None, *, key: str = "") -> Granted:
        """Start a run and take its first call."""
        first = first or call()
        (reply,) = await self.do(self.start(first, key=key))

        assert isinstance(reply, Started)
        assert reply.created
        grant = await self.take_one(first.address)

        assert first.call_id == grant.call_id
        return grant

    async def commit(
        self,
        grant: Granted,
        *,
        calls: Sequence[NewCall] = (),
        emits: Sequence[tuple[str, bytes]] = (),
        joins: Sequence[NewJoin] = (),
        gathers: Sequence[NewGather] = (),
        result: bytes | None = None,
    ) -> None:
        """Commit a granted call; it must be accepted."""
        made = decision(calls=calls, emits=emits, joins=joins, gathers=gathers, result=result)

        assert [Answer.DONE] == await self.do(commit(grant, made))

    async def emit(self, run_id: RunId, event: str, payload: bytes = b"\xc0") -> Reply:
        """Emit an event from outside."""
        (reply,) = await self.do(Emit(run_id, event, payload))
        return reply

    async def find(self, run_id: RunId) -> RunView | None:
        """Return the run as it stands, if it is known."""
        (view,) = await self.port.read([run_id])
        found: RunView | None = view
        return found

    async def view(self, run_id: RunId) -> RunView:
        """Return the run as it stands."""
        view = await self.find(run_id)

        assert view is not None
        return view

    async def outcome(self, run_id: RunId) -> Outcome:
        """Return how the run stands."""
        return (await self.view(run_id)).outcome

    async def status(self, run_id: RunId) -> Status:
        """Return the run's status."""
        return (await self.outcome(run_id)).status

    async def call(self, run_id: RunId, address: str = "") -> CallView:
        """Return the one open call (to *address*) of the run."""
        calls = (await self.view(run_id)).calls
        (found,) = [one for one in calls if (address or one.address) == one.address]
        return found

    async def elapse(self, ms: int) -> None:
        """Let that much time pass, and a little more where it is real."""
        await self.harness.elapse(ms)

    def _claim_id(self) -> ClaimId:
        self._takes += 1
        return ClaimId(f"{self._session}:{self._takes}")

    @abstractmethod
    async def wait(self, *services: str) -> None:
        """Give what is on its way time to arrive."""


class _StoreBench(Bench):
    def __init__(self, harness: Harness[Any], port: StateStore) -> None:
        super().__init__(harness, port)
        self._queue: list[Message] = []

    async def another(self) -> Bench:
        bench = _StoreBench(self.harness, await self.harness.connect())
        bench._queue = self._queue
        return bench

    async def do(self, *commands: Command) -> list[Reply]:
        applied: Applied = await self.port.apply(commands)
        await self._publish(applied.enqueued)
        return applied.replies

    async def grants(
        self,
        *services: str,
        limit: int = _SWEEP,
        lease_ms: int = LEASE,
        suspects: bool = True,
        claim_id: ClaimId | None = None,
    ) -> list[Granted]:
        swept: Applied = await self.port.apply([], sweep=_SWEEP)
        await self._publish(swept.enqueued)
        wanted = services or (SERVICE,)
        named = [one for one in self._queue if service_of(one.address) in wanted][:limit]
        for one in named:
            self._queue.remove(one)
        claim_id = claim_id or self._claim_id()
        claims = [claim(one, claim_id, lease_ms=lease_ms, suspects=suspects) for one in named]
        applied: Applied = await self.port.apply(claims)
        return [reply for reply in applied.replies if isinstance(reply, Granted)]

    async def _publish(self, messages: Sequence[Message]) -> None:
        self._queue += messages
        settles = [Settle(one.run_id, one.call_id, one.generation) for one in messages]
        if settles:
            await self.port.apply(settles)

    async def wait(self, *services: str) -> None:
        await asyncio.sleep(_IDLE)


class _BackendBench(Bench):
    def __init__(self, harness: Harness[Any], port: Backend) -> None:
        super().__init__(harness, port)

    async def another(self) -> Bench:
        return _BackendBench(self.harness, await self.harness.connect())

    async def do(self, *commands: Command) -> list[Reply]:
        replies: list[Reply] = await self.port.apply(commands)
        return replies

    async def grants(
        self,
        *services: str,
        limit: int = _SWEEP,
        lease_ms: int = LEASE,
        suspects: bool = True,
        claim_id: ClaimId | None = None,
    ) -> list[Granted]:
        take = Take(
            services=services or (SERVICE,),
            limit=limit,
            claim_id=claim_id or self._claim_id(),
            lease_ms=lease_ms,
            suspects=suspects,
        )
        grants: list[Granted] = (await self.port.exchange([], take)).grants
        return grants

    async def wait(self, *services: str) -> None:
        take = Take(services or (SERVICE,), 0, self._claim_id(), LEASE)
        await self.port.idle(take, _IDLE)


async def open_bench(harness: Harness[Any], *, doomed: bool = False) -> Bench:
    """Return a bench on a new connection to the store or backend of *harness*."""
    port = await harness.connect(doomed=doomed)
    return _BackendBench(harness, port) if hasattr(port, "exchange") else _StoreBench(harness, port)
