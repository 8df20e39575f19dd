"""What an adapter brings to the suite, and how a test of the suite runs on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from pwf_core.commands import Message
from pwf_core.service import Service
from pwf_core.state import Rules

__all__ = ["PATIENCE", "Harness", "WorkflowHarness", "behaviour"]

P = ParamSpec("P")
Port = TypeVar("Port")
H = TypeVar("H", bound="Harness[Any]")

PATIENCE = 30.0
"""Seconds to wait for what must come; never waited out unless something is wrong."""

_LIMIT = 90.0  # seconds for a whole test: a hang fails by its name
_THREADS = 64  # blocking ports wait in threads; none of them may wait for a thread


class Harness(Protocol[Port]):
    """One adapter under test; a new harness for every test.

    Attributes:
        tick: The shortest delay worth testing, in milliseconds.
        virtual: Whether `elapse` moves a clock instead of waiting, and nothing else moves it.
    """

    tick: int
    virtual: bool

    async def open(self, rules: Rules) -> None:
        """Get ready, with names (namespace, prefix) that no test has used before.

        `rules.paired` says nothing here: a store under test is always one half of a pair, a backend
        is what it is.
        """
        ...

    async def close(self) -> None:
        """Close every port that was given out, and the rest."""
        ...

    async def connect(self, *, doomed: bool = False) -> Port:
        """Return a port, open; each call gives another connection to the same server and names.

        Args:
            doomed: Whether the test is going to `crash` it.
        """
        ...

    async def elsewhere(self) -> Port:
        """Return a port to the same server under other names."""
        ...

    async def crash(self, port: Port) -> None:
        """Cut the connection of *port* for good, as if its process had died: it hands nothing back.

        For workflows, *port* is a client.
        """
        ...

    async def elapse(self, ms: int) -> None:
        """Let that much time pass, by the clock that the server goes by."""
        ...

    async def inject(self, service: str, body: bytes) -> None:
        """Put a message of a stranger into the queue of *service*, which somebody has used before.

        For brokers and backends; one that carries no bytes gets the name of a run that never was.
        """
        ...

    async def remember(self) -> None:
        """Keep the store's state as it is now; for backends, with nobody at work."""
        ...

    async def rewind(self) -> None:
        """Take the store, and what it carries itself, back to what it was at `remember`.

        As a power cut does, or the promotion of a replica that lagged.
        """
        ...

    async def redeliver(self, message: Message) -> None:
        """Deliver a copy of a call, as a broker may at any time; for backends."""
        ...


class WorkflowHarness(Harness[Port], Protocol[Port]):
    """A backend that whole workflows run on, by the driving side that the harness chooses."""

    async def client(
        self,
        wrap: Callable[[Any], Any] = lambda port: port,
        *,
        doomed: bool = False,
    ) -> Any:
        """Return an open client of a connection of its own, async or made so.

        Args:
            wrap: What to put between the client and its backend.
            doomed: Whether the test is going to `crash` it.
        """
        ...

    async def stranger(self) -> Any:
        """Return an open client of other names on the same server."""
        ...

    def worker(
        self,
        client: Any,
        *services: Service,
        **options: Any,
    ) -> AbstractAsyncContextManager[Any]:
        """Return a worker on *client*, with the options of `pwf.Worker`; it has a `close` as well."""
        ...


def behaviour(
    *,
    rules: Rules | None = None,
) -> Callable[
    [Callable[Concatenate[H, P], Awaitable[None]]],
    Callable[Concatenate[H, P], None],
]:
    """Make a test of an async function that takes a harness; it is opened before, closed after.

    Args:
        rules: What the harness is opened with.
    """

    def decorate(
        fn: Callable[Concatenate[H, P], Awaitable[None]],
    ) -> Callable[Concatenate[H, P], None]:
        async def main(harness: H, *args: P.args, **kwargs: P.kwargs) -> None:
            executor = ThreadPoolExecutor(_THREADS, "pwf-contract")
            asyncio.get_running_loop().set_default_executor(executor)
            async with asyncio.timeout(_LIMIT):
                await harness.open(rules or Rules())
                try:
                    await fn(harness, *args, **kwargs)
                finally:
                    await harness.close()

        @wraps(fn)
        def test(harness: H, *args: P.args, **kwargs: P.kwargs) -> None:
            asyncio.run(main(harness, *args, **kwargs))

        # pytest passes the harness by name, which the type of such a callable cannot say.
        return cast("Callable[Concatenate[H, P], None]", test)

    return decorate
