"""When a failed attempt is run again, and after how long."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwf_core.errors import DefinitionError, DirectiveError
from pwf_core.retries import Retry, backoff_ms, milliseconds


@pytest.mark.parametrize(
    ("policy", "error", "failures", "wanted"),
    [
        (Retry(), ValueError(), 1, True),
        (Retry(), ValueError(), 4, True),
        (Retry(), ValueError(), 5, False),
        (Retry(attempts=1), ValueError(), 1, False),
        (Retry(on=OSError), ValueError(), 1, False),
        (Retry(on=OSError), ConnectionError(), 1, True),
        (Retry(on=(OSError, KeyError)), KeyError(), 1, True),
        (Retry(give_up_on=KeyError), KeyError(), 1, False),
        (Retry(on=OSError, give_up_on=PermissionError), PermissionError(), 1, False),
        (Retry(), DirectiveError("wrong"), 1, False),
        (Retry(), DefinitionError("wrong"), 1, False),
        (Retry(), KeyboardInterrupt(), 1, False),
    ],
)
def test_policy_decides(policy, error, failures, wanted):
    """Attempts, kinds of errors and those given up on decide; a wrong return value never helps."""
    assert wanted is policy.wants(error, failures)


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": True},
        {"base": timedelta(0)},
        {"cap": timedelta(seconds=-1)},
    ],
)
def test_impossible_policies_are_refused(options):
    """A policy that can never work is refused where it is made."""
    with pytest.raises(DefinitionError):
        Retry(**options)


@pytest.mark.parametrize(
    ("options", "waits"),
    [
        ({"base": timedelta(hours=1)}, "base=1:00:00 is more than cap=0:05:00"),
        ({"cap": timedelta(seconds=1)}, "base=0:00:02 is more than cap=0:00:01"),
    ],
)
def test_first_wait_above_the_longest_is_refused(options, waits):
    """Both are named, since one of them may be the default."""
    with pytest.raises(DefinitionError, match=waits):
        Retry(**options)


@given(st.text(min_size=1), st.integers(1, 10_000))
def test_waits_stay_within_their_bounds(call_id, failures):
    """A wait is between nothing and the doubled base, never over the cap, the same each time."""
    policy = Retry(base=timedelta(seconds=2), cap=timedelta(minutes=5))
    bound = min(300_000, 2000 * 2 ** min(failures - 1, 20))

    wait = backoff_ms(policy, call_id, failures)
    assert 0 <= wait <= bound
    assert wait == backoff_ms(policy, call_id, failures)


def test_waits_spread_out():
    """Calls that fail together come again apart: full jitter over the whole span."""
    waits = [backoff_ms(Retry(), f"call-{number}", 4) for number in range(1000)]

    assert min(waits) < 1600
    assert max(waits) > 14_400
    assert 7000 < sum(waits) / len(waits) < 9000


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (timedelta(seconds=1), 1000),
        (timedelta(microseconds=1), 1),
        (timedelta(milliseconds=1, microseconds=1), 2),
        (timedelta(0), 0),
        (1.5, 1500),
        (0.0001, 1),
    ],
)
def test_milliseconds_round_up(duration, expected):
    """A short wait is never no wait."""
    assert expected == milliseconds(duration)
