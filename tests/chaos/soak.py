"""One soak of one backend: chaos, healing, reading back.

The order is what makes the reading mean something. While faults happen, clients start runs through
the same faults; then everything is healed, the clients wait for what they have started, and say how
it ended; and only then is the diary read, and the servers looked into. Runs are deleted a few seconds
after their end, so deletion, too, happens amid faults, and a run that never ends is what stays.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import attrs
from tests.chaos import diary, leftovers
from tests.chaos.crew import Crew
from tests.chaos.diary import Diary, What
from tests.chaos.evidence import Evidence, percentile
from tests.chaos.faults import Faults, plan
from tests.chaos.leftovers import Leftovers
from tests.chaos.report import Row, Verdict
from tests.chaos.site import Site

__all__ = ["Settings", "soak"]

_SHOWN = 20  # of what was wrong, per kind; more would bury the first
_MIB = 1024 * 1024
_POINTER = 400  # bytes that the pointer of a user's key may take
_RESUMED = 5.0  # seconds


@attrs.frozen(kw_only=True)
class Settings:
    """How to soak.

    Attributes:
        backend: One of `site.BACKENDS`.
        seconds: How long faults happen.
        lease: Of workers, in seconds.
        retention: How long ended runs stay, in seconds; a client that was cut off must be back by then.
        patience: How long runs may take to end once all is healed, in seconds.
        clients: Processes that start runs.
        limit: How many runs each of them has under way.
        rate: How many runs each of them starts in a second, at most.
        keep: Keep the folder with diary and logs, also if all is well.
    """

    backend: str
    seed: int
    seconds: float
    lease: float = 1.0
    retention: float = 20.0
    patience: float = 150.0
    clients: int = 2
    limit: int = 16
    rate: float = 8.0
    keep: bool = False


async def soak(settings: Settings) -> Verdict:
    """Do it, and return what it came to."""
    folder = Path(tempfile.mkdtemp(prefix="pwf-chaos-"))
    verdict = await _soak(settings, folder)
    if verdict.is_good and not settings.keep:
        shutil.rmtree(folder)
    else:
        print(f"Diary and logs are in {folder}.")
    return verdict


async def _soak(settings: Settings, folder: Path) -> Verdict:
    book = Diary(folder / "diary")
    chance = random.Random(settings.seed)
    retention = timedelta(seconds=settings.retention)
    try:
        async with Site(settings.backend, chance, retention) as site:
            with Crew(site.url, folder, book, lease=settings.lease, seed=settings.seed) as crew:
                return await _hold(settings, site, crew, book, folder)
    finally:
        book.close()


async def _hold(settings: Settings, site: Site, crew: Crew, book: Diary, folder: Path) -> Verdict:
    crew.fill()
    supervisor = asyncio.create_task(crew.supervise())
    await site.settled()
    memory = [await asyncio.to_thread(leftovers.memory, site)]
    crew.start_clients(settings.clients, settings.seed, limit=settings.limit, rate=settings.rate)
    await _begun(folder / "diary", settings.clients)
    faults = Faults(site, crew, book)
    names = list(site.servers)
    await faults.run(plan(settings.seed, settings.seconds, names, len(crew.slots)))
    book.write(What.FAULT, note="healed")
    healed = time.monotonic()
    await crew.dismiss_clients(settings.patience)
    drained = time.monotonic() - healed
    found = Evidence.of(diary.read(folder / "diary"), settings.seed)
    accepted = [story for story in found.stories.values() if story.was_accepted]
    stuck = [run for story in accepted if not story.status for run in story.ids]
    views = await leftovers.describe(site, stuck[:_SHOWN])
    doomed = {n for n, story in found.stories.items() if story.plan.kind == "doomed"}
    meant, letters = await leftovers.give_up_dead_letters(site, doomed)
    left = await leftovers.wait_for_nothing(site, settings.retention + 20)
    memory.append(await asyncio.to_thread(leftovers.memory, site))
    supervisor.cancel()
    await crew.dismiss_workers(20)
    found = Evidence.of(diary.read(folder / "diary"), settings.seed)
    return _judge(
        settings, found, faults, site, crew, left, (meant, letters), memory, drained, views
    )


async def _begun(path: Path, clients: int) -> None:
    """Wait until each client has a run, so that faults meet work."""
    started: set[int] = set()
    async with asyncio.timeout(60):
        while len(started) < clients:
            await asyncio.sleep(0.1)
            started = {entry.pid for entry in diary.read(path) if entry.what is What.ACCEPTED}


def _judge(  # noqa: PLR0917 -- all that was found
    settings: Settings,
    found: Evidence,
    faults: Faults,
    site: Site,
    crew: Crew,
    left: Leftovers,
    dead: tuple[int, list[str]],
    memory: list[int],
    drained: float,
    views: list[str],
) -> Verdict:
    meant, letters = dead
    misses: list[str] = []

    def must_be_none(name: str, wrongs: Iterable[str]) -> Row:
        listed = list(wrongs)
        misses.extend(f"{name}: {one}" for one in listed[:_SHOWN])
        return Row(name, str(len(listed)), "0", not listed)

    calm, rough = found.takeovers(calm=True), found.takeovers(calm=False)
    resumed = found.resumptions()
    grown = memory[1] - memory[0]
    allowed = len(site.redis_ports) * _MIB + left.pointers * _POINTER
    struck = {name: proxy.struck for name, proxy in site.proxies.items()}
    cuts = sum(n for one in struck.values() for kind, n in one.items() if "cut" in kind)
    rows = [
        Row("runs accepted", str(found.count(What.ACCEPTED))),
        Row("runs of unknown start", str(found.count(What.UNKNOWN))),
        *(
            Row(f"runs {status}", str(sum(s.status == status for s in found.stories.values())))
            for status in ("finished", "failed", "cancelled")
        ),
        Row("calls", str(found.calls())),
        Row("executions", str(found.count(What.BEGAN))),
        Row("joins and gathers fired", str(found.joins())),
        Row("worker kills", str(faults.done["kill"])),
        Row("worker pauses", str(faults.done["pause"])),
        Row("worker starts without server", str(crew.restarts)),
        Row("connections cut", str(cuts)),
        *(
            Row(f"at {name}", ", ".join(f"{n} {k}" for k, n in one.items()))
            for name, one in struck.items()
        ),
        *(
            Row(name, str(n))
            for name, n in sorted(faults.done.items())
            if name.startswith("server")
        ),
        _time_row("takeover p50, all else up", calm, 0.5, settings.lease + 1),
        _time_row("takeover p99, all else up", calm, 0.99, settings.lease + 1),
        Row("takeover p99, all", f"{percentile(rough, 0.99):.2f} s of {len(rough)}"),
        _time_row("resumption p99", resumed, 0.99, _RESUMED),
        Row("all over after healing", f"{drained:.1f} s", f"< {settings.patience:.0f} s"),
        must_be_none("lost", found.lost()),
        must_be_none("doubled", found.doubled()),
        must_be_none("wrong", found.wrong()),
        must_be_none("stuck", found.stuck()),
        must_be_none("recomputed", found.recomputed()),
        Row("dead letters, meant", str(meant)),
        must_be_none("dead letters, not meant", letters),
        must_be_none("runs left", left.runs),
        Row("messages left", str(left.messages), "0", not left.messages),
        must_be_none("other keys left", left.others),
        Row(
            "memory grown",
            f"{grown / 1024:.0f} KiB",
            f"< {allowed / 1024:.0f} KiB",
            grown < allowed,
        ),
        must_be_none("processes", crew.faults),
        must_be_none("complaints in logs", crew.complaints()),
    ]
    misses += views
    title = f"{settings.backend}, seed {settings.seed}, {settings.seconds:.0f} s of faults"
    return Verdict(title, tuple(rows), tuple(misses))


def _time_row(name: str, values: list[float], share: float, limit: float) -> Row:
    value = percentile(values, share)
    return Row(name, f"{value:.2f} s of {len(values)}", f"<= {limit:g} s", value <= limit)
