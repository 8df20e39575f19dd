"""What the async store and the async backend have in common: connections, and running operations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import attrs

from pwf_core.adapters import Settings
from pwf_core.errors import StoreUnavailableError
from pwf_core.ports import Watch
from pwf_core.steps import Steps, drive_async
from pwf_redis.checks import Facts
from pwf_redis.keys import Keys
from pwf_redis.links import Links
from pwf_redis.operations import Operations
from pwf_redis.rounds import Round
from pwf_redis.target import Target
from pwf_redis.watching import Ears

__all__ = ["LOOK_AGAIN", "WAITING", "Client", "operations_for"]

T = TypeVar("T")

# Seconds until who waits looks for himself: a token may have been given to somebody who was just
# leaving, and nobody hears of that.
LOOK_AGAIN = 2.0
WAITING = 64  # idle workers of one process that may wait at a time; each holds a connection


def operations_for(target: Target, settings: Settings) -> Operations:
    """Return what can be asked of *target* in the namespace of *settings*."""
    facts = Facts(where=target.where, durability=settings.durability)
    return Operations(Keys(settings.namespace), settings.rules, facts)


@attrs.define
class Client:
    """A server as seen from an event loop. Opens itself when first used."""

    target: Target
    _opening: Callable[[], Steps[Round, None]]  # what to do first
    _links: Links = attrs.field(init=False)
    _waiting: Links = attrs.field(init=False)  # of their own, so that who waits blocks nobody
    _ears: Ears = attrs.field(init=False)
    _is_open: bool = attrs.field(default=False, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._links = Links(self.target)
        self._waiting = Links(self.target, most=WAITING)
        self._ears = Ears(self.target)

    async def open(self) -> None:
        """Connect and check the server; again, it checks again."""
        await asyncio.to_thread(self.target.acquire)
        self._is_closed = False
        self._links.open()
        self._waiting.open()
        await drive_async(self._opening(), self._perform)
        self._is_open = True

    async def close(self) -> None:
        """Let go of all connections."""
        self._is_closed, self._is_open = True, False
        await self._waiting.close()
        await self._links.close()
        await self._ears.close()  # who is told to look must find the links closed
        self.target.release()

    async def run(self, steps: Steps[Round, T]) -> T:
        """Perform an operation."""
        if not self._is_open and not self._is_closed:
            await self.open()
        return await drive_async(steps, self._perform)

    async def _perform(self, effect: Round) -> object:
        return await self._links.ask(effect.commands)

    def watch(self, channel: str) -> AbstractAsyncContextManager[Watch]:
        """Listen for the end of a run."""
        self._links.check_open()
        return self._ears.watch(channel)

    async def wait_for_work(
        self,
        look: Callable[[], Steps[Round, bool]],
        tokens: Sequence[str],
        timeout: float,
    ) -> None:
        """Wait until there may be work, or *timeout* is over.

        Args:
            look: Says whether there is work now.
            tokens: Lists, one of which has something once there is.
            timeout: In seconds.
        """
        # The server is asked to answer well before its silence would count as a fault.
        longest = min(LOOK_AGAIN, self.target.timeout / 2)
        now = asyncio.get_running_loop().time
        deadline = now() + timeout
        self._links.check_open()
        try:
            while not await self.run(look()) and (left := deadline - now()) > 0:
                seconds = max(min(left, longest), 0.001)  # Redis takes 0 for "for ever"
                (token,) = await self._waiting.ask([("BLPOP", *tokens, seconds)])
                if token is not None:
                    return
        except StoreUnavailableError:
            if not self._is_closed:
                raise
