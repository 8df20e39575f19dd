"""What a worker logs of how calls end."""

from __future__ import annotations

import logging

import pytest

from pwf._options import OutcomeLog
from pwf_core.commands import Granted
from pwf_core.ids import CallId, ClaimId, RunId
from pwf_core.protocol import Outcome

UNKNOWN = "no worker here knows this task"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def grant(address: str = "s.t", call: str = "c") -> Granted:
    return Granted(RunId("r"), CallId(call), ClaimId("w"), 0, address, b"", 1, 0, False, {}, None)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_parked_calls_are_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """However many there are of one task, and however often; each is there at the level DEBUG."""
    clock = Clock()
    caplog.set_level(logging.DEBUG, "pwf")
    log = OutcomeLog(clock)
    for _ in range(60):  # two minutes
        for call in ("one", "two"):
            log(grant(call=call), Outcome.PARKED, UNKNOWN)
        clock.now += 2

    assert len(warnings(caplog)) == 2
    assert warnings(caplog)[0] == f"s.t: parked after {UNKNOWN} (run r, call one, attempt 1)"
    assert len(caplog.records) == 120


def test_other_tasks_and_other_reasons_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Each once."""
    log = OutcomeLog(Clock())
    for _ in range(3):
        log(grant("s.t"), Outcome.PARKED, UNKNOWN)
        log(grant("s.u"), Outcome.PARKED, UNKNOWN)
        log(grant("s.t"), Outcome.PARKED, "Arguments of s.t: Expected `int`, got `str`")

    assert len(warnings(caplog)) == 3


def test_what_was_told_is_not_remembered_without_end(caplog: pytest.LogCaptureFixture) -> None:
    """Strangers may send any address; the last ones are remembered."""
    log = OutcomeLog(Clock())
    for number in [*range(10_000), 9_999]:
        log(grant(f"s.t{number}"), Outcome.PARKED, UNKNOWN)

    assert len(warnings(caplog)) == 10_000
    assert len(log._told) <= 1000


def test_failed_attempts_are_all_told(caplog: pytest.LogCaptureFixture) -> None:
    """Each is another failure, and they end with the attempts."""
    log = OutcomeLog(Clock())
    for _ in range(3):
        log(grant(), Outcome.RETRIED, "ValueError: no")

    assert warnings(caplog) == ["s.t: retried after ValueError: no (run r, call c, attempt 1)"] * 3
