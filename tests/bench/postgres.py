"""A private PostgreSQL, for the peers that keep their state there."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import struct
import subprocess
from pathlib import Path

from pwf.testing.servers import LOOPBACK, PrivateServer, ServerMissingError, ServerStartError

__all__ = ["PostgresServer"]

_AUTHENTICATED = b"R"


class PostgresServer(PrivateServer):
    """A private PostgreSQL on loopback, trusting everybody; takes lines of `postgresql.conf`.

    It refuses to run as root, so there it runs as `postgres`, whom its package brings.
    """

    program = "postgres"

    @property
    def url(self) -> str:
        """The URL that clients understand."""
        return f"postgresql://postgres@{LOOPBACK}:{self.port}/postgres"

    def new_database(self, name: str) -> str:
        """Make a database, and return its URL."""
        program = self.find().with_name("createdb")
        command = [str(program), "-h", LOOPBACK, "-p", str(self.port), "-U", "postgres", name]
        subprocess.run(command, check=True, capture_output=True)
        return f"postgresql://postgres@{LOOPBACK}:{self.port}/{name}"

    @classmethod
    def find(cls) -> Path:
        """Return the server's program; Debian keeps it off the PATH."""
        if found := shutil.which("postgres"):
            return Path(found).resolve()  # its other programs lie beside it
        if debian := sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
            return debian[-1]
        raise ServerMissingError("postgres", "postgresql")

    def _launch(self) -> subprocess.Popen[bytes]:
        data, program = self.folder / "data", self.find()
        if not data.exists():
            self._initialise(program.with_name("initdb"), data)
            lines = [
                f"listen_addresses = '{LOOPBACK}'",
                f"port = {self.port}",
                "unix_socket_directories = ''",
                *self._config,
            ]
            with (data / "postgresql.conf").open("a") as configuration:
                configuration.write("\n".join(lines) + "\n")
        return self._spawn(*_as_server(), program, "-D", data)

    def _initialise(self, initdb: Path, data: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        command = [
            *_as_server(),
            str(initdb),
            "-D",
            str(data),
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-sync",
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            raise ServerStartError(self.program, "could not be initialised", done.stderr)

    def _answers(self, connection: socket.socket) -> bool:
        # A start-up message of protocol 3.0; while it starts the server answers with an error.
        message = struct.pack(">i", 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
        connection.sendall(struct.pack(">i", 4 + len(message)) + message)
        return connection.recv(1) == _AUTHENTICATED


def _as_server() -> list[str]:
    """Return what to put before a command so that it does not run as root; one pid all the way."""
    if os.geteuid() != 0:
        return []
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise ServerMissingError("postgres", "postgresql") from None
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
