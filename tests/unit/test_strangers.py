"""What is said of messages that were set aside."""

from __future__ import annotations

import logging

import pytest

from pwf_core.strangers import Strangers


def test_a_flood_is_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """The first is told, then each time that there are twice as many; with place and problem."""
    strangers = Strangers(logging.getLogger("pwf_test"), "the list x")
    for number in range(1000):
        strangers.note(1, "work", f"problem {number}")

    said = [record.getMessage() for record in caplog.records]
    assert [f"set aside {2**n} messages so far" for n in range(10)] == [
        one.partition(",")[0] for one in said
    ]
    assert "to work: problem 3; they are in the list x" in said[2]
