"""Crash a workflow at every point where it can crash, on virtual time, and see that it ends the same.

    from pwf.testing import explore

    def test_registration_survives_everything():
        explore(users, documents, start=publish(register, ANN))

The run is made once without faults, and its effects (round trips to store and broker) are counted.
Then it is made again for each of them and for each thing that can go wrong there, and every time the
same calls must decide the same, once each, the run must end the same, and nothing may stay behind.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import attrs

from pwf import _requests as requests
from pwf._resources import Resources
from pwf.testing._deployment import Deployment, Fault, Kind, kinds_of
from pwf.testing._loops import run_anywhere
from pwf.testing._workers import Protocol
from pwf_core.commands import Start
from pwf_core.directives import Publish
from pwf_core.errors import ConfigurationError, PwfError
from pwf_core.ids import RunId
from pwf_core.service import Service
from pwf_core.transition import MAX_LOST, SUSPECT_LOST
from pwf_core.views import Outcome, Status

__all__ = ["Exploration", "ExplorationError", "SideEffect", "explore"]

_MOST = 2_500  # runs with the same number of faults, beyond one
# Executions that end with their lease; who is overtaken makes another one wait, too.
_LOSES = {
    Kind.DEAD_BEFORE: 1,
    Kind.DEAD_AFTER: 1,
    Kind.STALLED: 1,
    Kind.OVERTAKEN: 2,
    Kind.OUTRUN: 2,
}
_RUN = RunId("0" * 32)  # always the same, for what is ordered by ids
_TRACE = 24  # lines of it in an error: what happened before the end


@attrs.frozen
class SideEffect:
    """How often a side effect, as marked by `ctx.effect(name)`, ran for one call at most.

    Attributes:
        times: In the worst run.
        after: What had gone wrong in it.
    """

    times: int
    after: str


@attrs.define
class Exploration:
    """What was explored, and found.

    Attributes:
        runs: Runs made, faults or not.
        points: Effects of the run without faults, by protocol: fused, paired, and both with two lanes.
        effects: By task and name, "service.task: charge".
        refused: Commits that were refused: of workers that had lost their call, and repeated ones.
    """

    runs: int = 0
    points: dict[str, int] = attrs.field(factory=dict)
    effects: dict[str, SideEffect] = attrs.field(factory=dict)
    refused: int = 0


class ExplorationError(PwfError, AssertionError):
    """A workflow does not survive something.

    Attributes:
        problem: What is wrong.
        replay: What to pass as `explore(..., replay=)` to see it again.
        trace: Every effect of that run.
    """

    def __init__(self, problem: str, replay: str, trace: Sequence[str]) -> None:
        self.problem = problem
        self.replay = replay
        self.trace = list(trace)
        shown = "\n".join(self.trace[-_TRACE:])
        super().__init__(f"{problem}\nTo see it again: explore(..., replay={replay!r})\n{shown}")


def explore(
    *services: Service,
    start: Publish,
    faults: int = 1,
    most: int | None = None,
    seed: int = 0,
    concurrency: int = 64,
    replay: str | None = None,
    resources: Sequence[Callable[[], Any]] = (),
) -> Exploration:
    """Run a workflow with every fault at every effect, and compare.

    The workers are real, the servers are simulated, with both protocols that backends use, and with one
    exchange of a worker under way at a time, and two. Handlers run one after the other, in this thread;
    give them fakes for what must not happen for real.

    Args:
        services: Whose tasks take part.
        start: The run's first call, made by `publish`.
        faults: How many things go wrong in one run, at the most; never so many that a call is lost
            with its workers five times, which makes it a dead letter.
        most: Runs for each number of faults and each protocol; what is more is drawn by *seed*. None
            stands for all runs with one fault, and 2,500 with each number beyond.
        seed: Of what is drawn.
        concurrency: Calls that a worker runs at once; with few there are more points to crash at, and
            with 1 only one exchange is under way at a time.
        replay: Only this run, as an error has named it.
        resources: As for `Worker`; opened once.

    Raises:
        ExplorationError: If a run does not end like the one without faults, or stalls; or if a call was
            lost more often than with workers that died or stood still.
        ConfigurationError: If *replay* is not what an error has named.
    """
    found: list[Exploration] = []

    async def main() -> None:
        opened = Resources(resources)
        async with AsyncExitStack() as stack:
            await opened.open_async(stack)
            first = requests.make_start(start, None, _RUN)
            explorer = _Explorer(first, services, opened.find, concurrency)
            if replay is not None:
                await explorer.replay(replay)
            else:
                await explorer.explore(faults, most, random.Random(seed))  # noqa: S311 -- a plan
            found.append(explorer.exploration)

    run_anywhere(main)
    return found[0]


@attrs.frozen
class _End:
    """What a run came to; equal for every run of a workflow that survives."""

    outcome: Outcome | None
    decisions: dict[str, Any]


@attrs.define
class _Explorer:
    start: Start
    services: Sequence[Service]
    find: Callable[[type[Any]], Any]
    concurrency: int
    exploration: Exploration = attrs.field(factory=Exploration, init=False)
    _ends: dict[Protocol, _End] = attrs.field(factory=dict, init=False)

    async def explore(self, faults: int, most: int | None, chance: random.Random) -> None:
        for protocol in Protocol:
            if protocol.lanes > self.concurrency:
                continue  # a further lane would have nothing to ask for
            points = await self._without_faults(protocol)
            singles = [Fault(at, kind) for at in range(points) for kind in kinds_of(protocol)]
            for number in range(1, faults + 1):
                for plan in _plans(singles, number, most, chance):
                    await self._try(protocol, plan)

    async def replay(self, text: str) -> None:
        protocol, plan = _parse(text)
        await self._without_faults(protocol)
        await self._try(protocol, plan)

    async def _without_faults(self, protocol: Protocol) -> int:
        deployment, end = await self._run(protocol, ())
        if end is not None:
            self._ends[protocol] = end
        self._judge(protocol, (), deployment, end)
        again = (await self._run(protocol, ()))[1]
        if end != again:
            raise ExplorationError(
                "Two runs without any fault differ: a handler decides by chance, time or something "
                f"outside. {_difference(end, again)}",
                _show(protocol, ()),
                deployment.trace,
            )
        self.exploration.points[protocol.value] = len(deployment.made)
        return len(deployment.made)

    async def _try(self, protocol: Protocol, plan: tuple[Fault, ...]) -> None:
        deployment, end = await self._run(protocol, plan)
        if deployment.is_vain:
            return  # as with one fault less: it would tell nothing of this one
        try:
            self._judge(protocol, plan, deployment, end)
        except ExplorationError:
            for fewer in itertools.combinations(plan, len(plan) - 1) if len(plan) > 1 else ():
                await self._try(protocol, fewer)  # perhaps not all of them are needed
            raise

    async def _run(
        self, protocol: Protocol, plan: tuple[Fault, ...]
    ) -> tuple[Deployment, _End | None]:
        kinds = {fault.at: fault.kind for fault in plan}
        deployment = Deployment(
            protocol, self.start, self.services, self.find, kinds, concurrency=self.concurrency
        )
        self.exploration.runs += 1
        if not await deployment.go():
            return deployment, None
        view = deployment.view
        outcome = requests.outcome_of(self.start.run_id, view) if view is not None else None
        self._count(deployment, plan)
        return deployment, _End(outcome, {call: rest for call, *rest in deployment.decisions})

    def _count(self, deployment: Deployment, plan: tuple[Fault, ...]) -> None:
        self.exploration.refused += deployment.tables.refused
        for (_, address, name), times in deployment.effects.items():
            known = self.exploration.effects.get(f"{address}: {name}")
            if known is None or known.times < times:
                after = _show(deployment.protocol, plan) if plan else "nothing went wrong"
                self.exploration.effects[f"{address}: {name}"] = SideEffect(times, after)

    def _judge(
        self,
        protocol: Protocol,
        plan: tuple[Fault, ...],
        deployment: Deployment,
        end: _End | None,
    ) -> None:
        problem = self._problem(protocol, deployment, end) or _needless_loss(deployment, plan)
        if problem:
            raise ExplorationError(problem, _show(protocol, plan), deployment.trace)

    def _problem(self, protocol: Protocol, deployment: Deployment, end: _End | None) -> str:
        if end is None:
            return "The run does not come to an end."
        if end.outcome is None:
            return "The run is lost."
        if end.outcome.status is Status.STALLED:
            return f"The run can stall: {end.outcome.reason}"
        if len(end.decisions) < len(deployment.decisions):
            return "A call was committed twice."
        if deployment.tables.overtaken:
            return "A worker that had lost a call has committed it."
        if end != self._ends[protocol]:
            return _difference(self._ends[protocol], end)
        if end.outcome.status in {Status.FINISHED, Status.CANCELLED}:
            left = deployment.left_behind()
            if left:
                return f"The run has left something behind: {', '.join(left)}."
        return ""


def _difference(expected: _End | None, end: _End | None) -> str:
    assert expected is not None
    assert end is not None
    for call_id in expected.decisions.keys() | end.decisions.keys():
        one, other = expected.decisions.get(call_id), end.decisions.get(call_id)
        if one is None or other is None:
            address = (one or other or ("?",))[0]
            return f"{address} was run in one of them only (call {call_id})."
        if one != other:
            return f"{one[0]} has decided {other[1]}, and not {one[1]} (call {call_id})."
    return f"The run has ended as {end.outcome}, and not as {expected.outcome}."


def _plans(
    singles: Sequence[Fault], number: int, most: int | None, chance: random.Random
) -> Iterable[tuple[Fault, ...]]:
    if most is None:
        most = len(singles) if number == 1 else _MOST
    if math.comb(len(singles), number) <= most:
        return filter(_is_survivable, itertools.combinations(singles, number))
    drawn = (tuple(sorted(chance.sample(singles, number))) for _ in itertools.count())
    return itertools.islice(filter(_is_survivable, drawn), most)


def _is_survivable(plan: Sequence[Fault]) -> bool:
    """Whether it loses fewer executions than make a call a dead letter, should all strike one."""
    return _lost(plan) < MAX_LOST


def _needless_loss(deployment: Deployment, plan: Sequence[Fault]) -> str:
    """Say so if a call was lost more often than with workers that had died or stood still."""
    most = _lost(plan) + (SUSPECT_LOST if deployment.guilty else 0)
    for call_id, lost in deployment.tables.lost.items():
        if lost > most and call_id not in deployment.guilty:
            return f"A call was lost with its worker {lost} times, and not {most} at the most ({call_id})."
    return ""


def _lost(plan: Sequence[Fault]) -> int:
    return sum(_LOSES.get(fault.kind, 0) for fault in plan)


def _show(protocol: Protocol, plan: Sequence[Fault]) -> str:
    return "; ".join([protocol.value, *(f"{fault.at} {fault.kind.value}" for fault in plan)])


def _parse(text: str) -> tuple[Protocol, tuple[Fault, ...]]:
    name, *faults = text.split("; ")
    try:
        parts = [fault.partition(" ") for fault in faults]
        return Protocol(name), tuple(Fault(int(at), Kind(kind)) for at, _, kind in parts)
    except ValueError as error:
        raise ConfigurationError(
            f"replay={text!r} is not what an error has named: {error}."
        ) from error
