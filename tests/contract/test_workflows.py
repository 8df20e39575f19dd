import pytest

from pwf_core.testing.workflows import *  # noqa: F403 -- the suite is what there is to run


@pytest.fixture
def harness(workflow_harness):
    return workflow_harness
