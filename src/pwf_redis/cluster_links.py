"""Connections to the nodes of a cluster: round trips in several slots at once, one for each node.

What goes to slots of the same node shares a round trip. A slot that has moved is asked for once more
where it is now; every other trouble is reported, and the nodes are asked for the slots before the next
round trip. No redirection to a slot on the move (ASK) is followed: its keys lie on two nodes then, and
whoever needs them waits until they are together again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any, TypeAlias

import attrs
from redis.exceptions import MovedError, ResponseError

from pwf_core.errors import StoreUnavailableError, UnavailableError
from pwf_core.steps import Steps, drive, drive_async
from pwf_redis.cluster import SLOTS, Address, ClusterTarget
from pwf_redis.errors import translate
from pwf_redis.links import MOST, BlockingLinks, Links, closed
from pwf_redis.rounds import Command, Spread

__all__ = ["BlockingClusterLinks", "ClusterLinks"]

_Found: TypeAlias = dict[int, list[Any] | Exception]
_Rounds: TypeAlias = Mapping[int, Sequence[Command]]

_THREADS = 16  # nodes that are asked at the same time


@attrs.frozen
class _Learn:
    """A step: ask the nodes who has which slots."""


_Step: TypeAlias = _Learn | dict[Address, list[Command]]
"""Round trips to nodes, at the same time; answered by what each has replied, or what went wrong."""


def _spread(target: ClusterTarget, rounds: _Rounds) -> Steps[_Step, _Found]:
    """Make round trips in several slots; what went wrong in one says nothing of the others."""
    cluster = target.cluster
    found: _Found = {}
    for _ in range(2):
        if cluster.is_doubted:
            try:
                yield _Learn()
            except UnavailableError as error:
                return found | dict.fromkeys(rounds, error)
        nodes: dict[Address, list[int]] = {}
        for slot in rounds:
            address = cluster.address_of(slot)
            if address is None:
                found[slot] = StoreUnavailableError(f"In {target.where} nobody has slot {slot}.")
                cluster.doubt()
            else:
                nodes.setdefault(address, []).append(slot)
        answers = yield {
            address: [command for slot in slots for command in rounds[slot]]
            for address, slots in nodes.items()
        }
        for address, slots in nodes.items():
            replies = answers[address]
            if isinstance(replies, Exception):
                found |= dict.fromkeys(slots, replies)
                continue
            for slot in slots:
                count = len(rounds[slot])
                found[slot] = _of_one(address, replies[:count])
                del replies[:count]
        moved = [slot for slot, one in found.items() if isinstance(one, _SlotMovedError)]
        if moved:
            cluster.doubt()
        for address, slots in nodes.items():
            if any(isinstance(found[slot], UnavailableError) for slot in {*slots} - {*moved}):
                cluster.doubt(address)
        if not moved:
            break
        rounds = {slot: rounds[slot] for slot in moved}
    return found


class _SlotMovedError(StoreUnavailableError):
    """Another node has the slot now, and nothing has been done."""


def _of_one(address: Address, replies: list[Any]) -> list[Any] | Exception:
    """Return what one slot has answered, or the first error of it as ours."""
    where = f"{address[0]}:{address[1]}"
    for reply in replies:
        if isinstance(reply, MovedError):
            return _SlotMovedError(f"Redis at {where} says that a slot has moved: {reply}")
        if isinstance(reply, ResponseError):
            return translate(reply, where)
    return replies


def _of(slot: int, found: _Found) -> list[Any]:
    replies = found[slot]
    if isinstance(replies, Exception):
        raise replies
    return replies


@attrs.define
class ClusterLinks:
    """Connections of one event loop.

    Attributes:
        target: The cluster.
        most: How many round trips may be under way at each node.
    """

    target: ClusterTarget
    most: int = MOST
    _nodes: dict[Address, Links] = attrs.field(factory=dict, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    def open(self) -> None:
        """Allow use, also after a close."""
        self._is_closed = False
        for links in self._nodes.values():
            links.open()

    def check_open(self) -> None:
        """Raise if this has been closed."""
        if self._is_closed:
            raise closed(self.target)

    def _at(self, address: Address) -> Links:
        self.check_open()
        if address not in self._nodes:
            self._nodes[address] = Links(self.target.node(address), self.most)
        return self._nodes[address]

    async def perform(self, effect: Spread) -> _Found:
        """Make round trips, at the same time."""
        self.check_open()
        step = partial(self._step, patience=effect.patience)
        return await drive_async(_spread(self.target, effect.rounds), step)

    async def locate(self) -> None:
        """Learn who has which slots, if that is in doubt.

        Raises:
            StoreUnavailableError: If no node says so.
        """
        if self.target.cluster.is_doubted:
            await self._step(_Learn())

    async def ask_at(self, slot: int, commands: Sequence[Command]) -> list[Any]:
        """Make a round trip in one slot.

        Raises:
            UnavailableError: If its node does not answer.
            PwfError: If one of the replies is an error.
        """
        return _of(slot, await self.perform(Spread({slot: commands})))

    async def _step(self, step: _Step, patience: float | None = None) -> object:
        if isinstance(step, _Learn):
            return await drive_async(self.target.cluster.find(), self._ask_for_slots)
        if len(step) == 1:
            return {
                address: await self._ask(address, one, patience) for address, one in step.items()
            }
        asking = (self._ask(address, commands, patience) for address, commands in step.items())
        return dict(zip(step, await asyncio.gather(*asking), strict=True))

    async def _ask(
        self, address: Address, commands: list[Command], patience: float | None
    ) -> list[Any] | Exception:
        try:
            return await self._at(address).ask_each(commands, patience)
        except Exception as error:  # noqa: BLE001 -- of this node alone
            return error

    async def _ask_for_slots(self, address: Address) -> object:
        # Connections of its own: those that are kept wait longer for an answer.
        links = Links(self.target.briefly(address), most=1)
        try:
            return (await links.ask([SLOTS]))[0]
        finally:
            await links.close()

    async def close(self) -> None:
        """Close every connection; round trips under way fail."""
        self._is_closed = True
        for links in tuple(self._nodes.values()):
            await links.close()


@attrs.define
class BlockingClusterLinks:
    """Connections of one process, for any thread; a fork starts afresh.

    Attributes:
        target: The cluster.
        most: How many round trips may be under way at each node.
    """

    target: ClusterTarget
    most: int = MOST
    _nodes: dict[Address, BlockingLinks] = attrs.field(factory=dict, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)
    _threads: ThreadPoolExecutor | None = attrs.field(default=None, init=False)
    _process: int = attrs.field(factory=os.getpid, init=False)

    def open(self) -> None:
        """Allow use, also after a close."""
        self._is_closed = False
        for links in tuple(self._nodes.values()):
            links.open()

    def check_open(self) -> None:
        """Raise if this has been closed."""
        if self._is_closed:
            raise closed(self.target)

    def _at(self, address: Address) -> BlockingLinks:
        self.check_open()
        if address not in self._nodes:
            links = BlockingLinks(self.target.node(address), self.most)
            self._nodes.setdefault(address, links)
        return self._nodes[address]

    def perform(self, effect: Spread) -> _Found:
        """See `ClusterLinks.perform`."""
        self.check_open()
        step = partial(self._step, patience=effect.patience)
        return drive(_spread(self.target, effect.rounds), step)

    def locate(self) -> None:
        """See `ClusterLinks.locate`."""
        if self.target.cluster.is_doubted:
            self._step(_Learn())

    def ask_at(self, slot: int, commands: Sequence[Command]) -> list[Any]:
        """See `ClusterLinks.ask_at`."""
        return _of(slot, self.perform(Spread({slot: commands})))

    def _step(self, step: _Step, patience: float | None = None) -> object:
        if isinstance(step, _Learn):
            return drive(self.target.cluster.find(), self._ask_for_slots)
        if len(step) == 1 and (patience is None or len(self.target.cluster.masters) == 1):
            return {address: self._ask(address, one) for address, one in step.items()}
        self.check_open()
        if self._threads is None or self._process != os.getpid():
            self._threads = ThreadPoolExecutor(_THREADS, "pwf_redis nodes")
            self._process = os.getpid()
        threads = self._threads
        try:
            asked = {at: threads.submit(self._ask, at, one) for at, one in step.items()}
        except RuntimeError:
            self.check_open()  # closed meanwhile
            raise
        wait(asked.values(), timeout=patience)
        # One that is late goes on until its time-out, and nobody hears what comes of it.
        return {
            address: one.result() if one.done() else self._late(address)
            for address, one in asked.items()
        }

    def _late(self, address: Address) -> Exception:
        return translate(TimeoutError("it is asked again"), self.target.node(address).where)

    def _ask(self, address: Address, commands: list[Command]) -> list[Any] | Exception:
        try:
            return self._at(address).ask_each(commands)
        except Exception as error:  # noqa: BLE001 -- of this node alone
            return error

    def _ask_for_slots(self, address: Address) -> object:
        links = BlockingLinks(self.target.briefly(address), most=1)
        try:
            return links.ask([SLOTS])[0]
        finally:
            links.close()

    def close(self) -> None:
        """Close every connection; round trips under way fail."""
        self._is_closed = True
        for links in tuple(self._nodes.values()):
            links.close()
        if self._threads is not None and self._process == os.getpid():
            self._threads.shutdown(wait=False)
        self._threads = None
