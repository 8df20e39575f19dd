"""From what a handler returned to the decision that is committed: flatten, check, derive ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from pwf_core.decisions import Decision, NewCall, NewGather, NewJoin
from pwf_core.directives import UNORDERED, Directive, Emit, Gather, Join, Publish, Result
from pwf_core.errors import DirectiveError
from pwf_core.ids import CallId, derive_call_id
from pwf_core.retries import milliseconds

__all__ = ["decide", "directives_in", "new_call"]

_VALUES = (str, bytes, bytearray, memoryview, Mapping)  # iterable, and a value all the same
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def directives_in(address: str, returned: object) -> Sequence[Directive]:
    """Return the directives that the handler of *address* returned or yielded.

    Raises:
        DirectiveError: If something else is among them.
    """
    if returned is None:
        return ()
    if isinstance(returned, Directive):
        return (returned,)
    if isinstance(returned, UNORDERED):
        raise DirectiveError(
            f"Task {address!r} returned a {type(returned).__name__}: its order differs between "
            "attempts, and the ids of what comes next depend on it. Return a list.",
        )
    if isinstance(returned, Iterable) and not isinstance(returned, _VALUES):
        found = tuple(returned)
        for item in found:
            if not isinstance(item, Directive):
                raise _not_a_directive(address, item)
        return found
    raise _not_a_directive(address, returned)


def decide(call_id: CallId, address: str, directives: Sequence[Directive]) -> Decision:
    """Return the decision of call *call_id*.

    Raises:
        DirectiveError: If two results are given.
    """
    calls: list[NewCall] = []
    emits: list[tuple[str, bytes]] = []
    joins: list[NewJoin] = []
    gathers: list[NewGather] = []
    value: bytes | None = None
    seen: dict[tuple[str, str], int] = {}

    def derive(kind: str, to: str) -> CallId:
        ordinal = seen.get((kind, to), 0)
        seen[kind, to] = ordinal + 1
        return derive_call_id(call_id, kind, to, ordinal)

    for directive in directives:
        match directive:
            case Publish():
                calls.append(new_call(derive("publish", directive.address), directive))
            case Emit():
                emits.append((directive.event, directive.payload))
            case Join():
                then = directive.then
                made = new_call(derive("join", then.address), then)
                late = directive.on_timeout
                joins.append(
                    NewJoin(
                        made,
                        directive.events,
                        directive.external,
                        milliseconds(directive.timeout) if directive.timeout else 0,
                        new_call(derive_call_id(made.call_id, "timeout", late.address, 0), late)
                        if late is not None
                        else None,
                    ),
                )
            case Gather():
                then = directive.then
                made = new_call(derive("gather", then.address), then)
                members = tuple(
                    new_call(derive_call_id(made.call_id, "member", one.address, number), one)
                    for number, one in enumerate(directive.members)
                )
                gathers.append(NewGather(made, members, directive.tolerated))
            case Result():
                if value is not None:
                    raise DirectiveError(
                        f"Task {address!r} returned two results; a call gives one. "
                        "To give several values, put them into one: result([...]).",
                    )
                value = directive.payload
            case _:
                raise _not_a_directive(address, directive)
    return Decision(tuple(calls), tuple(emits), tuple(joins), tuple(gathers), value)


def new_call(call_id: CallId, publish: Publish) -> NewCall:
    """Return the call that *publish* makes, under that id."""
    delay_ms = milliseconds(publish.delay) if publish.delay else 0
    due_ms = 0
    if publish.when is not None:
        due_ms = max((publish.when - _EPOCH) // timedelta(milliseconds=1), 1)
    return NewCall(call_id, publish.address, publish.body, delay_ms, due_ms)


def _not_a_directive(address: str, returned: object) -> DirectiveError:
    return DirectiveError(
        f"Task {address!r} returned {returned!r} ({type(returned).__name__}), which is not a "
        "directive. To give the run a value, return result(value); to run a task next, "
        "return publish(task, ...).",
    )
