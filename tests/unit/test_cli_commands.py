"""The commands, on a backend in memory: what they print, and their exit codes."""

import json
import re
import subprocess
import sys
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest

from pwf import Event, Next, Retry, Service, connect_blocking, join, publish, result
from pwf.blocking_worker import BlockingWorker
from pwf.cli._app import run

shop = Service("shop")
paid = Event("paid", int)
ESCAPE = "\x1b[31mred\x1b[0m"
# A colour, a title, a bell; the same in one byte (C1); text turned around; lines that look like ours.
NASTY = "\x1b[31m\x1b]0;t\x07\x9b31m\x9d\u202e\u2066\u200e\u2028\x85\x00\x7f\r\npwf: fine\nzz"
DIRTY = NASTY.encode("unicode_escape").decode().replace("\\x", "\\u00")  # in JSON


@shop.task
def add(a: int, b: int = 2) -> Next:
    return result({"sum": a + b})


@shop.task(retry=Retry(attempts=1))
def fail(text: str) -> Next:
    raise ValueError(text)


@shop.task(retry=Retry(attempts=9, base=timedelta(minutes=5)))
def fail_slowly(text: str) -> Next:
    raise ValueError(text)


@shop.task
def echo(value: Any) -> Next:
    return result(value)


@shop.task
def wait_for_payment(x: int) -> Next:
    return join(paid, then=publish(add, x))


@pytest.fixture
def backend(monkeypatch):
    """A backend that the commands find by PWF_URL, as far as memory can be found: in this process."""
    url = f"memory://cli-{uuid.uuid4().hex}"
    monkeypatch.setenv("PWF_URL", url)
    with connect_blocking(url) as client:
        yield client


@pytest.fixture
def worker(backend):
    with BlockingWorker(backend, shop, threads=2) as running:
        yield running


@pytest.fixture
def pwf(capsys):
    """Run a command line; give its exit code and what it wrote."""

    def call(*arguments):
        code = run(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def terminal(monkeypatch):
    """Have stdout be a terminal of that width."""

    def make(width=120):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)

    return make


def eventually(condition):
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@pytest.fixture
def letters(backend, worker):
    """Three dead letters, that died in this order."""
    for text in ["one", f"two {ESCAPE}", "three\nlines"]:
        backend.start(publish(fail, text)).wait(timeout=20)
    return backend.dead_letters()


class TestStart:
    def test_prints_the_id_of_the_run(self, backend, pwf):
        code, out, err = pwf("start", "shop.add", "[1]")

        assert (code, err) == (0, "")
        assert backend.run(out.strip()).status() == "running"

    @pytest.mark.parametrize(
        ("arguments", "total"), [("[1]", 3), ("[1, 5]", 6), ('{"b": 5, "a": 2}', 7)]
    )
    def test_follows_to_the_result(self, worker, pwf, arguments, total):
        code, out, _ = pwf("start", "shop.add", arguments, "--follow")

        assert code == 0
        assert json.loads(out.splitlines()[1]) == {"sum": total}

    def test_same_key_same_run(self, backend, pwf):
        first = pwf("start", "shop.add", "[1]", "--key", "k")
        again = pwf("start", "shop.add", "[1]", "--key", "k")

        assert first == again
        code, _, err = pwf("start", "shop.add", "[2]", "--key", "k")
        assert code == 1
        assert err.startswith("pwf: Key 'k' already names run")

    def test_reads_arguments_from_stdin(self, worker, pwf, monkeypatch, tmp_path):
        (tmp_path / "in").write_text("[40]")
        with (tmp_path / "in").open() as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            _, out, _ = pwf("start", "shop.add", "-", "--follow", "--json")

        started, ended = map(json.loads, out.splitlines())
        assert ended == {**started, "status": "finished", "result": {"sum": 42}}

    def test_a_failed_run_is_one_line_and_exit_code_1(self, worker, pwf):
        code, _, err = pwf("start", "shop.fail", '["boom"]', "--follow")

        assert code == 1
        assert err.startswith("pwf: Run ")
        assert err.endswith("ValueError: boom\n")
        assert len(err.splitlines()) == 1

    def test_a_failed_run_is_json_where_that_is_wanted(self, worker, pwf):
        code, out, err = pwf("start", "shop.fail", '["boom"]', "--follow", "--json")

        ended = json.loads(out.splitlines()[1])
        assert (code, err, ended["status"]) == (1, "", "failed")
        assert "ValueError: boom" in ended["reason"]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ("5", "write '[5]'"),
            ("{", "not JSON"),
            ("[" * 100_000, "not JSON"),
        ],
    )
    def test_other_arguments_are_refused(self, backend, pwf, arguments, said):
        code, _, err = pwf("start", "shop.add", arguments)

        assert code == 2
        assert said in err
        assert len(err) < 300


