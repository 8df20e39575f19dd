"""A batch of commands as one script call, and the script's reply as core values.

Commands travel as one msgpack blob (shapes: `lua/request.lua` says where), payloads beside it as arguments
of their own, which commands name by number: they are copied once, and Redis's msgpack, which knows
no binary type, never sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from pwf_core.commands import (
    Answer,
    Bury,
    Cancel,
    Claim,
    Collect,
    Command,
    Commit,
    Drop,
    Emit,
    Fire,
    Granted,
    Message,
    Page,
    Postpone,
    Postponement,
    Renew,
    Reply,
    Requeue,
    Settle,
    Stage,
    Start,
    Started,
)
from pwf_core.decisions import Decision, NewCall
from pwf_core.ids import CallId, ClaimId, RunId, session_of
from pwf_core.ports import Take
from pwf_core.state import Rules
from pwf_core.transition import SUSPECT_LOST
from pwf_redis.keys import KEY_GRACE_MS

__all__ = ["OTHER_FORMAT", "Done", "Refused", "decode_reply", "encode_request", "needs_room"]

# How a reply begins when the script has done nothing, because the namespace has another format.
OTHER_FORMAT = 2
# Positions are the numbers that the script answers with.
ANSWERS = (
    Answer.DONE,
    Answer.ENDED,
    Answer.LOST,
    Answer.BUSY,
    Answer.STALE,
    Answer.DEFERRED,
    Answer.REFUSED,
)
_TIMED, _PARKED = 4, 5  # phases, as lua/request.lua numbers them
# A commit that makes one call at the most, and brings no more than this, frees about what it takes.
_SMALL = 4096

_GRANT = 10  # values of a grant

_encoder = msgspec.msgpack.Encoder()


class Done(Struct, frozen=True):
    """What a script call came to.

    Attributes:
        replies: One per command.
        grants: Calls taken.
        enqueued: Copies that want to be published (paired).
        next_due_ms: Until the earliest timer; None without one.
        strange: How many messages of strangers were set aside.
    """

    replies: list[Reply]
    grants: list[Granted]
    enqueued: list[Message]
    next_due_ms: int | None
    strange: int


class Refused(Struct, frozen=True):
    """A script call that did nothing, because one thing in it could not be judged.

    Attributes:
        kind: "command", "timer" or "message".
        name: Which: the command's position, the timer's member, or (service, entry id, message).
        problem: The server's words.
    """

    kind: str
    name: Any
    problem: str


def encode_request(
    commands: Sequence[Command],
    rules: Rules,
    format_: str,
    *,
    sweep: int,
    take: Take | None = None,
    now_ms: int = 0,
) -> list[bytes]:
    """Return the arguments of `lua/exchange.lua`."""
    arguments = [b""]
    values: list[object] = [
        now_ms,
        format_,
        rules.paired,
        rules.retention_ms,
        rules.dead_retention_ms,
        KEY_GRACE_MS,
        len(commands),
    ]
    for command in commands:
        _ENCODERS[type(command)](command, values, arguments)
    values.append(sweep)
    values += _NO_TAKE if take is None else _take(take)
    arguments[0] = _bare(values)
    return arguments


def _bare(values: list[object]) -> bytes:
    """Return *values* as msgpack, one after the other: a list without its header."""
    header = 1 if len(values) < 16 else 3 if len(values) < 1 << 16 else 5  # noqa: PLR2004 -- msgpack's own
    return _encoder.encode(values)[header:]


def needs_room(command: Command) -> bool:
    """Whether *command* may take more memory in the store than it frees."""
    match command:
        case Start() | Emit() | Stage():
            return True
        case Commit(decision=decision):
            return (
                bool(decision.joins or decision.gathers)
                or len(decision.calls) > 1
                or _weight(decision) > _SMALL
            )
        case _:
            return False


def _weight(decision: Decision) -> int:
    payloads = [call.body for call in decision.calls]
    payloads += [payload for _, payload in decision.emits]
    payloads.append(decision.result or b"")
    return sum(map(len, payloads))


# -- commands -------------------------------------------------------------------------------------

# Each appends nine values, the last of them filling up.
_Values: TypeAlias = list[Any]
_NO_TAKE = ("", "", 0, False, 0, ())


def _words(reason: str) -> str:
    # A traceback may hold lone surrogates, which have no UTF-8.
    return reason.encode(errors="backslashreplace").decode()


def _take(take: Take) -> tuple[object, ...]:
    services = take.services
    session = session_of(take.claim_id)
    number = take.claim_id[len(session) + 1 :]
    if len(services) > 1 and number.isdecimal():
        turn = int(number) % len(services)  # every exchange begins with another one
        services = (*services[turn:], *services[:turn])
    return (session, take.claim_id, take.lease_ms, take.suspects, take.limit, services)


def _new(call: NewCall, values: _Values, arguments: list[bytes]) -> None:
    arguments.append(call.body)
    values += (call.call_id, call.address, len(arguments), call.delay_ms, call.due_ms)


def _start(one: Start, values: _Values, arguments: list[bytes]) -> None:
    values += (1, one.run_id)
    _new(one.call, values, arguments)
    values += (one.key, one.fingerprint)


def _claim(one: Claim, values: _Values, _: list[bytes]) -> None:
    values += (2, one.run_id, one.call_id, one.generation, one.claim_id, one.lease_ms)
    values += (one.suspects, 0, 0)


def _renew(one: Renew, values: _Values, _: list[bytes]) -> None:
    values += (3, one.run_id, one.call_id, one.claim_id, one.lease_ms, 0, 0, 0, 0)


def _commit(one: Commit, values: _Values, arguments: list[bytes]) -> None:
    decision = one.decision
    result: object = 0
    if decision.result is not None:
        arguments.append(decision.result)
        result = len(arguments)  # Lua counts from 1
    if decision.chunks:
        result = (result, decision.chunks, decision.staged)
    values += (
        4,
        one.run_id,
        one.call_id,
        one.claim_id,
        result,
        len(decision.emits),
        len(decision.joins),
        len(decision.gathers),
        len(decision.calls),
    )
    for event, payload in decision.emits:
        arguments.append(payload)
        values += (event, len(arguments))
    for join in decision.joins:
        _new(join.then, values, arguments)
        values += (join.events, join.external, join.timeout_ms, _late(join.late, arguments))
    for gather in decision.gathers:
        _new(gather.then, values, arguments)
        values += (len(gather.members), gather.tolerated, gather.staged)
        for call in gather.members:
            _new(call, values, arguments)
    for call in decision.calls:
        _new(call, values, arguments)


def _stage(one: Stage, values: _Values, arguments: list[bytes]) -> None:
    values += (13, one.run_id, one.call_id, one.claim_id, one.number, len(one.calls), 0, 0, 0)
    for staged in one.calls:
        _new(staged.call, values, arguments)
        values += (staged.gather, staged.member)


def _collect(one: Collect, values: _Values, _: list[bytes]) -> None:
    values += (14, one.run_id, one.call_id, one.claim_id, one.first, 0, 0, 0, 0)


def _late(call: NewCall | None, arguments: list[bytes]) -> object:
    if call is None:
        return False
    values: _Values = []
    _new(call, values, arguments)
    return values


def _postpone(one: Postpone, values: _Values, _: list[bytes]) -> None:
    counts = one.kind is Postponement.RETRY
    phase = _PARKED if one.kind is Postponement.PARK else _TIMED
    values += (5, one.run_id, one.call_id, one.claim_id, counts, phase, one.delay_ms)
    values += (_words(one.reason), 0)


def _bury(one: Bury, values: _Values, _: list[bytes]) -> None:
    values += (6, one.run_id, one.call_id, one.claim_id, _words(one.reason), 0, 0, 0, 0)


def _emit(one: Emit, values: _Values, arguments: list[bytes]) -> None:
    arguments.append(one.payload)
    values += (7, one.run_id, one.event, len(arguments), 0, 0, 0, 0, 0)


def _settle(one: Settle, values: _Values, _: list[bytes]) -> None:
    values += (8, one.run_id, one.call_id, one.generation, 0, 0, 0, 0, 0)


def _fire(one: Fire, values: _Values, _: list[bytes]) -> None:
    values += (9, one.run_id, one.call_id, 0, 0, 0, 0, 0, 0)


def _requeue(one: Requeue, values: _Values, _: list[bytes]) -> None:
    values += (10, one.run_id, one.call_id, 0, 0, 0, 0, 0, 0)


def _drop(one: Drop, values: _Values, _: list[bytes]) -> None:
    values += (11, one.run_id, one.call_id, one.dead, _words(one.reason), 0, 0, 0, 0)


def _cancel(one: Cancel, values: _Values, _: list[bytes]) -> None:
    values += (12, one.run_id, _words(one.reason), 0, 0, 0, 0, 0, 0)


_ENCODERS: dict[type, Callable[[Any, _Values, list[bytes]], None]] = {
    Start: _start,
    Claim: _claim,
    Renew: _renew,
    Commit: _commit,
    Postpone: _postpone,
    Bury: _bury,
    Emit: _emit,
    Settle: _settle,
    Fire: _fire,
    Requeue: _requeue,
    Drop: _drop,
    Cancel: _cancel,
    Stage: _stage,
    Collect: _collect,
}


# -- replies --------------------------------------------------------------------------------------


def decode_reply(reply: Any, commands: Sequence[Command], take: Take | None) -> Done | Refused:
    """Return what `lua/exchange.lua` answered, unless that is `OTHER_FORMAT`."""
    if reply[0]:
        return _refused(reply)
    _, replies, grants, enqueued, next_due_ms, strange = reply
    claim_id = take.claim_id if take is not None else ClaimId("")
    return Done(
        [
            ANSWERS[one] if type(one) is int else _value(one, command)
            for one, command in zip(replies, commands, strict=True)
        ],
        [_granted(grants[n : n + _GRANT], claim_id) for n in range(0, len(grants), _GRANT)],
        [
            Message(RunId(one[0].decode()), CallId(one[1].decode()), one[2], one[3].decode())
            for one in enqueued
        ],
        next_due_ms if next_due_ms >= 0 else None,
        strange,
    )


def _refused(reply: Any) -> Refused:
    _, kind, name, problem = reply
    if kind == b"command":
        name -= 1
    elif kind == b"message":
        name = (name[0].decode(), name[1], name[2])
    return Refused(kind.decode(), name, problem.decode(errors="replace"))


def _value(one: Any, command: Command) -> Reply:
    if isinstance(command, Claim):
        return _granted(one, command.claim_id)
    if isinstance(command, Collect):
        return Page(one)
    run_id, created, conflict = one
    return Started(RunId(run_id.decode()), created=created == 1, conflict=conflict == 1)


def _granted(one: Any, claim_id: ClaimId) -> Granted:
    run_id, call_id, generation, address, body, attempts, lost, events, results, uncollected = one
    return Granted(
        RunId(run_id.decode()),
        CallId(call_id.decode()),
        claim_id,
        generation,
        address.decode(),
        body,
        attempts,
        attempts - 1 - lost,
        lost >= SUSPECT_LOST,
        {events[n].decode(): events[n + 1] for n in range(0, len(events), 2)} if events else {},
        results,
        uncollected,
    )
