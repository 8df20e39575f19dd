"""The results for people: a table on the terminal, and `docs/benchmarks.md`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.bench.catalogue import Kind
from tests.bench.plot import plot
from tests.bench.ratios import Ratio, ratios
from tests.bench.results import Cell, Described, Results
from tests.bench.workloads import FIGURES, Figure

__all__ = ["table", "write_docs"]

Row = Sequence[str]


def table(results: Results) -> str:
    """Return everything for a terminal: ratios first, then figures, then why cells are empty."""
    parts = [
        _aligned([("ratio", "", "target", "", ""), *(_ratio_row(one) for one in ratios(results))]),
        _aligned(_figure_rows(results)),
        _aligned(_raw_rows(results)),
        *_reasons(results),
    ]
    return "\n\n".join(part for part in parts if part)


def _ratio_row(one: Ratio) -> Row:
    value = "not measured" if one.value is None else f"{one.value:.3g}"
    sign = "≥" if one.more_is_better else "≤"
    verdict = "" if one.value is None else "met" if one.is_met else "MISSED"
    return one.name, value, f"{sign} {one.target:,g}", verdict, one.of


def _figure_rows(results: Results) -> list[Row]:
    names = [name for name in FIGURES if any(name in cells for cells in results.cells.values())]
    rows: list[Row] = [("median", *names)]
    for system, described in results.systems.items():
        cells = results.cells.get(system, {})
        if any(name in cells for name in names):
            rows.append(
                (
                    described.title,
                    *(_shown(cells.get(one), FIGURES[one], described) for one in names),
                )
            )
    return rows if len(rows) > 1 else []


def _shown(cell: Cell | None, figure: Figure, system: Described) -> str:
    if cell is None:
        return ""
    if (median := cell.median) is None:
        cannot = {figure.name, figure.name.split()[0]} & set(system.cannot)
        return "cannot" if cannot else "none"
    return f"{median:,.0f}" if figure.unit.endswith("/s") else f"{median:.3g}"


def _raw_rows(results: Results) -> list[Row]:
    rows: list[Row] = [("limit", "per second")]
    for system, described in results.systems.items():
        for name, cell in results.cells.get(system, {}).items():
            if name not in FIGURES and cell.median is not None:
                rows.append((f"{described.title}: {name}", f"{cell.median:,.0f}"))
    return rows if len(rows) > 1 else []


def _reasons(results: Results) -> Iterable[str]:
    lines = [
        f"{results.systems[system].title if system in results.systems else system}, {name}: {reason}"
        for system, name, reason in _empty(results)
    ]
    if lines:
        yield "\n".join(["Empty cells:", *lines])


def _empty(results: Results) -> Iterable[tuple[str, str, str]]:
    """Yield system, figures and reason of what has no value; figures of one reason together."""
    for system, cells in results.cells.items():
        by_reason: dict[str, list[str]] = {}
        for name, cell in cells.items():
            if not cell.values and cell.reason:
                by_reason.setdefault(cell.reason, []).append(name)
        for reason, names in by_reason.items():
            yield system, ", ".join(names), reason


def _aligned(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if at == 0 or (at > 2 and len(row) == 5) else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


# -- docs/benchmarks.md -----------------------------------------------------------------------------

_INTRODUCTION = """\
# Benchmarks

pwf beside its peers and beside what its servers can do at all, measured in one run on one machine by
`nox -s bench`, which also wrote this page (`-- --write-docs`). Absolute figures say little on another
machine; ratios hold better, so they come first. Every figure is the median of {repetitions}, taken in
turns, so that a drift of the machine hits all alike. Handlers do nothing (but in W9): what is measured
is the cost of getting from one to the next.

![Tasks per second, by system and workload](benchmarks.svg)

"""

_METHOD = """\
## How it is measured

- **Workloads.** W1: 200 chains of 20 steps. W2: 200 runs of one call, then 20 at once, then one that joins
  their results. W3: the same once, with 5,000. W6: with 100,000. W4: a chain of three on an idle
  system, from the client's call to the moment when the last handler runs. W5: starts per second from
  one client while no worker runs, one by one and by whatever a system has to start many at once. W7 is
  no question of speed: 100 chains and 100 fork-joins whose handlers take 5 ms, the only worker killed
  by SIGKILL when half of the steps have run and started again at once; which share has ended a minute
  later, and how many ended twice. Recovery time-outs are turned down to 5 s where a system has them.
  W8, on memory alone: 1,000 users register as in `examples/registration.py`, a fork over two services
  and a join of three events each; by the client's clock, until it has all results. W9, with one worker
  process and with two: fifty of W2 whose twenty take 0.5 ms of a core each, as real handlers do.
