"""A virtual environment for each peer, made once and kept; the one place for their versions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache

from tests.bench.crew import ROOT

__all__ = ["PINNED", "EnvironmentFailedError", "python_for"]

# Peer -> what to install. hiredis and uvloop are here wherever a peer makes use of them by itself.
PINNED = {
    "celery": ("celery[redis]==5.7.0", "redis[hiredis]==8.1.0"),
    "dramatiq": ("dramatiq[redis,rabbitmq]==2.2.1", "redis[hiredis]==8.1.0"),
    "taskiq": (
        "taskiq[orjson,uv]==0.13.0",
        "taskiq-redis==1.2.4",
        "taskiq-aio-pika==0.6.1",
        "taskiq-pipelines==0.1.4",
        "redis[hiredis]==8.1.0",
    ),
    "saq": ("saq[hiredis]==0.26.4", "redis[hiredis]==8.1.0", "uvloop==0.23.0", "typing_extensions"),
    "streaq": ("streaq==7.2.0", "uvloop==0.23.0"),
    "dbos": ("dbos==3.4.0",),
    "procrastinate": ("procrastinate==3.10.0", "psycopg[binary]==3.3.9"),
}

_FOLDER = ROOT / ".nox" / "bench-peers"


class EnvironmentFailedError(RuntimeError):
    """A peer cannot be installed here."""


@cache
def python_for(peer: str) -> str:
    """Return the interpreter that has *peer*; ours for "". It is installed if it was not.

    Raises:
        EnvironmentFailedError: If it cannot be.
    """
    if not peer:
        return sys.executable
    folder = _FOLDER / peer
    python, mark = folder / "bin" / "python", folder / "pinned"
    pins = "\n".join(PINNED[peer])
    if mark.exists() and mark.read_text() == pins:
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"Installing {', '.join(PINNED[peer])} …", file=sys.stderr, flush=True)
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    _run([*_pip(), "--python", str(python), "install", "-q", *PINNED[peer]])
    mark.write_text(pins)
    return str(python)


@cache
def _pip() -> tuple[str, ...]:
    """Return a pip that can install into other environments."""
    own = getattr(sys, "_base_executable", sys.executable)
    for python in (sys.executable, own, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        command = (str(python), "-m", "pip")
        if (
            python
            and subprocess.run([*command, "-V"], check=False, capture_output=True).returncode == 0
        ):
            return command
    raise EnvironmentFailedError("there is no pip")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise EnvironmentFailedError(f"{command[-1]}: {done.stderr.strip().splitlines()[-1:]}")
