"""What the scripts store, read by Python: for people who look at runs, and for tests.

Records are msgpack values one after the other; `lua/request.lua` names their positions. Those that a
later version of the same format appends are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec

from pwf_core.decisions import NewCall, StagedCall
from pwf_core.errors import CodecError
from pwf_core.ids import CallId, ClaimId, RunId
from pwf_core.state import Call, Join, Rest, RunState, Scope
from pwf_core.views import CallView, JoinView, Outcome, Phase, RunView, Status

__all__ = ["decode_call", "decode_run", "outcome_of", "view_of"]

STATUSES = (
    Status.RUNNING,
    Status.WAITING,
    Status.STALLED,
    Status.FINISHED,
    Status.FAILED,
    Status.CANCELLED,
)
PHASES = (Phase.OUTBOX, Phase.QUEUED, Phase.LEASED, Phase.TIMED, Phase.PARKED, Phase.DEAD)


_FORMAT = 1
_APPENDED = 16  # values that a later version may append


class _Header(msgspec.Struct, array_like=True):
    format: int
    status: int
    pending: int
    live: int
    dead: int
    dropped: int
    external: int
    due_ms: int
    events: int
    timed: int
    rests: tuple[str, ...]


class _Call(msgspec.Struct, array_like=True):
    phase: int
    generation: int
    attempts: int
    lost: int
    due_ms: int
    claim_id: str
    address: str
    scope: str
    member: int
    gathered: int
    joined: tuple[str, ...]
    reason: int
    unclaimed: int
    body: msgspec.Raw  # false if it has a field of its own
    chunks: int


class _Join(msgspec.Struct, array_like=True):
    address: str
    delay_ms: int
    at_ms: int
    scope: str
    member: int
    body: msgspec.Raw
    events: tuple[str, ...]
    external: tuple[str, ...]
    before: tuple[str, ...]
    missing: int
    outside: int
    due_ms: int
    late: msgspec.Raw  # false, or a `_Late`
    lapsed: bool


class _Rest(msgspec.Struct, array_like=True):
    address: str
    due_ms: int
    scope: str
    member: int
    chunk: int
    chunks: int
    results: int
    gathers: tuple[str, ...]


class _Staged(msgspec.Struct):
    call_id: msgspec.Raw
    address: msgspec.Raw
    body: msgspec.Raw
    delay_ms: msgspec.Raw
    due_ms: msgspec.Raw
    gather: msgspec.Raw
    member: msgspec.Raw


class _Late(msgspec.Struct, array_like=True):
    call_id: str
    address: str
    delay_ms: int
    due_ms: int
    body: msgspec.Raw


class _Scope(msgspec.Struct, array_like=True):
    address: str
    delay_ms: int
    at_ms: int
    scope: str
    member: int
    body: msgspec.Raw
    size: int
    tolerated: int
    failed: int
    lost: bool
    pending: int


T = TypeVar("T")

_FALSE = b"\xc2"
_HEADERS = {0xD9: 2, 0xDA: 3, 0xDB: 5}  # bytes before a string's own, by the first; else 1


class _Decoder(Generic[T]):
    """Reads a record: msgpack values one after the other, which are an array without its header."""

    def __init__(self, type_: type[T]) -> None:
        self._decoder = msgspec.msgpack.Decoder(type_)
        self._size = len(msgspec.structs.fields(type_))  # type: ignore[arg-type]  # always a Struct

    def decode(self, record: bytes) -> T:
        try:
            return self._decoder.decode(_array(self._size) + record)
        except msgspec.DecodeError as error:
            for size in range(self._size + 1, self._size + 1 + _APPENDED):
                with suppress(msgspec.DecodeError):
                    return self._decoder.decode(_array(size) + record)
            raise error from None


def _array(size: int) -> bytes:
    return b"\xdc" + size.to_bytes(2, "big")


class _HeaderDecoder(_Decoder[_Header]):
    def decode(self, record: bytes) -> _Header:
        header = super().decode(record)
        if header.format != _FORMAT:
            raise msgspec.ValidationError(f"format {header.format} is not known, only {_FORMAT}")
        return header


_header = _HeaderDecoder(_Header)
_call = _Decoder(_Call)
_join = _Decoder(_Join)
_scope = _Decoder(_Scope)
_rest = _Decoder(_Rest)
_part = msgspec.msgpack.Decoder(list[msgspec.Raw])
_number = msgspec.msgpack.Decoder(int)
_late = msgspec.msgpack.Decoder(_Late)


def _text(data: bytes | None) -> str:
    return data.decode(errors="replace") if data else ""


def _call_id(data: bytes) -> CallId:
    return CallId(data.decode())


def _payload(raw: msgspec.Raw, field: bytes) -> bytes:
    """Return the bytes of a msgpack string, which may be anything; *field* if it is false."""
    data = bytes(raw)
    if data == _FALSE:
        return field
    return data[_HEADERS.get(data[0], 1) :]


def decode_call(record: bytes, body: bytes = b"", reason: bytes | None = None) -> Call:
    """Return an open call.

    Args:
        record: Its record.
        body: Its body, should it have a field of its own.
        reason: Its last error.

    Raises:
        CodecError: If *record* is not one.
    """
    try:
        raw = _call.decode(record)
        phase = PHASES[raw.phase - 1]
    except (msgspec.MsgspecError, ValueError, IndexError) as error:
        raise CodecError("Stored call", str(error)) from error
    return Call(
        address=raw.address,
        body=_payload(raw.body, body),
        scope=CallId(raw.scope),
        member=raw.member,
        phase=phase,
        generation=raw.generation,
        attempts=raw.attempts,
        lost=raw.lost,
        due_ms=raw.due_ms or None,
        claim_id=ClaimId(raw.claim_id),
        joined=raw.joined,
        gathered=raw.gathered,
        reason=_text(reason),
        unclaimed=raw.unclaimed,
        chunks=raw.chunks,
    )


def outcome_of(message: bytes) -> Outcome:
    """Return what was told on the channel of a run: status, whether there is a result, reason, result.

    Raises:
        CodecError: If *message* is not that.
    """
    try:
        status, has_result = STATUSES[message[0] - 1], message[1]
        end = 6 + int.from_bytes(message[2:6], "big")
    except IndexError as error:
        raise CodecError("Outcome of a run", str(error)) from error
    return Outcome(status, message[end:] if has_result else None, _text(message[6:end]))


def view_of(run_id: RunId, reply: Sequence[object]) -> RunView:
    """Return a run as people see it, from the reply of `lua/read.lua`.

    Raises:
        CodecError: If the records are not ours.
    """
    header, reason, result, calls, joins, events = _narrow(reply)
    names = tuple(sorted(name.decode() for name in events))
    try:
        status = STATUSES[_header.decode(header).status - 1]
        found = [(_call_id(joins[n]), _join.decode(joins[n + 1])) for n in range(0, len(joins), 2)]
    except (msgspec.MsgspecError, ValueError, IndexError) as error:
        raise CodecError("Stored run", str(error)) from error
    return RunView(
        run_id=run_id,
        outcome=Outcome(status, result, _text(reason)),
        calls=tuple(
            _call_view(_call_id(calls[n] or b""), calls[n + 1] or b"", calls[n + 2])
            for n in range(0, len(calls), 3)
        ),
        joins=tuple(
            JoinView(join_id, join.address, tuple(one for one in join.events if one not in names))
            for join_id, join in sorted(found, key=lambda item: item[0])
            if not join.lapsed
        ),
        events=names,
    )


def _narrow(
    reply: Sequence[object],
) -> tuple[bytes, bytes | None, bytes | None, list[bytes | None], list[bytes], list[bytes]]:
    header, reason, result, calls, joins, events = reply[:6]
    assert isinstance(header, bytes)
    assert isinstance(reason, bytes | None)
    assert isinstance(result, bytes | None)
    assert isinstance(calls, list)
    assert isinstance(joins, list)
    assert isinstance(events, list)
    return header, reason, result, calls, joins, events


def _call_view(call_id: CallId, record: bytes, reason: bytes | None) -> CallView:
    call = decode_call(record, reason=reason)
    return CallView(
        call_id=call_id,
        address=call.address,
        phase=call.phase,
        generation=call.generation,
        attempts=call.attempts,
        lost=call.lost,
        due_ms=call.due_ms,
        reason=call.reason,
    )


def decode_run(run_id: RunId, fields: Mapping[bytes, bytes]) -> RunState:
    """Return a whole run, from all fields of its hash: the state that the reference would have."""
    header = _header.decode(fields[b"h"])
    run = RunState(
        run_id=run_id,
        key=_text(fields.get(b"k")),
        status=STATUSES[header.status - 1],
        pending=header.pending,
        live=header.live,
        dead=header.dead,
        dropped=header.dropped,
        external=header.external,
        timed=header.timed,
        reason=_text(fields.get(b"y")),
        due_ms=header.due_ms or None,
    )
    before: dict[CallId, dict[str, CallId]] = {}
    newest: dict[str, CallId] = {}
    for field, value in fields.items():
        kind, name = field[:2], field[2:]
        body = fields.get(b"b:" + name, b"")
        match kind:
            case b"c:":
                call = decode_call(value, body, fields.get(b"y:" + name))
                run.calls[_call_id(name)] = call
            case b"e:":
                run.events[name.decode()] = value
            case b"j:":
                join = _join.decode(value)
                run.joins[_call_id(name)] = _to_join(join, body, fields)
                before[_call_id(name)] = dict(
                    zip(join.events, map(CallId, join.before), strict=True),
                )
            case b"w:":
                newest[name.decode()] = _call_id(value)
            case b"s:":
                run.scopes[_call_id(name)] = _to_scope(_scope.decode(value), body)
            case b"r:":
                scope, _, member = name.rpartition(b":")
                run.results[_call_id(scope), int(member)] = value
            case b"n:":
                run.rests[_call_id(name)] = _to_rest(_rest.decode(value))
            case b"u:":
                call_id, _, number = name.rpartition(b":")
                run.staged[_call_id(call_id), int(number)] = _to_staged(value)
    for event, join_id in newest.items():
        chain = run.waiting[event] = []
        while join_id:
            chain.insert(0, join_id)
            join_id = before[join_id][event]  # noqa: PLW2901 -- a linked list is walked
    return run


def _to_rest(raw: _Rest) -> Rest:
    return Rest(
        address=raw.address,
        due_ms=raw.due_ms,
        scope=CallId(raw.scope),
        member=raw.member,
        gathers=tuple(map(CallId, raw.gathers)),
        chunk=raw.chunk,
        chunks=raw.chunks,
        results=raw.results,
    )


def _to_staged(record: bytes) -> tuple[StagedCall, ...]:
    values = _part.decode(record)
    calls = [_Staged(*values[n : n + 7]) for n in range(0, len(values), 7)]
    return tuple(
        StagedCall(
            NewCall(
                CallId(_text(_payload(one.call_id, b""))),
                _text(_payload(one.address, b"")),
                _payload(one.body, b""),
                _number.decode(one.delay_ms),
                _number.decode(one.due_ms),
            ),
            _number.decode(one.gather),
            _number.decode(one.member),
        )
        for one in calls
    )


def _to_late(raw: msgspec.Raw, fields: Mapping[bytes, bytes]) -> NewCall | None:
    if bytes(raw) == _FALSE:
        return None
    late = _late.decode(raw)
    body = _payload(late.body, fields.get(f"b:{late.call_id}".encode(), b""))
    return NewCall(CallId(late.call_id), late.address, body, late.delay_ms, late.due_ms)


def _to_join(raw: _Join, body: bytes, fields: Mapping[bytes, bytes]) -> Join:
    return Join(
        address=raw.address,
        body=_payload(raw.body, body),
        delay_ms=raw.delay_ms,
        at_ms=raw.at_ms,
        scope=CallId(raw.scope),
        member=raw.member,
        events=raw.events,
        external=raw.external,
        missing=raw.missing,
        outside=raw.outside,
        due_ms=raw.due_ms or None,
        late=_to_late(raw.late, fields),
        lapsed=raw.lapsed,
    )


def _to_scope(raw: _Scope, body: bytes) -> Scope:
    return Scope(
        address=raw.address,
        body=_payload(raw.body, body),
        delay_ms=raw.delay_ms,
        at_ms=raw.at_ms,
        scope=CallId(raw.scope),
        member=raw.member,
        size=raw.size,
        tolerated=raw.tolerated,
        failed=raw.failed,
        lost=raw.lost,
        pending=raw.pending,
    )
