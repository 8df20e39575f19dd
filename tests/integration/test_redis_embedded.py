"""`embedded:///folder`: started with its first user, stopped after its last, whatever is killed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pwf_core.adapters import Durability, Settings, Url
from pwf_core.commands import Start
from pwf_core.decisions import NewCall
from pwf_core.errors import ConfigurationError, StoreUnavailableError
from pwf_core.ports import Take
from pwf_redis import keeper
from pwf_redis.embedded import adapter, find_server

pytest.importorskip("redis")

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def installed(request):
    """Skip or fail as the plugin does where there is no server program."""
    try:
        find_server()
    except ConfigurationError:
        request.getfixturevalue("redis_url")
        raise


def backend_of(folder, **settings):
    return adapter.blocking_backend(Url.parse(f"embedded://{folder}"), Settings(**settings))


@contextmanager
def opened(folder, **settings):
    backend = backend_of(folder, **settings)
    backend.open()
    try:
        yield backend
    finally:
        backend.close()


def run_of():
    run_id = uuid.uuid4().hex
    return Start(run_id, NewCall(uuid.uuid4().hex, "a.task", b"\x90"))


def taken(backend, limit=1000):
    take = Take(("a",), limit, f"{uuid.uuid4().hex}:1", 60_000)
    return {grant.run_id for grant in backend.exchange([], take).grants}


def note(folder):
    return json.loads(keeper.note_of(folder).read_text())


def eventually(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)


def is_free(lock):
    """Whether nobody holds it."""
    descriptor = keeper.try_lock(lock)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def gone(folder):
    """Whether nothing of the server is left."""
    return is_free(folder / "keeper.lock") and is_free(folder / "server.lock")


USER = """
import sys, uuid
from pwf_core.adapters import Settings, Url
from pwf_core.commands import Start
from pwf_core.decisions import NewCall
from pwf_redis.embedded import adapter
backend = adapter.blocking_backend(Url.parse("embedded://" + sys.argv[1]), Settings())
backend.open()
run_id = uuid.uuid4().hex
backend.apply([Start(run_id, NewCall(uuid.uuid4().hex, "a.task", b""))])
print(run_id, flush=True)
sys.stdin.readline()
backend.close()
"""


@contextmanager
def another_process(folder):
    """A program that uses the folder: give it and the run that it started."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_data_stay(tmp_path):
    """And the server does not."""
    start = run_of()
    with opened(tmp_path) as backend:
        backend.apply([start])
    eventually(lambda: gone(tmp_path))
    assert not keeper.note_of(tmp_path).exists()

    with opened(tmp_path) as backend:
        assert taken(backend) == {start.run_id}


def test_a_second_process_joins(tmp_path):
    with opened(tmp_path) as backend:
        pid = note(tmp_path)["pid"]
        with another_process(tmp_path) as (_, run_id):
            assert taken(backend) == {run_id}
            assert note(tmp_path)["pid"] == pid


def test_it_serves_until_the_last_has_left(tmp_path):
    with another_process(tmp_path) as (process, run_id):
        with opened(tmp_path):
            pass
        assert not gone(tmp_path)
        process.communicate("\n")
        eventually(lambda: gone(tmp_path))

    with opened(tmp_path) as backend:
        assert taken(backend) == {run_id}


def test_killed_users_do_not_keep_it(tmp_path):
    with another_process(tmp_path) as (process, run_id):
        process.kill()
        process.wait()
        eventually(lambda: gone(tmp_path))

    with opened(tmp_path) as backend:
        assert taken(backend) == {run_id}


