"""What the store and the fused backend do, as generators: commands for Redis out, replies in.

Nothing here waits or talks to a server, so the async and the blocking flavour share all of it and
differ only in who performs a `Round`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import attrs
from msgspec.structs import replace

from pwf_core.commands import Answer, Command, Drop, Renew, Reply, Start
from pwf_core.errors import PwfError, StoreFullError
from pwf_core.ids import CallId, RunId
from pwf_core.paired import PURGED, SWEEP
from pwf_core.ports import Applied, Exchanged, Take
from pwf_core.state import Rules
from pwf_core.steps import Steps
from pwf_core.strangers import Strangers
from pwf_core.texts import printable
from pwf_core.views import DeadLetter, RunView
from pwf_redis import codec, records
from pwf_redis.checks import Facts, check
from pwf_redis.codec import Done, Refused
from pwf_redis.errors import NoFunctionError, NotAllowedError
from pwf_redis.keys import UNDECODABLE_MAX, Keys, parse_member
from pwf_redis.layout import Layout, check_format, other_format
from pwf_redis.rounds import Command as RedisCommand
from pwf_redis.rounds import Round, after, ask, call, call_kept, keep, wait_in
from pwf_redis.scripts import DRAIN, EXCHANGE, READ, START, Script

__all__ = ["Operations"]

logger = logging.getLogger("pwf_redis")

_PAGE = 256  # members of an index looked at per round trip
# Fields of a run that are read for people. More would hold up the server; such a run is listed in part.
_LISTED = 4000
_BAD = 64  # things set aside in one call, before somebody should look at the server


@attrs.define
class Operations:
    """Everything that is asked of one namespace on one server.

    Attributes:
        keys: Where things are.
        rules: The deployment's settings.
        facts: What the start-up check found out about the server.
        now_ms: The time to go by; 0 for the server's clock. Tests set theirs.
        layout: What is believed of the namespace.
    """

    keys: Keys
    rules: Rules
    facts: Facts
    now_ms: int = 0
    layout: Layout = attrs.field(
        default=attrs.Factory(lambda self: Layout(self.rules.paired), takes_self=True), init=False
    )
    _strangers: Strangers = attrs.field(
        default=attrs.Factory(
            lambda self: Strangers(logger, f"the list {self.keys.undecodable}"), takes_self=True
        ),
        init=False,
    )

    def open(self) -> Steps[Round, None]:
        """Check that the server can carry the promises."""
        yield from self.check()
        yield from check_format(self.facts.where, self.keys, paired=self.rules.paired)

    def check(self) -> Steps[Round, None]:
        """Check the server, and nothing of the namespace."""
        yield from check(self.facts)

    # -- commands -------------------------------------------------------------------------------

    def apply(
        self, commands: Sequence[Command], *, sweep: int, partly: bool = False
    ) -> Steps[Round, Applied]:
        """See `StateStore.apply`; there is one server, which is reached or not."""
        done = yield from self._exchange(commands, sweep, None)
        return Applied(done.replies, done.enqueued, done.next_due_ms)

    def renew(self, renewals: Sequence[Renew]) -> Steps[Round, list[Reply]]:
        """See `Leases.renew`."""
        done = yield from self._exchange(renewals, 0, None)
        return done.replies

    def exchange(self, commands: Sequence[Command], take: Take) -> Steps[Round, Exchanged]:
        """See `Backend.exchange`."""
        done = yield from self._exchange(commands, SWEEP, take)
        if done.strange:
            self._strangers.note(done.strange, ", ".join(take.services), "they are none of pwf's")
        return Exchanged(done.replies, done.grants, done.next_due_ms)

    def _exchange(
        self,
        commands: Sequence[Command],
        sweep: int,
        take: Take | None,
    ) -> Steps[Round, Done]:
        """Apply *commands*, in order; runs are begun by a script of their own."""
        kinds = {type(command) for command in commands}
        if take is not None or Start not in kinds:
            return (yield from self._judge(EXCHANGE, commands, sweep, take))
        if kinds == {Start} and not sweep:
            return (yield from self._judge(START, commands, 0, None))
        parts = [list(part) for _, part in groupby(commands, _begins_a_run)]
        if sweep and _begins_a_run(parts[0][0]):  # timers come first
            parts.insert(0, [])
        done = Done([], [], [], None, 0)
        for part in parts:
            script = START if part and _begins_a_run(part[0]) else EXCHANGE
            one = yield from self._judge(script, part, sweep if part is parts[0] else 0, None)
            replies, enqueued = done.replies + one.replies, done.enqueued + one.enqueued
            done = replace(one, replies=replies, enqueued=enqueued)
        return done

    def _judge(
        self,
        script: Script,
        commands: Sequence[Command],
        sweep: int,
        take: Take | None,
    ) -> Steps[Round, Done]:
        """Run a script; what it cannot judge is refused or set aside, one by one."""
        left, positions = commands, list(range(len(commands)))
        for _ in range(_BAD):
            done = yield from self._send(script, left, sweep, take)
            if isinstance(done, Done):
                if left is not commands:
                    answered = dict(zip(positions, done.replies, strict=True))
                    done.replies[:] = [
                        answered.get(n, Answer.REFUSED) for n in range(len(commands))
                    ]
                return done
            what = printable(f"{done.name}: {done.problem}")
            logger.error("Set aside %s %s", done.kind, what)
            if done.kind == "command":
                del positions[done.name]
                left = [commands[n] for n in positions]
            else:
                yield from self._set_aside(done)
        raise PwfError(f"Redis holds too much that is not ours under {self.keys.prefix}.")

    def _send(
        self,
        script: Script,
        commands: Sequence[Command],
        sweep: int,
        take: Take | None,
    ) -> Steps[Round, Done | Refused]:
        try:
            return (yield from self._run(script, commands, sweep, take))
        except StoreFullError:
            # What frees memory is let through, so that a full server can be worked empty.
            draining = [one for one in commands if not codec.needs_room(one)]
            if len(draining) == len(commands):
                return (yield from self._run(DRAIN, commands, sweep, take))
            if draining:
                yield from self._run(DRAIN, draining, 0, None)
            raise

    def _run(
        self,
        script: Script,
        commands: Sequence[Command],
        sweep: int,
        take: Take | None,
    ) -> Steps[Round, Done | Refused]:
        arguments = codec.encode_request(
            commands,
            self.rules,
            self.layout.text,
            sweep=sweep,
            take=take,
            now_ms=self.now_ms,
        )
        reply = yield from self._call(script, arguments)
        if reply[0] == codec.OTHER_FORMAT:
            text = reply[1].decode(errors="replace")
            raise other_format(self.facts.where, self.keys, text, paired=self.rules.paired)
        return codec.decode_reply(reply, commands, take)

    def _call(self, script: Script, arguments: Sequence[bytes]) -> Steps[Round, Any]:
        facts = self.facts
        confirmed = facts.waits_for_disk and script is not READ
        if script.is_kept and facts.keeps_functions:
            try:
                return (yield from call_kept(script, self.keys, arguments, confirmed=confirmed))
            except NoFunctionError:
                yield from self._keep(script)
            except NotAllowedError as error:
                self._do_without(error)
        return (
            yield from call(
                script, self.keys, arguments, flagged=facts.knows_flags, confirmed=confirmed
            )
        )

    def _keep(self, script: Script) -> Steps[Round, None]:
        """Have it kept for the next time; this time it runs as such, whoever flushes meanwhile."""
        try:
            yield from keep(script)
        except NotAllowedError as error:
            self._do_without(error)

    def _do_without(self, error: NotAllowedError) -> None:
        logger.info("Scripts are not kept as functions, so they take a little longer: %s", error)
        self.facts.keeps_functions = False

    def _set_aside(self, refused: Refused) -> Steps[Round, None]:
        if refused.kind == "timer":
            remove: list[RedisCommand] = [("ZREM", self.keys.due, refused.name)]
            note = b"timer " + refused.name
        else:
            service, entry, message = refused.name
            queue = self.keys.queue(service)
            found = yield from ask("XRANGE", queue, entry, entry)
            others = [one for _, fields in found for one in _messages(fields) if one != message]
            remove = [("XADD", queue, "*", "m", one) for one in others]
            remove.append(("XDEL", queue, entry))
            note = f"message {service} ".encode() + entry + b" " + message
        yield Round(
            [
                *remove,
                ("LPUSH", self.keys.undecodable, note + b" " + refused.problem.encode()),
                ("LTRIM", self.keys.undecodable, 0, UNDECODABLE_MAX - 1),
            ],
        )

    # -- reading --------------------------------------------------------------------------------

    def read(self, run_ids: Sequence[RunId]) -> Steps[Round, list[RunView | None]]:
        """See `Backend.read`. Of a run with thousands of open calls, only some are listed."""
        if not run_ids:
            return []
        arguments = [str(_LISTED).encode(), *(run_id.encode() for run_id in run_ids)]
        replies = yield from self._call(READ, arguments)
        return [
            records.view_of(run_id, reply) if reply else None
            for run_id, reply in zip(run_ids, replies, strict=True)
        ]

    def runs_of(self, keys: Sequence[str]) -> Steps[Round, list[tuple[RunId, str] | None]]:
        """Return run and fingerprint of each user's key; None for one that is not known."""
        found = yield Round([("GET", self.keys.key(key)) for key in keys])
        pairs = [one.decode().partition(":") if one is not None else None for one in found]
        return [(RunId(pair[0]), pair[2]) if pair is not None else None for pair in pairs]

    def dead_letters(self, service: str | None, limit: int) -> Steps[Round, list[DeadLetter]]:
        """See `Backend.dead_letters`."""
        letters: list[DeadLetter] = []
        start = 0
        while len(letters) < limit:
            page = yield from ask(
                "ZRANGE", self.keys.dead, start, start + _PAGE - 1, "WITHSCORES",
            )  # fmt: skip
            if not page:
                break
            start += len(page) // 2
            found = [
                (*parse_member(page[n])[:2], int(float(page[n + 1])))
                for n in range(0, len(page), 2)
                if service in {None, parse_member(page[n])[2]}
            ][: limit - len(letters)]
            if found:
                letters += yield from self._letters(found)
        return letters

    def _letters(
        self, found: Sequence[tuple[RunId, CallId, int]]
    ) -> Steps[Round, list[DeadLetter]]:
        rows = yield Round(
            [
                ("HMGET", self.keys.run(run_id), f"c:{call_id}", f"b:{call_id}", f"y:{call_id}")
                for run_id, call_id, _ in found
            ],
        )
        letters = []
        for (run_id, call_id, died_ms), (record, body, reason) in zip(found, rows, strict=True):
            if record is None:
                continue  # revived or deleted just now
            call = records.decode_call(record, body or b"", reason)
            letters.append(
                DeadLetter(
                    run_id=run_id,
                    call_id=call_id,
                    address=call.address,
                    attempts=call.attempts,
                    reason=call.reason,
                    body=call.body,
                    died_ms=died_ms,
                ),
            )
        return letters

    def purge_waiting(self, service: str) -> Steps[Round, int]:
        """See `StateStore.purge`."""
        waiting = yield from self._waiting(service)
        return (yield from self._drop(waiting))

    # -- queues (fused) -------------------------------------------------------------------------

    def bells(self, services: Sequence[str]) -> dict[int, list[str]]:
        """Return by slot where tokens come, for one idle worker each."""
        return {self.keys.slot: [self.keys.wake(service) for service in services]}

    def rung(self, slot: int) -> None:
        """Take note of a token."""

    def channel(self, run_id: RunId) -> tuple[int, str]:
        """Return slot and channel where it is told how a run has ended."""
        return self.keys.slot, self.keys.done(run_id)

    @property
    def partitions(self) -> int:
        """See `Capabilities`."""
        return self.layout.size

    def listen(self, take: Take, seconds: float) -> Steps[Round, Exchanged]:
        """Wait for a token, and make an exchange in the same round trip, whether one came or not."""
        (names,) = self.bells(take.services).values()
        return (yield from after(wait_in(names, seconds), self.exchange([], take)))

    def has_work(self, services: Sequence[str]) -> Steps[Round, bool]:
        """Say whether a message waits, whatever the tokens say: they can get lost."""
        lengths = yield Round([("XLEN", self.keys.queue(service)) for service in services])
        return any(lengths)

    def purge(self, service: str) -> Steps[Round, int]:
        """See `Backend.purge`."""
        queue = self.keys.queue(service)
        waiting = yield from self._waiting(service)
        newest = yield from ask("XREVRANGE", queue, "+", "-", "COUNT", 1)
        count = 0
        # Up to what was the newest: what follows from a drop comes after it, and is not to be dropped.
        while newest and (
            entries := (yield from ask("XRANGE", queue, "-", newest[0][0], "COUNT", _PAGE))
        ):
            count += yield from self._drop([name for one in entries for name in _names(one)])
            yield from ask("XDEL", queue, *(entry_id for entry_id, _ in entries))
        return count + (yield from self._drop(waiting))

    def _waiting(self, service: str) -> Steps[Round, list[tuple[RunId, CallId]]]:
        """Return the calls of *service* that are due at some time, in that order."""
        waiting: list[tuple[RunId, CallId]] = []
        start = 0
        while page := (yield from ask("ZRANGE", self.keys.due, start, start + _PAGE - 1)):
            names = [parse_member(member) for member in page]
            waiting += [(run, call) for run, call, of in names if of == service and call]
            start += len(page)
        return waiting

    def _drop(self, names: Sequence[tuple[RunId, CallId]]) -> Steps[Round, int]:
        count = 0
        for first in range(0, len(names), _PAGE):
            drops = [
                Drop(run_id, call_id, dead=False, reason=PURGED)
                for run_id, call_id in names[first : first + _PAGE]
            ]
            done = yield from self._exchange(drops, 0, None)
            replies: list[Reply] = done.replies
            count += replies.count(Answer.DONE)
        return count


def _begins_a_run(command: Command) -> bool:
    return type(command) is Start


def _messages(fields: Sequence[bytes]) -> list[bytes]:
    """Return the messages of a stream entry."""
    return [fields[n + 1] for n in range(0, len(fields), 2) if fields[n] == b"m"]


def _names(entry: Any) -> list[tuple[RunId, CallId]]:
    """Return the calls that a stream entry names; none if it is not one of ours."""
    names = []
    for message in _messages(entry[1] or ()):
        with suppress(UnicodeDecodeError):
            parts = message.decode().split(":")
            if len(parts) == 3:  # noqa: PLR2004 -- run, call, generation
                names.append((RunId(parts[0]), CallId(parts[1])))
    return names
