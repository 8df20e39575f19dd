"""A namespace on a cluster: `Operations` for each of its partitions, and what goes to which.

Commands go to the partition of their run; where calls are taken from, `traffic` decides. A partition
that cannot be reached holds up nobody else: what a worker has for it is answered by `AWAY`, and calls
are taken from the others meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

import attrs
from msgspec.structs import replace

from pwf_core.commands import Answer, Command, Message, Renew, Reply, Start, Started
from pwf_core.errors import StoreUnavailableError, UnavailableError
from pwf_core.ids import RunId, place_in, placed
from pwf_core.ports import Applied, Exchanged, Take
from pwf_core.state import Rules
from pwf_core.steps import Steps
from pwf_core.views import DeadLetter, RunView
from pwf_redis.checks import Facts
from pwf_redis.keys import MOST_PARTITIONS, Keys
from pwf_redis.layout import Layout, OtherFormatError, bring_along, restore, settle
from pwf_redis.operations import Operations
from pwf_redis.rounds import Round, Spread, together
from pwf_redis.traffic import Traffic

__all__ = ["Partitions"]

T = TypeVar("T")
Routed = dict[int, list[tuple[int, Command]]]  # by partition; a command, and its place in the batch

_PAUSE_MS = 1000  # until somebody is asked again how many partitions there are


@attrs.define
class Partitions:
    """Everything that is asked of one namespace on a cluster, in the words of `Operations`.

    Attributes:
        namespace: Its name.
        rules: The deployment's settings.
        facts: What is wanted of the servers, and their name.
        wanted: How many partitions there are to be at least; None to take them as they are.
        layout: How many there are.
    """

    namespace: str
    rules: Rules
    facts: Facts
    wanted: int | None = None
    layout: Layout = attrs.field(
        default=attrs.Factory(lambda self: Layout(self.rules.paired), takes_self=True), init=False
    )
    _now_ms: int = attrs.field(default=0, init=False)
    _parts: list[Operations] = attrs.field(factory=list, init=False)
    _traffic: Traffic = attrs.field(factory=Traffic, init=False)
    _untold_until: int = attrs.field(default=0, init=False)  # nobody is asked how many there are
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)  # leases have a thread

    def __attrs_post_init__(self) -> None:
        self._keys(0)  # refuses a namespace that cannot be

    def _keys(self, partition: int) -> Keys:
        return Keys(self.namespace, partition, is_spread=True)

    def open(self) -> Steps[Spread, None]:
        """Learn how many partitions there are, and check that the servers can carry the promises."""
        yield from self._check(self._parts)
        yield from self._settle()

    def _settle(self, patience: float | None = None) -> Steps[Spread, None]:
        paired = self.rules.paired
        while True:
            layout = yield from settle(
                self.facts.where, self._keys, self.wanted, paired=paired, patience=patience
            )
            if not self.layout.follows(layout):
                break  # else partition 0 has been taken back by a failover, or we were overtaken
            yield from restore(self.layout, self._keys)
        fresh = {
            number: Operations(
                self._keys(number), self.rules, attrs.evolve(self.facts), self._now_ms
            )
            for number in range(len(self._parts), layout.size)
        }
        yield from self._check(fresh.values())
        with self._lock:
            self._parts += [part for number, part in fresh.items() if number >= len(self._parts)]
            for part in self._parts:
                part.layout = layout
            self._traffic.grow(layout.size)
            self.layout = layout  # only now, for those in other threads

    def _check(self, parts: Collection[Operations]) -> Steps[Spread, None]:
        found = yield from together({part.keys.slot: part.check() for part in parts})
        for error in found.values():
            if isinstance(error, Exception):
                raise error

    @property
    def partitions(self) -> int:
        """See `Capabilities`."""
        return self.layout.size

    @property
    def now_ms(self) -> int:
        """See `Operations`."""
        return self._now_ms

    @now_ms.setter
    def now_ms(self, value: int) -> None:
        self._now_ms = value
        for part in self._parts:
            part.now_ms = value

    def _clock(self) -> int:
        return self._now_ms or int(time.monotonic() * 1000)

    # -- several at once -------------------------------------------------------------------------

    def _ask(
        self, asked: Mapping[int, Steps[Round, T]], patience: float | None = None
    ) -> Steps[Spread, tuple[dict[int, T], dict[int, Exception]]]:
        """Take steps in several partitions; return what came of it, and what went wrong."""
        slots = {self._parts[number].keys.slot: number for number in asked}
        parts = {slot: asked[number] for slot, number in slots.items()}
        found = yield from together(parts, patience)
        done: dict[int, T] = {}
        failed: dict[int, Exception] = {}
        for slot, one in found.items():
            if isinstance(one, Exception):
                failed[slots[slot]] = one
            else:
                done[slots[slot]] = one
        return done, failed

    def _everywhere(self, steps: Callable[[Operations], Steps[Round, T]]) -> Steps[Spread, list[T]]:
        parts = enumerate(self._parts)
        done, failed = yield from self._ask({number: steps(part) for number, part in parts})
        if (yield from self._catch_up(failed)):
            raise StoreUnavailableError("Partitions are being added just now; try again.")
        _raise_first(failed)
        return [*done.values()]

    def _is_unknown(self, run_id: RunId) -> bool:
        """Whether a run may be in a partition that others have added."""
        return self.partitions <= (place_in(run_id) or 0) < MOST_PARTITIONS

    def _know(self, run_ids: Iterable[RunId]) -> Steps[Spread, None]:
        """Learn of partitions that others have added, if a run is in one of these."""
        if any(map(self._is_unknown, run_ids)):
            yield from self._settle()

    def _route(
        self, commands: Sequence[Command], replies: dict[int, Reply]
    ) -> Steps[Spread, Routed]:
        """Return what goes where of those that have no reply yet; where keys were is looked up."""
        if len(self.layout.sizes) > 1:
            yield from self._find_known(commands, replies)
        routed: Routed = {}
        for at, command in enumerate(commands):
            if at in replies:
                continue
            place = self.layout.place_of(command.run_id)
            if isinstance(command, Start) and command.key:
                home = self.layout.homes_of(command.key)[0]
                if home != place:  # it was drawn by another layout
                    place, command = home, replace(command, run_id=placed(command.run_id, home))  # noqa: PLW2901
            routed.setdefault(place, []).append((at, command))
        return routed

    def _route_known(self, commands: Sequence[Command]) -> Steps[Spread, Routed]:
        """Do the same without those in partitions that nobody can tell of just now."""
        unknown = [at for at, one in enumerate(commands) if self._is_unknown(one.run_id)]
        if unknown and self._clock() >= self._untold_until:
            try:
                yield from self._settle(self._traffic.patience())
            except UnavailableError:
                self._untold_until = self._clock() + _PAUSE_MS
            else:
                unknown = []
        return (yield from self._route(commands, dict.fromkeys(unknown, Answer.AWAY)))

    def _find_known(
        self, commands: Sequence[Command], replies: dict[int, Reply]
    ) -> Steps[Spread, None]:
        """Answer those starts whose keys are known where an earlier layout had put them."""
        starts: dict[int, list[tuple[int, Start]]] = {}
        for at, one in enumerate(commands):
            if isinstance(one, Start) and one.key and at not in replies:
                for home in self.layout.homes_of(one.key)[1:]:
                    starts.setdefault(home, []).append((at, one))
        done, failed = yield from self._ask(
            {
                home: self._parts[home].runs_of([one.key for _, one in its])
                for home, its in starts.items()
            }
        )
        _raise_first(failed)
        for home, found in done.items():
            for (at, one), known in zip(starts[home], found, strict=True):
                if known is not None:
                    run_id, fingerprint = known
                    conflict = fingerprint != one.fingerprint
                    replies[at] = Started(run_id, created=False, conflict=conflict)

    # -- commands --------------------------------------------------------------------------------

    def apply(
        self, commands: Sequence[Command], *, sweep: int, partly: bool = False
    ) -> Steps[Spread, Applied]:
        """See `StateStore.apply`."""
        if partly:
            return (yield from self._apply_partly(commands, sweep))
        replies: dict[int, Reply] = {}
        enqueued: list[Message] = []
        is_outdated = True
        while is_outdated:
            yield from self._know(command.run_id for command in commands)
            routed = yield from self._route(commands, replies)
            sweeps = self._traffic.sweeps(sweep, routed, self._clock()) if sweep else {}
            looks = sweeps if routed or sweeps else range(len(self._parts))
            routed = {number: [] for number in looks} | routed
            done, failed = yield from self._ask(
                {
                    number: self._parts[number].apply(_commands(its), sweep=sweeps.get(number, 0))
                    for number, its in routed.items()
                }
            )
            for number, one in done.items():
                replies |= _answered(routed[number], one.replies)
                enqueued += one.enqueued
                looked = number in sweeps
                self._traffic.answered(number, one.next_due_ms, self._clock(), looked=looked)
            is_outdated = yield from self._catch_up(failed)
            _raise_first(failed)
        return Applied(
            [replies[at] for at in range(len(commands))],
            enqueued,
            self._traffic.next_due_ms(self._clock()),
        )

    def _apply_partly(self, commands: Sequence[Command], sweep: int) -> Steps[Spread, Applied]:
        routed = yield from self._route_known(commands)
        began = self._clock()
        sweeps = self._traffic.sweeps(sweep, routed, began) if sweep else {}
        asked = self._traffic.to_ask({**routed, **sweeps}, began)
        done, failed = yield from self._ask(
            {
                number: self._parts[number].apply(
                    _commands(routed.get(number, ())), sweep=sweeps.get(number, 0)
                )
                for number in asked
            },
            self._traffic.patience(asked),
        )
        now = self._clock()
        for number, error in failed.items():
            if isinstance(error, UnavailableError):
                self._traffic.failed(number, error, None, now, now - began)
            elif not isinstance(error, OtherFormatError):
                raise error
        replies: dict[int, Reply] = dict.fromkeys(range(len(commands)), Answer.AWAY)
        enqueued: list[Message] = []
        for number, one in done.items():
            replies |= _answered(routed.get(number, ()), one.replies)
            enqueued += one.enqueued
            looked = number in sweeps
            self._traffic.answered(number, one.next_due_ms, now, looked=looked)
        yield from self._catch_up(failed)
        problem = self._traffic.problem(now)
        answered = [replies[at] for at in range(len(commands))]
        return Applied(answered, enqueued, self._traffic.next_due_ms(now), problem)

    def _catch_up(self, failed: dict[int, Exception]) -> Steps[Spread, bool]:
        """Learn the layout again if somebody else has changed it; those who say so are taken out."""
        outdated = {n: error for n, error in failed.items() if isinstance(error, OtherFormatError)}
        for number in outdated:
            del failed[number]
        if outdated:
            yield from self._settle()
            for number, error in outdated.items():
                yield from bring_along(number, error, self.layout, self._keys)
            yield from self._settle()
        return bool(outdated)

    def renew(self, renewals: Sequence[Renew]) -> Steps[Spread, list[Reply]]:
        """See `Leases.renew`; `AWAY` for those in partitions that cannot be reached."""
        routed = yield from self._route_known(renewals)
        done, failed = yield from self._ask(
            {
                number: self._parts[number].apply(_commands(its), sweep=0)
                for number, its in routed.items()
            }
        )
        yield from self._catch_up(failed)
        if not done:
            _raise_first(failed)
        replies: dict[int, Reply] = dict.fromkeys(range(len(renewals)), Answer.AWAY)
        for number, one in done.items():
            replies |= _answered(routed[number], one.replies)
        return [replies[at] for at in range(len(renewals))]

    def exchange(self, commands: Sequence[Command], take: Take) -> Steps[Spread, Exchanged]:
        """See `Backend.exchange`; `AWAY` for commands in partitions that cannot be reached."""
        routed = yield from self._route_known(commands)
        wanted = {number: _commands(its) for number, its in routed.items()}
        began = self._clock()
        sent = self._traffic.to_send(wanted, take, began)
        done, failed = yield from self._ask(
            {number: self._parts[number].exchange(*one) for number, one in sent.items()},
            self._traffic.patience(sent),
        )
        now = self._clock()
        for number, error in failed.items():
            if isinstance(error, UnavailableError):
                self._traffic.failed(number, error, sent[number], now, now - began)
            elif isinstance(error, OtherFormatError):
                self._traffic.unheard(number, sent[number])
            else:
                raise error
        replies: dict[int, Reply] = {}
        grants = []
        for number, one in done.items():
            asked, taking = sent[number]
            self._traffic.answered(number, one.next_due_ms, now)
            self._traffic.granted(number, len(one.grants), taking.limit)
            grants += one.grants
            known = dict(zip(map(id, asked), one.replies, strict=True))  # perhaps older ones
            for at, command in routed.get(number, ()):
                replies[at] = known.get(id(command), Answer.AWAY)
        yield from self._catch_up(failed)
        problem = self._traffic.problem(now)
        answered = [replies.get(at, Answer.AWAY) for at in range(len(commands))]
        return Exchanged(answered, grants, self._traffic.next_due_ms(now), problem)

    # -- waiting for work ------------------------------------------------------------------------

    def has_work(self, services: Sequence[str]) -> Steps[Spread, bool]:
        """Say whether a message waits somewhere, and remember where."""
        now = self._clock()
        if self._traffic.is_warm(now):
            return True
        here = self._traffic.reachable(now)
        done, failed = yield from self._ask(
            {number: self._parts[number].has_work(services) for number in here},
            self._traffic.patience(),
        )
        if not done:
            _raise_first(failed)
        for number, is_there in done.items():
            self._traffic.warm(number, is_warm=is_there)
        return any(done.values())

    def bells(self, services: Sequence[str]) -> dict[int, list[str]]:
        """Return by slot where tokens come, for one idle worker each."""
        bells: dict[int, list[str]] = {}
        for number in self._traffic.reachable(self._clock()):
            bells |= self._parts[number].bells(services)
        return bells

    def rung(self, slot: int) -> None:
        """Take note of a token."""
        for number, part in enumerate(self._parts):
            if part.keys.slot == slot:
                self._traffic.warm(number)

    # -- reading and purging ---------------------------------------------------------------------

    def channel(self, run_id: RunId) -> tuple[int, str]:
        """Return slot and channel where it is told how a run has ended."""
        place = place_in(run_id)
        if place is None or place >= MOST_PARTITIONS:
            place = self.layout.place_of(run_id)
        keys = self._keys(place)
        return keys.slot, keys.done(run_id)

    def read(self, run_ids: Sequence[RunId]) -> Steps[Spread, list[RunView | None]]:
        """See `Backend.read`."""
        yield from self._know(run_ids)
        routed: dict[int, list[RunId]] = {}
        for run_id in dict.fromkeys(run_ids):
            routed.setdefault(self.layout.place_of(run_id), []).append(run_id)
        done, failed = yield from self._ask(
            {number: self._parts[number].read(its) for number, its in routed.items()}
        )
        _raise_first(failed)
        found: dict[RunId, RunView | None] = {}
        for number, views in done.items():
            found |= zip(routed[number], views, strict=True)
        return [found[run_id] for run_id in run_ids]

    def dead_letters(self, service: str | None, limit: int) -> Steps[Spread, list[DeadLetter]]:
        """See `Backend.dead_letters`."""
        found = yield from self._everywhere(lambda one: one.dead_letters(service, limit))
        letters = [letter for its in found for letter in its]
        return sorted(letters, key=lambda letter: letter.died_ms)[:limit]

    def purge(self, service: str) -> Steps[Spread, int]:
        """See `Backend.purge`."""
        return (yield from self._purge(lambda one: one.purge(service)))

    def purge_waiting(self, service: str) -> Steps[Spread, int]:
        """See `StateStore.purge`."""
        return (yield from self._purge(lambda one: one.purge_waiting(service)))

    def _purge(self, steps: Callable[[Operations], Steps[Round, int]]) -> Steps[Spread, int]:
        count = sum((yield from self._everywhere(steps)))
        yield from self.apply([], sweep=0)  # what was due next may be gone
        return count


def _raise_first(failed: Mapping[int, Exception]) -> None:
    for error in failed.values():
        raise error


def _commands(routed: Sequence[tuple[int, Command]]) -> list[Command]:
    return [command for _, command in routed]


def _answered(routed: Sequence[tuple[int, Command]], replies: Sequence[Reply]) -> dict[int, Reply]:
    return {at: reply for (at, _), reply in zip(routed, replies, strict=True)}
