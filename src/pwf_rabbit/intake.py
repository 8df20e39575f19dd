"""The consuming side: a lane per service on one supervised connection.

Theory of operation. What the server pushes waits in its lane until somebody receives it. A lane can
end alone (its channel is closed, or its consumer cancelled by the server because the queue was
deleted) or with the connection. The crew looks four times a second whether all lanes are as they
should be, and raises those that are not, each in a task of its own: asked to consume a quorum queue
that has no leader, the server says nothing for up to half a minute, and no other lane has to wait
for that. A lane's channel is its epoch: deliveries know the channel that they came by, and acking
them does nothing once it is closed.

A lane that hears nothing for a while consumes anew, to be on the safe side: when a quorum queue is
deleted and made anew within some 20 milliseconds, RabbitMQ 3.10 cancels nobody, counts the old
consumer as one of the new queue, and withholds what it assigns to it, for ever.

A lane in which something waits for long is parked: its channel is closed, so that other workers get
what it held, until somebody asks for it again; then with half the prefetch. One that has less than
its worker has room for gets double. So a worker that is full of slow handlers hoards no work, one
with quick handlers never waits for the server, and no delivery outlives the server's
acknowledgement time-out (30 minutes).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from pwf_core.errors import BrokerUnavailableError, ConfigurationError, PwfError
from pwf_core.ports import Delivery
from pwf_rabbit.declaring import declare
from pwf_rabbit.errors import translate
from pwf_rabbit.lanes import Lane, Tag, Tray
from pwf_rabbit.link import Connect, Link
from pwf_rabbit.options import Options
from pwf_rabbit.supervisor import Supervisor, pause, stop
from pwf_rabbit.topology import Queue

__all__ = ["Intake"]

_WATCH = 0.25  # seconds between two looks at the lanes; how late a cancelled consumer is noticed
_PATIENCE = 0.25  # seconds that a delivery waits here before others may have it
_RENEWAL = 20.0  # seconds of silence after which a lane consumes anew, on average

_log = logging.getLogger("pwf_rabbit")


class Intake:
    """Consumes over one supervised connection."""

    def __init__(self, connect: Connect, options: Options) -> None:
        self._options = options
        self._lanes: dict[str, Lane] = {}
        self._turn = 0
        self._arrived = asyncio.Event()
        self._kick = asyncio.Event()
        self._drained: list[Tray] = []
        self._draining = asyncio.Lock()
        self._is_closed = False
        self.supervisor = Supervisor(connect, options, "consume", self)

    @property
    def trouble(self) -> PwfError | None:
        """Why something that should be consumed is not."""
        if self.supervisor.failure is not None:
            return self.supervisor.failure
        return next((one.trouble for one in self._lanes.values() if one.trouble), None)

    async def receive(self, services: Sequence[str], limit: int) -> list[Delivery]:
        """See `Broker.receive`; waits only for consumers that were never tried, if all others are idle."""
        if limit <= 0:
            return []
        lanes = self._wish(services, limit)
        await self._judgement(lanes)
        for lane in lanes:
            if isinstance(lane.trouble, ConfigurationError) and not lane.was_up:
                raise ConfigurationError(*lane.trouble.args) from lane.trouble
        taken = self._take(lanes, limit)
        if not taken:
            self._check(lanes)
        if sum(len(one.messages) or 1 for one in taken) < limit:
            for lane in lanes:
                lane.is_short |= lane.is_exhausted
        return taken

    async def idle(self, services: Sequence[str], timeout: float) -> None:
        """See `Broker.idle`."""
        lanes = self._wish(services, 1)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._is_closed and not any(lane.has_work for lane in lanes):
                    self._arrived.clear()
                    await self._arrived.wait()

    async def ack(self, deliveries: Iterable[Delivery]) -> None:
        """See `Broker.ack`."""
        parts: dict[Tray, list[tuple[int, int]]] = {}
        for delivery in deliveries:
            tag = delivery.tag
            assert isinstance(tag, Tag)
            if not tag.settled:
                tag.settled = True
                parts.setdefault(tag.tray, []).append((tag.number, tag.parts))
        try:
            async with asyncio.timeout(self._options.timeout):
                for tray, settled in parts.items():
                    acks = tray.ledger.settle(settled)
                    if acks and tray.channel.is_open:
                        await tray.channel.ack(acks)
        except TimeoutError as error:
            await self.supervisor.doubt()
            raise translate(error, self._options.where) from error

    def put_back(self, delivery: Delivery) -> None:
        """Have *delivery*, which could not be settled, handed out again in a while."""
        lane = self._lanes.get(delivery.service)
        if lane is not None:
            asyncio.get_running_loop().call_later(pause(10), lane.put, delivery)

    async def drain(self, service: str, limit: int) -> list[Delivery]:
        """See `Broker.drain`; ends with the envelope that reaches *limit* calls."""
        lane = self._lanes.get(service)
        taken = self._take([lane], limit) if lane is not None else []
        room = limit - sum(len(one.messages) or 1 for one in taken)
        if room <= 0:
            return taken
        queue = self._options.topology.queue(service)
        try:
            async with asyncio.timeout(self._options.timeout), self._draining:
                tray = await self._begin_drain(queue)
                while room > 0 and (got := await tray.channel.get(queue)) is not None:
                    taken.append(one := tray.deliver(service, *got))
                    room -= len(one.messages) or 1
        except (BrokerUnavailableError, TimeoutError) as error:
            await self.supervisor.doubt()
            if not taken:
                raise translate(error, self._options.where) from error
        return taken

    async def close(self) -> None:
        """Hand back what is not acked."""
        self._is_closed = True
        self._arrived.set()
        await self.supervisor.close()

    # The crew's part.

    async def prepare(self, link: Link) -> None:
        """See `Crew.prepare`."""
        # The server dead-letters into it, and drops what it cannot put there.
        await declare(link, self._options.topology.rejected)

    async def tend(self, link: Link) -> None:
        """See `Crew.tend`."""
        looks: dict[Lane, asyncio.Task[None]] = {}
        try:
            while True:
                for lane in self._lanes.values():
                    look = looks.get(lane)
                    if look is not None and not look.done():
                        continue
                    if look is not None:
                        look.result()  # a fault of ours ends the epoch
                    looks[lane] = asyncio.create_task(self._look_after(lane, link))
                with suppress(TimeoutError):
                    async with asyncio.timeout(_WATCH):
                        await self._kick.wait()
                self._kick.clear()
        finally:
            try:
                await stop(looks.values())
            finally:
                for lane in self._lanes.values():
                    lane.end()

    async def _look_after(self, lane: Lane, link: Link) -> None:
        now = asyncio.get_running_loop().time()
        if lane.is_up and lane.waiting(now) > _PATIENCE:
            lane.parked = True
            lane.prefetch = max(lane.prefetch // 2, 1)
            await self._end(lane)
            self._kick.set()  # somebody may have asked for it meanwhile
        elif lane.is_up and not self._is_due(lane, now):
            if lane.is_short:
                await self._try(lane, self._widen)
        elif not lane.parked and now >= lane.retry_at:
            await self._try(lane, functools.partial(self._raise, link))
            lane.judged.set()

    async def _try(self, lane: Lane, act: Callable[[Lane], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(self._options.timeout):
                await act(lane)
        except (PwfError, TimeoutError) as error:
            trouble = translate(error, self._options.where, lane.queue)
            if not isinstance(trouble, ConfigurationError):
                await self.supervisor.doubt()
            await self._end(lane)
            self._failed(lane, trouble)
        else:
            lane.trouble, lane.failures, lane.was_up = None, 0, True

    def _is_due(self, lane: Lane, now: float) -> bool:
        """Whether the lane has been silent for so long that it consumes anew."""
        if not lane.is_silent:
            return False
        if math.isinf(lane.renew_at):  # the silence has begun since the last look
            lane.renew_at = now + _RENEWAL * (0.5 + random.random())  # noqa: S311 -- not in step
        return now >= lane.renew_at

    async def _raise(self, link: Link, lane: Lane) -> None:
        # Always on a fresh channel: an old one may remember another queue of that name.
        await self._end(lane)
        await declare(link, lane.queue)
        channel = await link.channel()
        tray = lane.begin(channel)
        lane.renew_at, lane.is_short = math.inf, False
        deliver = functools.partial(lane.deliver, tray)
        await channel.consume(lane.queue, lane.prefetch, deliver)

    async def _widen(self, lane: Lane) -> None:
        """Double what the server may push, by another consumer: each has a prefetch of its own."""
        tray, more = lane.tray, min(lane.prefetch, self._options.prefetch - lane.prefetch)
        lane.is_short = False
        if tray is not None and more > 0:
            lane.prefetch += more
            await tray.channel.consume(lane.queue, more, functools.partial(lane.deliver, tray))

    async def _end(self, lane: Lane) -> None:
        channel = lane.end()
        if channel is not None and channel.is_open:
            with suppress(PwfError, TimeoutError):
                async with asyncio.timeout(self._options.timeout):
                    await channel.close()

    def _failed(self, lane: Lane, trouble: PwfError) -> None:
        told = isinstance(trouble, ConfigurationError) and not lane.was_up  # by `receive`
        if not told and str(trouble) != str(lane.trouble):
            _log.warning("service %s is not consumed: %s", lane.service, trouble)
        lane.trouble = trouble
        lane.failures += 1
        lane.retry_at = asyncio.get_running_loop().time() + pause(lane.failures)

    # What callers wait for.

    def _wish(self, services: Sequence[str], limit: int) -> list[Lane]:
        self.supervisor.start()
        lanes = []
        for service in services:
            lane = self._lanes.get(service)
            if lane is None:
                queue = self._options.topology.queue(service)
                prefetch = min(limit, self._options.prefetch)
                lane = Lane(service, queue, self._arrived.set, prefetch, self._options.signer)
                self._lanes[service] = lane
                self._kick.set()
            elif lane.parked:
                lane.parked = False
                self._kick.set()
            lanes.append(lane)
        return lanes

    def _check(self, lanes: Sequence[Lane]) -> None:
        """Raise why nothing can have been delivered, if it cannot."""
        self.supervisor.check()
        for lane in lanes:
            if lane.trouble is not None:
                raise BrokerUnavailableError(
                    f"Service {lane.service} is not consumed: {lane.trouble}",
                ) from lane.trouble

    async def _judgement(self, lanes: Sequence[Lane]) -> None:
        """Wait until all *lanes* have been tried once, or one has something to receive."""
        while not any(lane.has_work for lane in lanes):
            judged = [lane.judged for lane in lanes if not lane.judged.is_set()]
            if not judged:
                return
            link = await self.supervisor.link()
            self._arrived.clear()
            events = (*judged, self._arrived, link.lost)
            waits = [asyncio.ensure_future(one.wait()) for one in events]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waits:
                    one.cancel()

    def _take(self, lanes: Sequence[Lane], limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        self._turn += 1
        start = self._turn % len(lanes) if lanes else 0
        ready = [lane for lane in (*lanes[start:], *lanes[:start]) if lane.has_work]
        while ready and limit > 0:
            for lane in ready:
                if limit <= 0:
                    break
                delivery = lane.take(limit)
                limit -= len(delivery.messages) or 1
                taken.append(delivery)
            ready = [lane for lane in ready if lane.has_work]
        return taken

    async def _begin_drain(self, queue: Queue) -> Tray:
        link = await self.supervisor.link()
        await declare(link, queue)
        # A channel for each time, for the reason above; one of which all is acked can go.
        spent = [one for one in self._drained if not one.ledger]
        self._drained = [one for one in self._drained if one.ledger and one.channel.is_open]
        for one in spent:
            await one.channel.close()
        self._drained.append(tray := Tray(await link.channel(), self._options.signer))
        return tray
