"""`pwf demo`, as a user runs it: on every backend, with its workers killed, and with bad input."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "pwf.cli", "demo"]
LIMIT = 100.0  # seconds
EQUAL = "The report equals that of the plain loop."


@pytest.fixture
def demo(tmp_path):
    """Run the demo in a folder and a namespace of its own; give its exit code and what it wrote.

    Test processes share a RabbitMQ, each with a Redis of its own beside it: in one namespace, they
    would take each other's messages for old ones.
    """
    namespace = f"demo-{uuid.uuid4().hex[:8]}"

    def call(*arguments):
        done = subprocess.run(
            [*DEMO, *arguments, "--namespace", namespace],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        wait_until_empty(tmp_path)
        return done.returncode, done.stdout, done.stderr

    return call


def wait_until_empty(folder):
    """Wait for an embedded server, which ends after its last user, to take its folder along."""
    deadline = time.monotonic() + 20
    while left := list(folder.iterdir()):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.fixture
def embedded_url(tmp_path_factory):
    return f"embedded://{tmp_path_factory.mktemp('embedded')}"


@pytest.fixture
def rabbit_url(amqp_url, redis_url):
    return f"{amqp_url}?store={redis_url}"


BACKENDS = [
    pytest.param("embedded_url", id="embedded", marks=pytest.mark.redis),
    pytest.param("redis_url", id="redis", marks=pytest.mark.redis),
    pytest.param("rabbit_url", id="rabbit", marks=[pytest.mark.redis, pytest.mark.rabbit]),
]


def numbers(out):
    """Return the facts that the demo prints, by name."""
    return dict(re.findall(r"^([a-z][a-z ]*?) {2,}(.+)$", out, flags=re.MULTILINE))


def test_on_memory(demo):
    code, out, err = demo("--limit", "40")

    assert (code, err) == (0, "")
    assert EQUAL in out
    assert numbers(out)["files"] == "40"


def test_memory_takes_no_variable_for_an_answer(demo, monkeypatch):
    """PWF_URL may name production: the demo looks at --url only."""
    monkeypatch.setenv("PWF_URL", "redis://127.0.0.1:1/0")

    assert demo("--limit", "3")[0] == 0


@pytest.mark.parametrize("url", BACKENDS)
def test_on_worker_processes(demo, request, url):
    url = request.getfixturevalue(url)

    code, out, err = demo("--url", url, "--workers", "2", "--limit", "60")

    assert (code, err) == (0, "")
    assert EQUAL in out


@pytest.mark.parametrize("url", BACKENDS[1:])
def test_with_workers_killed(demo, request, url):
    url = request.getfixturevalue(url)

    code, out, err = demo("--url", url, "--kill", "--limit", "300")

    found = numbers(out)
    assert (code, err) == (0, "")
    assert EQUAL in out
    assert int(found["workers killed"]) > 0
    assert (found["committed twice"], found["lost"]) == ("0", "0")


@pytest.mark.redis
def test_killing_needs_no_url_and_leaves_nothing(demo):
    code, out, err = demo("--kill", "--limit", "100")

    assert (code, err) == (0, "")
    assert "embedded://" in out
    assert EQUAL in out


def test_own_source(demo):
    here = Path(__file__).parents[2] / "src"

    code, out, _ = demo("--path", str(here))

    assert code == 0
    assert f"of {here}" in out


def test_what_is_no_python_does_not_stop_it(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    (folder / "bad.py").write_bytes(b"\0def")
    (folder / "good.py").write_text("def f(): ...")

    code, out, _ = demo("--path", str(folder))

    assert code == 0
    assert numbers(out)["unreadable"] == "1"


@pytest.mark.parametrize(
    ("one", "to_sigint"),
    [
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_IGN),  # as shells have it for what they run in the background
    ],
)
def test_interrupted_it_leaves_nothing(tmp_path, one, to_sigint):
    before = signal.signal(signal.SIGINT, to_sigint)  # what a child begins with
    try:
        process = subprocess.Popen(
            DEMO, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        for line in process.stdout:
            if "/s" in line:  # at work
                process.send_signal(one)

    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_down_is_one_line(demo):
    code, _, err = demo("--url", "redis://user:secret@127.0.0.1:1/0")

    assert code == 1
    assert len(err.splitlines()) == 1
    assert "127.0.0.1:1" in err
    assert "secret" not in err
