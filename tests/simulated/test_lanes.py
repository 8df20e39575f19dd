"""Mistakes with several exchanges under way are found, and by plans with two lanes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.simulated import limits
from tests.simulated.shapes import SERVICES, SHAPES
from tests.simulated.test_suspects import explore_guilty

from pwf.testing import ExplorationError, explore
from pwf_core import engine
from pwf_core.engine import Engine
from pwf_core.ids import ClaimId, claim_id_of
from pwf_core.inboxes import Inbox, Inboxes


def explore_fork() -> None:
    """Explore a shape whose calls run in two lanes."""
    explore(*SERVICES, start=SHAPES["fork"], concurrency=2)


def _claims_of_one_lane(worker: str, _lane: int, number: int) -> ClaimId:
    return claim_id_of(worker, 0, number)


def _overlaps_parts(self: Engine) -> bool:
    return len(self._under_way) < self.lanes


def _forgets_other_lanes(self: Engine) -> bool:
    return not (self._held or any(call.grant.suspect for call in self.running.values()))


@contextmanager
def _empties_the_others_inbox(self: Inboxes, worker: str) -> Iterator[Inbox]:
    inbox = self[worker]
    try:
        yield inbox
    finally:
        if inbox.is_empty:
            self.pop(worker, None)


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "exploring"),
    [
        pytest.param(engine, "claim_id_of", _claims_of_one_lane, explore_fork, id="session"),
        pytest.param(Inboxes, "use", _empties_the_others_inbox, explore_fork, id="inbox"),
        pytest.param(
            Engine,
            "_may_take_a_suspect",
            _forgets_other_lanes,
            lambda: explore_guilty(2),
            id="suspects",
        ),
    ],
)
def test_mistakes_with_lanes_are_found(
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    mutant: Callable[..., Any],
    exploring: Callable[[], object],
) -> None:
    """What goes wrong only beside another exchange needs two lanes, as real workers have."""
    monkeypatch.setattr(owner, name, mutant)

    with pytest.raises(ExplorationError) as caught:
        exploring()
    assert "with two lanes" in caught.value.replay  # those with one came before


def test_parts_that_overtake_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of one decision in two exchanges at a time arrive in the wrong order."""
    limits.lower(monkeypatch)
    monkeypatch.setattr(Engine, "may_overlap", property(_overlaps_parts))

    with pytest.raises(ExplorationError) as caught:
        explore_fork()
    assert "with two lanes" in caught.value.replay
