"""The publishing side: confirmed, mandatory, everything of a batch in flight at once.

It has a connection of its own. A server that runs short of memory or disk stops reading from
connections that publish, and acks on the same connection would be stuck with the messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import attrs

from pwf_core.commands import Message
from pwf_core.errors import BrokerUnavailableError, ConfigurationError, PwfError
from pwf_rabbit.declaring import declare
from pwf_rabbit.envelopes import Envelope, pack
from pwf_rabbit.link import Channel, Connect, Link, Sent
from pwf_rabbit.options import Options
from pwf_rabbit.supervisor import ASKING, Supervisor
from pwf_rabbit.topology import Queue

__all__ = ["Outlet", "Parcel"]

# Shares of a deadline, so that what is known can be told before it is over.
_WORKING = 1.0 - ASKING
_CONFIRMING = 0.5  # of which the server has this for its confirms
_INSISTING = 0.2  # and this for a queue that takes nothing yet

_PAUSE, _LONGEST = 0.02, 0.2  # seconds between two attempts to insist

_CAME_BACK = (Sent.RETURNED, Sent.REFUSED)

_log = logging.getLogger("pwf_rabbit")


@attrs.frozen
class Parcel:
    """A body on its way to a queue."""

    queue: Queue
    body: bytes
    headers: Mapping[str, str] = attrs.field(factory=dict)


class Outlet:
    """Publishes over one supervised connection."""

    def __init__(self, connect: Connect, options: Options) -> None:
        self._options = options
        self._channel: Channel | None = None  # for what is published next
        self._users: Counter[Channel] = Counter()  # attempts that wait for answers on it
        self._known: set[str] = set()  # queues seen in this epoch
        self._complained: set[str] = set()
        self._opening = asyncio.Lock()
        self.supervisor = Supervisor(connect, options, "publish", self, opens=True)

    async def prepare(self, link: Link) -> None:
        """See `Crew.prepare`."""
        self._channel = None
        self._users = Counter()
        self._known = set()
        self._complained = set()
        # Others dead-letter into it, so it has to be there before any of them.
        await declare(link, self._options.topology.rejected)

    async def tend(self, link: Link) -> None:
        """See `Crew.tend`; there is nothing to do between publishes."""
        await link.lost.wait()

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """See `Broker.publish`."""
        envelopes = pack(messages, self._options.signer)
        sent = await self.send([self._parcel(one) for one in envelopes])
        confirmed = [False] * len(messages)
        for envelope, outcome in zip(envelopes, sent, strict=True):
            for item in envelope.items:
                confirmed[item] = outcome is Sent.CONFIRMED
        return confirmed

    async def send(self, parcels: Sequence[Parcel]) -> list[Sent]:
        """Send everything, and again what came back.

        Raises:
            BrokerUnavailableError: If nothing is known about any of them.
            ConfigurationError: If none of the queues can be used.
        """
        if not parcels:
            return []
        try:
            async with asyncio.timeout(self._options.timeout * _WORKING):
                link = await self.supervisor.link()
                if await link.is_blocked():
                    # What is sent now would pile up in buffers, be repeated, and pile up again.
                    raise self.blocked()
                sent = await self._attempt(link, parcels)
                await self._insist(link, parcels, sent)
            for parcel, outcome in zip(parcels, sent, strict=True):
                if outcome is not Sent.CONFIRMED:
                    self._complain(parcel.queue, f"is not confirmed: {outcome.value}")
        except TimeoutError as error:
            await self.supervisor.doubt()
            raise self._unavailable("did not answer in time") from error
        if all(one is Sent.UNKNOWN for one in sent):
            raise self._unavailable("did not confirm any message")
        return sent

    async def is_blocked(self) -> bool:
        """Whether the server takes no messages now."""
        link = self.supervisor.present
        return link is not None and await link.is_blocked()

    def blocked(self) -> BrokerUnavailableError:
        """Return what to tell those who publish then."""
        return self._unavailable("takes no messages now: it is short of memory or disk")

    def _parcel(self, envelope: Envelope) -> Parcel:
        return Parcel(self._options.topology.queue(envelope.service), envelope.body)

    def _unavailable(self, what: str) -> BrokerUnavailableError:
        return BrokerUnavailableError(f"RabbitMQ at {self._options.where} {what}.")

    async def _insist(self, link: Link, parcels: Sequence[Parcel], sent: list[Sent]) -> None:
        """Send what came back again, at once and then for a while; note in *sent* what became of it.

        Either its queue was deleted, or it is too young: where two declare a new quorum queue at
        the same time, the second is told that it is there before it has a leader, and until then
        it refuses everything; on a busy server that takes a second. A queue for which that was in
        vain, and which has been complained about, is not waited for again in this epoch.
        """
        clock = asyncio.get_running_loop().time
        end, pause = clock() + self._options.timeout * _INSISTING, 0.0
        while again := [item for item, one in enumerate(sent) if one in _CAME_BACK]:
            await asyncio.sleep(pause)
            names = {parcels[item].queue.name for item in again}
            self._known -= names
            repeated = await self._attempt(link, [parcels[item] for item in again])
            for item, outcome in zip(again, repeated, strict=True):
                sent[item] = outcome
            pause = min(pause * 2, _LONGEST) or _PAUSE
            if names <= self._complained or clock() + pause > end:
                return

    async def _attempt(self, link: Link, parcels: Sequence[Parcel]) -> list[Sent]:
        troubles = await self._declare(
            link, {one.queue.name: one.queue for one in parcels}.values()
        )
        good = [one for one in parcels if one.queue.name not in troubles]
        if troubles and not good:
            raise next(iter(troubles.values()))
        for one in parcels:
            if one.queue.name in troubles:
                self._complain(one.queue, f"cannot be sent: {troubles[one.queue.name]}")
        channel = await self._open_channel(link)
        futures = {
            item: channel.publish(one.queue.name, one.body, one.headers)
            for item, one in enumerate(parcels)
            if one.queue.name not in troubles
        }
        late = await self._answers(channel, futures.values())
        if late:
            await self.supervisor.doubt()
        sent = [Sent.UNKNOWN] * len(parcels)
        for item, future in futures.items():
            sent[item] = Sent.UNKNOWN if future in late else future.result()
        if Sent.REFUSED in sent and self._channel is channel:
            # From now on, publish on another one. A channel that was opened while a quorum queue
            # had no leader may be refused for ever: RabbitMQ 3.10 keeps for each channel what it
            # knows of a queue, and goes on by that.
            self._channel = None
        await self._close_spent()
        return sent

    async def _answers(
        self, channel: Channel, futures: Collection[asyncio.Future[Sent]]
    ) -> set[asyncio.Future[Sent]]:
        """Wait for what becomes of those; return the ones that were given up."""
        self._users[channel] += 1
        try:
            _, late = await asyncio.wait(futures, timeout=self._options.timeout * _CONFIRMING)
        finally:
            self._users[channel] -= 1
        for future in late:
            future.cancel()
        return late

    async def _close_spent(self) -> None:
        """Close channels that are given up and that nobody has anything in flight on any more."""
        spent = [one for one, users in self._users.items() if not users]
        for channel in spent:
            if channel is not self._channel:
                del self._users[channel]
                with suppress(PwfError):
                    await channel.close()

    def _complain(self, queue: Queue, what: str) -> None:
        if queue.name not in self._complained:  # once in an epoch
            self._complained.add(queue.name)
            _log.warning("a message for queue %s %s", queue.name, what)

    async def _declare(self, link: Link, queues: Iterable[Queue]) -> dict[str, ConfigurationError]:
        troubles: dict[str, ConfigurationError] = {}
        for queue in queues:
            if queue.name in self._known:
                continue
            try:
                await declare(link, queue)
            except ConfigurationError as error:
                troubles[queue.name] = error
            else:
                self._known.add(queue.name)
        return troubles

    async def _open_channel(self, link: Link) -> Channel:
        async with self._opening:
            if self._channel is None or not self._channel.is_open:
                self._channel = await link.channel(publishes=True)
            return self._channel
