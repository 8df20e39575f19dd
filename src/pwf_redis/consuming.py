"""What the streams broker does, as generators: commands for Redis out, replies in.

Theory of operation. A service's messages are a stream with one consumer group; every open broker is a
consumer with a name of its own, never used again. What was delivered and not acknowledged is in the
group's pending list, in the server and nowhere else:

- `close` hands it back at once;
- of a consumer that died, others take it over once it has lain there for `ABANDONED_MS`.

Messages are short-lived here: `Paired` acknowledges one as soon as the store has answered its claim,
so that a delivery which is older than half a minute has no owner any more. Entries are deleted when
they are acknowledged, and streams are never trimmed.
See https://redis.io/docs/latest/develop/data-types/streams/#consumer-groups.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import attrs

from pwf_core.commands import Message
from pwf_core.errors import CodecError
from pwf_core.names import service_of
from pwf_core.ports import Delivery
from pwf_core.signing import Signer
from pwf_core.steps import Steps
from pwf_core.strangers import Strangers
from pwf_core.wire import decode_messages, encode_messages
from pwf_redis.checks import Facts, check
from pwf_redis.errors import GroupExistsError, NoGroupError
from pwf_redis.keys import Keys
from pwf_redis.rounds import Command, Round, ask, call
from pwf_redis.scripts import PUBLISH, RELEASE, SETTLE, TIDY, WAITING, Script

__all__ = ["ABANDONED_MS", "Consuming"]

logger = logging.getLogger("pwf_redis")

GROUP = "pwf"
ABANDONED_MS = 30_000
LOOK_EVERY = 10.0  # seconds between looks for what the dead have left
_GONE_MS = 600_000  # without a sign of life a consumer that holds nothing is taken off the group
_REJECTED = 1000  # kept for people to look at; older ones go
_CHUNK = 500  # items per script call: bounded weight


@attrs.define
class Consuming:
    """One consumer of one namespace on one server.

    Attributes:
        keys: Where things are.
        facts: What the start-up check found out about the server.
        consumer: This consumer's name in every group.
        signer: Signs messages; None where they are not signed.
        served: Services from which it has received, and which its end concerns.
    """

    keys: Keys
    facts: Facts
    consumer: str
    signer: Signer | None = None
    served: set[str] = attrs.field(factory=set)
    _turn: int = 0
    _last_look: dict[str, float] = attrs.field(factory=dict)
    _strangers: Strangers = attrs.field(
        default=attrs.Factory(
            lambda self: Strangers(logger, f"the list {self.keys.rejected}"), takes_self=True
        ),
        init=False,
    )

    def open(self) -> Steps[Round, None]:
        """Check that the server can carry the promises."""
        yield from check(self.facts)

    def publish(self, messages: Sequence[Message]) -> Steps[Round, list[bool]]:
        """See `Broker.publish`."""
        for first in range(0, len(messages), _CHUNK):
            arguments: list[str | bytes] = []
            for message in messages[first : first + _CHUNK]:
                body = encode_messages([message], self.signer)
                arguments += (service_of(message.address), body)
            yield from self._call(PUBLISH, arguments)
        return [True] * len(messages)

    def receive(
        self,
        services: Sequence[str],
        limit: int,
        now: float,
    ) -> Steps[Round, list[Delivery]]:
        """See `Broker.receive`.

        Args:
            services: Whose messages.
            limit: How many at the most.
            now: Seconds by a clock that never jumps, to know when to look for abandoned ones.
        """
        deliveries: list[Delivery] = []
        self.served.update(services)
        for service in services:
            if len(deliveries) < limit and self._is_time(service, now):
                deliveries += yield from self._take_over(service, limit - len(deliveries))
                yield from self._call(TIDY, (GROUP, service, _GONE_MS))
        waiting = list(services)
        while waiting and len(deliveries) < limit:
            self._turn += 1
            turn = self._turn % len(waiting)
            asked = [*waiting[turn:], *waiting[:turn]][: limit - len(deliveries)]
            count = (limit - len(deliveries)) // len(asked)
            found = yield from self._read(asked, count)
            waiting = [service for service, entries in found.items() if len(entries) == count]
            for service, entries in found.items():
                deliveries += [self._delivery(service, entry) for entry in entries]
        if len(deliveries) == limit:
            # There may be more, for somebody else to look.
            yield Round([one for service in services for one in self._put_token(service)])
        return deliveries

    def _put_token(self, service: str) -> tuple[Command, Command]:
        ready = self.keys.ready(service)
        return ("LPUSH", ready, "1"), ("LTRIM", ready, 0, 0)

    def _is_time(self, service: str, now: float) -> bool:
        last = self._last_look.get(service)
        if last is not None and now - last < LOOK_EVERY:
            return False
        self._last_look[service] = now
        return True

    def _read(self, services: Sequence[str], count: int) -> Steps[Round, dict[str, list[Any]]]:
        streams = [self.keys.stream(service) for service in services]
        # ">" stands for what no consumer of the group was given.
        where = (*streams, *(">" for _ in streams))
        command = ("XREADGROUP", "GROUP", GROUP, self.consumer, "COUNT", str(count), "STREAMS")
        reply = None
        try:
            reply = yield from ask(*command, *where)
        except NoGroupError:
            yield from self._make_groups(streams)
            with suppress(NoGroupError):  # gone again already: the next look makes them
                reply = yield from ask(*command, *where)
        names = {
            stream.encode(): service for stream, service in zip(streams, services, strict=True)
        }
        return {names[stream]: entries for stream, entries in reply or ()}

    def _make_groups(self, streams: Sequence[str]) -> Steps[Round, None]:
        for stream in streams:
            with suppress(GroupExistsError):
                # From the very first entry: "$" would skip what was published before.
                yield from ask("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM")

    def _take_over(self, service: str, limit: int) -> Steps[Round, list[Delivery]]:
        stream = self.keys.stream(service)
        deliveries: list[Delivery] = []
        cursor: bytes | str = "0-0"
        while len(deliveries) < limit:
            try:
                reply = yield from ask(
                    "XAUTOCLAIM",
                    stream,
                    GROUP,
                    self.consumer,
                    ABANDONED_MS,
                    cursor,
                    "COUNT",
                    limit - len(deliveries),
                )
            except NoGroupError:
                break
            cursor, entries = reply[0], reply[1]
            # Redis 6.2 names deleted entries with nothing in them.
            deliveries += [
                self._delivery(service, entry) for entry in entries if entry and entry[1]
            ]
            if cursor == b"0-0":
                break
        return deliveries

    def settle(self, deliveries: Sequence[Delivery], *, reject: bool) -> Steps[Round, None]:
        """See `Broker.ack` and `Broker.reject`."""
        for first in range(0, len(deliveries), _CHUNK):
            arguments: list[str | bytes | int] = [GROUP, _REJECTED if reject else 0]
            for delivery in deliveries[first : first + _CHUNK]:
                assert isinstance(delivery.tag, bytes)
                arguments += (delivery.service, delivery.tag)
            yield from self._call(SETTLE, arguments)
        if reject and deliveries:
            services = ", ".join(sorted({one.service for one in deliveries}))
            self._strangers.note(len(deliveries), services, deliveries[0].problem)

    def close(self) -> Steps[Round, None]:
        """Hand back what was not acknowledged."""
        for service in sorted(self.served):
            while (
                yield from self._call(RELEASE, (GROUP, self.consumer, service, _CHUNK))
            ) == _CHUNK:
                pass
        self.served.clear()
        self._last_look.clear()

    def bells(self, services: Sequence[str]) -> dict[int, list[str]]:
        """Return by slot where tokens come, for one idle consumer each."""
        return {self.keys.slot: [self.keys.ready(service) for service in services]}

    def rung(self, slot: int) -> None:
        """Take note of a token."""

    def has_work(self, services: Sequence[str]) -> Steps[Round, bool]:
        """Say whether a message waits, whatever the tokens say: they can get lost."""
        return bool((yield from self._call(WAITING, (GROUP, *services))))

    def _call(self, script: Script, arguments: Sequence[str | bytes | int]) -> Steps[Round, Any]:
        facts = self.facts
        confirmed = facts.waits_for_disk and script is PUBLISH
        return call(script, self.keys, arguments, flagged=facts.knows_flags, confirmed=confirmed)

    def _delivery(self, service: str, entry: Any) -> Delivery:
        entry_id, fields = entry
        if not fields or fields[0] != b"m":
            return Delivery(service, (), entry_id, problem="the entry has no field 'm'")
        try:
            messages = decode_messages(fields[1], self.signer, service)
        except CodecError as error:
            return Delivery(service, (), entry_id, problem=str(error))
        return Delivery(service, tuple(messages), entry_id)
