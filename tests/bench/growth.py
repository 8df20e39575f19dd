"""`python -m tests.bench.growth`: how speed and memory change as work grows, on Redis alone.

One worker and one client in this process, a private Redis beside it. Each curve has one thing that
grows, and says what every call costs, and what every run takes in Redis. The lines go to the
terminal and, with `--write-docs`, into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import attrs
from redis.asyncio import Redis

from pwf import (
    Client,
    Context,
    Event,
    Next,
    Service,
    Worker,
    connect,
    emit,
    gather,
    join,
    publish,
    result,
)
from pwf.testing.servers import RedisServer

__all__: list[str] = []

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"

_LONG = 900.0  # seconds for the longest of them

grow = Service("grow")
asked = Event("asked", str, external=True)


class _Tally:
    """Counts ends. The worker is in this process, so nobody has to ask the server for them."""

    def __init__(self) -> None:
        self._left = 0
        self._over = asyncio.Event()

    def expect(self, count: int) -> None:
        """Begin anew."""
        self._left = count
        self._over.clear()

    def end(self) -> None:
        """Note one."""
        self._left -= 1
        if not self._left:
            self._over.set()

    async def all_ended(self) -> None:
        """Wait for all of them."""
        async with asyncio.timeout(_LONG):
            await self._over.wait()


tally = _Tally()


@grow.task
async def chain(left: int, payload: str) -> Next:
    """Hand on until nothing is left."""
    if left > 1:
        return publish(chain, left - 1, payload)
    tally.end()
    return None


@grow.task
async def wait(payload: str) -> Next:
    """Wait for what nobody says."""
    tally.end()
    return join(asked, then=publish(chain, 1, payload))


@grow.task
async def fan_out(width: int) -> Next:
    """Have that many calls, and one after them."""
    return gather([publish(leaf, number) for number in range(width)], then=publish(add_up))


@grow.task
async def leaf(number: int) -> Next:
    """Give a number."""
    return result(number)


@grow.task
async def add_up(ctx: Context) -> Next:
    """Add up the numbers."""
    tally.end()
    return result(sum(ctx.results))


@grow.task
async def meet(joins: int) -> Next:
    """Register joins, each on an event of its own and one that all share, and have them happen."""
    return [
        *(join(f"own-{n}", "all", then=publish(chain, 1, "")) for n in range(joins)),
        *(publish(say, n) for n in range(joins)),
        emit("all"),
    ]


@grow.task
async def say(number: int) -> Next:
    """Have one of the events happen."""
    return emit(f"own-{number}")


@attrs.frozen
class Point:
    """What was measured at one size."""

    curve: str
    size: str
    calls: int
    seconds: float
    note: str = ""

    @property
    def row(self) -> str:
        """The point as a line of a table."""
        rate = self.calls / self.seconds
        return f"| {self.curve} | {self.size} | {rate:,.0f} | {self.note} |"


@attrs.frozen
class Site:
    """What a curve works with."""

    client: Client
    server: Redis

    async def memory(self) -> int:
        """Return how many bytes Redis has in use for data."""
        info = await self.server.info("memory")
        return int(info["used_memory_dataset"])

    async def log_is_written(self) -> None:
        """Wait until Redis has done with rewriting its log, which another process does meanwhile."""
        async with asyncio.timeout(_LONG):
            while (await self.server.info("persistence"))["aof_rewrite_in_progress"]:  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(0.1)

    async def written(self) -> int:
        """Return the bytes of Redis's log."""
        return int((await self.server.info("persistence"))["aof_current_size"])

    async def slowest_script(self) -> float:
        """Return the longest script call since the log was reset, in milliseconds."""
        log = await self.server.slowlog_get(128)
        return max((one["duration"] / 1000 for one in log), default=0.0)

    async def timed(self, starts: Sequence[Any], ends: int | None = None) -> float:
        """Start these runs, and return the seconds until so many ends (one each) have come."""
        began = time.monotonic()
        tally.expect(len(starts) if ends is None else ends)
        await self.client.start_many(starts)
        await tally.all_ended()
        return time.monotonic() - began


@asynccontextmanager
async def _site() -> AsyncIterator[Site]:
    with RedisServer("appendfsync everysec", "slowlog-log-slower-than 1000") as server:
        async with (
            connect(server.url) as client,
            Redis.from_url(server.url) as redis,
            Worker(client, grow),
        ):
            await Site(client, redis).timed([publish(chain, 20, "") for _ in range(50)])
            yield Site(client, redis)