class TestRunsShow:
    def test_a_finished_run_has_its_result(self, backend, worker, pwf):
        started = backend.start(publish(add, 1))
        started.wait(timeout=20)

        code, out, _ = pwf("runs", "show", started.id)

        assert code == 0
        assert json.loads(out) == {
            "run_id": started.id,
            "status": "finished",
            "result": {"sum": 3},
            "reason": "",
            "calls": [],
            "joins": [],
            "events": [],
        }

    def test_a_stalled_run_says_what_is_missing(self, backend, worker, pwf):
        started = backend.start(publish(wait_for_payment, 1))
        started.wait(timeout=20)

        _, out, _ = pwf("runs", "show", started.id)

        shown = json.loads(out)
        assert shown["status"] == "stalled"
        assert "waits for 'paid'" in shown["reason"]
        assert shown["joins"][0]["missing"] == ["paid"]

    @pytest.mark.parametrize("width", [40, 200])
    def test_a_terminal_gets_tables(self, backend, worker, pwf, terminal, width):
        started = backend.start(publish(add, 1).after(timedelta(hours=3)))
        terminal(width)

        _, out, _ = pwf("runs", "show", started.id)

        for text in [started.id, "running", "1 open call", "shop.add", "timed", "3 h"]:
            assert text in out
        plain = re.sub(r"\x1b\[\d*m", "", out)
        assert max(map(len, plain.splitlines())) <= width

    def test_an_unknown_run_is_an_error(self, backend, pwf):
        code, out, err = pwf("runs", "show", "nope")

        assert (code, out) == (1, "")
        assert err.startswith("pwf: Run nope is not known")


class TestDead:
    def test_lists_them_as_json_lines(self, letters, pwf):
        code, out, _ = pwf("dead", "list", "--service", "shop")

        shown = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        assert [one["call_id"] for one in shown] == [one.call_id for one in letters]
        assert shown[0]["arguments"] == {"text": "one"}
        assert "ValueError: one" in shown[0]["reason"]

    @pytest.mark.parametrize("options", [[], ["--full"], ["--json"]])
    @pytest.mark.parametrize("width", [40, 200])
    def test_no_control_character_reaches_a_terminal(self, letters, pwf, terminal, options, width):
        terminal(width)

        _, out, _ = pwf("dead", "list", *options)

        assert "two" in out
        assert "\x1b[31m" not in out

    def test_requeues_one_by_its_id(self, backend, letters, pwf):
        code, out, _ = pwf("dead", "requeue", letters[1].call_id)

        assert (code, out) == (0, "1 requeued\n")
        eventually(lambda: backend.dead_letters()[-1].call_id == letters[1].call_id)

    def test_requeues_those_of_a_run(self, letters, pwf):
        assert pwf("dead", "requeue", letters[1].run_id)[:2] == (0, "1 requeued\n")

    def test_requeues_each_once_even_if_it_dies_again(self, letters, pwf):
        assert pwf("dead", "requeue", "--all")[:2] == (0, "3 requeued\n")

    def test_an_unknown_id_is_an_error_and_the_others_are_done(self, letters, pwf):
        code, out, err = pwf("dead", "requeue", "nope", letters[0].call_id)

        assert (code, out) == (1, "1 requeued\n")
        assert err == "pwf: no dead letter is or belongs to nope\n"

    def test_is_json_where_that_is_wanted(self, letters, pwf):
        first, second, _ = letters
        requeued = pwf("dead", "requeue", first.call_id, "--json")
        dropped = pwf("dead", "drop", second.call_id, "nope", "--json")

        assert (requeued[0], json.loads(requeued[1])) == (0, {"requeued": 1, "missing": []})
        assert (dropped[0], json.loads(dropped[1])) == (1, {"dropped": 1, "missing": ["nope"]})
        assert dropped[2] == "pwf: no dead letter is or belongs to nope\n"

    def test_drops_all_of_a_service(self, backend, letters, pwf):
        assert pwf("dead", "drop", "--all", "--service", "other", "--yes")[1] == "0 dropped\n"
        assert pwf("dead", "drop", "--all", "--service", "shop", "--yes")[1] == "3 dropped\n"
        assert backend.dead_letters() == []
        assert backend.run(letters[0].run_id).status() == "failed"

    def test_drops_nothing_unasked(self, backend, letters, pwf):
        code, _, err = pwf("dead", "drop", "--all")

        assert code == 2
        assert "Drop 3 dead letters for good?" in err
        assert len(backend.dead_letters()) == 3

    @pytest.mark.parametrize("command", ["requeue", "drop"])
    @pytest.mark.parametrize("arguments", [[], ["--service", "shop"], ["x", "--all"]])
    def test_says_which(self, backend, pwf, command, arguments):
        assert pwf("dead", command, *arguments)[0] == 2


