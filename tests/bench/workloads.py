"""What is measured. Each workload asks a session for runs, checks what came of them, and returns figures.

Sizes are those of a full run; `Scale` makes them smaller for a quick one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import attrs
from tests.bench.catalogue import Kind
from tests.bench.session import Seen, Session

__all__ = ["FIGURES", "WORKLOADS", "Figure", "Scale", "Workload", "WrongError"]

STEPS, WIDTH = 20, 20
_FINISHING = 60.0  # seconds that W7 gives after the restart
_WORK_MS = 5  # of each handler in W7, so that many are under way when their worker dies
_BUSY_US = 500  # of a core, for each of the twenty in W9
_PAUSE = 0.01  # seconds between two runs of W4: the system is to be idle


class WrongError(Exception):
    """A run ended with a value that it should not have."""


@attrs.frozen
class Scale:
    """How large a benchmark is.

    Attributes:
        factor: 1 for the full sizes.
        patience: Seconds that one measurement may take.
        recovery: Seconds to which recovery time-outs are turned down in W7; pwf's own default lease.
    """

    factor: float = 1.0
    patience: float = 40.0
    recovery: int = 5

    def of(self, count: int, least: int = 1) -> int:
        """Return *count*, scaled."""
        return max(round(count * self.factor), least)


@attrs.frozen
class Figure:
    """One number per system.

    Attributes:
        name: Its workload, and what it is if that has several.
        title: For people.
        unit: What it counts; times are in ms or s.
    """

    name: str
    title: str
    unit: str


@attrs.frozen
class Workload:
    """One way to use a system.

    Attributes:
        name: W1 to W9, or "raw" for what has figures of its own.
        figures: What comes of it.
        measure: Does it; returns a value per figure.
        is_alone: Whether it needs a session of its own, with recovery time-outs turned down.
        needs_no_worker: Whether the worker is stopped first.
        is_common: Whether it is for every system that does not say what to measure.
    """

    name: str
    figures: tuple[Figure, ...]
    measure: Callable[[Session, Scale], dict[str, float]]
    is_alone: bool = False
    needs_no_worker: bool = False
    is_common: bool = True


def _chains(session: Session, scale: Scale) -> dict[str, float]:
    runs = scale.of(200)
    return {"W1": _rate(session, scale, "chains", runs, runs * STEPS, value=STEPS, steps=STEPS)}


def _forks(session: Session, scale: Scale) -> dict[str, float]:
    runs = scale.of(200)
    return {"W2": _fork_rate(session, scale, runs, WIDTH)}


def _wide(session: Session, scale: Scale) -> dict[str, float]:
    return {"W3": _fork_rate(session, scale, 1, scale.of(5000))}


def _widest(session: Session, scale: Scale) -> dict[str, float]:
    return {"W6": _fork_rate(session, scale, 1, scale.of(100_000))}


def _busy(session: Session, scale: Scale) -> dict[str, float]:
    runs, value = scale.of(50), sum(range(WIDTH))
    calls, shape = runs * (WIDTH + 2), {"width": WIDTH, "busy_us": _BUSY_US}
    return {"W9": _rate(session, scale, "busy_forks", runs, calls, value=value, **shape)}


def _fork_rate(session: Session, scale: Scale, runs: int, width: int) -> float:
    calls, value = runs * (width + 2), sum(range(width))
    return _rate(session, scale, "forks", runs, calls, value=value, width=width)


def _rate(
    session: Session,
    scale: Scale,
    do: str,
    runs: int,
    calls: int,
    *,
    value: int,
    **shape: int,
) -> float:
    """Return calls per second, from the start of the first run to the end of the last."""
    began, seen = session.run(do, runs=runs, patience=scale.patience, **shape)
    last = seen.last_end
    _check(session, seen, dict.fromkeys(range(runs), value), scale.patience)
    return calls * 1e9 / (last - began)


def _check(session: Session, seen: Seen, values: dict[int, int], patience: float) -> None:
    """Check that each run has ended once, with its value, and pwf's as finished."""
    found = {run: [value for value, _ in ends] for run, ends in seen.ends.items()}
    wrong = {run: ends for run, ends in found.items() if ends != [values.get(run)]}
    if wrong or len(found) != len(values):
        raise WrongError(f"{len(wrong)} of {len(values)} runs ended wrongly: {str(wrong)[:100]}")
    if session.system.kind is Kind.PWF:
        statuses = session.ask("statuses", patience)["value"]
        if set(statuses) - {"finished"}:
            raise WrongError(f"runs ended as {statuses}")


def _latency(session: Session, scale: Scale) -> dict[str, float]:
    """Time chains of three from the client's call to the last handler, on an idle system."""
    took = []
    enough = time.monotonic() + scale.patience / 4
    for _ in range(scale.of(200, 10)):
        began, seen = session.run("chains", runs=1, patience=scale.patience / 2, steps=3)
        took.append((seen.last_end - began) / 1e6)
        if time.monotonic() > enough and len(took) >= 10:
            break
        time.sleep(_PAUSE)
    took.sort()
    return {"W4 median": statistics.median(took), "W4 p99": took[int(len(took) * 0.99)]}


