"""Directives: what a handler returns to say what comes next. Frozen values; nothing happens here.

Arguments are checked and encoded when a directive is made, so a wrong one fails in the handler that
made it, with its own traceback.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable
from datetime import datetime, timedelta
from typing import Any, Literal, ParamSpec, Self, TypeAlias, TypeVar, overload

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pwf_core import arguments, values
from pwf_core.errors import DirectiveError
from pwf_core.events import Event
from pwf_core.names import check_address, check_event
from pwf_core.tasks import Task

__all__ = [
    "UNORDERED",
    "Directive",
    "Emit",
    "Gather",
    "Join",
    "Next",
    "Publish",
    "Result",
    "Returned",
    "Tolerance",
    "emit",
    "gather",
    "join",
    "publish",
    "result",
    "tolerate",
]

# No iteration over these: another attempt would find another order, and derive other ids.
UNORDERED = (set, frozenset)

_LONGEST = timedelta(days=36_525)

P = ParamSpec("P")
T = TypeVar("T")


class Directive(Struct, frozen=True):
    """Base of everything that a handler may return."""


class Publish(Directive, frozen=True):
    """Run this task with these arguments. Made by `publish`.

    Attributes:
        address: The task.
        body: Its encoded arguments.
        delay: Wait this long after the commit.
        when: Wait until then; an aware datetime.
    """

    address: str
    body: bytes
    delay: timedelta | None = None
    when: datetime | None = None

    def after(self, delay: timedelta) -> Self:
        """Return this directive, delayed: the call is delivered *delay* after the commit.

        Raises:
            DirectiveError: If *delay* is no timedelta, or negative, or longer than a century.
        """
        if not isinstance(delay, timedelta) or not timedelta(0) <= delay <= _LONGEST:
            raise DirectiveError(
                f"after() takes a timedelta from 0 to {_LONGEST.days:,} days, not {delay!r}."
            )
        return replace(self, delay=delay, when=None)

    def at(self, when: datetime) -> Self:
        """Return this directive, delayed until *when*, by the clock of the store.

        Raises:
            DirectiveError: If *when* has no time zone: it would mean another moment on another
                machine.
        """
        if not isinstance(when, datetime) or when.utcoffset() is None:
            raise DirectiveError(
                f"at() takes a datetime with a time zone, not {when!r}; "
                "for example datetime.now(UTC) + timedelta(hours=1).",
            )
        return replace(self, when=when, delay=None)

    def __repr__(self) -> str:
        shown = [repr(self.address), *arguments.show(self.body)]
        text = f"publish({', '.join(shown)})"
        if self.delay is not None:
            text += f".after({self.delay!r})"
        if self.when is not None:
            text += f".at({self.when!r})"
        return text


class Emit(Directive, frozen=True):
    """This event has happened. Made by `emit`."""

    event: str
    payload: bytes

    def __repr__(self) -> str:
        return f"emit({self.event!r}, {_show(self.payload)})"


class Join(Directive, frozen=True):
    """Once all these events have happened, run that. Made by `join`.

    Attributes:
        events: Distinct names, in the order given.
        external: Those of them that come from outside the run.
        timeout: Wait no longer than this after the commit.
        on_timeout: Run this instead then.
    """

    events: tuple[str, ...]
    then: Publish
    external: tuple[str, ...] = ()
    timeout: timedelta | None = None
    on_timeout: Publish | None = None


class Gather(Directive, frozen=True):
    """Once all these calls and their descendants are done, run that. Made by `gather`.

    Attributes:
        tolerated: How many members may fail.
    """

    members: tuple[Publish, ...]
    then: Publish
    tolerated: int = 0


class Result(Directive, frozen=True):
    """The value of the innermost member, or of the run. Made by `result`."""

    payload: bytes

    def __repr__(self) -> str:
        return f"result({_show(self.payload)})"


Next: TypeAlias = Directive | Iterable[Directive] | None
"""What a handler returns: a directive, several, or nothing."""

Returned: TypeAlias = Next | Awaitable[Next] | AsyncIterator[Directive]
"""The same for every kind of handler: sync, async, and yielding ones."""


@overload
def publish(task: Task[P, Any, Any], /, *args: P.args, **kwargs: P.kwargs) -> Publish: ...
@overload
def publish(task: str, /, *args: Any, **kwargs: Any) -> Publish: ...
def publish(task: Any, /, *args: Any, **kwargs: Any) -> Publish:
    """Run *task* with these arguments, as a call of its own.

    Args:
        task: A task, or the address ("service.task") of one that lives in other code.
        args: Its arguments, without the Context.
        kwargs: Its arguments by name.

    Raises:
        CodecError: If an argument is not of the type that the task declares, or has no encoding.
        PayloadTooLargeError: If the encoded arguments are over 1 MiB.
        DefinitionError: If the address cannot be one.
        DirectiveError: If *task* is neither a task nor an address.
    """
    if isinstance(task, Task):
        return Publish(task.address, task.encode(args, kwargs))
    if not isinstance(task, str):
        raise DirectiveError(
            "publish() takes a task, made by @service.task, or its address 'service.task'; "
            f"not {task!r} ({type(task).__name__}).",
        )
    address = check_address(task)
    return Publish(address, arguments.encode_untyped(address, args, kwargs))


@overload
def emit(event: Event[None], /) -> Emit: ...
@overload
def emit(event: Event[T], payload: T, /) -> Emit: ...
@overload
def emit(event: str, payload: Any = None, /) -> Emit: ...
def emit(event: Event[Any] | str, payload: Any = None, /) -> Emit:
    """Say that *event* has happened in this run; the first write of it wins.

    Raises:
        CodecError: If *payload* is not of the event's type, or has no encoding.
        PayloadTooLargeError: If the encoded payload is over 1 MiB.
        DefinitionError: If no event can have that name.
        DirectiveError: If *event* is neither an event nor a name.
    """
    if isinstance(event, Event):
        return Emit(event.name, event.encode(payload))
    name = _name_of(event, "emit")
    return Emit(name, values.encode(payload, f"Payload of event {name!r}"))


def join(
    *events: Event[Any] | str,
    then: Publish,
    timeout: timedelta | None = None,
    on_timeout: Publish | None = None,
) -> Join:
    """Run *then* once all *events* have happened in this run, in whatever order, before or after.

    Args:
        events: At least one; the same event twice counts once.
        then: Made by `publish`; its handler sees the payloads in `ctx.events`.
        timeout: Wait no longer than this after the commit; for ever by default.
        on_timeout: Made by `publish`; run instead of *then* when the time is over; its handler sees
            the payloads of those events that have happened. Without it, that is a failure, as if a
            call had died: the run fails, unless a `gather` around it tolerates that.

    Raises:
        DefinitionError: If no event can have that name.
        DirectiveError: If there is none, or one that is no event, *then* or *on_timeout* is no `publish(...)`, or
            *timeout* no time span above 0.
    """
    names = [_name_of(event, "join") for event in events]
    if not names:
        raise DirectiveError("join() needs at least one event; to run a task now, publish it.")
    external = {event.name for event in events if isinstance(event, Event) and event.external}
    distinct = tuple(dict.fromkeys(names))
    if timeout is not None and not (
        isinstance(timeout, timedelta) and timedelta(0) < timeout <= _LONGEST
    ):
        raise DirectiveError(
            f"join(timeout=) takes a timedelta from above 0 to {_LONGEST.days:,} days, "
            f"not {timeout!r}."
        )
    if on_timeout is not None:
        _then(on_timeout, "join", "on_timeout")
        if timeout is None:
            raise DirectiveError("join(on_timeout=) needs a timeout as well.")
    return Join(
        distinct,
        _then(then, "join"),
        tuple(name for name in distinct if name in external),
        timeout,
        on_timeout,
    )


class Tolerance(Struct, frozen=True):
    """How many members of a gather may fail. Made by `tolerate`."""

    members: int | float


def tolerate(members: int | float, /) -> Tolerance:  # noqa: PYI041 -- the two mean different things
    """Let some members of a gather fail.

    Args:
        members: How many, as an int; or which share of them, as a float from 0.0 to 1.0.

    Raises:
        DirectiveError: If it is something else.
    """
    match members:
        case bool():
            pass
        case int() if members >= 0:
            return Tolerance(members)
        case float() if 0 <= members <= 1:
            return Tolerance(members)
    raise DirectiveError(
        f"tolerate() takes a number of members (an int from 0), or a share of them (a float from "
        f"0.0 to 1.0), not {members!r}.",
    )


def gather(
    members: Iterable[Publish],
    /,
    *,
    then: Publish,
    on_failure: Literal["fail", "collect"] | Tolerance = "fail",
) -> Gather:
    """Run *then* once all *members*, and all that follows from them, are done.

    Args:
        members: Made by `publish`; none at all is fine, and runs *then* at once.
        then: Made by `publish`; its handler sees one result per member in `ctx.results`.
        on_failure: What a member is to the others of which a call is dead, or was given up.
            "fail": *then* does not run, and the run fails; the dead letter can be requeued.
            "collect": its result is None, and `ctx.failures` says why; there is no dead letter.
            `tolerate(n)`: the latter for so many members, the former for any more.

    Raises:
        DirectiveError: If a member or *then* is no `publish(...)`, *members* is a set, whose order
            differs between processes, or *on_failure* is none of these.
    """
    if not isinstance(members, Iterable) or isinstance(members, UNORDERED):
        raise DirectiveError(
            "gather() takes publish(...) values in an order that stays, such as a list of them; "
            f"not {members!r} ({type(members).__name__}).",
        )
    calls = tuple(members)
    for call in calls:
        if not isinstance(call, Publish):
            raise DirectiveError(f"gather() takes publish(...) values, not {call!r}.")
    return Gather(calls, _then(then, "gather"), _tolerated(on_failure, len(calls)))


def result(value: object, /) -> Result:
    """Give *value* to the innermost gather that waits for this call, or else to the run.

    Raises:
        CodecError: If *value* has no encoding.
        PayloadTooLargeError: If the encoded value is over 1 MiB.
    """
    return Result(values.encode(value, "Result"))


def _name_of(event: object, where: str) -> str:
    if isinstance(event, Event):
        return event.name
    if not isinstance(event, str):
        raise DirectiveError(
            f"{where}() takes an Event or its name, not {event!r} ({type(event).__name__}).",
        )
    return check_event(event)


def _then(then: Publish, where: str, name: str = "then") -> Publish:
    if not isinstance(then, Publish):
        raise DirectiveError(f"{where}({name}=) takes a publish(...) value, not {then!r}.")
    return then


def _tolerated(on_failure: object, size: int) -> int:
    match on_failure:
        case "fail":
            return 0
        case "collect":
            return size
        case Tolerance(members=float(share)):
            return int(share * size)
        case Tolerance(members=count):
            return min(int(count), size)
    raise DirectiveError(
        f'gather(on_failure=) takes "fail", "collect" or tolerate(...), not {on_failure!r}.',
    )


def _show(payload: bytes) -> str:
    text = repr(msgspec.msgpack.decode(payload))
    return text if len(text) <= arguments.SHOWN else text[: arguments.SHOWN] + "…"
