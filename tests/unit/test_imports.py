"""What `import pwf` brings along, and what waits until it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pwf

DRIVERS = ("redis", "hiredis", "pika", "aio_pika", "aiormq", "cyclopts", "uvloop")
ADAPTERS = ("pwf_memory", "pwf_redis", "pwf_rabbit")
ASYNC = ("pwf.client", "pwf.worker", "pwf._runners", "pwf._combining")
BLOCKING = ("pwf.blocking", "pwf.blocking_worker")
NOT_BY_ITSELF = (
    *(*DRIVERS, *ADAPTERS, *ASYNC, *BLOCKING),
    *("asyncio", "concurrent.futures", "socket", "ssl", "subprocess", "tempfile"),
    *("importlib.metadata", "multiprocessing", "pydoc", "pytest", "unittest"),
    *("pwf.cli", "pwf.testing", "pwf_core.engine", "pwf_core.paired", "pwf_core.testing"),
    *("pwf_core.transition", "pwf_core.wire"),
)


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        pytest.param("import pwf", NOT_BY_ITSELF, id="pwf"),
        pytest.param("from pwf import Context, Service, publish", NOT_BY_ITSELF, id="handlers"),
        pytest.param("from pwf import Client, Worker, connect", BLOCKING, id="async"),
        pytest.param(
            "from pwf import BlockingClient, BlockingWorker, connect_blocking", ASYNC, id="blocking"
        ),
    ],
)
def test_imports_no_more_than_is_used(statement: str, unwanted: tuple[str, ...]) -> None:
    """A module of handlers loads neither loop nor client, and a program one flavour of both."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert set(done.stdout.split()) & set(unwanted) == set()


def test_every_public_name_is_there() -> None:
    """What comes later is listed, found, and found once."""
    assert set(pwf.__all__) <= set(dir(pwf))
    for name in pwf.__all__:
        assert getattr(pwf, name) is vars(pwf)[name]


def test_unknown_name_is_refused_as_by_any_module() -> None:
    """Nothing is imported in the hope that it is there."""
    with pytest.raises(AttributeError, match=r"^module 'pwf' has no attribute 'Wroker'$"):
        pwf.Wroker  # noqa: B018
