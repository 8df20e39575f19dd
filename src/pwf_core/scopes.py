"""Scopes: how a gather and a run know that a set of calls and all their descendants are done.

A scope counts what is pending directly in it: open calls, joins and inner scopes. A commit adds the
children before it takes the call away, and what fires takes the place of what it came from, so a
count reaches zero only when nothing of the scope is still to come, and never cascades.

A call that is dead or was taken out is a failure of the member that it belongs to, in every scope
around it. The innermost that tolerates one more failed member notes it in the place of that member's
result, and goes on; those inside of that one have no complete results to give: they count down all
the same, and then go without firing.
"""

from __future__ import annotations

from pwf_core import failures
from pwf_core.ids import CallId
from pwf_core.state import ROOT, RunState, Scope

__all__ = [
    "BROUGHT",
    "PAGE",
    "PAGE_BYTES",
    "enter",
    "fail",
    "leave",
    "lose",
    "page",
    "take_results",
    "write_result",
]

# Results that a grant brings along; of more, all are collected by pages.
BROUGHT = 250
# How many results come, and are forgotten, in one step.
PAGE = 1000
PAGE_BYTES = 256 * 1024


def enter(run: RunState, scope: CallId, count: int = 1) -> None:
    """Count *count* more pending things in *scope*."""
    if scope == ROOT:
        run.pending += count
    else:
        run.scopes[scope].pending += count


def leave(run: RunState, scope: CallId) -> Scope | None:
    """Count one pending thing less, and return the scope if that was its last: it is over.

    The root scope is not returned: a run whose `pending` is 0 is done.
    """
    if scope == ROOT:
        run.pending -= 1
        return None
    record = run.scopes[scope]
    record.pending -= 1
    if record.pending:
        return None
    return run.scopes.pop(scope)


def fail(run: RunState, scope: CallId, member: int, reason: str) -> bool:
    """Note that a member of *scope* has failed; False if no scope tolerates it: nothing changed."""
    inner: list[Scope] = []
    while scope != ROOT:
        record = run.scopes[scope]
        before = failures.reason_in(run.results.get((scope, member)))
        if before is not None or record.failed < record.tolerated:
            if before is None:
                record.failed += 1
                run.results[scope, member] = failures.encode(reason)
            for one in inner:
                one.lost = True
            return True
        inner.append(record)
        scope, member = record.scope, record.member
    return False


def lose(run: RunState, scope: CallId) -> None:
    """Have neither *scope* nor those around it fire."""
    while scope != ROOT:
        record = run.scopes[scope]
        record.lost = True
        scope = record.scope


def write_result(run: RunState, scope: CallId, member: int, value: bytes) -> None:
    """Give the member of a scope its value; the first write wins."""
    run.results.setdefault((scope, member), value)


def take_results(run: RunState, scope: CallId, members: range) -> None:
    """Forget the values of these members, which nobody is going to ask for any more."""
    for member in members:
        run.results.pop((scope, member), None)


def page(run: RunState, scope: CallId, members: range) -> list[bytes | None]:
    """Return the values of the first of these members: `PAGE` of them, or fewer if they are large."""
    values: list[bytes | None] = []
    size = 0
    for member in members[:PAGE]:
        value = run.results.get((scope, member))
        values.append(value)
        size += len(value or b"")
        if size >= PAGE_BYTES:
            break
    return values
