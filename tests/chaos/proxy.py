"""A TCP hop in front of a server that can do to connections what networks do.

| method | what happens |
|---|---|
| `cut` | connections are reset, at once |
| `cut_before` | the next request of a connection is lost, and the connection reset |
| `cut_after` | the next request goes through; its reply is lost, and the connection reset |
| `deafen` | half-open: nothing comes through any more, and nobody is told |
| `stall` | nothing comes through for a while, new connections included; then all of it does |
| `slow` | everything takes longer, for a while |
| `hush` | as `deafen`, for new connections, too: they are accepted, and nobody answers |
| `break_off` | as `hush`, but of the next reply of each connection a part comes through |
| `lose_replies` | as `cut_after`, for new connections, too |
| `shut` | connections are reset, and new ones refused, until `reopen` |

Bytes are never changed. The first four strike a share of the connections there are, the others the
whole hop; `hush` to `lose_replies` last until `heal`.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from contextlib import suppress
from enum import Enum, auto
from typing import Self

__all__ = ["Proxy"]

_CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds, so that closing sends a RST


class _Mode(Enum):
    """What becomes of what a connection carries."""

    PASS = auto()
    CUT_REQUEST = auto()
    CUT_REPLY = auto()
    DEAF = auto()
    HALF = auto()


class Proxy:
    """Listens on a port of its own in front of *host*:*port*.

    Attributes:
        upstream: Where new connections lead.
        struck: How many connections each kind of fault has struck so far.
    """

    def __init__(self, host: str, port: int, chance: random.Random) -> None:
        self.upstream = (host, port)
        self._chance = chance
        self._hops: set[_Hop] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._delay = 0.0
        self.fate = _Mode.PASS  # of new connections
        self.struck: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        self._flowing.set()
        await self._listen(0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def _listen(self, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)

    async def __aexit__(self, *exc: object) -> None:
        self.shut()
        self._flowing.set()
        # A connection that was accepted is made ours by a task that asyncio starts, a callback which
        # that task schedules, and a task of its own: a turn of the loop each.
        for _ in range(10):
            await asyncio.sleep(0)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- faults -----------------------------------------------------------------------------------

    def cut(self, share: float = 1.0) -> None:
        """Reset connections now."""
        for hop in self._some(share, "cut"):
            hop.reset()

    def cut_before(self, share: float = 1.0) -> None:
        """Reset connections at their next request, which is lost."""
        for hop in self._some(share):
            hop.mode = _Mode.CUT_REQUEST

    def cut_after(self, share: float = 1.0) -> None:
        """Reset connections at their next reply, which is lost."""
        for hop in self._some(share):
            hop.mode = _Mode.CUT_REPLY

    def deafen(self, share: float = 1.0) -> None:
        """Swallow from now on whatever connections carry."""
        for hop in self._some(share, "half-open"):
            hop.mode = _Mode.DEAF

    async def stall(self, seconds: float) -> None:
        """Let nothing through for so long."""
        self._flowing.clear()
        self._count("stall", len(self._hops))
        try:
            await asyncio.sleep(seconds)
        finally:
            self._flowing.set()

    async def slow(self, seconds: float, delay: float) -> None:
        """Keep everything back by *delay* seconds, for so long."""
        self._delay = delay
        self._count("slow", len(self._hops))
        try:
            await asyncio.sleep(seconds)
        finally:
            self._delay = 0.0

    def hush(self) -> None:
        """Swallow from now on whatever comes."""
        self._doom(_Mode.DEAF)

    def break_off(self) -> None:
        """Let the first half of one more reply through, and then nothing."""
        self._doom(_Mode.HALF)

    def lose_replies(self) -> None:
        """Reset every connection, new ones too, at its next reply, which is lost."""
        self._doom(_Mode.CUT_REPLY)

    def _doom(self, mode: _Mode) -> None:
        self.fate = mode
        for hop in self._hops:
            hop.mode = mode

    def shut(self) -> None:
        """Reset connections, and refuse new ones."""
        close_server(self._server)
        for hop in tuple(self._hops):
            hop.reset()

    async def reopen(self) -> None:
        """Take connections again."""
        await self._listen(self.port)

    def heal(self) -> None:
        """Carry everything from now on; connections that were struck and still hang are reset."""
        self.fate = _Mode.PASS
        for hop in tuple(self._hops):
            if hop.mode in {_Mode.DEAF, _Mode.HALF}:
                hop.reset()
            hop.mode = _Mode.PASS

    # -- passing on -------------------------------------------------------------------------------

    async def passage(self) -> None:
        """Wait until bytes may go on."""
        if self._delay:
            await asyncio.sleep(self._delay)
        await self._flowing.wait()

    def _some(self, share: float, kind: str = "") -> list[_Hop]:
        """Return a share of the connections, by chance; at least one, if there is one."""
        hops = [hop for hop in self._hops if hop.mode is _Mode.PASS]
        chosen = self._chance.sample(hops, min(len(hops), max(1, round(share * len(hops)))))
        if kind:
            self._count(kind, len(chosen))
        return chosen

    def _count(self, kind: str, number: int = 1) -> None:
        self.struck[kind] = self.struck.get(kind, 0) + number

    def note_cut(self, mode: _Mode) -> None:
        """Count a cut that was waiting for its moment."""
        self._count("cut before reply" if mode is _Mode.CUT_REQUEST else "cut after reply")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._flowing.wait()
            far = await asyncio.open_connection(*self.upstream)
        except OSError:
            _reset(writer)
            await _gone(writer)
            return
        hop = _Hop(self, (reader, writer), far)
        if not self._server.is_serving():  # shut since it was accepted
            hop.reset()
            await _gone(writer, far[1])
            return
        self._hops.add(hop)
        try:
            await hop.carry()
        finally:
            self._hops.discard(hop)


_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Hop:
    """One connection, from both sides."""

    def __init__(self, proxy: Proxy, near: _Ends, far: _Ends) -> None:
        self.mode = proxy.fate
        self._proxy = proxy
        self._near = near
        self._far = far

    async def carry(self) -> None:
        """Pass on bytes until either side closes."""
        ways = [
            asyncio.create_task(self._pump(self._near[0], self._far[1], _Mode.CUT_REQUEST)),
            asyncio.create_task(self._pump(self._far[0], self._near[1], _Mode.CUT_REPLY)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if self.mode is _Mode.DEAF and not ways[0].done():
                await ways[0]  # the server has gone, and the client must not learn it
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for _, writer in (self._near, self._far):
                writer.close()
            await _gone(self._near[1], self._far[1])

    def reset(self) -> None:
        """Drop both sides."""
        for _, writer in (self._near, self._far):
            _reset(writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fatal: _Mode
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._proxy.passage()
                if self.mode is _Mode.DEAF:
                    continue
                if self.mode is _Mode.HALF and fatal is _Mode.CUT_REPLY:
                    self.mode = _Mode.DEAF
                    writer.write(data[: (len(data) + 1) // 2])
                    continue
                if self.mode is fatal:
                    self._proxy.note_cut(fatal)
                    self.reset()
                    return
                writer.write(data)
                await writer.drain()


def close_server(server: asyncio.Server) -> None:
    """Close a server, and let those in whom it has accepted before.

    Until Python 3.12 asyncio forgets to close a connection that was accepted in the same turn of the
    loop in which its server is closed: making its transport fails on a check of `_sockets`.
    """
    server.close()
    server._sockets = ()  # type: ignore[attr-defined]


async def _gone(*writers: asyncio.StreamWriter) -> None:
    """Wait until their sockets are closed; who does not take the last bytes is reset."""
    for writer in writers:
        try:
            async with asyncio.timeout(1):
                await writer.wait_closed()
        except TimeoutError:
            _reset(writer)
        except OSError:
            pass  # it was reset


def _reset(writer: asyncio.StreamWriter) -> None:
    own: socket.socket | None = writer.get_extra_info("socket")
    if own is not None and own.fileno() >= 0:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