class TestControlCharacters:
    """Whatever others have chosen is shown as escapes, on terminals and anywhere else."""

    @pytest.fixture
    def shown(self, pwf, request):
        """Run a command line in all ways; give all that it wrote."""

        def call(*arguments):
            wrote = pwf(*arguments)[1:]
            request.getfixturevalue("terminal")(width=200)
            wrote += pwf(*arguments)[1:]
            ours = re.compile(r"\x1b\[[012]m")  # rich's: plain, bold, dim
            lines = ours.sub("", "\n".join(wrote)).split("\n")
            assert [line for line in lines if not line.isprintable()] == []
            return lines

        return call

    @pytest.mark.parametrize("options", [[], ["--json"], ["--full"]])
    def test_of_dead_letters(self, backend, worker, shown, options):
        backend.start(publish(fail, NASTY))
        eventually(backend.dead_letters)
        lines = shown("dead", "list", *options)

        assert "zz" in "".join(lines)
        assert not any(line.startswith("pwf: fine") for line in lines)

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_of_results(self, backend, worker, shown, options):
        started = backend.start(publish(echo, [NASTY, {NASTY: NASTY}]))
        started.wait(timeout=20)

        assert r"\u009b31m" in "".join(shown("runs", "show", started.id, *options))
        assert r"\u202e" in "".join(
            shown("start", "shop.echo", f'["{DIRTY}"]', "--follow", *options)
        )

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_of_failures(self, backend, worker, shown, options):
        started = backend.start(publish(fail, NASTY))
        started.wait(timeout=20)

        shown("runs", "show", started.id, *options)
        shown("start", "shop.fail", f'["{DIRTY}"]', "--follow", *options)

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_of_reasons_to_cancel(self, backend, shown, options):
        started = backend.start(publish(add, 1))
        started.cancel(reason=NASTY)

        shown("runs", "show", started.id, *options)

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_of_reasons_to_retry(self, backend, worker, shown, options):
        started = backend.start(publish(fail_slowly, NASTY))
        eventually(lambda: any(call.reason for call in started.view().calls))

        assert "zz" in "".join(shown("runs", "show", started.id, *options))

    @pytest.mark.parametrize(
        "arguments",
        [
            ["start", "shop.add", "[1]", "--key", NASTY],
            ["start", NASTY],
            ["start", f"shop.{NASTY}"],
            ["start", "shop.add", NASTY],
            ["start", "shop.add", f'["{DIRTY}", 2, 3]'],
            ["runs", "show", NASTY],
            ["dead", "list", "--service", NASTY],
            ["dead", "requeue", NASTY],
            ["dead", "drop", NASTY],
            ["purge", NASTY, "--yes"],
            ["purge", NASTY],
            ["worker", NASTY],
            ["worker", f"{NASTY}:x"],
            ["worker", f"json:{NASTY}"],
            ["demo", "--path", NASTY],
            ["demo", "--url", NASTY],
            ["runs", "show", "x", "--url", f"memory://x?namespace={NASTY}"],
            ["runs", "show", "x", "--url", f"{NASTY}://x"],
            ["runs", "show", "x", "--namespace", NASTY],
            ["runs", "show", "x", f"--{NASTY}"],
            [NASTY],
        ],
    )
    def test_of_arguments(self, backend, shown, arguments):
        shown(*(one.replace("\0", "") for one in arguments))


