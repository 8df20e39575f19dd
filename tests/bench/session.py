"""One system with its servers, worker and client: opened, warmed up, measured, closed."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import attrs
from tests.bench.catalogue import Server, System
from tests.bench.crew import LateError, Program, ProgramError
from tests.bench.environments import python_for
from tests.bench.postgres import PostgresServer

from pwf.testing.servers import PrivateServer, RabbitServer, RedisServer

__all__ = ["Seen", "Servers", "Session"]

_BOOT = 60.0  # seconds for a client or a worker to come up
_GLANCE = 0.002  # seconds between two looks at the tally: what they see has exact times anyhow

# What a power cut may take is the same everywhere: a second or two of AOF, and of WAL.
_POSTGRES = (
    "synchronous_commit = off",
    "shared_buffers = 512MB",
    "max_connections = 200",
    "max_wal_size = 4GB",
)
_REDIS = {Server.REDIS: "appendfsync everysec", Server.DURABLE_REDIS: "appendfsync always"}

_numbers = itertools.count()


class Servers:
    """The servers of a run. RabbitMQ and PostgreSQL take long to start, so all share one of each."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._shared: dict[Server, PrivateServer] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def get(self, kind: Server, stack: ExitStack) -> tuple[str, str]:
        """Return a server's name and URL, nobody else's data behind it.

        A Redis is new, and lives as long as *stack*; a database in PostgreSQL is new, too; in
        RabbitMQ names of queues keep systems apart.
        """
        if kind in _REDIS:
            return "redis", stack.enter_context(RedisServer(_REDIS[kind])).url
        with self._lock:
            if kind not in self._shared:
                new = PostgresServer(*_POSTGRES) if kind is Server.POSTGRES else RabbitServer()
                self._shared[kind] = self._stack.enter_context(new)
            server = self._shared[kind]
        if isinstance(server, PostgresServer):
            return kind.value, server.new_database(f"bench{next(_numbers)}")
        return kind.value, server.url


@attrs.define
class Seen:
    """What the tally says about one mark.

    Attributes:
        ends: Run -> (value, when) of each time that it came to its end.
        steps: How many steps have run.
    """

    ends: dict[int, list[tuple[int, int]]] = attrs.field(factory=lambda: defaultdict(list))
    steps: int = 0
    _times: list[int] = attrs.field(factory=list)

    def note(self, what: str, run: int, value: int, when: int) -> None:
        """Add a line."""
        self._times.append(when)
        if what == "end":
            self.ends[run].append((value, when))
        else:
            self.steps += 1

    @property
    def last_end(self) -> int:
        """When the last of those that have ended did so for the first time."""
        return max(ends[0][1] for ends in self.ends.values())

    def ended_twice(self, since: int) -> int:
        """Return how many runs came to their end more than once after *since*.

        The last step of a run that was under way when its worker was killed may run again, as
        anywhere where handlers run at least once. That is not counted: only ends of the same worker.
        """
        counts = [sum(when > since for _, when in ends) for ends in self.ends.values()]
        return sum(count > 1 for count in counts)

    def first_after(self, when: int) -> int | None:
        """Return when something happened for the first time after *when*."""
        return min((one for one in self._times if one > when), default=None)