def _starts(session: Session, scale: Scale) -> dict[str, float]:
    """Time starts that nobody runs."""
    found: dict[str, float] = {}
    for figure, count, batched in (("W5 single", 2000, False), ("W5 batched", 10_000, True)):
        if figure in session.about["cannot"]:
            continue
        # A slow system is asked for fewer: what 50 take says how many it can start in time.
        for size in (scale.of(50, 10), scale.of(count, 50)):
            if size > 50 and size > found[figure] * scale.patience / 4:
                break
            mark = session.new_mark()
            answer = session.ask("starts", scale.patience, mark=mark, count=size, batched=batched)
            found[figure] = size * 1e9 / (answer["ended"] - answer["began"])
    return found


def _killed(session: Session, scale: Scale) -> dict[str, float]:
    """Kill the only worker in mid-run, start it again, and count what comes to an end."""
    runs = scale.of(100, 4)
    marks = {"chains": session.new_mark(), "forks": session.new_mark()}
    kinds = {"chains": {"steps": STEPS}, "forks": {"width": WIDTH}}
    for do, shape in kinds.items():
        if do == "chains" or "W2" not in session.about["cannot"]:
            session.ask(do, scale.patience, mark=marks[do], runs=runs, work_ms=_WORK_MS, **shape)
        else:
            del marks[do]
    calls = runs * (STEPS + (WIDTH + 2 if "forks" in marks else 0))

    def under_way(_: Seen) -> bool:
        return sum(session.look(mark).steps for mark in marks.values()) >= calls / 2

    session.watch(marks["chains"], time.monotonic() + scale.patience, under_way)
    session.kill_worker()
    restarted = time.monotonic_ns()
    session.start_worker()
    deadline = time.monotonic() + _FINISHING

    def are_over(_: Seen) -> bool:
        return all(len(session.look(mark).ends) == runs for mark in marks.values())

    seen = {do: session.look(mark) for do, mark in marks.items()}
    session.watch_until(deadline, lambda: are_over(seen["chains"]))
    # What comes again comes when a time-out is over; then it is either here, or not to be.
    session.watch_until(time.monotonic() + scale.recovery, lambda: False)
    for mark in marks.values():
        session.look(mark)
    ends = [ends[0][1] for one in seen.values() for ends in one.ends.values()]
    booted = min(filter(None, (one.first_after(restarted) for one in seen.values())), default=0)
    found = {
        "W7 chains": len(seen["chains"].ends) / runs,
        "W7 twice": sum(one.ended_twice(restarted) for one in seen.values()),
    }
    if "forks" in seen:
        found["W7 forks"] = len(seen["forks"].ends) / runs
    if booted and len(ends) == runs * len(seen):
        found["W7 seconds"] = (max(ends) - restarted) / 1e9
        found["W7 boot"] = (booted - restarted) / 1e9
    return found


def _registrations(session: Session, scale: Scale) -> dict[str, float]:
    """Time the example, from the first start until its client has all results."""
    answer = session.ask("registrations", scale.patience, count=scale.of(1000))
    return {"W8": (answer["ended"] - answer["began"]) / 1e9}


def _raw(session: Session, scale: Scale) -> dict[str, float]:
    found: dict[str, float] = session.ask("figures", scale.patience, scale=scale.factor)["value"]
    return found


_TASKS = "tasks/s"
WORKLOADS = (
    Workload("W1", (Figure("W1", "200 chains of 20 steps", _TASKS),), _chains),
    Workload("W2", (Figure("W2", "200 of 1, then 20 at once, then their join", _TASKS),), _forks),
    Workload("W3", (Figure("W3", "one fan-out of 5,000 and its join", _TASKS),), _wide),
    Workload("W6", (Figure("W6", "one gather of 100,000", _TASKS),), _widest),
    Workload(
        "W9",
        (Figure("W9", "50 of W2 whose twenty take 0.5 ms of a core each", _TASKS),),
        _busy,
        is_common=False,
    ),
    Workload(
        "W4",
        (
            Figure("W4 median", "3-step chain on an idle system, median", "ms"),
            Figure("W4 p99", "the same, 99th percentile", "ms"),
        ),
        _latency,
    ),
    Workload(
        "W5",
        (
            Figure("W5 single", "durable starts, one by one", "runs/s"),
            Figure("W5 batched", "durable starts, in batches", "runs/s"),
        ),
        _starts,
        needs_no_worker=True,
    ),
    Workload(
        "W7",
        (
            Figure("W7 chains", "chains that finish after a kill", "share"),
            Figure("W7 forks", "fork-joins that finish after a kill", "share"),
            Figure("W7 twice", "runs that end twice", "runs"),
            Figure("W7 seconds", "until all have ended, after the restart", "s"),
            Figure("W7 boot", "of these, until the first handler runs", "s"),
        ),
        _killed,
        is_alone=True,
    ),
    Workload(
        "W8",
        (Figure("W8", "1,000 runs of examples/registration.py, until all results are there", "s"),),
        _registrations,
        is_common=False,
    ),
    Workload("raw", (), _raw, is_common=False),
)
FIGURES = {figure.name: figure for workload in WORKLOADS for figure in workload.figures}