class TestPurge:
    def test_empties_a_queue(self, backend, pwf):
        started = backend.start(publish(add, 1))

        assert pwf("purge", "shop", "--yes")[:2] == (0, "1 call purged\n")
        assert started.status() == "failed"

    def test_is_json_where_that_is_wanted(self, backend, pwf):
        backend.start(publish(add, 1))

        assert pwf("purge", "shop", "--yes", "--json")[:2] == (0, '{"purged":1}\n')

    def test_purges_nothing_unasked(self, backend, pwf):
        started = backend.start(publish(add, 1))

        assert pwf("purge", "shop")[0] == 2
        assert started.status() == "running"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, 'Unknown command "nonsense"'),
        (["demo", "--nonsense"], 2, "--nonsense"),
        (["demo", "--limit", "0"], 2, "--limit"),
        (["demo", "--workers", "2"], 2, "lives in this process"),
        (["demo", "--kill", "--url", "memory://"], 2, "lives in this process"),
        (["demo", "--path", "/nonsense"], 2, "/nonsense is not a folder"),
        (["demo", "--url", "nonsense"], 1, "amqp://user:password@host:port/vhost"),
        (["demo", "--url", "memory://?namespace=a", "--namespace", "b"], 1, "namespace has two values"),
        (["runs", "show", "x", "--url", "memory://x?namespace=a", "--namespace", "b"], 1, "Keep one"),
        (["worker"], 2, "SERVICE"),
        (["worker", "nonsense", "--url", "memory://x"], 2, "not module:variable"),
        (["worker", "nonsense:x", "--url", "memory://x"], 2, "no module 'nonsense'"),
        (["worker", "json:nonsense", "--url", "memory://x"], 2, "has no 'nonsense'"),
        (["worker", "json:loads", "--url", "memory://x"], 2, "not a pwf.Service"),
        (["worker", "pwf.cli._index:librar", "--url", "memory://x"], 2, "It has the services library"),
        (["worker", "json:x", "--lease", "5x", "--url", "memory://x"], 2, "--lease"),
        (["runs", "show", "x"], 2, "PWF_URL"),
        (["runs", "show", "x", "--url", "memory://"], 2, "ends with this command"),
        (["purge", "a.b", "--url", "memory://x"], 1, "dot"),
        (["dead", "list", "--url", "memory://u:secret@x/y"], 1, "memory://u:***@x/y"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(pwf, monkeypatch, arguments, code, said):
    monkeypatch.delenv("PWF_URL", raising=False)

    found, out, err = pwf(*arguments)

    assert (found, out) == (code, "")
    assert err.startswith("pwf: ")
    assert said in err
    assert len(err.splitlines()) == 1
    assert "secret" not in err


def test_the_demo_keeps_to_the_namespace_of_its_url(pwf, tmp_path):
    (tmp_path / "one.py").write_text("x = 1")

    code, out, err = pwf("demo", "--path", str(tmp_path), "--url", "memory://?namespace=mine")

    assert (code, err) == (0, "")
    assert "equals that of the plain loop" in out


def test_a_worker_needs_shared_memory_for_several_processes(pwf):
    code, _, err = pwf("worker", "pwf.cli._index:library", "--url=memory://x", "--processes=2")

    assert code == 2
    assert "lives in one process" in err


@pytest.mark.parametrize(
    "command", ["", "demo", "worker", "start", "runs show", "dead list", "dead drop", "purge"]
)
def test_every_command_explains_itself(pwf, command):
    code, out, err = pwf(*command.split(), "--help")

    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: pwf {command}".strip())


def test_help_needs_no_adapter_and_no_command():
    """`pwf --help` is quick because it imports little."""
    program = (
        "import sys\n"
        "from pwf.cli._app import run\n"
        "run(['--help'])\n"
        "known = ('pwf_redis', 'pwf_rabbit', 'pwf_memory', 'redis', 'pika', 'aio_pika', 'pwf.cli._demo')\n"
        "assert not [name for name in known if name in sys.modules], sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_says_what_to_install():
    """Without the extra: one line, exit code 2."""
    program = (
        "import sys\n"
        "sys.modules['cyclopts'] = None\n"
        "from pwf.cli import main\n"
        "sys.argv = ['pwf', 'demo']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "pip install 'pubsub-workflow[cli]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_version(pwf):
    from importlib.metadata import version

    assert pwf("--version")[1].strip() == version("pubsub-workflow")
