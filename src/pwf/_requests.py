"""What a client asks and how it reads the answers; the same for both flavours, and sans-IO."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from hashlib import blake2b
from typing import Any

from pwf._ids import new_run_id
from pwf_core import values
from pwf_core.arguments import SHOWN
from pwf_core.commands import Cancel, Drop, Emit, Reply, Requeue, Start, Started
from pwf_core.decide import new_call
from pwf_core.directives import Publish, emit
from pwf_core.errors import (
    ConfigurationError,
    DirectiveError,
    KeyConflictError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    RunStalledError,
)
from pwf_core.events import Event
from pwf_core.ids import RunId, root_call_id
from pwf_core.names import check_name
from pwf_core.views import DeadLetter, Outcome, RunView, Status

__all__ = [
    "BATCH",
    "check_listing",
    "check_run_id",
    "make_cancel",
    "make_discard",
    "make_emit",
    "make_requeue",
    "make_start",
    "make_starts",
    "outcome_of",
    "raise_for",
    "read_started",
    "seconds",
    "value_of",
]

BATCH = 128  # commands per round trip: past that a script call only gets longer, not cheaper

# Of a key or a run id: enough for a few UUIDs or a URL, and short beside what a run holds anyway.
MAX_KEY = 1024
_LONGEST = timedelta.max.total_seconds()
_JOINS_NAMED = 3  # in the reason of a stalled run; more would bury the first


def make_start(
    first: Publish, key: str | None, run_id: RunId | None = None, *, partitions: int = 1
) -> Start:
    """Return the command that starts a run with *first*, by a new id if none is given.

    *partitions* are those of the backend, see `Capabilities`.

    Raises:
        DirectiveError: If *first* is no `publish(...)`, or *key* cannot be a key.
    """
    if not isinstance(first, Publish):
        raise DirectiveError(f"start() takes a publish(...) value, not {first!r}.")
    if key is not None:
        _check_text(key, "A key")
    run_id = run_id or new_run_id(key or "", partitions)
    call = new_call(root_call_id(run_id, first.address), first)
    fingerprint = ""
    if key:
        fingerprint = blake2b(
            first.address.encode() + b"\0" + first.body, digest_size=16
        ).hexdigest()
    return Start(run_id, call, key or "", fingerprint)


def read_started(start: Start, reply: Reply) -> RunId:
    """Return the run that a start came to.

    Raises:
        KeyConflictError: If its key belongs to a start with another task or arguments.
    """
    assert isinstance(reply, Started)
    if reply.conflict:
        raise KeyConflictError(start.key, reply.run_id)
    return reply.run_id


def make_emit(run_id: str, event: Event[Any] | str, payload: object) -> Emit:
    """Return the command that emits *event* from outside.

    Raises:
        CodecError: If *payload* is not of the event's type, or has no encoding.
        DefinitionError: If no event can have that name.
        DirectiveError: If *event* is neither an event nor a name, or no run can have that id.
    """
    made = emit(event, payload)
    return Emit(check_run_id(run_id), made.event, made.payload)


def check_run_id(run_id: object) -> RunId:
    """Return *run_id* if a run may have it; whether one does, the backend knows.

    Raises:
        DirectiveError: If it is no text, or none that could be sent.
    """
    return RunId(_check_text(run_id, "A run id"))


def make_cancel(run_id: RunId, reason: str) -> Cancel:
    """Return the command that ends a run as cancelled.

    Raises:
        ConfigurationError: If *reason* is no text.
    """
    if not isinstance(reason, str):
        raise ConfigurationError(f"cancel(reason=) is a string, not {reason!r}.")
    return Cancel(run_id, f"cancelled: {reason}" if reason else "cancelled")


def make_requeue(letter: DeadLetter) -> Requeue:
    """Return the command that runs a dead letter again.

    Raises:
        ConfigurationError: If *letter* is none.
    """
    _check_letter(letter, "requeue")
    return Requeue(letter.run_id, letter.call_id)


def make_discard(letter: DeadLetter) -> Drop:
    """Return the command that gives a dead letter up.

    Raises:
        ConfigurationError: If *letter* is none.
    """
    _check_letter(letter, "discard")
    return Drop(letter.run_id, letter.call_id, dead=True, reason="discarded")


def check_listing(service: str | None, limit: int) -> None:
    """Check what dead letters are listed by.

    Raises:
        DefinitionError: If *service* cannot be one.
        ConfigurationError: If *limit* is no number above 0.
    """
    if service is not None:
        check_name(service, "service")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ConfigurationError(f"dead_letters(limit=) is a whole number above 0, not {limit!r}.")


def seconds(timeout: float | timedelta | None) -> float | None:
    """Return a time-out in seconds; None stays None.

    Raises:
        ConfigurationError: If it is something else than a time span of 0 or more.
    """
    if timeout is None:
        return None
    limit = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(limit, bool) or not (isinstance(limit, int | float) and 0 <= limit <= _LONGEST):
        raise ConfigurationError(
            "timeout= takes a number of seconds from 0, a timedelta, or None to wait for ever; "
            f"not {timeout!r}.",
        )
    return limit


def outcome_of(run_id: RunId, view: RunView | None) -> Outcome:
    """Return how the run stands, with a reason made for people.

    Raises:
        RunNotFoundError: If there is no such run.
    """
    if view is None:
        raise RunNotFoundError(run_id)
    outcome = view.outcome
    if outcome.status is not Status.STALLED:
        return outcome
    joins = [
        f"a join for {join.address!r} waits for {', '.join(map(repr, join.missing))}, "
        for join in view.joins[:_JOINS_NAMED]
    ]
    more = len(view.joins) - len(joins)
    joins += [f"{more} more joins wait, "] * (more > 0)
    reason = f"{''.join(joins)}and nothing is left that could emit it; {outcome.reason}"
    return Outcome(outcome.status, outcome.result, reason)


def raise_for(run_id: RunId, outcome: Outcome) -> None:
    """Raise what an outcome other than finished is to someone who wants a result.

    Raises:
        RunFailedError: If the run failed.
        RunStalledError: If it is stalled.
        RunCancelledError: If somebody cancelled it.
    """
    if outcome.status is Status.CANCELLED:
        raise RunCancelledError(run_id, outcome.reason)
    if outcome.status is Status.FAILED:
        raise RunFailedError(run_id, outcome.reason)
    if outcome.status is Status.STALLED:
        raise RunStalledError(run_id, outcome.reason)


def value_of(run_id: RunId, outcome: Outcome, type_: Any) -> Any:
    """Return the run's result as a value of *type_*; None where it gave none.

    Raises:
        CodecError: If it is not of that type.
    """
    data = values.NONE if outcome.result is None else outcome.result
    return values.decode(data, type_, f"Result of run {run_id}")


def make_starts(
    firsts: Iterable[Publish], keys: Iterable[str] | None, *, partitions: int = 1
) -> list[Start]:
    """Return the commands that start a run with each of *firsts*; see `make_start`.

    Raises:
        DirectiveError: If one is no `publish(...)`, or there is not one key per start.
    """
    calls = _listed(firsts, "publish(...) values")
    names: list[str | None] = [None] * len(calls) if keys is None else _listed(keys, "keys")
    if len(names) != len(calls):
        raise DirectiveError(f"start_many() got {len(calls)} starts and {len(names)} keys.")
    return [
        make_start(first, key, partitions=partitions)
        for first, key in zip(calls, names, strict=True)
    ]


def _listed(found: Iterable[object], what: str) -> list[Any]:
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise DirectiveError(f"start_many() takes a list of {what}, not {found!r}.")
    return list(found)


def _check_letter(letter: object, method: str) -> None:
    if not isinstance(letter, DeadLetter):
        raise ConfigurationError(
            f"{method}() takes a dead letter, as dead_letters() lists them, not {letter!r}."
        )


def _check_text(text: object, what: str) -> str:
    if not isinstance(text, str) or not text:
        raise DirectiveError(
            f"{what} is a string that is not empty, not {text!r} ({type(text).__name__}).",
        )
    shown = repr(text[:SHOWN]) + "…" * (len(text) > SHOWN)
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise DirectiveError(f"{what} has no lone surrogates, but {shown} has one.") from error
    if size > MAX_KEY:
        raise DirectiveError(
            f"{what} has at most {MAX_KEY:,} bytes as UTF-8, but {shown} has {size:,}. "
            "Take a hash of what is longer.",
        )
    return text
