"""The keeper of an embedded server: starts it, starts it again if it dies, stops it after its last user.

    python -I keeper.py FOLDER SERVER APPENDFSYNC      ("no" or "always")

A program of its own, with the standard library only: it lives on when the process that started it
ends, because others may have joined. Who is there is told by file locks in the folder, which the
system drops with their holders, however those end:

- `users.lock`, shared by every user; the keeper wants it for itself, and stops the server then;
- `keeper.lock`, held by the keeper: without it, the next user starts another one;
- `server.lock`, held by the server, which inherits it: never two servers on the same data, even if
  a keeper was killed and its server lives.

`server.json` says where the server listens, while it does.

The keeper also has the append-only file written to disk once a second. The server could do that
itself (`appendfsync everysec`), but it then keeps back what it has acknowledged while the disk is
busy, for up to two seconds, and a server that is killed takes that with it. With `appendfsync no` each
command is in the system's hands before it is answered.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LONGEST_SOCKET_PATH = 100  # bytes; the system allows 104 to 108
_START_TIMEOUT = 600.0  # a large append-only file is read at about 100 MB a second
_STOP_TIMEOUT = 60.0
_LOG_MAX = 1024 * 1024


def note_of(folder: Path) -> Path:
    """Return the file that says where the server listens."""
    return folder / "server.json"


def try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None if somebody else does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def ask(path: str, command: str, timeout: float = 5.0) -> bytes:
    """Return the first bytes of a server's reply; b"" if it cannot be reached."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(4096)
    except OSError:
        return b""


class _Keeper:
    def __init__(self, folder: Path, server: str, appendfsync: str) -> None:
        self.folder = folder
        self.server = server
        self.appendfsync = appendfsync
        self.stopping = False
        self.pid = 0
        self.socket = ""
        self.borrowed: str | None = None  # a folder elsewhere for the socket

    def run(self) -> None:
        """Keep the server until nobody uses it."""
        held = try_lock(self.folder / "keeper.lock")
        if held is None:
            return  # somebody was faster
        has_server = self._adopt()
        try:
            if not has_server:
                self._write_configuration()
                self._start()
            _say("ready")
            _let_go_of_output()
            threading.Thread(target=self._await_last_user, daemon=True).start()
            threading.Thread(target=self._sync_every_second, daemon=True).start()
            self._keep()
        finally:
            note_of(self.folder).unlink(missing_ok=True)
            self._give_back()
        # The locks go with this process: who waits for `users.lock` finds everything ended.

    def _keep(self) -> None:
        pause = 0.1
        while True:
            self._await_death()
            if self.stopping or not self.folder.exists():
                return
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
            self._start()

    def _adopt(self) -> bool:
        """Look after a server whose keeper was killed."""
        free = try_lock(self.folder / "server.lock")
        if free is not None:
            os.close(free)
            return False
        deadline = time.monotonic() + _STOP_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                note = json.loads(note_of(self.folder).read_text())
                self.pid, self.socket = int(note["pid"]), note["socket"]
                if ask(self.socket, "PING"):
                    self._note()
                    return True
            free = try_lock(self.folder / "server.lock")
            if free is not None:
                os.close(free)
                return False
            time.sleep(0.1)
        raise SystemExit(f"A server holds {self.folder} and does not answer; end it first.")

    def _write_configuration(self) -> None:
        self.socket = str(self.folder / "server.sock")
        for place in (None, "/tmp"):  # noqa: S108 -- mkdtemp makes a folder that only we may enter
            if len(os.fsencode(self.socket)) > LONGEST_SOCKET_PATH:
                self._give_back()
                self.borrowed = tempfile.mkdtemp(prefix="pwf-", dir=place)
                self.socket = str(Path(self.borrowed) / "server.sock")
        log = self.folder / "server.log"
        if log.exists() and log.stat().st_size > _LOG_MAX:
            log.unlink()
        lines = [
            "port 0",
            f"unixsocket {_quoted(self.socket)}",
            "unixsocketperm 700",
            f"dir {_quoted(str(self.folder))}",
            "appendonly yes",
            f"appendfsync {self.appendfsync}",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
        ]
        (self.folder / "server.conf").write_text("\n".join(lines) + "\n")

    def _give_back(self) -> None:
        if self.borrowed is not None:
            shutil.rmtree(self.borrowed, ignore_errors=True)

    def _start(self) -> None:
        lock = try_lock(self.folder / "server.lock")
        if lock is None:
            raise SystemExit(f"Another server has taken {self.folder}.")
        with contextlib.suppress(FileNotFoundError):
            Path(self.socket).unlink()  # of a server that was killed
        with (self.folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [self.server, str(self.folder / "server.conf")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
            )
        os.close(lock)  # the server has it now
        self.pid = process.pid
        deadline = time.monotonic() + _START_TIMEOUT
        while not ask(self.socket, "PING").startswith(b"+PONG"):
            if process.poll() is not None:
                log_text = (self.folder / "server.log").read_text(errors="replace")
                raise SystemExit("\n".join(log_text.splitlines()[-15:]))
            if time.monotonic() > deadline:
                process.kill()
                raise SystemExit(f"{self.server} did not answer in {_START_TIMEOUT:.0f} s.")
            time.sleep(0.01)
        self._note()

    def _note(self) -> None:
        note = note_of(self.folder)
        draft = note.with_suffix(".new")
        facts = {"pid": self.pid, "socket": self.socket, "keeper": os.getpid()}
        draft.write_text(json.dumps(facts))
        draft.replace(note)

    def _await_death(self) -> None:
        """Wait until the server is gone; then nobody holds its lock."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        with contextlib.suppress(FileNotFoundError):  # somebody has deleted the folder
            descriptor = os.open(self.folder / "server.lock", os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.close(descriptor)

    def _sync_every_second(self) -> None:
        synced: dict[Path, int] = {}
        while True:
            time.sleep(1)
            for log in (*self.folder.glob("*.aof"), *self.folder.glob("appendonlydir/*.aof")):
                with contextlib.suppress(OSError):  # rewritten just now
                    changed = log.stat().st_mtime_ns
                    if synced.get(log) != changed:
                        descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
                        os.fsync(descriptor)
                        os.close(descriptor)
                        synced[log] = changed

    def _await_last_user(self) -> None:
        descriptor = os.open(self.folder / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # held until this process ends
        self.stopping = True
        deadline = time.monotonic() + _STOP_TIMEOUT
        while True:  # until the process ends with the server; a restart may be under way
            late = time.monotonic() > deadline
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL if late else signal.SIGTERM)
            time.sleep(1)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, text.encode())


def _let_go_of_output() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)


def main() -> None:
    """Be the keeper, in the background: who started it shall not have a child to look after."""
    if os.fork() != 0:
        os._exit(0)
    folder, server, appendfsync = sys.argv[1:]
    try:
        _Keeper(Path(folder), server, appendfsync).run()
    except SystemExit as error:
        _say(f"error: {error}")
        raise


if __name__ == "__main__":
    main()
