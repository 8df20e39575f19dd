"""One server for several processes: the first that asks starts it, it ends when all have left.

The processes meet in a folder, where file locks say who is there; the system drops a lock with its
holder, however that ends:

- `start.lock`, exclusive, while somebody looks whether the server runs, and starts it if not;
- `users.lock`, shared by every user.

The server belongs to none of them but to a *keeper*, a process that wants `users.lock` for itself
and stops the server once it gets it. So nobody has to wait for anybody, and no user's death takes
the server from the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pwf.testing.servers import LOOPBACK, PrivateServer, RabbitServer, RedisServer, ServerStartError

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS: dict[str, type[PrivateServer]] = {
    kind.program: kind for kind in (RedisServer, RabbitServer)
}


@dataclass(frozen=True)
class SharedServer:
    """A server that others use as well: an address, without the power to stop it."""

    url: str
    port: int
    pid: int


@contextlib.contextmanager
def share(kind: type[PrivateServer], folder: Path, *config: str) -> Iterator[SharedServer]:
    """Join the server that runs for *folder*, or start it for everybody who meets there.

    Raises:
        ServerMissingError: If it is not installed.
        ServerStartError: If it does not come up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "users.lock", fcntl.LOCK_SH):
        with _locked(folder / "start.lock", fcntl.LOCK_EX):
            server = _running(folder) or _start_keeper(kind, folder, config)
        yield server


def _running(folder: Path) -> SharedServer | None:
    try:
        server = SharedServer(**json.loads(_note(folder).read_text()))
        socket.create_connection((LOOPBACK, server.port), timeout=10).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return None  # never started, or gone: its keeper was killed
    return server


def _start_keeper(kind: type[PrivateServer], folder: Path, config: tuple[str, ...]) -> SharedServer:
    kind.find()  # a missing server is said here, not in a process that nobody listens to
    _note(folder).unlink(missing_ok=True)
    # Ends when the keeper closes its output: it has gone to the background, the server serves.
    keeper = subprocess.run(
        [sys.executable, "-m", __name__, kind.program, folder, *config],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # the pwf that we are
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        start_new_session=True,  # away from Ctrl-C
    )
    server = _running(folder)
    if server is None:
        raise ServerStartError(
            kind.program, "did not start", keeper.stdout.decode(errors="replace")
        )
    return server


def _keep(kind: type[PrivateServer], folder: Path, config: list[str]) -> None:
    """Be the keeper: run the server until nobody uses it any more."""
    if os.fork() != 0:
        os._exit(0)  # whoever started us has no child to look after
    with kind(*config) as server:
        note = SharedServer(server.url, server.port, server.pid)
        _note(folder).write_text(json.dumps(asdict(note)))
        _close_output()
        with _locked(folder / "users.lock", fcntl.LOCK_EX):
            _note(folder).unlink(missing_ok=True)
            server.kill()  # its data go with it, no need for long goodbyes


def _close_output() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _note(folder: Path) -> Path:
    return folder / "server.json"


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, kind)
        yield


if __name__ == "__main__":
    _keep(_KINDS[sys.argv[1]], Path(sys.argv[2]), sys.argv[3:])
