import pytest

from pwf_core.testing.backends import *  # noqa: F403 -- the suite is what there is to run


@pytest.fixture
def harness(backend_harness):
    return backend_harness
