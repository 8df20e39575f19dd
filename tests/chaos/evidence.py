"""What the diary says, judged against what was to be. Nothing here asks a server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property

import attrs
from tests.chaos.diary import Entry, What
from tests.chaos.shapes import Plan, Step, draw, number_of, steps_of

__all__ = ["Evidence", "Story", "percentile"]

# What ends a window in which times say nothing about takeover: servers away, networks slow.
_ROUGH = ("stall", "slow", "half-open")


@attrs.define
class Story:
    """What is known of one run.

    Attributes:
        ids: Every run id that was seen with its number; there should be one.
        was_accepted: Whether a client was told that it was started.
        cancelled: The answer to a cancel: yes, no, maybe; "" if nobody asked.
        status: How it ended for the client; "" if that was not seen.
        calls: Call ids by path and task.
        began: Time and attempt of each execution, by path and task.
    """

    plan: Plan
    ids: set[str] = attrs.field(factory=set)
    was_accepted: bool = False
    cancelled: str = ""
    status: str = ""
    value: int | None = None
    why: str = ""
    calls: dict[tuple[str, str], set[str]] = attrs.field(factory=lambda: defaultdict(set))
    began: dict[tuple[str, str], list[tuple[float, int]]] = attrs.field(
        factory=lambda: defaultdict(list)
    )

    @cached_property
    def steps(self) -> list[Step]:
        """The calls that it has had once it has finished."""
        return list(steps_of(self.plan.root))

    @property
    def endings(self) -> set[tuple[str, int | None]]:
        """The endings that are right, each with the value of the run."""
        finished, cancelled = ("finished", self.plan.value), ("cancelled", None)
        match self.plan.kind, self.cancelled:
            case "doomed", _:
                return {("failed", None)}
            case "cancelled", _:
                return {cancelled}
            case "raced", "yes":
                return {cancelled}
            case "raced", "maybe":
                return {cancelled, finished}
        return {finished}


@attrs.define
class Evidence:
    """A diary, read.

    Attributes:
        entries: All of it, in order of time.
        stories: Of every run that was heard of, by number.
    """

    entries: list[Entry]
    stories: dict[int, Story]

    @classmethod
    def of(cls, entries: Iterable[Entry], seed: int) -> Evidence:
        """Sort the entries by run."""
        kept = sorted(entries, key=lambda entry: entry.t)
        stories: dict[int, Story] = {}
        for entry in kept:
            number = number_of(entry.path) if entry.path else entry.number
            if number >= 0:
                if number not in stories:
                    stories[number] = Story(draw(seed, number))
                _add(stories[number], entry)
        return cls(kept, stories)

    # -- what went wrong ----------------------------------------------------------------------------

    def lost(self) -> Iterator[str]:
        """Yield runs that vanished, and calls that finished runs never had."""
        for number, story in self.stories.items():
            if story.status == "gone":
                yield f"run {number} ({story.ids}) is not known, though it was accepted"
            if not self._is_finished(story):
                continue
            for step in story.steps:
                if (step.path, step.task) not in story.calls:
                    yield f"run {number} ({story.ids}) finished without {step.task} of {step.path}"

    def doubled(self) -> Iterator[str]:
        """Yield starts that made two runs, and decisions that made two calls."""
        for number, story in self.stories.items():
            if len(story.ids) > 1:
                yield f"run {number} was started as {story.ids}"
            for (path, task), calls in story.calls.items():
                if len(calls) > 1:
                    yield f"run {number} ({story.ids}): {task} of {path} is {len(calls)} calls"

    def wrong(self) -> Iterator[str]:
        """Yield runs that ended otherwise than they had to, and calls that should never be."""
        for number, story in self.stories.items():
            ending = (story.status, story.value)
            if story.status not in {"", "gone", "stalled"} and ending not in story.endings:
                yield (
                    f"run {number} ({story.ids}, {story.plan.kind}) ended as {ending}, "
                    f"not as {story.endings}: {story.why}"
                )
            known = {(step.path, step.task) for step in story.steps}
            for path, task in story.calls.keys() - known:
                yield f"run {number} ({story.ids}) had a call {task} of {path}"

    def stuck(self) -> Iterator[str]:
        """Yield runs whose end nobody saw, or that stalled."""
        for number, story in self.stories.items():
            if story.was_accepted and story.status in {"", "stalled"}:
                yield f"run {number} ({story.ids}, {story.plan.kind}) {story.status} {story.why}"

    def recomputed(self) -> Iterator[str]:
        """Yield calls that were granted again after their decision had been committed.

        What a call has made shows that it was committed, by the last attempt granted until then. A
        later execution is that of a worker that had lost its lease, unless its attempt is newer.
        """
        for number, story in self.stories.items():
            for step in story.steps:
                if step.cause is None or (step.path, step.task) not in story.began:
                    continue
                committed, _ = min(story.began[step.path, step.task])
                causes = story.began[step.cause]
                before = [attempt for t, attempt in causes if t < committed]
                for t, attempt in causes:
                    if t > committed and attempt > max(before, default=0):
                        yield (
                            f"run {number} ({story.ids}): {step.cause} ran as attempt {attempt}, "
                            f"{t - committed:.3f} s after {step.task} of {step.path}"
                        )

    def _is_finished(self, story: Story) -> bool:
        if story.status:
            return story.status == "finished"
        # An unknown start that came through after all has nobody who waits for it. All runs are over
        # when the diary is read, and what this one had to come to, it has.
        came_through = bool(story.ids) and not story.was_accepted
        return came_through and story.plan.kind in {"plain", "raced"}

    # -- figures ------------------------------------------------------------------------------------

    def count(self, *whats: What) -> int:
        """Return how often these were told."""
        return sum(entry.what in whats for entry in self.entries)

    def calls(self) -> int:
        """Return how many calls were executed at least once."""
        return sum(len(calls) for story in self.stories.values() for calls in story.calls.values())

    def joins(self) -> int:
        """Return how many joins and gathers fired."""
        return sum(
            task in {"joined", "total"}
            for story in self.stories.values()
            for _, task in story.calls
        )

    def takeovers(self, *, calm: bool) -> list[float]:
        """Return how long calls waited that a worker held when it was killed, in seconds.

        Args:
            calm: Leave out those during which a server was away, a network slow or half-open, or
                another worker stood still: RabbitMQ may have pushed the call to that one.
        """
        rough = list(self._rough()) if calm else []
        held: dict[int, dict[str, float]] = defaultdict(dict)  # process -> calls
        waiting: dict[str, float] = {}
        found = []
        for entry in self.entries:
            match entry.what:
                case What.BEGAN:
                    held[entry.pid][entry.call] = entry.t
                    killed = waiting.pop(entry.call, None)
                    if killed is not None and not any(
                        begin < entry.t and killed < end for begin, end in rough
                    ):
                        found.append(entry.t - killed)
                case What.DONE | What.RAISED:
                    held[entry.pid].pop(entry.call, None)
                case What.KILLED:
                    calls = held.pop(entry.pid, {})
                    if entry.note != "paused":
                        waiting |= dict.fromkeys(calls, entry.t)
                case What.PAUSED:
                    held.pop(entry.pid, None)  # they may be taken over before it is killed
        return found

    def resumptions(self) -> list[float]:
        """Return how long after the servers were all back the next handler began, in seconds.

        Where one of them went away again before that, its next return is what counts.
        """
        found = []
        away: set[str] = set()
        since: float | None = None
        for entry in self.entries:
            match entry.what:
                case What.DOWN:
                    away.add(entry.note)
                    since = None
                case What.UP:
                    away.discard(entry.note)
                    since = None if away else entry.t
                case What.BEGAN if since is not None:
                    found.append(entry.t - since)
                    since = None
        return [*found, float("inf")] if since is not None else found

    def _rough(self) -> Iterator[tuple[float, float]]:
        """Yield the windows in which servers, networks or other workers were not as they should be."""
        since: dict[str, float] = {}
        for entry in self.entries:
            name = entry.note.removesuffix(" is over")
            match entry.what:
                case What.DOWN:
                    since[name] = entry.t
                case What.UP:
                    yield since.pop(name), entry.t + 1
                case What.PAUSED:
                    since[f"pause of {entry.pid}"] = entry.t
                case What.RESUMED | What.KILLED if f"pause of {entry.pid}" in since:
                    yield since.pop(f"pause of {entry.pid}"), entry.t
                case What.FAULT if entry.note != name:
                    yield since.pop(name, entry.t), entry.t + 1
                case What.FAULT if name.startswith(_ROUGH):
                    if name.startswith("half-open"):
                        yield entry.t, entry.t + 5  # until time-outs and heartbeats notice
                    else:
                        since[name] = entry.t


def percentile(values: list[float], share: float) -> float:
    """Return the value below which that share of *values* lies; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _add(story: Story, entry: Entry) -> None:
    if entry.run:
        story.ids.add(entry.run)
    match entry.what:
        case What.BEGAN:
            story.calls[entry.path, entry.task].add(entry.call)
            story.began[entry.path, entry.task].append((entry.t, entry.attempt))
        case What.ACCEPTED:
            story.was_accepted = True
        case What.CANCELLED:
            story.cancelled = entry.note
        case What.ENDED:
            story.status, story.value, story.why = entry.status, entry.value, entry.note