- **Processes.** One worker process and one client process per system, unless the row says two. The
  servers are private, on loopback, and share the machine's {cores} cores with them.
- **Time** is taken by the handlers themselves, by the one monotonic clock of the machine; every run's
  value is checked, and a wrong one voids the figure.
- **Durability.** AOF `everysec` for Redis, `synchronous_commit = off` for PostgreSQL: a power cut may
  take a second or two, a killed process nothing. The row "fsync" has `appendfsync always`. Messages in
  RabbitMQ are persistent and confirmed.
- **Acknowledgement** after the work, wherever a system has that.
- **The thin loop** sends the same messages over Redis Streams and remembers nothing: no system that
  keeps a promise can be faster over Streams. "Raw" is what a server and its client library take: one
  message per call, and for the commit script, requests made beforehand.
- **Versions** are pinned in `tests/bench/environments.py`; each peer runs in an environment of its own.
- A figure that took longer than its deadline is empty, and says so below. One that took more than 10 s
  is measured once.

"""


def write_docs(results: Results, folder: Path) -> None:
    """Write `benchmarks.json`, `benchmarks.md` and `benchmarks.svg` into *folder*."""
    results.write(folder / "benchmarks.json")
    (folder / "benchmarks.svg").write_text(plot(results), encoding="utf-8")
    (folder / "benchmarks.md").write_text(page(results), encoding="utf-8")


def page(results: Results) -> str:
    """Return `docs/benchmarks.md`."""
    facts = results.facts
    repetitions = facts.get("repetitions", 1)
    times = f"{repetitions} repetitions" if repetitions != 1 else "one repetition"
    scale = facts.get("scale", 1)
    small = "" if scale == 1 else f"**This is a quick run at {scale:g} of the full sizes.**\n\n"
    return "".join(
        [
            _INTRODUCTION.format(repetitions=times),
            small,
            "## Ratios\n\n",
            _markdown(
                [("ratio", "value", "target", "", "medians"), *map(_ratio_row, ratios(results))]
            ),
            "\n## Figures\n\n",
            "".join(f"- {one.name}: {one.title}, in {one.unit}\n" for one in FIGURES.values()),
            "\n",
            _markdown(_figure_rows(results)),
            "\n",
            _markdown(_raw_rows(results)),
            "\nWhy cells are empty:\n\n",
            "".join(
                f"- {results.systems[system].title}, {names}: {reason}\n"
                for system, names, reason in _empty(results)
                if system in results.systems
            ),
            "\n## What each system does not guarantee while it is measured\n\n",
            _markdown(
                [("system", "settings", "not guaranteed", "versions"), *_guarantees(results)]
            ),
            "\n",
            _METHOD.format(cores=facts.get("cores", "few")),
            "## The machine\n\n",
            _markdown([("fact", ""), *_fact_rows(results)]),
        ]
    )


def _guarantees(results: Results) -> Iterable[Row]:
    seen = set()
    for one in results.systems.values():
        if (one.settings, one.not_guaranteed) in seen:
            continue
        seen.add((one.settings, one.not_guaranteed))
        title = one.title if one.kind != Kind.PWF.value else "pwf"
        versions = ", ".join(f"{name} {version}" for name, version in one.versions.items())
        yield title, one.settings, one.not_guaranteed, versions


def _fact_rows(results: Results) -> Iterable[Row]:
    for name, value in results.facts.items():
        if isinstance(value, dict):
            for inner, text in value.items():
                yield inner, str(text)
        else:
            yield name, str(value)


def _markdown(rows: Sequence[Row]) -> str:
    if len(rows) < 2:
        return ""
    head, *body = rows
    rule = ["---" if at == 0 or len(head) <= 4 else "--:" for at in range(len(head))]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, rule, *body)]
    return "\n".join(lines) + "\n"