async def _rate(site: Site) -> tuple[int, float]:
    """Return calls and median seconds of chains, five times."""
    firsts = [publish(chain, 20, "") for _ in range(250)]
    return 250 * 20, median([await site.timed(firsts) for _ in range(5)])


async def waiting_runs(sizes: Sequence[int]) -> AsyncIterator[Point]:
    """Chains beside runs that wait for an event from outside."""
    async with _site() as site:
        empty = await site.memory()
        there = 0
        for size in sizes:
            while there < size:
                count = min(size - there, 10_000)
                await site.timed([publish(wait, "")] * count)
                there += count
            await site.log_is_written()
            note = (
                f"{(await site.memory() - empty) / size:,.0f} bytes a waiting run" if size else ""
            )
            yield Point("beside waiting runs", f"{size:,}", *await _rate(site), note)


async def ended_runs(sizes: Sequence[int]) -> AsyncIterator[Point]:
    """Runs of one call, which stay for a day after their end."""
    for size in sizes:
        async with _site() as site:
            empty = await site.memory()
            log = await site.written()
            seconds = await site.timed([publish(chain, 1, "") for _ in range(size)])
            memory, written = await site.memory() - empty, await site.written() - log
            note = (
                f"{memory / size:,.0f} bytes an ended run, {written / size:,.0f} written to the log"
            )
            yield Point("runs of one call", f"{size:,}", size, seconds, note)


async def children(sizes: Sequence[int]) -> AsyncIterator[Point]:
    """One gather and its call."""
    for size in sizes:
        async with _site() as site:
            await site.server.slowlog_reset()
            repeat = 3 if size >= 1000 else 30
            seconds = median([await site.timed([publish(fan_out, size)]) for _ in range(repeat)])
            note = f"longest step {await site.slowest_script():.1f} ms"
            yield Point("children of a gather", f"{size:,}", size + 2, seconds, note)


async def chains(sizes: Sequence[int]) -> AsyncIterator[Point]:
    """Chains, one hundred at a time."""
    for size in sizes:
        async with _site() as site:
            seconds = await site.timed([publish(chain, size, "") for _ in range(100)])
            yield Point("steps of 100 chains", f"{size:,}", 100 * size, seconds)


async def joins(sizes: Sequence[int]) -> AsyncIterator[Point]:
    """Joins in one run, one hundred runs at a time."""
    for size in sizes:
        async with _site() as site:
            seconds = await site.timed([publish(meet, size)] * 100, 100 * size)
            yield Point("joins per run", f"{size}", 100 * (1 + 2 * size), seconds)


async def payloads(sizes: Sequence[int]) -> AsyncIterator[Point]:
    """Bytes that every call of a chain carries."""
    for size in sizes:
        async with _site() as site:
            text = "x" * size
            count = 50 if size <= 10_000 else 5
            seconds = await site.timed([publish(chain, 20, text) for _ in range(count)])
            megabytes = count * 20 * size / seconds / 1e6
            yield Point(
                "bytes of arguments", f"{size:,}", count * 20, seconds, f"{megabytes:,.0f} MB/s"
            )


_Curve = tuple[Callable[[Sequence[int]], AsyncIterator[Point]], Sequence[int]]
_CURVES: Sequence[_Curve] = (
    (waiting_runs, (0, 1_000, 10_000, 100_000, 1_000_000)),
    (ended_runs, (1_000, 100_000)),
    (children, (1, 10, 100, 1_000, 5_000, 100_000)),
    (chains, (1, 10, 100, 1_000, 10_000)),
    (joins, (1, 5, 20, 50)),
    (payloads, (100, 1_000, 10_000, 100_000, 1_000_000)),
)


async def _measure(shrink: int) -> list[Point]:
    points = []
    for curve, sizes in _CURVES:
        chosen = [size for size in sizes if size <= max(sizes[-1] // shrink, 1)]
        async for point in curve(chosen):
            print(point.row, flush=True)
            points.append(point)
    return points


def _write(points: Sequence[Point]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    head = "| what grows | to | calls/s | |\n|---|---|---|---|\n"
    rows = "\n".join(point.row for point in points)
    PAGE.write_text(f"{before}{BEGIN}\n{head}{rows}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Measure all curves."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument("--shrink", type=int, default=1, help="divides the largest sizes")
    parser.add_argument("--write-docs", action="store_true", help="put them into docs/scaling.md")
    options = parser.parse_args()
    points = asyncio.run(_measure(options.shrink))
    if options.write_docs:
        _write(points)


if __name__ == "__main__":
    main()