def test_a_killed_server_is_started_again(tmp_path):
    with opened(tmp_path) as backend:
        starts = [run_of() for _ in range(50)]
        backend.apply(starts)
        pid = note(tmp_path)["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: note(tmp_path)["pid"] != pid)

        assert taken(backend) == {one.run_id for one in starts}


def test_a_killed_keeper_is_replaced_by_the_next_user(tmp_path):
    with opened(tmp_path) as backend:
        start = run_of()
        backend.apply([start])
        before = note(tmp_path)
        os.kill(before["keeper"], signal.SIGKILL)
        eventually(lambda: is_free(tmp_path / "keeper.lock"))
        with opened(tmp_path) as other:
            assert note(tmp_path)["pid"] == before["pid"]  # the server went on
            assert note(tmp_path)["keeper"] != before["keeper"]
            assert taken(other) == {start.run_id}
    eventually(lambda: gone(tmp_path))


def test_who_goes_on_outlives_both(tmp_path):
    """Server and keeper are killed: the next round trip starts them anew."""
    with opened(tmp_path) as backend:
        start = run_of()
        backend.apply([start])
        before = note(tmp_path)
        os.kill(before["keeper"], signal.SIGKILL)
        os.kill(before["pid"], signal.SIGKILL)
        eventually(lambda: gone(tmp_path))

        assert taken(backend) == {start.run_id}
    eventually(lambda: gone(tmp_path))


def test_all_killed_at_once_leaves_a_folder_that_is_taken_over(tmp_path):
    with another_process(tmp_path) as (process, run_id):
        before = note(tmp_path)
        for pid in (before["keeper"], before["pid"], process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()

    with opened(tmp_path) as backend:
        assert taken(backend) == {run_id}


def test_a_keeper_that_is_just_dying_is_waited_for(tmp_path):
    held = keeper.try_lock(tmp_path / "keeper.lock")
    backend = backend_of(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(backend.open)
        with pytest.raises(TimeoutError):
            opening.result(timeout=0.5)
        os.close(held)
        opening.result(timeout=PATIENCE)
        backend.close()


def test_many_may_open_it_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        opening = [backend_of(tmp_path) for _ in range(8)]
        list(pool.map(lambda backend: backend.open(), opening))
        for backend in opening:
            backend.apply([run_of()])
        assert len(taken(opening[0])) == 8
        for backend in opening:
            backend.close()
            backend.close()
    eventually(lambda: gone(tmp_path))


def test_a_long_path_works(tmp_path):
    """The system allows a socket's path about a hundred bytes."""
    folder = tmp_path / ("deep" * 20) / ("er" * 40)
    with opened(folder) as backend:
        path = note(folder)["socket"]
        backend.apply([run_of()])

        assert len(path) < keeper.LONGEST_SOCKET_PATH
    eventually(lambda: gone(folder))
    assert not Path(path).parent.exists()


def test_a_long_path_to_temporary_files_works(tmp_path, monkeypatch):
    """Where they are, there is no room for a socket either."""
    temporary = tmp_path / ("deep" * 20)
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    folder = temporary / "er"
    with opened(folder) as backend:
        path = note(folder)["socket"]
        backend.apply([run_of()])

        assert len(path) < keeper.LONGEST_SOCKET_PATH
        assert [one.name for one in temporary.iterdir()] == ["er"]
    eventually(lambda: gone(folder))
    assert not Path(path).parent.exists()


def test_a_server_that_does_not_start_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = tmp_path / ("deep" * 20)
    (folder / "appendonlydir").mkdir(parents=True)
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text("not a manifest")
    with pytest.raises(StoreUnavailableError, match="did not start"), opened(folder):
        pass

    eventually(lambda: gone(folder))
    assert [one.name for one in tmp_path.iterdir()] == [folder.name]


def test_a_path_may_hold_anything(tmp_path):
    folder = tmp_path / 'it"s a \\ földer'
    with opened(str(folder).replace(" ", "%20")) as backend:
        backend.apply([run_of()])

    assert (folder / "appendonlydir").exists()


def test_fsync_is_kept_for_all(tmp_path):
    with opened(tmp_path), opened(tmp_path, durability=Durability.FSYNC) as backend:
        start = run_of()
        backend.apply([start])
        pid = note(tmp_path)["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: note(tmp_path)["pid"] != pid)

        assert b"always" in keeper.ask(note(tmp_path)["socket"], "CONFIG GET appendfsync")
        assert taken(backend) == {start.run_id}


def test_a_cut_log_is_a_consistent_earlier_state(tmp_path):
    """A power cut takes the end of the append-only file; what is left is whole scripts."""
    starts = [run_of() for _ in range(100)]
    with opened(tmp_path) as backend:
        for start in starts:
            backend.apply([start])
    eventually(lambda: gone(tmp_path))
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    os.truncate(log, log.stat().st_size * 2 // 3)

    with opened(tmp_path) as backend:
        found = taken(backend)
        assert 30 < len(found) < 90
        assert found == {one.run_id for one in starts[: len(found)]}


def test_only_its_owner_may_connect(tmp_path):
    with opened(tmp_path / "new"):
        path = Path(note(tmp_path / "new")["socket"])

        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    backend = backend_of(tmp_path / "file" / "folder")
    with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path / "file"))):
        backend.open()


def test_a_server_that_does_not_start_says_why(tmp_path):
    with opened(tmp_path):
        pass
    eventually(lambda: gone(tmp_path))
    (manifest,) = (tmp_path / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense")
    backend = backend_of(tmp_path)
    with pytest.raises(StoreUnavailableError, match="manifest"):
        backend.open()


def test_no_port_is_open(tmp_path):
    with opened(tmp_path):
        assert b"port 0" in (tmp_path / "server.conf").read_bytes()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(note(tmp_path)["socket"])
