"""A store of which a part is away answers so: nothing is lost, doubled or stuck."""

from __future__ import annotations

from typing import ClassVar

import pytest
from msgspec.structs import replace
from tests.simulated.shapes import SERVICES, SHAPES

from pwf.testing import _deployment, explore
from pwf.testing._workers import Lane, Worker
from pwf_core.commands import Answer
from pwf_core.paired import Apply
from pwf_core.ports import Applied

_LOOK_MS = 1000  # as real workers do, however late the next timer is due


class _Parted(_deployment.Deployment):
    """A worker that finds the store away, or gets no reply, is told so by the store's answers."""

    told: ClassVar[int] = 0

    def _cut_off(self, worker: Worker, lane: Lane) -> None:
        if isinstance(lane.at, Apply) and lane.at.partly:
            _Parted.told += 1
            away = [Answer.AWAY] * len(lane.at.commands)
            lane.answer = Applied([*away], [], _LOOK_MS, "away"), None
        else:
            super()._cut_off(worker, lane)

    def _perform(self, worker: Worker, effect: object) -> object:
        reply = super()._perform(worker, effect)
        if isinstance(reply, Applied) and reply.next_due_ms is not None:
            reply = replace(reply, next_due_ms=min(reply.next_due_ms, _LOOK_MS))
        return reply


@pytest.mark.parametrize("concurrency", [2, 64])
@pytest.mark.parametrize("shape", ["fork", "gather"])
def test_shape_survives_a_part_that_is_away(
    monkeypatch: pytest.MonkeyPatch, shape: str, concurrency: int
) -> None:
    """Claims and commits that had no answer, whether they were made or not, are made again."""
    monkeypatch.setattr("pwf.testing.exploration.Deployment", _Parted)
    monkeypatch.setattr(_Parted, "told", 0)

    found = explore(*SERVICES, start=SHAPES[shape], faults=2, most=750, concurrency=concurrency)

    assert found.refused > 0
    assert _Parted.told > 0
