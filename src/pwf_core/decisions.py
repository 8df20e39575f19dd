"""What a handler decided, in the form that the store commits: every id derived, every value bytes.

`Decision` is what the directives of one attempt come to. It is a pure function of the call's id and
the directives, so a crash and a re-run that returns the same decides the same.

These are msgspec structs and not attrs classes: several are made per message.
"""

from __future__ import annotations

from msgspec import Struct

from pwf_core.ids import CallId

__all__ = ["Decision", "NewCall", "NewGather", "NewJoin", "StagedCall"]


class NewCall(Struct, frozen=True):
    """A call to be made.

    Attributes:
        call_id: Its derived id.
        address: The task to run.
        body: Its encoded arguments.
        delay_ms: Wait this long after the commit; 0 for none.
        due_ms: Wait until then, in milliseconds since the epoch by the store's clock; 0 for none.
    """

    call_id: CallId
    address: str
    body: bytes
    delay_ms: int = 0
    due_ms: int = 0


class NewJoin(Struct, frozen=True):
    """A join to be registered; it is known by the id of the call that it will make.

    Attributes:
        then: The call to make once all events have happened.
        events: Distinct event names, in the order given; at least one.
        external: Those of them that come from outside the run.
        timeout_ms: Wait no longer than this after the commit; 0 for ever.
        late: The call to make then instead; without one, the join has failed then.
    """

    then: NewCall
    events: tuple[str, ...]
    external: tuple[str, ...] = ()
    timeout_ms: int = 0
    late: NewCall | None = None


class NewGather(Struct, frozen=True):
    """A scope to be opened; it is known by the id of the call that it will make.

    Attributes:
        then: The call to make once every member and all their descendants are done.
        members: The calls of the scope, in order.
        tolerated: How many of them may fail without keeping `then` from being made.
        staged: How many more members there are, which were put down before.
    """

    then: NewCall
    members: tuple[NewCall, ...]
    tolerated: int = 0
    staged: int = 0


class StagedCall(Struct, frozen=True):
    """A call of a decision that is too large for one step; it was put down before the commit.

    Attributes:
        gather: Which of the decision's gathers it belongs to, from 0; -1 if to none.
        member: Which member it is there.
    """

    call: NewCall
    gather: int = -1
    member: int = 0


class Decision(Struct, frozen=True):
    """All the directives of one attempt.

    Attributes:
        calls: Calls that belong to the scope of the deciding call.
        emits: (event, payload) pairs.
        joins: Joins to register.
        gathers: Scopes to open inside the scope of the deciding call.
        result: The value of the innermost member, if the handler gave one.
        chunks: How many chunks of calls were put down before.
        staged: How many of the calls in them are like *calls*; the others are members of gathers.
    """

    calls: tuple[NewCall, ...] = ()
    emits: tuple[tuple[str, bytes], ...] = ()
    joins: tuple[NewJoin, ...] = ()
    gathers: tuple[NewGather, ...] = ()
    result: bytes | None = None
    chunks: int = 0
    staged: int = 0
