"""The blocking twins of `backend` and `store`: for threads, and safe after a fork."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Self, TypeVar

import attrs

from pwf_core.adapters import Settings
from pwf_core.capabilities import Capabilities
from pwf_core.commands import Command, Reply
from pwf_core.errors import StoreUnavailableError
from pwf_core.ids import RunId
from pwf_core.ports import Applied, BlockingWatch, Exchanged, Take
from pwf_core.steps import Steps, drive
from pwf_core.views import DeadLetter, RunView
from pwf_redis import backend, store
from pwf_redis.bells import BlockingBells, Tokens
from pwf_redis.client import WAITING, capabilities_of, longest_wait, operations_for
from pwf_redis.cluster import ClusterTarget
from pwf_redis.cluster_links import BlockingClusterLinks
from pwf_redis.leases import RedisLeases, blocking_links_to
from pwf_redis.links import BlockingLinks
from pwf_redis.operations import Operations
from pwf_redis.partitions import Partitions
from pwf_redis.target import Target
from pwf_redis.watching_blocking import BlockingEars

__all__ = ["BlockingClient", "BlockingRedisBackend", "BlockingRedisStateStore"]

T = TypeVar("T")


@attrs.define
class BlockingClient:
    """A server, or a cluster, as seen from threads. Opens itself when first used."""

    target: Target
    _opening: Callable[[], Steps[Any, None]]  # what to do first
    _rung: Callable[[int], None]  # told in which slot a token has come
    _links: BlockingLinks | BlockingClusterLinks = attrs.field(init=False)
    # Of their own, so that who waits blocks nobody.
    _waiting: BlockingLinks | BlockingClusterLinks = attrs.field(init=False)
    _bells: BlockingBells = attrs.field(init=False)
    _ears: dict[int, BlockingEars] = attrs.field(factory=dict, init=False)  # as in `Client`
    _is_open: bool = attrs.field(default=False, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._links = blocking_links_to(self.target)
        self._waiting = blocking_links_to(self.target, most=WAITING)
        self._bells = BlockingBells(self._waiting, self._rung)

    def open(self) -> None:
        """Connect and check the server; again, it checks again."""
        self.target.acquire()
        self._is_closed = False
        self._links.open()
        self._waiting.open()
        drive(self._opening(), self._links.perform)
        self._is_open = True

    def close(self) -> None:
        """Let go of all connections."""
        self._is_closed, self._is_open = True, False
        self._waiting.close()
        self._bells.close()
        self._links.close()
        for ears in tuple(self._ears.values()):
            ears.close()  # who is told to look must find the links closed
        self.target.release()

    def run(self, steps: Steps[Any, T]) -> T:
        """Perform an operation."""
        if not self._is_open and not self._is_closed:
            self.open()
        return drive(steps, self._links.perform)

    def watch(self, slot: int, channel: str) -> AbstractContextManager[BlockingWatch]:
        """See `Client.watch`."""
        self._links.check_open()
        target = self.target
        if isinstance(target, ClusterTarget):
            target = target.place(slot)
        else:
            slot = 0
        ears = self._ears.get(slot)
        if ears is None:
            ears = self._ears.setdefault(slot, BlockingEars(target, self._links.locate))
        return ears.watch(channel)

    def wait_for_work(
        self,
        look: Callable[[], Steps[Any, bool]],
        tokens: Callable[[], Tokens],
        timeout: float,
    ) -> None:
        """See `Client.wait_for_work`."""
        longest = longest_wait(self.target)
        deadline = time.monotonic() + timeout
        self._links.check_open()
        try:
            while not self.run(look()) and (left := deadline - time.monotonic()) > 0:
                if self._bells.wait(tokens(), min(left, longest)):
                    return
        except StoreUnavailableError:
            if not self._is_closed:
                raise

    def listen(self, steps: Callable[[float], Steps[Any, T]], timeout: float) -> T | None:
        """See `Client.listen`."""
        if not self._is_open and not self._is_closed:
            self.open()
        self._links.check_open()
        seconds = min(timeout, longest_wait(self.target))
        try:
            return drive(steps(seconds), self._waiting.perform)
        except StoreUnavailableError:
            if not self._is_closed:
                raise
            return None


@attrs.define
class BlockingRedisStateStore:
    """Blocking twin of `RedisStateStore`."""

    operations: Operations | Partitions
    _client: BlockingClient

    @classmethod
    def on(cls, target: Target, settings: Settings) -> Self:
        """Return a store on a server."""
        operations = operations_for(target, settings)
        return cls(operations, BlockingClient(target, operations.open, operations.rung))

    @property
    def capabilities(self) -> Capabilities:
        """Durable and shared."""
        return capabilities_of(store.CAPABILITIES, self.operations)

    def open(self) -> None:
        """See `StateStore.open`."""
        self._client.open()

    def close(self) -> None:
        """See `StateStore.close`."""
        self._client.close()

    def apply(
        self, commands: Sequence[Command], *, sweep: int = 0, partly: bool = False
    ) -> Applied:
        """See `StateStore.apply`."""
        return self._client.run(self.operations.apply(commands, sweep=sweep, partly=partly))

    def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """See `StateStore.read`."""
        return self._client.run(self.operations.read(run_ids))

    def watch(self, run_id: RunId) -> AbstractContextManager[BlockingWatch]:
        """See `StateStore.watch`."""
        return self._client.watch(*self.operations.channel(run_id))

    def leases(self) -> RedisLeases:
        """See `StateStore.leases`."""
        return RedisLeases.of(self.operations, self._client.target)

    def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """See `StateStore.dead_letters`."""
        return self._client.run(self.operations.dead_letters(service, limit))

    def purge(self, service: str) -> int:
        """See `StateStore.purge`."""
        return self._client.run(self.operations.purge_waiting(service))


@attrs.define
class BlockingRedisBackend:
    """Blocking twin of `RedisBackend`."""

    operations: Operations | Partitions
    _client: BlockingClient

    @classmethod
    def on(cls, target: Target, settings: Settings) -> Self:
        """Return a backend on a server.

        Raises:
            UnsupportedError: If messages are to be signed.
        """
        settings.refuse_signing(backend.WHY_UNSIGNED)
        operations = operations_for(target, settings)
        return cls(operations, BlockingClient(target, operations.open, operations.rung))

    @property
    def capabilities(self) -> Capabilities:
        """Durable, shared and fused."""
        return capabilities_of(backend.CAPABILITIES, self.operations)

    def open(self) -> None:
        """See `Backend.open`."""
        self._client.open()

    def close(self) -> None:
        """See `Backend.close`."""
        self._client.close()

    def apply(self, commands: Sequence[Command]) -> list[Reply]:
        """See `Backend.apply`."""
        return self._client.run(self.operations.apply(commands, sweep=0)).replies

    def exchange(self, commands: Sequence[Command], take: Take) -> Exchanged:
        """See `Backend.exchange`."""
        return self._client.run(self.operations.exchange(commands, take))

    def idle(self, take: Take, timeout: float) -> Exchanged | None:
        """See `Backend.idle`."""
        operations = self.operations
        if isinstance(operations, Operations):
            return self._client.listen(partial(operations.listen, take), timeout)
        self._client.wait_for_work(
            lambda: operations.has_work(take.services),
            lambda: operations.bells(take.services),
            timeout,
        )
        return None

    def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """See `Backend.read`."""
        return self._client.run(self.operations.read(run_ids))

    def watch(self, run_id: RunId) -> AbstractContextManager[BlockingWatch]:
        """See `Backend.watch`."""
        return self._client.watch(*self.operations.channel(run_id))

    def leases(self) -> RedisLeases:
        """See `Backend.leases`."""
        return RedisLeases.of(self.operations, self._client.target)

    def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """See `Backend.dead_letters`."""
        return self._client.run(self.operations.dead_letters(service, limit))

    def purge(self, service: str) -> int:
        """See `Backend.purge`."""
        return self._client.run(self.operations.purge(service))
