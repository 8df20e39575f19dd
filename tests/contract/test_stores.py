import pytest

from pwf_core.testing.stores import *  # noqa: F403 -- the suite is what there is to run


@pytest.fixture
def harness(store_harness):
    return store_harness
