"""Keeps one connection up, whatever happens to it, without an operator.

Theory of operation. A supervisor owns a link and a crew, which does something with every link while
that lasts. When the link is lost, the next one is a new epoch: nothing of the old one is carried
over, neither channels nor what was delivered on them. Between attempts it waits, longer each time
and by chance, so that a thousand workers do not knock at a restarted server in step.

Where the URL names several nodes of a cluster, one attempt asks each of them in turn and takes the
first that serves. It begins with the node after the one that was lost, and at the very first with
any: were that always the first in the list, it would carry everybody's connections. What is left
of the attempt's deadline is shared out among the nodes still to be asked, so that one which says
nothing costs its share, and nobody waits longer than for a single server.

Callers never wait for more than one attempt: while the last one has failed, they are told so at
once, and may come again. Once there has been a link, whatever keeps the next one away counts as
trouble that may pass: a server that is starting refuses for odd reasons.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Protocol

from pwf_core.errors import BrokerUnavailableError, ConfigurationError, PwfError
from pwf_rabbit.errors import translate
from pwf_rabbit.link import Connect, Link
from pwf_rabbit.options import Options

__all__ = ["ASKING", "Crew", "Supervisor", "pause", "stop"]

ASKING = 0.2  # the share of a deadline that a doubted link has to show that it lives

_BASE = 0.1  # seconds before the second attempt; the first comes at once
_CAP = 2.0  # a server that is back is found within this
_STABLE = 5.0  # a link that lasted so long was a good one: begin anew with short pauses
_FAREWELL = 2.0  # how long to wait for a server's goodbye
_AGAIN = 0.2  # after which who goes on is cancelled again

_log = logging.getLogger("pwf_rabbit")


class Crew(Protocol):
    """What is done with a link."""

    async def prepare(self, link: Link) -> None:
        """Make a fresh link ready, before anybody may use it."""
        ...

    async def tend(self, link: Link) -> None:
        """Work until the link is lost, or until cancelled."""
        ...


class Supervisor:
    """Keeps a link open from `start` to `close`.

    Args:
        connect: What makes a link.
        options: Where to.
        purpose: What for, in the server's lists and in logs.
        crew: Who works with it.
        opens: Whether `Broker.open` waits for it: whoever opens is told why it failed at first.
    """

    def __init__(
        self,
        connect: Connect,
        options: Options,
        purpose: str,
        crew: Crew,
        *,
        opens: bool = False,
    ) -> None:
        self._connect = connect
        self._options = options
        self._nodes = options.apart()
        self._turn = random.randrange(len(self._nodes))  # noqa: S311 -- spreads connections
        self._purpose = purpose
        self._crew = crew
        self._opens = opens
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._failure: PwfError | None = None
        self._changed = asyncio.Event()
        self._epochs = 0
        self._is_closed = False

    @property
    def present(self) -> Link | None:
        """The link, if there is one now."""
        return self._link

    @property
    def failure(self) -> PwfError | None:
        """Why the last attempt failed; None while there is a link."""
        return self._failure

    def start(self) -> None:
        """Begin to connect; again is fine, and after `close` it does nothing."""
        if self._task is None and not self._is_closed:
            self._task = asyncio.create_task(self._run(), name=f"pwf_rabbit {self._purpose}")

    async def link(self) -> Link:
        """Return the link, waiting for at most one attempt to connect.

        Raises:
            PwfError: Why there is none.
        """
        self.start()
        while self._link is None or not self._link.is_open:
            self.check()
            await self._changed.wait()
        return self._link

    def check(self) -> None:
        """Raise what the last attempt failed with, if it did."""
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args) from self._failure

    async def doubt(self) -> None:
        """Make another link unless the present one answers a question; something got no answer."""
        link = self._link
        if link is None or not link.is_open or await link.is_blocked():
            return  # a blocked one answers late, and says when that is over
        try:
            async with asyncio.timeout(self._options.timeout * ASKING):
                await (await link.channel()).close()
        except (PwfError, TimeoutError):
            link.lost.set()

    async def close(self) -> None:
        """Close the link in order, if the server plays along, and connect no more."""
        self._is_closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        self._link = None
        self._failure = BrokerUnavailableError("This broker is closed.")
        self._signal()

    async def _run(self) -> None:
        attempt = 0
        clock = asyncio.get_running_loop().time
        while not self._is_closed:  # asked here, too: drivers lose a cancellation now and then
            began = clock()
            try:
                async with asyncio.timeout(self._options.timeout):
                    link, node = await self._open(began + self._options.timeout)
            except Exception as error:  # noqa: BLE001 -- a supervisor outlives every error
                self._failed(error)
            else:
                if self._is_closed:
                    await _farewell(link)
                    return
                await self._serve(link, node.where)
                if clock() - began > _STABLE:
                    attempt = 0
            await asyncio.sleep(pause(attempt))
            attempt += 1

    async def _open(self, deadline: float) -> tuple[Link, Options]:
        """Return a link, and the node that it goes to; of several, the first that serves."""
        failures: list[PwfError] = []
        clock = asyncio.get_running_loop().time
        for left in range(len(self._nodes), 0, -1):
            node = self._nodes[self._turn]
            self._turn = (self._turn + 1) % len(self._nodes)
            try:
                async with asyncio.timeout((deadline - clock()) / left):
                    link = await self._open_at(node)
            except Exception as error:  # noqa: BLE001 -- another node may serve all the same
                failures.append(translate(error, node.where, connecting=True))
            else:
                for failure in failures:
                    _log.warning("one node less to %s: %s", self._purpose, failure)
                return link, node
        raise _together(failures)

    async def _open_at(self, node: Options) -> Link:
        link = await self._connect(node, f"pwf {self._purpose}")
        try:
            await self._crew.prepare(link)
        except BaseException:
            await _farewell(link)
            raise
        return link

    async def _serve(self, link: Link, where: str) -> None:
        self._link, self._failure = link, None
        self._epochs += 1
        self._signal()
        if self._epochs > 1:
            _log.info("connected to RabbitMQ at %s to %s", where, self._purpose)
        tending = asyncio.create_task(self._crew.tend(link))
        losing = asyncio.create_task(link.lost.wait())
        try:
            await asyncio.wait((tending, losing), return_when=asyncio.FIRST_COMPLETED)
            error = tending.exception() if tending.done() else None
            if error is not None and not isinstance(error, PwfError):
                _log.error("a fault of pwf_rabbit itself", exc_info=error)
            _log.warning("lost the connection to RabbitMQ at %s to %s", where, self._purpose)
        finally:
            self._link = None
            losing.cancel()
            try:
                await stop((tending,))
            finally:
                await _farewell(link)

    def _failed(self, error: Exception) -> None:
        failure = translate(error, self._options.where, connecting=True)
        if self._epochs and isinstance(failure, ConfigurationError):
            failure = BrokerUnavailableError(str(failure))
        failure.__cause__ = None if failure is error else error
        # What a caller is told all the way up needs no second line. Callers go on without a broker
        # that is away, but for the one who opens it.
        told = not self._epochs and (self._opens or isinstance(failure, ConfigurationError))
        # Said once per outage: the first failure, and any other than the one before.
        if not told and str(failure) != str(self._failure):
            _log.warning("no connection to %s: %s", self._purpose, failure)
        self._failure = failure
        self._signal()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def pause(attempt: int, chance: Callable[[], float] = random.random) -> float:
    """Return how long to wait after the failed attempt number *attempt* (from 0), in seconds."""
    return float(min(_CAP, _BASE * 2.0 ** min(attempt, 10)) * (0.5 + chance() / 2))


async def stop(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel *tasks* until all have ended, since drivers lose a cancellation now and then.

    Who is cancelled meanwhile hears of it afterwards, so that nothing goes on behind its back.
    """
    cancelled: asyncio.CancelledError | None = None
    while alive := [one for one in tasks if not one.done()]:
        for one in alive:
            one.cancel()
        try:
            await asyncio.wait(alive, timeout=_AGAIN)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _together(failures: Sequence[PwfError]) -> PwfError:
    """Return all *failures* as one, which is of the kind that calls for a change, if any is."""
    first = next((one for one in failures if isinstance(one, ConfigurationError)), failures[0])
    if len(failures) == 1:
        return first
    # Each once, in an order that does not depend on the node that was asked first.
    return type(first)(" ".join(sorted({str(one) for one in failures})))


async def _farewell(link: Link) -> None:
    # A link that does not say goodbye in time is left to its heartbeat.
    with suppress(PwfError, TimeoutError):
        async with asyncio.timeout(_FAREWELL):
            await link.close()
