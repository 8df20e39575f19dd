import pytest

from pwf_core.testing.runs import *  # noqa: F403 -- the suite is what there is to run


@pytest.fixture
def harness(run_harness):
    return run_harness
