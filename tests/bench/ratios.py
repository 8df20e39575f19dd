"""What is compared with what: ratios within one run, which hold where absolute figures drift.

Each has a target, which is the project's aim and no promise. The gate compares the ratios of a fresh
run with those that were recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from tests.bench.catalogue import SYSTEMS, Kind, System
from tests.bench.results import Results

__all__ = ["Ratio", "best_peer", "comparable", "fallen", "gate_systems", "ratios"]

_FELL = 0.8  # a ratio that has fallen by more than a fifth has fallen
# Which raw client library carries which system's messages.
_CARRIED_BY = {"pwf-rabbit": "raw-aio-pika", "pwf-rabbit-pika": "raw-pika"}
_DURABLE = ("pwf-redis", "pwf-rabbit", "pwf-rabbit-classic")
_LEASE = 5.0  # seconds, in W7


@attrs.frozen
class Ratio:
    """One figure over another.

    Attributes:
        name: Names it in results that are compared; for people, too.
        value: The quotient of the two medians; None if one is missing.
        target: What it is to be at least (or at most).
        more_is_better: Else less is.
        of: What was compared: both medians, for people.
    """

    name: str
    value: float | None
    target: float
    more_is_better: bool = True
    of: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the target is met."""
        if self.value is None:
            return False
        return self.value >= self.target if self.more_is_better else self.value <= self.target


def best_peer(results: Results, figure: str, *, on_rabbit: bool = False) -> str | None:
    """Return the peer that does best in *figure* (more is better), of all or of those on RabbitMQ."""
    found = {
        system.name: median
        for system in SYSTEMS
        if system.kind is Kind.PEER and (system.on_rabbit or not on_rabbit)
        if (median := results.median(system.name, figure)) is not None
    }
    return max(found, key=lambda name: found[name], default=None)


def ratios(results: Results) -> list[Ratio]:
    """Return every ratio, those of what was not measured without a value."""
    return [*_speeds(results), *_latencies(results), *_starts(results), *_killed(results)]


def _speeds(results: Results) -> Iterator[Ratio]:
    for figure in ("W1", "W2", "W3"):
        best = best_peer(results, figure)
        yield _over(results, "pwf-redis", best, figure, 10, versus="the best peer")
    for figure in ("W1", "W2", "W3"):
        yield _over(results, "pwf-redis", "thin", figure, 0.7)
    for figure in ("W1", "W2", "W3"):
        best = best_peer(results, figure, on_rabbit=True)
        yield _over(results, "pwf-rabbit", best, figure, 5, versus="the best peer on RabbitMQ")
    for system, raw in _CARRIED_BY.items():
        for figure, target in (("W1", 0.8), ("W3", 1.0)):
            yield _over(results, system, raw, figure, target, other="relay quorum")
    yield _over(results, "pwf-redis-2", "pwf-redis", "W2", 1.3)
    yield _over(results, "pwf-redis-2", "pwf-redis", "W9", 1.3)
    yield _over(results, "pwf-redis", "pwf-redis", "W6", 0.8, other="W3")


def _latencies(results: Results) -> Iterator[Ratio]:
    yield _over(results, "pwf-redis", "thin", "W4 median", 1.3, more_is_better=False)
    yield _over(
        results, "pwf-redis", "pwf-redis", "W4 p99", 3, other="W4 median", more_is_better=False
    )


def _starts(results: Results) -> Iterator[Ratio]:
    yield _over(results, "pwf-redis", "raw-redis", "W5 single", 0.8, other="XADD one by one")
    yield _over(results, "pwf-redis", "raw-redis", "W5 batched", 0.7, other="XADD by 64")
    limit = "XADD one by one, blocking"
    yield _over(results, "pwf-redis-threads", "raw-redis", "W5 single", 0.8, other=limit)
    for figure in ("W5 single", "W5 batched"):
        best = best_peer(results, figure)
        yield _over(results, "pwf-redis", best, figure, 3, versus="the best peer")
    best = best_peer(results, "W5 single")
    yield _over(results, "pwf-redis-threads", best, "W5 single", 3, versus="the best peer")


def _killed(results: Results) -> Iterator[Ratio]:
    for system in _DURABLE:
        for figure in ("W7 chains", "W7 forks"):
            yield Ratio(f"{figure}: {system}", results.median(system, figure), 1)
        twice, took = results.median(system, "W7 twice"), results.median(system, "W7 seconds")
        yield Ratio(f"W7 twice: {system}", twice, 0, more_is_better=False)
        yield Ratio(
            f"W7: seconds until all have ended: {system}", took, _LEASE + 1, more_is_better=False
        )
    memory = results.median("pwf-memory", "W1")
    yield Ratio("W1: pwf-memory, tasks/s", memory, 20_000)
    registrations = results.median("pwf-memory", "W8")
    yield Ratio("W8: pwf-memory, seconds", registrations, 1, more_is_better=False)


def _over(
    results: Results,
    one: str,
    reference: str | None,
    figure: str,
    target: float,
    *,
    other: str = "",
    versus: str = "",
    more_is_better: bool = True,
) -> Ratio:
    """Return *figure* of *one* over that (or *other*) of *reference*."""
    other = other or figure
    above = results.median(one, figure)
    below = results.median(reference, other) if reference else None
    against = versus or (f"{reference}, {other}" if other != figure else str(reference))
    return Ratio(
        f"{figure}: {one} ÷ {against}",
        above / below if above is not None and below else None,
        target,
        more_is_better,
        f"{_shown(above)} ÷ {_shown(below)} ({reference})" if above is not None and below else "",
    )


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def fallen(now: Results, recorded: Results) -> list[str]:
    """Return what has become worse by more than a fifth since *recorded*, for people."""
    return [
        f"{one.name}: {value:.3g}, recorded {was:.3g}  ({one.of})"
        for one, value, was in comparable(now, recorded)
        if (value < was * _FELL if one.more_is_better else value * _FELL > was)
    ]


def comparable(now: Results, recorded: Results) -> list[tuple[Ratio, float, float]]:
    """Return each ratio that has a value in both, with its value now and then."""
    before = {one.name: one.value for one in ratios(recorded)}
    return [
        (one, one.value, was)
        for one in ratios(now)
        if one.value is not None and (was := before[one.name]) is not None
    ]


def gate_systems(recorded: Results) -> list[System]:
    """Return what ratios need: pwf, the limits, and the peers that were best when recorded."""
    figures = ("W1", "W2", "W3", "W5 single", "W5 batched")
    best = {best_peer(recorded, figure) for figure in figures}
    best |= {best_peer(recorded, figure, on_rabbit=True) for figure in figures[:3]}
    return [one for one in SYSTEMS if one.kind is not Kind.PEER or one.name in best]
