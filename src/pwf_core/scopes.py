"""Scopes: how a gather and a run know that a set of calls and all their descendants are done.

A scope counts what is pending directly in it: open calls, joins and inner scopes. A commit adds the
children before it takes the call away, and what fires takes the place of what it came from, so a
count reaches zero only when nothing of the scope is still to come, and never cascades.
"""

from __future__ import annotations

from pwf_core.ids import CallId
from pwf_core.state import ROOT, RunState, Scope

__all__ = ["enter", "leave", "take_results", "write_result"]


def enter(run: RunState, scope: CallId) -> None:
    """Count one more pending thing in *scope*."""
    if scope == ROOT:
        run.pending += 1
    else:
        run.scopes[scope].pending += 1


def leave(run: RunState, scope: CallId) -> Scope | None:
    """Count one pending thing less, and return the scope if that was its last: it is to fire.

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


def write_result(run: RunState, scope: CallId, member: int, value: bytes) -> None:
    """Give the member of a scope its value; the first write wins."""
    run.results.setdefault((scope, member), value)


def take_results(run: RunState, scope: CallId, size: int) -> None:
    """Forget the values of a scope whose joined call is done."""
    for member in range(size):
        run.results.pop((scope, member), None)
