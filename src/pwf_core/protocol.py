"""The worker's protocol for one granted call, as a generator: run the handler, conclude, done.

It speaks of nothing but the handler and the command that ends the attempt; who performs that, and
how many conclusions share a round trip, is the driver's business. Each `yield` is a point where a
worker can die: before the conclusion is stored the call runs again after its lease, afterwards it
never does.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeAlias

import attrs
from msgspec import Struct

from pwf_core.commands import (
    Answer,
    Bury,
    Collect,
    Commit,
    Granted,
    Page,
    Postpone,
    Postponement,
)
from pwf_core.context import Context, Events
from pwf_core.decide import decide, directives_in
from pwf_core.errors import CodecError, DefinitionError, PwfError, UnavailableError
from pwf_core.retries import backoff_ms
from pwf_core.steps import Steps
from pwf_core.tasks import Task
from pwf_core.texts import printable

__all__ = [
    "PARK_MS",
    "Ask",
    "Conclude",
    "Conclusion",
    "Effect",
    "HandBackError",
    "Invoke",
    "Outcome",
    "process",
]

# Short and constant: a worker that knows the task may appear any moment (a deploy in progress).
PARK_MS = 2000
_REASON = 16 * 1024  # characters of a traceback that are kept: its end names the error
_LOGGED = 300  # characters of an error that are logged

Conclusion: TypeAlias = Commit | Postpone | Bury


class Outcome(Enum):
    """How the execution of a granted call ended, as seen by its worker."""

    COMMITTED = "committed"
    RETRIED = "retried"
    BURIED = "buried"
    PARKED = "parked"
    HANDED_BACK = "handed back"
    ENDED = "ended"  # stored by this worker (the reply got lost) or by another one
    LEASE_LOST = "lease lost"


@attrs.define(eq=False)
class Invoke:
    """Run the handler and send back what it returned (a list, if it yielded); throw its error.

    To stop early, throw `HandBackError` (the worker leaves) or TimeoutError.
    """

    task: Task[..., Any, Any]
    context: Context
    args: list[Any]
    kwargs: dict[str, Any]


class Ask(Struct, frozen=True):
    """Apply this command to the backend and send back its reply; the call goes on then."""

    command: Collect


class Conclude(Struct, frozen=True):
    """Apply this command to the backend and send back its answer."""

    command: Conclusion


Effect: TypeAlias = Invoke | Ask | Conclude


class HandBackError(PwfError):
    """The worker stops before the handler has: the call is to run elsewhere, at no cost."""


def process(
    grant: Granted,
    tasks: Mapping[str, Task[..., Any, Any]],
    find_resource: Callable[[type[Any]], Any],
) -> Steps[Effect, tuple[Outcome, str]]:
    """Run one granted call to its conclusion.

    Returns:
        How it ended, and what may be logged of the error if it failed.
    """
    results = grant.results or []
    while len(results) < grant.uncollected:
        collect = Collect(grant.run_id, grant.call_id, grant.claim_id, len(results))
        page: Page | Answer = yield Ask(collect)
        if not isinstance(page, Page):
            return _refused(page), ""
        results += page.results
    command, outcome, problem = yield from _attempt(grant, results, tasks, find_resource)
    answer: Answer = yield Conclude(command)
    return (outcome, problem) if answer is Answer.DONE else (_refused(answer), "")


def _refused(answer: Answer) -> Outcome:
    return Outcome.ENDED if answer is Answer.ENDED else Outcome.LEASE_LOST


def _attempt(
    grant: Granted,
    results: Sequence[bytes | None],
    tasks: Mapping[str, Task[..., Any, Any]],
    find_resource: Callable[[type[Any]], Any],
) -> Steps[Effect, tuple[Conclusion, Outcome, str]]:
    task = tasks.get(grant.address)
    if task is None:
        reason = "no worker here knows this task"
        return *_postpone(grant, Postponement.PARK, PARK_MS, reason), reason
    try:
        args, kwargs = task.decode(grant.body)
    except (CodecError, DefinitionError) as error:
        return *_postpone(grant, Postponement.PARK, PARK_MS, str(error)), _in_a_log(error)
    context = Context(
        run_id=grant.run_id,
        call_id=grant.call_id,
        attempt=grant.attempt,
        events=Events(grant.events),
        results=results,
        find=find_resource,
    )
    try:
        returned = yield Invoke(task, context, args, kwargs)
        decision = decide(grant.call_id, grant.address, directives_in(grant.address, returned))
    except HandBackError as error:
        return *_postpone(grant, Postponement.HAND_BACK, 0, str(error)), str(error)
    except Exception as error:  # noqa: BLE001 -- whatever a handler raises is this attempt's end
        return *_fail(grant, task, error), _in_a_log(error)
    commit = Commit(grant.run_id, grant.call_id, grant.claim_id, decision)
    return commit, Outcome.COMMITTED, ""


def _fail(
    grant: Granted,
    task: Task[..., Any, Any],
    error: Exception,
) -> tuple[Conclusion, Outcome]:
    failures = grant.failures + 1
    reason = _explain(task, error)
    if task.retry.wants(error, failures):
        delay_ms = backoff_ms(task.retry, grant.call_id, failures)
        return _postpone(grant, Postponement.RETRY, delay_ms, reason)
    return Bury(grant.run_id, grant.call_id, grant.claim_id, reason), Outcome.BURIED


def _explain(task: Task[..., Any, Any], error: Exception) -> str:
    """Return the traceback from the handler on; the frames that called it are ours."""
    code = getattr(task.fn, "__code__", None)
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code is not code:
        frames = frames.tb_next
    shown = traceback.format_exception(type(error), error, frames or error.__traceback__)
    return "".join(shown)[-_REASON:]


def _in_a_log(error: Exception) -> str:
    """Return what may be logged of *error*, on one line; its traceback is stored with the call.

    What a handler says is its own affair. What we say may quote a value, of arguments that do not
    fit or of a return value that is no directive, and logs show no payloads: so of our errors the
    name is logged, and what was being decoded.
    """
    match error:
        case CodecError():
            text = f"{type(error).__name__}: {error.what}"
        case PwfError() if not isinstance(error, UnavailableError):
            text = type(error).__name__
        case _:
            text = "".join(traceback.format_exception_only(error)).strip()
    return printable(text if len(text) <= _LOGGED else f"{text[:_LOGGED]}…")


_OUTCOMES = {
    Postponement.RETRY: Outcome.RETRIED,
    Postponement.PARK: Outcome.PARKED,
    Postponement.HAND_BACK: Outcome.HANDED_BACK,
}


def _postpone(
    grant: Granted,
    kind: Postponement,
    delay_ms: int,
    reason: str,
) -> tuple[Conclusion, Outcome]:
    command = Postpone(grant.run_id, grant.call_id, grant.claim_id, kind, delay_ms, reason)
    return command, _OUTCOMES[kind]
