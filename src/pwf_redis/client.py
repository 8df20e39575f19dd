"""What the async store and the async backend have in common: connections, and running operations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import cache, partial
from typing import Any, TypeVar

import attrs

from pwf_core.adapters import Settings
from pwf_core.capabilities import Capabilities
from pwf_core.errors import StoreUnavailableError
from pwf_core.ports import Watch
from pwf_core.steps import Steps, drive_async
from pwf_redis.bells import Bells, Tokens
from pwf_redis.checks import Facts
from pwf_redis.cluster import ClusterTarget
from pwf_redis.cluster_links import ClusterLinks
from pwf_redis.keys import Keys
from pwf_redis.links import MOST, Links
from pwf_redis.operations import Operations
from pwf_redis.partitions import Partitions
from pwf_redis.target import Target
from pwf_redis.watching import Ears

__all__ = ["WAITING", "Client", "capabilities_of", "longest_wait", "operations_for"]

T = TypeVar("T")

# Seconds until who waits looks for himself: a token may have been given to somebody who was just
# leaving, and nobody hears of that.
_LOOK_AGAIN = 2.0
_GRANTING = 1.0  # seconds that a server may take to grant calls, after a wait for them
WAITING = 64  # idle workers of one process that may wait at a time; each holds a connection


def operations_for(target: Target, settings: Settings) -> Operations | Partitions:
    """Return what can be asked of *target* in the namespace of *settings*."""
    facts = Facts(where=target.where, durability=settings.durability)
    if isinstance(target, ClusterTarget):
        return Partitions(settings.namespace, settings.rules, facts, target.partitions)
    return Operations(Keys(settings.namespace), settings.rules, facts)


@cache
def _with_partitions(base: Capabilities, partitions: int) -> Capabilities:
    return attrs.evolve(base, partitions=partitions, ordered=partitions == 1)


def capabilities_of(base: Capabilities, operations: Operations | Partitions) -> Capabilities:
    """Return *base*, and what is known of partitions; cheap, for each start of a run asks."""
    return _with_partitions(base, operations.partitions)


def longest_wait(target: Target) -> float:
    """Return for how many seconds a server may be asked to keep somebody waiting.

    It has to answer well before its silence would count as a fault.
    """
    return min(_LOOK_AGAIN, target.timeout / 2)


def _links_to(target: Target, most: int = MOST) -> Links | ClusterLinks:
    if isinstance(target, ClusterTarget):
        return ClusterLinks(target, most)
    return Links(target, most)


@attrs.define
class Client:
    """A server, or a cluster, as seen from an event loop. Opens itself when first used."""

    target: Target
    _opening: Callable[[], Steps[Any, None]]  # what to do first
    _rung: Callable[[int], None]  # told in which slot a token has come
    _links: Links | ClusterLinks = attrs.field(init=False)
    _waiting: Links | ClusterLinks = attrs.field(init=False)  # so that who waits blocks nobody
    _bells: Bells = attrs.field(init=False)
    _ears: dict[int, Ears] = attrs.field(factory=dict, init=False)  # by slot; 0 is all of a server
    _is_open: bool = attrs.field(default=False, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._links = _links_to(self.target)
        self._waiting = _links_to(self.target, most=WAITING)
        self._bells = Bells(self._waiting, self._rung)

    async def open(self) -> None:
        """Connect and check the server; again, it checks again."""
        await asyncio.to_thread(self.target.acquire)
        self._is_closed = False
        self._links.open()
        self._waiting.open()
        await drive_async(self._opening(), self._links.perform)
        self._is_open = True

    async def close(self) -> None:
        """Let go of all connections."""
        self._is_closed, self._is_open = True, False
        await self._waiting.close()
        self._bells.close()
        await self._links.close()
        for ears in tuple(self._ears.values()):
            await ears.close()  # who is told to look must find the links closed
        self.target.release()

    def run(self, steps: Steps[Any, T]) -> Coroutine[Any, Any, T]:
        """Perform an operation."""
        if self._is_open or self._is_closed:
            return drive_async(steps, self._links.perform)
        return self._open_and_run(steps)

    async def _open_and_run(self, steps: Steps[Any, T]) -> T:
        await self.open()
        return await drive_async(steps, self._links.perform)

    def watch(self, slot: int, channel: str) -> AbstractAsyncContextManager[Watch]:
        """Listen for the end of a run, where its state is: there, news come before any later answer."""
        self._links.check_open()
        target = self.target
        if isinstance(target, ClusterTarget):
            target = target.place(slot)
        else:
            slot = 0
        if slot not in self._ears:
            self._ears[slot] = Ears(target, self._links.locate)
        return self._ears[slot].watch(channel)

    async def wait_for_work(
        self,
        look: Callable[[], Steps[Any, bool]],
        tokens: Callable[[], Tokens],
        timeout: float,
    ) -> None:
        """Wait until there may be work, or *timeout* is over.

        Args:
            look: Says whether there is work now.
            tokens: Returns lists, one of which has something once there is.
            timeout: In seconds.
        """
        longest = longest_wait(self.target)
        now = asyncio.get_running_loop().time
        deadline = now() + timeout
        self._links.check_open()
        try:
            while not await self.run(look()) and (left := deadline - now()) > 0:
                if await self._bells.wait(tokens(), min(left, longest)):
                    return
        except StoreUnavailableError:
            if not self._is_closed:
                raise

    async def listen(self, steps: Callable[[float], Steps[Any, T]], timeout: float) -> T | None:
        """Take steps that begin with a wait; None if this is closed meanwhile.

        Args:
            steps: Returns them, given for how many seconds to wait at the most.
            timeout: Likewise, if the server should not be asked again before.
        """
        if not self._is_open and not self._is_closed:
            await self.open()
        self._links.check_open()
        links = self._waiting
        assert isinstance(links, Links), "no command waits in several slots"
        seconds = min(timeout, longest_wait(self.target))
        try:
            # A connection that has gone silent is noticed while what was granted on it is still leased.
            return await drive_async(
                steps(seconds), partial(links.perform, patience=seconds + _GRANTING)
            )
        except StoreUnavailableError:
            if not self._is_closed:
                raise
            return None
