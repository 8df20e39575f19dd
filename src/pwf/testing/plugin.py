"""The pytest plugin of pwf: exploring, and real servers, started when a test first asks.

It is loaded into every pytest run of every environment that has pwf, so this file imports pytest
and nothing else until a fixture is used.

| fixture | gives |
|---|---|
| `explore` | the function `pwf.testing.explore` |
| `redis_server` | a `RedisServer`, one per test process; yours to pause, kill and restart |
| `redis_url` | its URL |
| `rabbit_server` | a `SharedServer`, one RabbitMQ for all pytest-xdist workers: use it, never stop it |
| `amqp_url` | its URL |

A test that stops RabbitMQ, or wants other settings, starts one of its own:
`with RabbitServer(...) as server`. Servers live for the whole session: keep tests apart by fresh
queue names and key prefixes.

Without the server a test is skipped, with the reason; where the variable `CI` is set it fails.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pwf.testing.exploration import Exploration
    from pwf.testing.servers import RedisServer
    from pwf.testing.shared import SharedServer


@pytest.fixture(scope="session")
def explore() -> Callable[..., Exploration]:
    """Crash a workflow at every point where it can crash: `pwf.testing.explore`."""
    from pwf.testing.exploration import explore

    return explore


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A private Redis for this test process."""
    from pwf.testing.servers import RedisServer

    with contextlib.ExitStack() as stack:
        with _required():
            server = stack.enter_context(RedisServer())
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """The URL of a private Redis."""
    return redis_server.url


@pytest.fixture(scope="session")
def rabbit_server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[SharedServer]:
    """A private RabbitMQ, shared by all workers of this test session."""
    from pwf.testing.servers import RabbitServer
    from pwf.testing.shared import share

    base = tmp_path_factory.getbasetemp()
    if hasattr(
        request.config, "workerinput"
    ):  # a pytest-xdist worker; its base lies in the session's
        base = base.parent
    with contextlib.ExitStack() as stack:
        with _required():
            server = stack.enter_context(share(RabbitServer, base / "pwf-rabbit"))
        yield server


@pytest.fixture(scope="session")
def amqp_url(rabbit_server: SharedServer) -> str:
    """The URL of a private RabbitMQ."""
    return rabbit_server.url


@contextlib.contextmanager
def _required() -> Iterator[None]:
    from pwf.testing.servers import ServerMissingError

    try:
        yield
    except ServerMissingError as missing:
        go_without(str(missing))


def go_without(reason: str) -> NoReturn:
    """Skip a test for want of what it needs; in CI, fail it."""
    # Asked of the environment late, so that a test can set it.
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(reason)
    pytest.fail(f"{reason} In CI, no test goes without.", pytrace=False)
