"""Hearing how runs end, for threads: the twin of `watching`, with a thread that listens.

That thread alone touches the connection. Others leave what is to be said in a list and ring: two
threads on one TLS connection would break it, and to close a socket under a thread that reads it lets
that thread read from whatever gets the same number next.

It is a daemon: it holds nothing that must be let go in order, and no program should stay for its
sake. After a fork the child starts its own when it first watches.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import attrs

from pwf_core.errors import PwfError, StoreUnavailableError
from pwf_core.views import Outcome
from pwf_redis.errors import translate
from pwf_redis.target import BlockingConnection, Target, socket_of
from pwf_redis.watching import FIRST_PAUSE, LONGEST_PAUSE, SILENCE, Heard, hear

__all__ = ["BlockingEars"]

logger = logging.getLogger("pwf_redis")


@attrs.define(eq=False)
class _Watch:
    _heard: Heard = attrs.field(factory=Heard)
    _event: threading.Event = attrs.field(factory=threading.Event)

    def put(self, outcome: Outcome | None) -> None:
        self._heard.put(outcome)
        self._event.set()

    def wait(self, timeout: float) -> Outcome | None:
        self._event.wait(timeout)
        self._event.clear()
        return self._heard.take()


@attrs.define(eq=False)
class _Bell:
    """Wakes a thread that waits for a socket."""

    _ends: tuple[socket.socket, socket.socket] = attrs.field(factory=socket.socketpair)

    def __attrs_post_init__(self) -> None:
        for end in self._ends:
            end.setblocking(False)  # noqa: FBT003 -- the standard library's

    def ring(self) -> None:
        with suppress(OSError):  # it has been rung often enough, or nobody is there any more
            self._ends[1].send(b"1")

    def wait(self, timeout: float, other: socket.socket | None = None) -> bool:
        """Wait until it rings or *other* can be read; say whether *timeout* passed first."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._ends[0], selectors.EVENT_READ)
            if other is not None:
                selector.register(other, selectors.EVENT_READ)
            is_late = not selector.select(timeout)
        with suppress(BlockingIOError):
            self._ends[0].recv(4096)
        return is_late

    def close(self) -> None:
        for end in self._ends:
            end.close()


@attrs.define(eq=False)
class _State:
    """What the listening thread and those who watch share; a fork gets a new one."""

    process: int = attrs.field(factory=os.getpid)
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    watches: dict[str, list[_Watch]] = attrs.field(factory=dict)
    confirmed: dict[str, threading.Event] = attrs.field(factory=dict)
    to_say: deque[tuple[str, ...]] = attrs.field(factory=deque)
    bell: _Bell | None = None  # while a thread listens
    is_closed: bool = False
    is_doubted: bool = False  # the connection: perhaps nobody else knows of it any more
    interrupted: bool = False
    problem: PwfError | None = None

    def say(self, *command: str) -> None:
        """Have this sent, by whom holds the connection (call under the lock)."""
        self.to_say.append(command)
        if self.bell is not None:
            self.bell.ring()


@attrs.define(eq=False)
class BlockingEars:
    """The listening connection of one process."""

    _target: Target
    _locate: Callable[[], None]  # has the target know where it leads; from any thread
    _state: _State = attrs.field(factory=_State, init=False)

    @contextmanager
    def watch(self, channel: str) -> Iterator[_Watch]:
        """See `Ears.watch`."""
        self._locate()
        if self._state.process != os.getpid():
            self._state = _State()
        state, watch = self._state, _Watch()
        confirmed = self._enter(state, channel, watch)
        try:
            confirmed.wait(self._target.timeout)
            if not confirmed.is_set():
                self._doubt(state)
                raise state.problem or StoreUnavailableError(
                    f"Redis at {self._target.where} did not confirm a subscription in time.",
                )
            yield watch
        finally:
            self._leave(state, channel, watch)

    def _enter(self, state: _State, channel: str, watch: _Watch) -> threading.Event:
        with state.lock:
            state.is_closed = False
            state.problem = None
            state.watches.setdefault(channel, []).append(watch)
            confirmed = state.confirmed.get(channel)
            if confirmed is None:
                confirmed = state.confirmed[channel] = threading.Event()
                state.say("SUBSCRIBE", channel)
            if state.bell is None:
                state.bell = _Bell()
                listener = _Listener(self._target, self._locate, state, state.bell)
                threading.Thread(target=listener.run, name="pwf_redis ears", daemon=True).start()
        return confirmed

    def _doubt(self, state: _State) -> None:
        self._target.doubt()
        with state.lock:
            state.is_doubted = True
            if state.bell is not None:
                state.bell.ring()

    def _leave(self, state: _State, channel: str, watch: _Watch) -> None:
        with state.lock:
            state.watches[channel].remove(watch)
            if not state.watches[channel]:
                del state.watches[channel]
                state.confirmed.pop(channel, None)
                state.say("UNSUBSCRIBE", channel)

    def close(self) -> None:
        """Stop listening; who waits is told to look."""
        state = self._state
        if state.process != os.getpid():
            return
        with state.lock:
            state.is_closed = True
            for watches in state.watches.values():
                for watch in watches:
                    watch.put(None)
            for confirmed in state.confirmed.values():
                confirmed.set()
            state.confirmed.clear()
            if state.bell is not None:
                state.bell.ring()


