"""Which faults happen when, drawn from the seed; and how each is done.

The plan is the same for the same seed. What it meets, which calls are held and which connections
there are, is not.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from enum import StrEnum

import attrs
from tests.chaos.crew import Crew
from tests.chaos.diary import Diary, What
from tests.chaos.site import Site

__all__ = ["PER_MINUTE", "Fault", "Faults", "Kind", "plan"]


class Kind(StrEnum):
    """What is done."""

    KILL = "kill"
    PAUSE = "pause"
    CUT = "cut"
    CUT_BEFORE = "cut before"
    CUT_AFTER = "cut after"
    HALF_OPEN = "half-open"
    STALL = "stall"
    SLOW = "slow"
    SERVER_KILL = "server kill"
    SERVER_RESTART = "server restart"
    SERVER_PAUSE = "server pause"


# So that 20 minutes bring well over 300 kills, 100 pauses, 300 cuts and 30 restarts of each server.
PER_MINUTE = {
    Kind.KILL: 18,
    Kind.PAUSE: 6,
    Kind.CUT: 5,
    Kind.CUT_BEFORE: 7,
    Kind.CUT_AFTER: 10,
    Kind.HALF_OPEN: 3,
    Kind.STALL: 2,
    Kind.SLOW: 2,
    Kind.SERVER_KILL: 1.4,
    Kind.SERVER_RESTART: 0.6,
    Kind.SERVER_PAUSE: 0.6,
}

# How long they last, in seconds; for kills and restarts: until the next process is started.
_LASTING = {
    Kind.KILL: (0.0, 1.0),
    Kind.PAUSE: (1.2, 4.0),  # beyond the lease of a second
    Kind.STALL: (0.3, 3.0),
    Kind.SLOW: (1.0, 4.0),
    Kind.SERVER_KILL: (0.0, 2.0),
    Kind.SERVER_RESTART: (0.0, 0.0),
    Kind.SERVER_PAUSE: (0.5, 3.0),
}


@attrs.frozen(order=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        at: When, in seconds from the beginning.
        server: Whose connections it strikes, or which server.
        slot: Which worker.
        seconds: How long it lasts.
        share: Which part of the connections it strikes.
    """

    at: float
    kind: Kind
    server: str
    slot: int
    seconds: float
    share: float


def plan(seed: int, seconds: float, servers: list[str], slots: int) -> list[Fault]:
    """Return the faults of a soak, in order.

    Each kind comes as often as its rate says, at a moment drawn from each of as many equal parts of
    the time; what is done to servers comes as often for each of them.
    """
    faults = []
    for kind, rate in PER_MINUTE.items():
        is_about_server = kind in {Kind.SERVER_KILL, Kind.SERVER_RESTART, Kind.SERVER_PAUSE}
        for server in servers if is_about_server else ["any"]:
            chance = random.Random(f"{seed}:{kind}:{server}")
            count = max(1, round(rate * seconds / 60))
            for number in range(count):
                fault = Fault(
                    at=round((number + chance.random()) * seconds / count, 3),
                    kind=kind,
                    server=server if is_about_server else chance.choice(servers),
                    slot=chance.randrange(slots),
                    seconds=round(chance.uniform(*_LASTING.get(kind, (0.0, 0.0))), 3),
                    share=chance.choice((0.1, 0.3, 1.0)),
                )
                faults.append(fault)
    return sorted(faults)


class Faults:
    """Does what a plan says.

    Attributes:
        done: How many of each kind have happened; those of servers by "<kind> <server>".
    """

    def __init__(self, site: Site, crew: Crew, diary: Diary) -> None:
        self._site = site
        self._crew = crew
        self._diary = diary
        self._busy = {name: asyncio.Lock() for name in site.servers}
        self.done: Counter[str] = Counter()

    async def run(self, faults: list[Fault]) -> None:
        """Do all of it, and return when the last one is over and everything runs again."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                pause = began + fault.at - asyncio.get_running_loop().time()
                await asyncio.sleep(max(0.0, pause))
                group.create_task(self._do(fault))
        for proxy in self._site.proxies.values():
            proxy.heal()
        self._crew.fill()

    async def _do(self, fault: Fault) -> None:
        proxy = self._site.proxies[fault.server]
        match fault.kind:
            case Kind.KILL:
                await self._kill(fault)
                return
            case Kind.PAUSE:
                await self._pause(fault)
                return
            case Kind.SERVER_KILL | Kind.SERVER_RESTART | Kind.SERVER_PAUSE:
                async with self._busy[fault.server]:
                    await self._strike_server(fault)
                return
        self._diary.write(What.FAULT, note=f"{fault.kind} {fault.server}")
        self.done[fault.kind] += 1
        match fault.kind:
            case Kind.CUT:
                proxy.cut(fault.share)
            case Kind.CUT_BEFORE:
                proxy.cut_before(fault.share)
            case Kind.CUT_AFTER:
                proxy.cut_after(fault.share)
            case Kind.HALF_OPEN:
                proxy.deafen(fault.share)
            case Kind.STALL:
                await proxy.stall(fault.seconds)
            case Kind.SLOW:
                await proxy.slow(fault.seconds, fault.share / 10)
        if fault.seconds:
            self._diary.write(What.FAULT, note=f"{fault.kind} {fault.server} is over")

    async def _kill(self, fault: Fault) -> None:
        slots = self._crew.slots
        for slot in slots[fault.slot :] + slots[: fault.slot]:
            if self._crew.kill(slot):
                self.done[fault.kind] += 1
                break
        await asyncio.sleep(fault.seconds)
        self._crew.fill()

    async def _pause(self, fault: Fault) -> None:
        slots = self._crew.slots
        for slot in slots[fault.slot :] + slots[: fault.slot]:
            if await self._crew.pause(slot, fault.seconds):
                self.done[fault.kind] += 1
                break

    async def _strike_server(self, fault: Fault) -> None:
        server = self._site.servers[fault.server]
        self._diary.write(What.DOWN, note=fault.server)
        match fault.kind:
            case Kind.SERVER_KILL:
                server.kill()
                await asyncio.sleep(fault.seconds)
                await asyncio.to_thread(server.restart)
            case Kind.SERVER_RESTART:
                await asyncio.to_thread(server.restart)
            case Kind.SERVER_PAUSE:
                server.pause()
                await asyncio.sleep(fault.seconds)
                server.resume()
        self._diary.write(What.UP, note=fault.server, status=fault.kind)
        self.done[f"{fault.kind} {fault.server}"] += 1
