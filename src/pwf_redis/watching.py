"""Hearing how runs end: one connection per backend that listens for all its watchers.

Redis delivers what is published to whoever listens at that moment, and to nobody else. So a watch is
given out only once the server has confirmed the subscription, and a connection that was lost tells
its watchers to look at their runs, because something may have been missed meanwhile.
See https://redis.io/docs/latest/develop/interact/pubsub/.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import attrs

from pwf_core.errors import CodecError, PwfError, StoreUnavailableError
from pwf_core.views import Outcome
from pwf_redis.errors import translate
from pwf_redis.records import outcome_of
from pwf_redis.target import Connection, Target

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "SILENCE", "Ears", "Heard", "hear"]

logger = logging.getLogger("pwf_redis")

SILENCE = 10.0  # seconds without a word until the server is asked whether it is there
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds before connecting again


@attrs.define(eq=False)
class Heard:
    """What one watcher has heard and not asked for yet; only the last outcome still counts."""

    outcome: Outcome | None = None
    is_new: bool = False  # also set without an outcome: "look at the run"

    def take(self) -> Outcome | None:
        """Return what was heard, once."""
        outcome, self.outcome, self.is_new = self.outcome, None, False
        return outcome

    def put(self, outcome: Outcome | None) -> None:
        """Note what was heard."""
        self.outcome = outcome or self.outcome
        self.is_new = True


def hear(data: bytes) -> Outcome | None:
    """Return the outcome that was published; None for noise."""
    try:
        return outcome_of(data)
    except CodecError:
        logger.warning("Somebody else publishes on a channel of pwf")
        return None


@attrs.define(eq=False)
class _Watch:
    _heard: Heard = attrs.field(factory=Heard)
    _event: asyncio.Event = attrs.field(factory=asyncio.Event)

    def put(self, outcome: Outcome | None) -> None:
        self._heard.put(outcome)
        self._event.set()

    async def wait(self, timeout: float) -> Outcome | None:
        if not self._heard.is_new:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._event.wait()
        self._event.clear()
        return self._heard.take()


@attrs.define(eq=False)
class Ears:
    """The listening connection of one event loop; it exists while anybody watches, and a bit longer."""

    _target: Target
    _locate: Callable[[], Awaitable[None]]  # has the target know where it leads
    _watches: dict[str, list[_Watch]] = attrs.field(factory=dict, init=False)
    _confirmed: dict[str, asyncio.Event] = attrs.field(factory=dict, init=False)
    _connection: Connection | None = attrs.field(default=None, init=False)
    _listening: asyncio.Task[None] | None = attrs.field(default=None, init=False)
    _problem: PwfError | None = attrs.field(default=None, init=False)
    _interrupted: bool = attrs.field(default=False, init=False)

    @asynccontextmanager
    async def watch(self, channel: str) -> AsyncIterator[_Watch]:
        """Listen on *channel*.

        Raises:
            StoreUnavailableError: If the server cannot be reached, or does not confirm that in time.
        """
        await self._locate()
        watch = _Watch()
        self._watches.setdefault(channel, []).append(watch)
        try:
            await self._subscribe(channel)
            yield watch
        finally:
            self._watches[channel].remove(watch)
            if not self._watches[channel]:
                del self._watches[channel]
                self._confirmed.pop(channel, None)
                await self._say("UNSUBSCRIBE", channel)

    async def _subscribe(self, channel: str) -> None:
        if self._connection is not None and not self._target.is_current(self._connection):
            await self._connection.disconnect(nowait=True)  # who listens there connects anew
        confirmed = self._confirmed.get(channel)
        if confirmed is None:
            confirmed = self._confirmed[channel] = asyncio.Event()
            await self._say("SUBSCRIBE", channel)
        self._problem = None
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen(), name="pwf_redis ears")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._target.timeout):
                await confirmed.wait()
        if not confirmed.is_set():
            self._target.doubt()
            if self._connection is not None:  # perhaps nobody else knows of it any more
                await self._connection.disconnect(nowait=True)
            raise self._problem or StoreUnavailableError(
                f"Redis at {self._target.where} did not confirm a subscription in time.",
            )

    async def _say(self, *command: str) -> None:
        """Send without waiting for an answer; a lost connection says all of it again."""
        if self._connection is not None and self._connection.is_connected:
            with suppress(Exception):
                await self._connection.send_command(*command, check_health=False)

    async def _listen(self) -> None:
        pause = FIRST_PAUSE
        while True:
            is_connected = False
            try:
                async with self._connected() as connection:
                    is_connected, pause = True, FIRST_PAUSE
                    await self._hear_all(connection)
            except Exception as error:  # noqa: BLE001 -- whatever it is, watchers look again and we retry
                self._interrupt(error, was_connected=is_connected)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            if not self._watches:
                self._listening = None
                return

    def _interrupt(self, error: Exception, *, was_connected: bool) -> None:
        problem = translate(error, self._target.where)
        self._target.doubt()
        logger.debug("Listening was interrupted: %s", problem)
        self._problem = problem if isinstance(problem, PwfError) else None
        self._interrupted = True
        for confirmed in self._confirmed.values():
            if not was_connected:  # who waits need not wait for another attempt
                confirmed.set()
            confirmed.clear()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        await self._locate()
        connection = self._target.connection()
        try:
            async with asyncio.timeout(self._target.timeout):
                await connection.connect()
            self._connection = connection
            if self._watches:
                await connection.send_command("SUBSCRIBE", *self._watches, check_health=False)
            yield connection
        finally:
            self._connection = None
            with suppress(Exception):
                await connection.disconnect(nowait=True)

    async def _hear_all(self, connection: Connection) -> None:
        """Take in what comes, until nobody has watched for a while."""
        silent = False
        reading: asyncio.Task[object] = asyncio.create_task(connection.read_response())
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=SILENCE)
                if done:
                    self._take(reading.result())
                    reading = asyncio.create_task(connection.read_response())
                    silent = False
                elif not self._watches:
                    return
                elif silent:
                    raise StoreUnavailableError(f"Redis at {self._target.where} has gone silent.")
                else:
                    silent = True
                    await connection.send_command("PING", check_health=False)
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await reading

    def _take(self, reply: object) -> None:
        if not isinstance(reply, list) or len(reply) < 3:  # noqa: PLR2004 -- kind, channel, data
            return  # the answer to a ping
        kind, channel, data = reply[0], reply[1].decode(), reply[2]
        if kind == b"subscribe" and channel in self._confirmed:
            self._confirmed[channel].set()
            if self._interrupted:  # what was published before this moment went unheard
                self._tell(channel, None)
        elif kind == b"message":
            self._tell(channel, hear(data))

    def _tell(self, channel: str, outcome: Outcome | None) -> None:
        for watch in tuple(self._watches.get(channel, ())):
            watch.put(outcome)

    async def close(self) -> None:
        """Stop listening; who waits is told to look."""
        for channel in tuple(self._watches):
            self._tell(channel, None)
        for confirmed in self._confirmed.values():
            confirmed.set()
        self._confirmed.clear()
        if self._listening is not None:
            listening, self._listening = self._listening, None
            if not listening.done() and listening.get_loop() is asyncio.get_running_loop():
                listening.cancel()
                with suppress(asyncio.CancelledError):
                    await listening
