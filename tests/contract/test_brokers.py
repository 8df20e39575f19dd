import pytest

from pwf_core.testing.brokers import *  # noqa: F403 -- the suite is what there is to run


@pytest.fixture
def harness(broker_harness):
    return broker_harness
