"""A loopback hop in front of a server, so that a test can cut one connection and no other."""

from __future__ import annotations

import asyncio
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from tests.chaos.proxy import close_server

__all__ = ["Wire"]


class Wire:
    """Listens on a port of its own and passes on every byte, until it is cut."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._transports: set[asyncio.BaseTransport] = set()
        self._dialing: set[asyncio.Task[object]] = set()
        self._server: asyncio.Server

    async def open(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), "127.0.0.1", 0)
        return self

    @property
    def url(self) -> str:
        """The server's URL, by way of here."""
        host, port = self._server.sockets[0].getsockname()[:2]
        user, at, _ = self._parts.netloc.rpartition("@")
        return urlunsplit(self._parts._replace(netloc=f"{user}{at}{host}:{port}"))

    def cut(self) -> None:
        """Drop all connections, and take no more."""
        close_server(self._server)
        for transport in tuple(self._transports):
            transport.abort()  # type: ignore[attr-defined]

    async def close(self) -> None:
        self.cut()
        await asyncio.gather(*self._dialing, return_exceptions=True)
        # A connection that was accepted is made ours by a task that asyncio starts, and by a callback
        # which that task schedules: a turn of the loop each.
        for _ in range(4):
            await asyncio.sleep(0)
        while self._transports:
            await asyncio.sleep(0)

    def dial(self, near: _Near) -> asyncio.Task[object]:
        loop = asyncio.get_running_loop()
        host, port = self._parts.hostname, self._parts.port
        task = loop.create_task(loop.create_connection(lambda: _Far(self, near), host, port))
        self._dialing.add(task)
        task.add_done_callback(self._dialing.discard)
        return task

    def add(self, transport: asyncio.BaseTransport) -> None:
        self._transports.add(transport)
        if not self._server.is_serving():
            transport.abort()  # type: ignore[attr-defined]

    def remove(self, transport: asyncio.BaseTransport) -> None:
        self._transports.discard(transport)


class _End(asyncio.Protocol):
    """One of the two sockets of a connection; what it reads goes out at the other."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.other: _End | None = None
        self.transport: asyncio.Transport | None = None
        self.early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire.add(transport)
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        else:
            self.early += data

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self.wire.remove(self.transport)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Near(_End):
    """The client's side."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.dialing = self.wire.dial(self)
        self.dialing.add_done_callback(self._dialed)

    def _dialed(self, task: asyncio.Task[object]) -> None:
        if (task.cancelled() or task.exception() is not None) and self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.dialing.cancel()
        super().connection_lost(exc)


class _Far(_End):
    """The server's side."""

    def __init__(self, wire: Wire, near: _Near) -> None:
        super().__init__(wire)
        self.other = near

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        near = self.other
        assert near is not None
        near.other = self
        if near.early:
            transport.write(bytes(near.early))  # type: ignore[attr-defined]
        if near.transport is None or near.transport.is_closing():
            transport.close()