class Session:
    """A system that is up; a context manager.

    Args:
        recovery: Seconds to which its recovery time-outs are turned down; 0 leaves them.

    Attributes:
        about: What the client says of itself: settings, cannot, versions.
    """

    def __init__(self, system: System, servers: Servers, *, recovery: int = 0) -> None:
        self.system = system
        self._servers = servers
        self._recovery = recovery
        self._stack = ExitStack()
        self._worker: Program | None = None
        self._seen: dict[str, Seen] = defaultdict(Seen)
        self._offset = 0
        self.about: dict[str, Any] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        system = self.system
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="pwf-bench-")))
        urls = dict(self._servers.get(kind, stack) for kind in system.servers)
        namespace = f"bench{next(_numbers)}-{time.time_ns() % 10**9}"
        self._tally = folder / "tally"
        self._tally.touch()
        self._log = folder / "log"
        self._environment = {
            "BENCH_TALLY": str(self._tally),
            "BENCH_NAMESPACE": namespace,
            "BENCH_RECOVERY": str(self._recovery),
            "BENCH_WORKERS": str(system.workers),
            **{f"BENCH_{name.upper()}": url for name, url in urls.items()},
            **system.options,
        }
        if system.backend:
            self._environment["BENCH_URL"] = system.url(urls, namespace)
        stack.callback(self.stop_worker)
        self.start_worker()
        # Its client may need what its worker makes (tables, say), so it tries until that is there.
        self._client = self._open_client(time.monotonic() + _BOOT)
        stack.callback(self._client.leave)
        if "W1" not in self.about["cannot"] and "raw" not in system.workloads:
            self.run("chains", runs=2, steps=3, patience=_BOOT)

    def _open_client(self, deadline: float) -> Program:
        while True:
            client = self._program("client", speaks=True)
            try:
                self.about = client.hear(_BOOT)
            except ProgramError:
                client.kill()
                if time.monotonic() > deadline or (self._worker and not self._worker.is_alive):
                    raise
            except BaseException:
                client.kill()
                raise
            else:
                return client

    def _program(self, role: str, *, speaks: bool = False) -> Program:
        module = f"tests.bench.systems.{self.system.program}"
        command = [python_for(self.system.peer), "-m", module, role]
        return Program(command, self._environment, self._log, speaks=speaks)

    # -- the worker -------------------------------------------------------------------------------

    def start_worker(self) -> None:
        """Start the worker process, if there is to be one."""
        if self.system.workers:
            self._worker = self._program("worker")

    def stop_worker(self) -> None:
        """Have the worker leave in order."""
        if self._worker is not None:
            self._worker.leave()
            self._worker = None

    def kill_worker(self) -> None:
        """End the worker by SIGKILL."""
        assert self._worker is not None
        self._worker.kill()
        self._worker = None

    # -- the client and the tally -----------------------------------------------------------------

    def new_mark(self) -> str:
        """Return a mark that names what is started next, and nothing that was before."""
        return f"m{next(_numbers)}"

    def ask(self, do: str, patience: float, **arguments: Any) -> dict[str, Any]:
        """Have the client do something; see `Program.ask`."""
        return self._client.ask(patience, do, **arguments)

    def run(self, do: str, *, runs: int, patience: float, **shape: int) -> tuple[int, Seen]:
        """Start *runs* and wait until all have ended; return when the start began, and what was seen.

        Raises:
            LateError: If it takes longer than *patience* seconds.
            ProgramError: If a program ended or failed.
        """
        deadline = time.monotonic() + patience
        mark = self.new_mark()
        shape = {"work_ms": 0, **shape}
        began = self.ask(do, patience, mark=mark, runs=runs, **shape)["began"]
        seen = self.watch(mark, deadline, lambda seen: len(seen.ends) == runs)
        return began, seen

    def watch(self, mark: str, deadline: float, is_enough: Callable[[Seen], bool]) -> Seen:
        """Read the tally until there is enough of *mark*.

        Raises:
            LateError: If there is not by *deadline* (monotonic, in seconds).
            ProgramError: If the worker is gone.
        """
        seen = self._seen[mark]
        while not is_enough(self.look(mark)):
            if time.monotonic() > deadline:
                raise LateError(f"{len(seen.ends)} runs had ended when time was up")
            if self._worker is not None and not self._worker.is_alive:
                raise ProgramError(f"the worker ended: {self._worker.last_words()}")
            time.sleep(_GLANCE)
        return seen

    def watch_until(self, deadline: float, is_enough: Callable[[], bool]) -> bool:
        """Wait until it is enough, or until *deadline*; say which. The worker may be gone."""
        while not is_enough():
            if time.monotonic() > deadline:
                return False
            time.sleep(_GLANCE)
        return True

    def look(self, mark: str) -> Seen:
        """Return what the tally says about *mark* by now."""
        for line in self._new_lines():
            whose, run, what, value, when = line.split()
            self._seen[whose].note(what, int(run), int(value), int(when))
        return self._seen[mark]

    def _new_lines(self) -> Iterator[str]:
        if self._tally.stat().st_size == self._offset:
            return
        with self._tally.open() as tally:
            tally.seek(self._offset)
            text = tally.read()
        whole, _, rest = text.rpartition("\n")
        self._offset += len(text) - len(rest)
        yield from whole.splitlines()
