"""Tests of exploring: it finds what does not survive, says where, and can be told to do it again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from pwf import (
    ConfigurationError,
    Context,
    Event,
    Next,
    Retry,
    Service,
    emit,
    join,
    publish,
    result,
)
from pwf.testing import ExplorationError, explore
from pwf_core import joins, scopes
from pwf_core.commands import Answer
from pwf_core.lifecycle import Lifecycle
from pwf_core.views import Phase

work = Service("work")
ONE, TWO = Event("one", int), Event("two", int)


@work.task
def fork(ctx: Context) -> Next:
    ctx.effect("charge")
    return [publish(say, "one"), publish(say, "two"), join(ONE, TWO, then=publish(total))]


@work.task
def say(name: str) -> Next:
    return emit(name, 1)


@work.task
def total(ctx: Context) -> Next:
    return result(ctx.events[ONE] + ctx.events[TWO])


def test_counts_what_was_explored() -> None:
    """It tells how many runs and effects there were, and how often side effects ran at most."""
    found = explore(work, start=publish(fork))

    names = ["fused", "paired", "fused with two lanes", "paired with two lanes"]
    assert names == list(found.points)
    fused, paired, *lanes = found.points.values()
    assert 4 * 2 + 8 * (fused + paired) + 11 * sum(lanes) == found.runs
    assert found.refused > 0
    assert ["work.fork: charge"] == list(found.effects)
    assert found.effects["work.fork: charge"].times >= 2
    assert found.effects["work.fork: charge"].after.startswith("fused; ")


def test_draws_by_seed() -> None:
    """Of more faults than one, it tries as many as wanted, the same ones each time."""
    once, again, other = (
        explore(work, start=publish(fork), faults=3, most=20, seed=seed) for seed in (1, 1, 2)
    )

    assert 4 * (2 + 3 * 20) == once.runs == other.runs
    assert once == again != other


def test_handler_that_decides_by_chance() -> None:
    """A handler that decides otherwise the next time is found without any fault."""
    lonely = Service("lonely")
    numbers = itertools.count()

    @lonely.task
    def guess() -> Next:
        return result(next(numbers))

    with pytest.raises(ExplorationError, match=r"Two runs without any fault differ: .*guess"):
        explore(lonely, start=publish(guess))


def test_handler_that_decides_by_attempt() -> None:
    """A handler that decides otherwise when it is repeated is found by a crash."""
    lonely = Service("lonely")

    @lonely.task
    def count(ctx: Context) -> Next:
        return result(ctx.attempt)

    with pytest.raises(ExplorationError, match=r"lonely\.count has decided") as caught:
        explore(lonely, start=publish(count))
    assert any("dies" in line for line in caught.value.trace)


def test_workflow_that_can_stall() -> None:
    """It names the join, the event that nobody emits, and the call that ended without it."""
    lonely = Service("lonely")

    @lonely.task
    def begin() -> Next:
        return [publish(forgets), join("paid", then=publish(ends))]

    @lonely.task
    def forgets() -> None:
        return None

    @lonely.task
    def ends(ctx: Context) -> None:
        return None

    with pytest.raises(ExplorationError) as caught:
        explore(lonely, start=publish(begin))
    assert "The run can stall" in caught.value.problem
    for name in ("lonely.ends", "paid", "lonely.forgets"):
        assert name in caught.value.problem


def test_workflow_without_end() -> None:
    """A workflow that never ends is told so, not run for ever."""
    lonely = Service("lonely")

    @lonely.task
    def again() -> Next:
        return publish(again)

    with pytest.raises(ExplorationError, match="does not come to an end"):
        explore(lonely, start=publish(again))


def test_dead_letters_are_an_end() -> None:
    """A run that fails survives if it fails the same way each time; no time passes for real."""
    lonely = Service("lonely")

    @lonely.task(retry=Retry(attempts=3))
    def breaks() -> None:
        raise ValueError

    began = time.monotonic()
    explore(lonely, start=publish(breaks))
    assert time.monotonic() - began < 60


def test_replay() -> None:
    """What an error names leads to the same error, in three runs."""
    lonely = Service("lonely")
    runs = itertools.count()

    @lonely.task
    def count(ctx: Context) -> Next:
        next(runs)
        return result(ctx.attempt)

    with pytest.raises(ExplorationError) as caught:
        explore(lonely, start=publish(count), faults=2)
    before = next(runs)
    with pytest.raises(ExplorationError) as replayed:
        explore(lonely, start=publish(count), replay=caught.value.replay)

    assert str(caught.value) == str(replayed.value)
    assert next(runs) - before < 8


def test_fewest_faults() -> None:
    """If one fault of several is enough, that one is told."""
    lonely = Service("lonely")

    @lonely.task
    def count(ctx: Context) -> Next:
        return result(ctx.attempt)

    with pytest.raises(ExplorationError) as caught:
        explore(lonely, start=publish(count), faults=3, most=1, seed=3)
    assert 1 == caught.value.replay.count(";")


def test_replay_of_something_else() -> None:
    """What no error has named is refused."""
    with pytest.raises(ConfigurationError, match="not what an error has named"):
        explore(work, start=publish(fork), replay="the last one")


def _forgets_the_fence(step: Any, command: Any) -> Any:
    call = step.run.calls.get(command.call_id)
    if call is None:
        return Answer.ENDED
    return call if call.phase is Phase.LEASED else Answer.LOST


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (Lifecycle, "_claimed", _forgets_the_fence),
        (joins, "happen", lambda *_: ()),
        (Lifecycle, "_remove", lambda *_: None),
        (scopes, "leave", lambda *_: None),
    ],
)
def test_faults_of_the_core_are_found(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, mutant: Callable[..., Any]
) -> None:
    """A core that fences, joins or counts wrongly does not pass."""
    monkeypatch.setattr(owner, name, mutant)

    with pytest.raises(ExplorationError):
        explore(work, start=publish(fork))
