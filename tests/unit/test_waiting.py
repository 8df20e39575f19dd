"""How a client waits for a run, on a clock that stands still unless it waits."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pwf import RunNotFoundError, Status, StoreUnavailableError
from pwf._waiting import ANSWER, RECHECK, Effect, Listen, Look, Pause, Wait, wait_for_end
from pwf_core.errors import StoreClosedError
from pwf_core.ids import RunId
from pwf_core.steps import drive
from pwf_core.views import Outcome, RunView

RUN = RunId("r")
AWAY = StoreUnavailableError("nobody is there")


def seen(status: Status) -> RunView:
    return RunView(RUN, Outcome(status, None, ""))


class Server:
    """Answers what it is told to, in that order; waiting takes the time that it is given."""

    def __init__(self, *answers: object, repeat: object = None) -> None:
        self.answers = list(answers)
        self.repeat = repeat
        self.now = 100.0
        self.asked: list[Effect] = []

    def perform(self, step: Effect) -> object:
        self.asked.append(step)
        match step:
            case Pause():
                self.now += step.seconds
                return None
            case Wait() if not (self.answers and isinstance(self.answers[0], Outcome)):
                self.now += step.timeout
                return None
        answer = self.answers.pop(0) if self.answers else self.repeat
        if isinstance(answer, TimeoutError) and isinstance(step, Listen | Look):
            assert step.timeout is not None
            self.now += step.timeout
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, seconds: float | None) -> Outcome:
        return drive(wait_for_end(RUN, seconds, lambda: self.now), self.perform)

    @property
    def kinds(self) -> list[type[Any]]:
        return [type(step) for step in self.asked]


def test_run_that_has_ended_is_seen_at_once() -> None:
    """By a look, once nothing can be missed."""
    server = Server(None, seen(Status.FINISHED))

    assert server.wait(0).status is Status.FINISHED
    assert server.asked == [Listen(ANSWER), Look(ANSWER)]


def test_end_that_is_heard_needs_no_look() -> None:
    """There may be nothing to look at any more."""
    server = Server(None, seen(Status.RUNNING), Outcome(Status.FINISHED, b"r", ""))

    assert server.wait(None).result == b"r"
    assert server.asked == [Listen(None), Look(None), Wait(RECHECK)]


def test_last_thing_before_a_time_out_is_a_look() -> None:
    """So it is never told of a run that has ended."""
    server = Server(None, seen(Status.RUNNING), repeat=seen(Status.RUNNING))
    with pytest.raises(TimeoutError, match="Run r has not ended within 7 seconds"):
        server.wait(7)

    assert server.now == 107
    assert server.asked[2:] == [Wait(5), Look(2), Wait(2), Look(ANSWER)]


def test_outage_is_no_time_out() -> None:
    """The limit passes with attempts to connect, and the last failure is told."""
    server = Server(repeat=AWAY)
    with pytest.raises(StoreUnavailableError, match="nobody is there"):
        server.wait(2)

    assert server.now == 102
    assert set(server.kinds) == {Listen, Pause}


def test_outage_that_passes_is_waited_out() -> None:
    """A server that restarts costs its time."""
    server = Server(AWAY, AWAY, None, seen(Status.FINISHED))

    assert server.wait(2).status is Status.FINISHED
    assert server.kinds == [Listen, Pause, Listen, Pause, Listen, Look]


def test_without_a_limit_an_outage_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever for a server that is not there."""
    server = Server(repeat=AWAY)
    monkeypatch.setattr(time, "monotonic", lambda: server.now)
    with pytest.raises(StoreUnavailableError, match="nobody is there"):
        server.wait(None)

    assert 5 <= server.now - 100 < 7


@pytest.mark.parametrize(
    "answers",
    [(TimeoutError(),), (None, TimeoutError()), (None, seen(Status.RUNNING), TimeoutError())],
    ids=["listening", "looking", "looking again"],
)
def test_silence_is_an_outage(answers: tuple[object, ...]) -> None:
    """A server that is there and says nothing cannot be asked either."""
    with pytest.raises(StoreUnavailableError, match="Run r cannot be looked at"):
        Server(*answers).wait(3)


def test_silence_after_an_error_is_that_error() -> None:
    """It says more."""
    with pytest.raises(StoreUnavailableError, match="nobody is there"):
        Server(AWAY, TimeoutError()).wait(3)


@pytest.mark.parametrize(
    ("answer", "error"), [(None, RunNotFoundError), (StoreClosedError("closed"), StoreClosedError)]
)
def test_what_a_look_finds_is_told_at_once(answer: object, error: type[Exception]) -> None:
    """A client that was closed, say, does not connect again."""
    server = Server(None, answer)
    with pytest.raises(error):
        server.wait(3)

    assert server.now == 100


def test_outage_while_it_waits_is_waited_out() -> None:
    """A look that fails is repeated until the limit, like listening."""
    server = Server(None, AWAY, AWAY, seen(Status.FINISHED))

    assert server.wait(30).status is Status.FINISHED
    assert server.kinds == [Listen, Look, Pause, Look, Pause, Look]
    with pytest.raises(StoreUnavailableError, match="nobody is there"):
        Server(None, repeat=AWAY).wait(3)
