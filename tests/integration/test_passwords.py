"""A password in a URL is shown nowhere: not in errors, logs, reprs, on a terminal or in `ps`.

Every way to fail is walked with a password that can be recognised, every logger at its most
talkative.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections import deque
from contextlib import suppress
from pathlib import Path

import pytest
from tests.least import PASSWORD, as_user, redis_user

import pwf
import pwf_core
from pwf import PwfError, Service, Worker, connect, connect_blocking, publish
from pwf.cli._app import run
from pwf.testing.servers import LOOPBACK
from pwf_core.adapters import Url

pytest.importorskip("redis")
pytest.importorskip("aio_pika")
pytest.importorskip("pika")

import pwf_rabbit
import pwf_redis
from pwf_redis.checks import NEEDED

SOURCES = tuple(str(Path(one.__file__).parent) for one in (pwf, pwf_core, pwf_rabbit, pwf_redis))
LIMIT = 30.0

service = Service("s")


# Refused before anything is opened.
MALFORMED = [
    "ann:{}@host",
    "redis:/ann:{}@host",
    "kafka://ann:{}@host",
    "redis://ann:{}@host:port/0",
    "redis://ann:{}@[::1/0",
    "redis://ann:{}/x@host",
    "redis://ann:{}#x@host",
    "redis://ann:{}?x@host",
    "redis://ann:12/{}@host",
    "redis://ann:12#{}@host",
    "redis://ann:12?{}@host",
    "redis://ann:12?x={}@host",
    "redis://ann:12?{}=x@host",
    "redis://ann:12?namespace={}@host",
    "redis://ann:12?timeout={}@host",
    "redis://ann:{}@host/first",
    "redis://ann:{}@host?nonsense=1",
    "redis://ann:{}@host?timeout=soon",
    "redis://ann:{}@host?retention=soon",
    "redis://ann:{}@host?namespace=a.b",
    "redis://ann:{}@host?durability=much",
    "redis://ann:{}@host?ca_certs=/nowhere",
    "redis://ann:{}@host?timeout=1&timeout=1",
    "redis://host?password={}",
    "rediss://ann:{}@host?ca_certs=/nowhere",
    "rediss://ann:{}@host?ssl_cert_reqs=none",
    "redis+sentinel://ann:{}@host",
    "redis+sentinel://ann:{}@host,host:port/m",
    "redis+sentinel://ann:{}@host,host/m/first",
    "redis+sentinel://ann:{0}@host/m?sentinel_password={0}&nonsense=1",
    "rediss+sentinel://ann:{0}@host/m?sentinel_password={0}&ca_certs=/nowhere",
    "memory://ann:{}@x/y",
    "embedded://ann:{}@x/y",
    "amqp://ann:{}@host",
    "amqp://ann:{}@host/a/b?store=redis://h",
    "amqp://ann:{}@host?heartbeat=x&store=redis://h",
    "amqp://ann:{}@one,two",
    "amqp://ann:{}@one,,two?store=redis://h",
    "amqp://ann:{}@one,ann@two?store=redis://h",
    "amqps://ann:{}@host?certfile=/nowhere&store=redis://h",
    "amqp://host?store=ann:{}@host",
    "amqp://host?store=redis://ann:{}@host/first",
    "amqp://host?store=redis://ann:12?{}@host",
    "amqp://host?store=redis://ann:12?{}=x@host",
    "amqp://host?store=kafka://ann:{}@host",
    "amqp://host?store=amqp://ann:{}@host",
    "amqp://host?store=redis://ann:{}@host&store=redis://host",
]


def assert_secret(texts):
    assert [text for text in texts if PASSWORD in text] == []


def told(error):
    """Return what is printed of an error and its causes; of our own frames with their variables."""
    waiting = deque([traceback.TracebackException.from_exception(error, capture_locals=True)])
    ours = []
    while waiting:
        part = waiting.popleft()
        waiting.extend(one for one in (part.__cause__, part.__context__) if one is not None)
        ours += [frame for frame in part.stack if frame.filename.startswith(SOURCES)]
    assert ours
    lines = traceback.format_exception(error)
    for frame in ours:
        variables = frame.locals or {}
        lines += [f"{frame.name}: {name} = {text}" for name, text in variables.items()]
    return lines


def reprs(root):
    """Return how everything of ours that hangs from *root*, and what it uses, shows itself."""
    waiting, seen, shown = deque([root]), {}, []
    while waiting:
        part = waiting.popleft()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, (list, tuple, set, deque)):
            waiting.extend(part)
        elif not isinstance(part, (str, bytes, int, float, type(None))):
            shown.append(repr(part))
            if type(part).__module__.startswith("pwf"):
                names = [
                    name for kind in type(part).__mro__ for name in getattr(kind, "__slots__", ())
                ]
                names += getattr(part, "__dict__", {})
                waiting.extend(getattr(part, name, None) for name in names)
            elif closed := getattr(part, "__closure__", None):
                waiting.extend(cell.cell_contents for cell in closed)
    return shown


async def use(url):
    client = connect(url)
    problems = [*reprs(client), repr(Worker(client, service))]
    try:
        async with client as backend:
            await backend.start(publish("s.t"))
    except (PwfError, TimeoutError) as error:
        return [*problems, *told(error), *reprs(client)]
    pytest.fail("it works")


def use_blocking(url):
    client = connect_blocking(url)
    problems = reprs(client)
    try:
        with client as backend:
            backend.start(publish("s.t"))
    except (PwfError, TimeoutError) as error:
        return [*problems, *told(error), *reprs(client)]
    pytest.fail("it works")


@pytest.mark.parametrize("url", MALFORMED)
@pytest.mark.parametrize("make", [connect, connect_blocking])
def test_of_a_url_that_cannot_be(make, url, said):
    with pytest.raises(PwfError) as caught:
        make(url.format(PASSWORD)).__enter__()  # the blocking one looks for its adapter only then

    assert_secret([*traceback.format_exception(caught.value), *said])


@pytest.mark.parametrize("url", ["redis://a:{}@h?timeout=1", "amqp://a:{}@h?store=redis://:{}@h"])
def test_of_a_url_that_can_be(url):
    found = Url.parse(url.replace("{}", PASSWORD))

    assert_secret([str(found), repr(found)])


@pytest.fixture
def closed():
    """The port that nobody listens on."""
    with socket.create_server((LOOPBACK, 0)) as one:
        port = one.getsockname()[1]
    return f"ann:{PASSWORD}@{LOOPBACK}:{port}"


@pytest.fixture
def silent():
    """A server that says nothing."""
    with socket.create_server((LOOPBACK, 0)) as one:
        yield f"ann:{PASSWORD}@{LOOPBACK}:{one.getsockname()[1]}"


@pytest.fixture
def redis_here(redis_url):
    """A real one, and a user who knows it."""
    return redis_user(redis_url, "*", NEEDED, "ann")


def swap(url, scheme, old="", new=""):
    return f"{scheme}{url[url.index(':') :]}".replace(old, new)


class TestServers:
    @pytest.fixture(params=["async", "blocking"])
    def attempt(self, request, said):
        """Use a backend that fails, and look at everything that is shown then."""

        def look(url):
            seen = (
                asyncio.run(use(url), debug=True) if request.param == "async" else use_blocking(url)
            )
            assert_secret([*seen, *said])
            return "".join(seen)

        return look

    @pytest.fixture(params=["aio-pika", "pika"])
    def driver(self, request):
        return f"driver={request.param}"

    @pytest.fixture
    def both_here(self, least_amqp_url, redis_here, driver):
        return f"{as_user(least_amqp_url, 'worker')}?{driver}&store={redis_here}"

    @pytest.mark.parametrize("scheme", ["redis", "rediss"])
    def test_that_are_down(self, attempt, closed, scheme):
        assert "cannot be reached" in attempt(f"{scheme}://{closed}/0")

    @pytest.mark.parametrize("scheme", ["redis+sentinel", "rediss+sentinel"])
    def test_sentinels_that_are_down(self, attempt, closed, scheme):
        said = attempt(f"{scheme}://{closed}/m?sentinel_password={PASSWORD}")
        assert "Are they running" in said

    @pytest.mark.parametrize("scheme", ["redis+sentinel", "rediss+sentinel"])
    def test_sentinels_that_say_nothing(self, attempt, silent, scheme):
        said = attempt(f"{scheme}://{silent}/m?timeout=1&sentinel_password={PASSWORD}")
        assert "Are they running" in said

    @pytest.mark.parametrize("scheme", ["amqp", "amqps"])
    @pytest.mark.parametrize("others", ["", f",{LOOPBACK}:1"])
    def test_brokers_that_are_down(self, attempt, closed, driver, scheme, others):
        attempt(f"{scheme}://{closed}{others}/?{driver}&store=redis://{closed}/0")

    @pytest.mark.parametrize("scheme", ["redis", "rediss"])
    def test_that_say_nothing(self, attempt, silent, scheme):
        assert "in time" in attempt(f"{scheme}://{silent}/0?timeout=0.3")

    @pytest.mark.parametrize("scheme", ["amqp", "amqps"])
    def test_brokers_that_say_nothing(self, attempt, silent, driver, scheme):
        attempt(f"{scheme}://{silent}/?{driver}&timeout=0.3&store=redis://{silent}/0?timeout=0.3")

    @pytest.mark.redis
    def test_that_refuse_the_user(self, attempt, redis_here):
        assert "password" in attempt(redis_here.replace("ann:", "bob:"))

    @pytest.mark.redis
    def test_that_have_no_such_database(self, attempt, redis_here):
        attempt(f"{redis_here.rpartition('/')[0]}/99")

    @pytest.mark.redis
    def test_that_do_not_speak_tls(self, attempt, redis_here):
        attempt(redis_here.replace("redis", "rediss", 1) + "?timeout=0.3")

    @pytest.mark.redis
    def test_that_allow_too_little(self, attempt, redis_url):
        url = redis_user(redis_url, "nothing-of-ours", NEEDED, "ben")
        assert "does not allow" in attempt(url)

    @pytest.mark.rabbit
    @pytest.mark.redis
    @pytest.mark.parametrize(
        ("old", "new"), [("worker:", "bob:"), ("?", "nowhere?"), ("amqp", "amqps")]
    )
    def test_brokers_that_refuse(self, attempt, both_here, old, new):
        """The user, the virtual host, or TLS."""
        attempt(f"{both_here}&timeout=1".replace(old, new, 1))

    @pytest.mark.rabbit
    @pytest.mark.redis
    def test_brokers_that_allow_too_little(self, attempt, both_here):
        """The queue of rejected messages is missing."""
        said = attempt(f"{both_here}&namespace=no-queues")
        assert "may not make it" in said


COMMANDS = {
    "start": ["start", "s.t"],
    "follow": ["start", "s.t", "--follow", "--json"],
    "show": ["runs", "show", "x"],
    "list": ["dead", "list"],
    "requeue": ["dead", "requeue", "--all"],
    "drop": ["dead", "drop", "--all", "--yes"],
    "purge": ["purge", "s", "--yes"],
    "worker": ["worker", "tests.integration.test_passwords:service"],
    "workers": ["worker", "tests.integration.test_passwords:service", "--processes=2"],
    "demo": ["demo", "--limit=3", "--workers=2"],
}
FAILING = [
    "redis://ann:{}@127.0.0.1:1/0",
    "redis://ann:{}@host:port/0",
    "redis://ann:{}/x@host",
    "redis://ann:{}@h x@host",
    "redis://ann:{}@host?timeout=soon",
    "amqp://ann:{}@127.0.0.1:1/?store=redis://ann:{}@127.0.0.1:1/0",
    "amqp://ann:{}@host",
]


class TestCommandLine:
    @pytest.fixture
    def pwf(self, capfd, monkeypatch):
        """Run a command line; give its exit code and what it wrote."""
        monkeypatch.setattr("pwf.cli._worker._log_to_stderr", lambda _level: None)  # `said` listens

        def call(arguments, PWF_URL=""):  # noqa: N803 -- the variable
            monkeypatch.setenv("PWF_URL", PWF_URL)
            return run(arguments), *capfd.readouterr()

        return call

    @pytest.mark.parametrize("url", FAILING)
    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize("by", ["option", "environment"])
    def test_says_what_fails(self, command, url, by, pwf, said):
        url = url.replace("{}", PASSWORD)
        if by == "option" or command == "demo":
            code, out, err = pwf([*COMMANDS[command], f"--url={url}"])
        else:
            code, out, err = pwf(COMMANDS[command], PWF_URL=url)

        assert code in {1, 2}
        assert err.startswith("pwf: ")
        assert_secret([out, err, *said])

    @pytest.mark.parametrize(
        "more",
        [["--nonsense"], ["--url"], ["--namespace=a b"], ["--url=x:{}@y"], ["redis://ann:{}@h"]],
    )
    def test_says_what_is_wrong_with_arguments(self, more, pwf):
        more = [one.format(PASSWORD) for one in more]
        code, out, err = pwf(["runs", "show", f"--url=redis://ann:{PASSWORD}@host", *more])

        assert code in {1, 2}
        assert err
        assert_secret([out, err])


def children(pid):
    """Return the processes below *pid*."""
    own = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [below for one in own for below in children(one)]


@pytest.mark.redis
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this is how Linux tells")
class TestProcesses:
    def watch(self, arguments, sign, expected, **variables):
        """Return the command lines of all processes below, once *sign* was said, and what was."""
        process = subprocess.Popen(
            [sys.executable, "-m", "pwf.cli", *arguments],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        lines, found = [], []
        try:
            for line in process.stdout:
                lines.append(line)
                if sum(sign in one for one in lines) == expected:
                    break
            for pid in children(process.pid):
                with suppress(FileNotFoundError):
                    found.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode())
            process.send_signal(signal.SIGTERM)
            lines.append(process.communicate(timeout=LIMIT)[0])
        finally:
            process.kill()
            process.wait()
        return found, lines

    @pytest.mark.parametrize("by", ["option", "environment"])
    def test_of_a_worker(self, redis_here, by):
        """What stands on our own command line is the user's doing; it is not handed on."""
        arguments = ["worker", "tests.integration.test_passwords:service", "--processes=2"]
        options = ["--namespace=ps", "--log-level=debug"]
        if by == "option":
            found, lines = self.watch([*arguments, *options, f"--url={redis_here}"], "serving", 2)
        else:
            found, lines = self.watch([*arguments, *options], "serving", 2, PWF_URL=redis_here)

        assert sum("pwf.cli" in one for one in found) == 2
        assert_secret([*found, *lines])

    def test_of_the_demo(self, redis_here):
        arguments = ["demo", "--workers=2", f"--url={redis_here}", "--namespace=ps-demo"]
        found, lines = self.watch(arguments, "files, ", 1)

        assert sum("pwf.cli" in one for one in found) == 2
        assert_secret([*found, *lines])
