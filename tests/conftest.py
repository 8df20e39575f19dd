"""What all tests share: how deep Hypothesis digs, an ear for logs, and a server for the least of users.

`HYPOTHESIS_PROFILE` chooses: `dev` is quick (default), `ci` digs deeper and repeats itself exactly,
`soak` runs for as long as you have patience. `mutation` repeats itself, and does not explain.
"""

import logging
import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from tests.least import rabbit_definitions

# Some examples start by reading a server, and machines that run tests are busy: time says nothing.
_PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("dev", max_examples=50, **_PATIENT)
settings.register_profile(
    "ci",
    max_examples=120,
    derandomize=True,
    print_blob=True,
    phases=set(Phase) - {Phase.explain},  # it takes minutes to say little
    **_PATIENT,
)
settings.register_profile(
    "mutation",
    max_examples=50,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # that it fails is all there is to know
    **_PATIENT,
)
settings.register_profile("soak", max_examples=20_000, stateful_step_count=200, **_PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_collection_modifyitems(items):
    """Have each process begin with its part of the tests that take long; the short ones fill up the end.

    With `--dist worksteal` a process gets as many as each other, in this order, and who has done his
    takes from the end of another's. Some wait most of the time and others compute; so that not all do
    the same, every other process takes these the other way round.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    kinds = {"integration": 0, "simulated": 1}
    parts = [[], [], []]
    for item in items:
        parts[kinds.get(item.path.parent.name, 2)].append(item)
    waiting, computing, short = parts
    items[:] = [
        item
        for number in range(processes)
        for part in (*(waiting, computing)[:: -1 if number % 2 else 1], short)
        for item in part[len(part) * number // processes : len(part) * (number + 1) // processes]
    ]


# Those who set levels of their own, or are quiet unless asked.
_LOGGERS = ["aio_pika", "aiormq", "pika", "redis", "asyncio", "pwf", "pwf_redis", "pwf_rabbit"]


@pytest.fixture
def said():
    """All that is logged, by anybody, with its tracebacks."""
    found = []

    class Listener(logging.Handler):
        def emit(self, record):
            found.append(self.format(record))

    listener, loggers = Listener(), [logging.getLogger(name) for name in (None, *_LOGGERS)]
    levels = [logger.level for logger in loggers]
    loggers[0].addHandler(listener)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield found
    loggers[0].removeHandler(listener)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def least_amqp_url(rabbit_server, tmp_path_factory, request):
    """The administrator's URL of a RabbitMQ that has a user who may configure nothing.

    It is one for all workers of the session, as `rabbit_server` is, which says if there is none.
    """
    from pwf.testing.servers import RabbitServer
    from pwf.testing.shared import share

    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        base = base.parent
    definitions = tmp_path_factory.mktemp("least") / "definitions.json"
    definitions.write_text(rabbit_definitions())
    with share(RabbitServer, base / "pwf-least", f"load_definitions = {definitions}") as server:
        yield server.url
