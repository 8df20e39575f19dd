"""Scopes: how a gather and a run know that a set of calls and all their descendants are done.

A scope counts what is pending directly in it: open calls, joins and inner scopes. A commit adds the
children before it takes the call away, and what fires takes the place of what it came from, so a
count reaches zero only when nothing of the scope is still to come, and never cascades.

A scope that lost something (a purged or discarded call) has no complete results to give. It counts
down all the same, and then goes without firing; for the scope around it, that is a loss, too.
"""

from __future__ import annotations

from pwf_core.ids import CallId
from pwf_core.state import ROOT, RunState, Scope

__all__ = ["enter", "leave", "lose", "take_results", "write_result"]


def enter(run: RunState, scope: CallId) -> None:
    """Count one more pending thing in *scope*."""
    if scope == ROOT:
        run.pending += 1
    else:
        run.scopes[scope].pending += 1


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


def lose(run: RunState, scope: CallId) -> None:
    """Note that something of *scope* was taken out."""
    if scope != ROOT:
        run.scopes[scope].lost += 1


def write_result(run: RunState, scope: CallId, member: int, value: bytes) -> None:
    """Give the member of a scope its value; the first write wins."""
    run.results.setdefault((scope, member), value)


def take_results(run: RunState, scope: CallId, size: int) -> None:
    """Forget the values of a scope that nobody is going to ask for any more."""
    for member in range(size):
        run.results.pop((scope, member), None)
