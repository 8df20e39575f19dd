"""Which partitions of a namespace a worker asks, and for how much: bookkeeping, without I/O.

Calls are taken from where commands go anyway, and in turn from those partitions that are believed to
have some, few at a time so that batches stay large. Each is looked at once a second, because timers
have to be moved on there, too.

One that cannot be reached is not asked again for a second, or for twice as long as it was waited for,
and then all of these in one exchange, so that others go on beside it. They are waited for longer then:
they may just be slow.

All times are milliseconds of one clock.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

import attrs
from msgspec.structs import replace

from pwf_core.commands import Command
from pwf_core.errors import StoreFullError, UnavailableError
from pwf_core.ids import session_of, worker_of
from pwf_core.ports import Take

__all__ = ["Sent", "Traffic"]

Sent: TypeAlias = tuple[list[Command], Take]
"""An exchange with one partition."""

_LOOK_MS = 1000  # until a partition is looked at again
_PAUSE_MS, _PAUSE_FULL_MS = 1000, 100  # until one that was away, or full, is asked again
_PATIENCE_MS, _LONG_PATIENCE_MS = 1000, 2000  # until one that does not answer is away
_SESSIONS = 1000  # workers' lanes that are remembered, should one ask again
_FOR_OTHERS = 4  # of so much room, one part is for partitions that no commands go to
_FEW = 16  # calls; where there is room for more, they are taken from several partitions


@attrs.define(eq=False)
class _Part:
    """What is known of a partition.

    Attributes:
        is_warm: Whether there seem to be calls to take.
        look_at: When it wants to be looked at.
        hungry_at: When it wants to be asked for a call, however little room there is.
        due_at: When its earliest timer is due; None without one.
        away_until: When it may be asked again.
        problem: What went wrong last.
        is_silent: Whether it could not be reached when it was asked last.
        lost: Exchanges whose replies got lost. Each is made again as it was, before any other of
            its worker: it may have been made, and what it has granted waits for that worker, who
            alone has the tasks.
    """

    is_warm: bool = True
    look_at: int = 0
    hungry_at: float = math.inf
    due_at: int | None = None
    away_until: int = 0
    problem: UnavailableError | None = None
    is_silent: bool = False
    lost: list[Sent] = attrs.field(factory=list)


@attrs.define
class Traffic:
    """What one user of a namespace knows of its partitions; for any thread."""

    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _parts: list[_Part] = attrs.field(factory=list, init=False)
    _turn: int = attrs.field(default=0, init=False)
    # By session: the last claim, and what was taken from each partition at the most.
    _shared: dict[str, tuple[str, dict[int, int]]] = attrs.field(factory=dict, init=False)

    def grow(self, size: int) -> None:
        """Take note that there are so many partitions."""
        self._parts += [_Part() for _ in range(size - len(self._parts))]

    # -- whom to ask -----------------------------------------------------------------------------

    def to_send(
        self, routed: Mapping[int, Sequence[Command]], take: Take, now: int
    ) -> dict[int, Sent]:
        """Return the exchange to make with each partition.

        Args:
            routed: The commands that go to each.
            take: What the worker has room for, in all of them together.
            now: The time.
        """
        sent: dict[int, Sent] = {}
        with self._lock:
            shares = self._shares(take, routed, now)
            for number in self._admitted({**routed, **shares}, now):
                taking = replace(take, limit=shares.get(number, 0))
                lost = _lost_by(worker_of(take.claim_id), self._parts[number])
                sent[number] = lost or ([*routed.get(number, ())], taking)
        return sent

    def to_ask(self, numbers: Iterable[int], now: int) -> list[int]:
        """Return which partitions to ask, of these that there are reasons for."""
        with self._lock:
            return self._admitted(numbers, now)

    def _admitted(self, numbers: Iterable[int], now: int) -> list[int]:
        here = [number for number in numbers if self._parts[number].away_until <= now]
        if any(self._parts[number].is_silent for number in here):  # all at once: of one node, say
            silent = [number for number, part in enumerate(self._parts) if part.is_silent]
            here = [*dict.fromkeys([*here, *silent])]
            for number in silent:  # until it is known what came of this, nobody else waits for them
                self._parts[number].away_until = now + 2 * _LONG_PATIENCE_MS
        return here

    def patience(self, numbers: Iterable[int] = ()) -> float:
        """Return how long to wait for those partitions at the most, in seconds."""
        is_silent = any(self._parts[number].is_silent for number in numbers)
        return (_LONG_PATIENCE_MS if is_silent else _PATIENCE_MS) / 1000

    def sweeps(self, limit: int, routed: Collection[int], now: int) -> dict[int, int]:
        """Return how many timers to fire in each partition at the most, *limit* in all."""
        here = self.reachable(now)
        return _divided(limit, self._looks(here, routed, now) or here)

    def reachable(self, now: int) -> list[int]:
        """Return the partitions that may be asked, beginning with another one each time."""
        self._turn += 1
        turns = ((self._turn + n) % len(self._parts) for n in range(len(self._parts)))
        return [number for number in turns if self._parts[number].away_until <= now]

    def _shares(
        self, take: Take, routed: Mapping[int, Sequence[Command]], now: int
    ) -> dict[int, int]:
        session = session_of(take.claim_id)
        claim_id, shares = self._shared.pop(session, ("", {}))
        if claim_id != take.claim_id:  # else it is asked again, and to get the same calls
            shares = self._share_out(take.limit, routed, now)
        self._shared[session] = take.claim_id, shares
        if len(self._shared) > _SESSIONS:
            del self._shared[next(iter(self._shared))]
        return shares

    def _share_out(
        self, limit: int, routed: Mapping[int, Sequence[Command]], now: int
    ) -> dict[int, int]:
        here = self.reachable(now)
        warm = [number for number in here if self._parts[number].is_warm]
        looks = self._looks(here, routed, now)
        if not (looks or warm):
            looks = here  # somebody looks for work, and nobody knows of any
        hungry = [n for n in here if n not in routed and self._parts[n].hungry_at <= now]
        hungry = hungry[: min(limit, 1)]
        chosen = dict.fromkeys([*hungry, *looks])
        for number in warm:
            if len(chosen) * _FEW >= limit:
                break
            chosen[number] = None
        # A commit often makes a call, which is taken at once, and never written, if there is room.
        others = [number for number in chosen if number not in routed]
        spare = max(limit // _FOR_OTHERS, len(hungry))
        left = limit - (spare if others else 0)
        shares = dict.fromkeys(looks, 0)
        for number in chosen:
            shares[number] = min(len(routed.get(number, ())), left)
            left -= shares[number]
        rest = _divided(limit - sum(shares.values()), others or [*chosen])
        return shares | {number: shares[number] + more for number, more in rest.items()}

    def _looks(self, here: Iterable[int], routed: Collection[int], now: int) -> list[int]:
        """Return the partitions that commands go to, or that have waited long enough."""
        return [n for n in here if n in routed or self._parts[n].look_at <= now]

    # -- what came of it -------------------------------------------------------------------------

    def answered(
        self, number: int, next_due_ms: int | None, now: int, *, looked: bool = True
    ) -> None:
        """Take note that a partition has been asked, and when its next timer is due.

        *looked* says whether timers were moved on there, or calls looked for.
        """
        part = self._parts[number]
        if part.is_silent:
            part.is_silent, part.away_until = False, 0
        part.problem = None
        part.hungry_at = min(part.hungry_at, now + _LOOK_MS)
        part.due_at = None if next_due_ms is None else now + next_due_ms
        latest = now + _LOOK_MS if looked else part.look_at
        part.look_at = latest if part.due_at is None else min(latest, part.due_at)

    def granted(self, number: int, taken: int, limit: int) -> None:
        """Take note of how many calls a partition had."""
        if limit:
            part = self._parts[number]
            part.is_warm, part.hungry_at = taken == limit, math.inf

    def warm(self, number: int, *, is_warm: bool = True) -> None:
        """Take note whether a partition has calls to take."""
        self._parts[number].is_warm = is_warm

    def is_warm(self, now: int) -> bool:
        """Whether one that may be asked has calls to take."""
        return any(part.is_warm and part.away_until <= now for part in self._parts)

    def failed(
        self, number: int, error: UnavailableError, sent: Sent | None, now: int, took: int = 0
    ) -> None:
        """Take note that an exchange did not work, and how long that took.

        *sent* is what to make again; None where nothing was to be taken, so that it is enough if
        those who have no answer ask again.
        """
        part = self._parts[number]
        part.problem = error
        is_full = isinstance(error, StoreFullError)  # and has done nothing
        part.away_until = now + (_PAUSE_FULL_MS if is_full else max(_PAUSE_MS, 2 * took))
        if not is_full:
            part.is_silent = True
            if sent is not None:
                self.unheard(number, sent)

    def unheard(self, number: int, sent: Sent) -> None:
        """Take note of an exchange that nobody has heard the reply of."""
        lost = self._parts[number].lost
        lost.insert(0, sent)
        del lost[_SESSIONS:]  # of workers that are gone

    def problem(self, now: int) -> str:
        """Return what is wrong with some partition, for people; "" if all is well.

        Raises:
            UnavailableError: If none can be asked.
        """
        problems = [part.problem for part in self._parts if part.away_until > now and part.problem]
        if problems and len(problems) == len(self._parts):
            raise problems[0]
        return str(problems[0]) if problems else ""

    def next_due_ms(self, now: int) -> int | None:
        """Return how long until the earliest timer that is known can be fired; None without one."""
        dues = [max(one.due_at, one.away_until) for one in self._parts if one.due_at is not None]
        return max(min(dues) - now, 0) if dues else None


def _lost_by(worker: str, part: _Part) -> Sent | None:
    """Take out the first exchange that was lost by *worker*."""
    for at, (_, taking) in enumerate(part.lost):
        if worker_of(taking.claim_id) == worker:
            return part.lost.pop(at)
    return None


def _divided(limit: int, numbers: list[int]) -> dict[int, int]:
    """Share *limit* out; those who come too late get nothing."""
    numbers = numbers[:limit]
    count = len(numbers)
    return {number: limit // count + (n < limit % count) for n, number in enumerate(numbers)}