@attrs.define(eq=False)
class _Listener:
    """The thread that listens."""

    _target: Target
    _locate: Callable[[], None]
    _state: _State
    _bell: _Bell

    def run(self) -> None:
        """Listen until nobody has watched for a while, or the ears are closed."""
        pause = FIRST_PAUSE
        while True:
            is_connected = False
            try:
                self._locate()
                connection = self._target.blocking_connection()
                try:
                    connection.connect()
                    is_connected, pause = True, FIRST_PAUSE
                    self._hear_all(connection)
                finally:
                    connection.disconnect()
            except Exception as error:  # noqa: BLE001 -- whatever it is, watchers look again and we retry
                self._interrupt(error, was_connected=is_connected)
                if not self._state.is_closed:
                    self._bell.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            with self._state.lock:
                if self._state.is_closed or not self._state.watches:
                    self._state.bell = None
                    self._bell.close()
                    return

    def _interrupt(self, error: Exception, *, was_connected: bool) -> None:
        problem = translate(error, self._target.where)
        self._target.doubt()
        logger.debug("Listening was interrupted: %s", problem)
        with self._state.lock:
            self._state.problem = problem if isinstance(problem, PwfError) else None
            self._state.interrupted = True
            for confirmed in self._state.confirmed.values():
                if not was_connected:  # who waits need not wait for another attempt
                    confirmed.set()
                confirmed.clear()

    def _hear_all(self, connection: BlockingConnection) -> None:
        """Take in what comes, until nobody has watched for a while."""
        with self._state.lock:
            self._state.is_doubted = False
            self._state.to_say.clear()
            self._state.to_say.append(("SUBSCRIBE", *self._state.watches))
        silent = False
        while not self._state.is_closed:
            if not self._target.is_current(connection):
                raise StoreUnavailableError(f"Redis at {self._target.where} has moved.")
            self._say_all(connection)
            is_late = self._bell.wait(SILENCE, socket_of(connection))
            if self._state.is_doubted:
                raise StoreUnavailableError(
                    f"Redis at {self._target.where} did not confirm a subscription in time.",
                )
            while connection.can_read():
                self._take(connection.read_response())
                is_late = silent = False
            if is_late:
                if not self._state.watches:
                    return
                if silent:
                    raise StoreUnavailableError(f"Redis at {self._target.where} has gone silent.")
                silent = True
                with self._state.lock:
                    self._state.to_say.append(("PING",))

    def _say_all(self, connection: BlockingConnection) -> None:
        while True:
            with self._state.lock:
                command = self._state.to_say.popleft() if self._state.to_say else None
            if command is None:
                return
            if len(command) > 1 or command == ("PING",):  # nobody watches: nothing to subscribe to
                connection.send_command(*command, check_health=False)

    def _take(self, reply: object) -> None:
        if not isinstance(reply, list) or len(reply) < 3:  # noqa: PLR2004 -- kind, channel, data
            return  # the answer to a ping
        state, kind, channel, data = self._state, reply[0], reply[1].decode(), reply[2]
        outcome = hear(data) if kind == b"message" else None
        with state.lock:
            if kind == b"subscribe" and channel in state.confirmed:
                state.confirmed[channel].set()
                if not state.interrupted:
                    return  # else what was published before this moment went unheard
            elif kind != b"message":
                return
            for watch in state.watches.get(channel, ()):
                watch.put(outcome)
