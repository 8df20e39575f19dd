"""Batches of one and of hundreds: the same wide workflow with few calls at once, and with many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from pwf import Context, Next, Service, gather, publish, result
from pwf.testing import explore
from pwf.testing._observing import Recording
from pwf_core.commands import Command, Commit, Granted
from pwf_core.ports import Applied, Exchanged, Take

work = Service("batches")

_WIDTH = 240  # members, so that one decision still makes them all


@work.task
def wide() -> Next:
    return gather([publish(member, n) for n in range(_WIDTH)], then=publish(total))


@work.task
def member(n: int) -> Next:
    return result(n)


@work.task
def total(ctx: Context) -> Next:
    return result(sum(ctx.results))


@attrs.define
class _Largest:
    """How many commits one round trip carried, and how many calls it brought, at the most."""

    commits: int = 0
    grants: int = 0

    def note(self, commands: Sequence[Command], replies: Sequence[object]) -> None:
        commits = sum(isinstance(command, Commit) for command in commands)
        grants = sum(isinstance(reply, Granted) for reply in replies)
        self.commits, self.grants = max(self.commits, commits), max(self.grants, grants)


@pytest.fixture
def largest(monkeypatch: pytest.MonkeyPatch) -> _Largest:
    """Take note of every round trip."""
    noted = _Largest()
    apply, exchange = Recording.apply, Recording.exchange

    def applied(self: Recording, commands: Sequence[Command], **options: Any) -> Applied:
        reply = apply(self, commands, **options)
        noted.note(commands, reply.replies)
        return reply

    def exchanged(self: Recording, commands: Sequence[Command], take: Take) -> Exchanged:
        reply = exchange(self, commands, take)
        noted.note(commands, reply.grants)
        return reply

    monkeypatch.setattr(Recording, "apply", applied)
    monkeypatch.setattr(Recording, "exchange", exchanged)
    return noted


@pytest.mark.parametrize(("concurrency", "most"), [(1, 25), (2, 25), (256, 50)])
def test_batches_of_any_size_survive_faults(largest: _Largest, concurrency: int, most: int) -> None:
    """One fault or two change nothing, whether a round trip carries one commit or hundreds."""
    explore(work, start=publish(wide), faults=2, most=most, concurrency=concurrency)

    full = min(concurrency, _WIDTH)
    assert (full, full) == (largest.commits, largest.grants)
