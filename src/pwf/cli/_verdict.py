"""What the demo prints at its end: what was counted, how long it took, and what the kills did."""

from __future__ import annotations

from rich.console import Console

from pwf.cli._audit import Audit
from pwf.cli._source import Counts
from pwf.cli._tables import facts

__all__ = ["print_audit", "print_counts"]


def print_counts(console: Console, counts: Counts, workflow: float, plain: float) -> None:
    """Print the totals and the time of both ways to them, in seconds."""
    rows: list[tuple[str, object]] = [
        ("files", f"{counts.files:,}"),
        ("lines", f"{counts.lines:,}"),
        ("functions", f"{counts.functions:,}"),
        ("classes", f"{counts.classes:,}"),
        ("imports", f"{counts.imports:,}"),
    ]
    if counts.unreadable:
        rows.append(("unreadable", f"{counts.unreadable:,}"))
    if (longest := counts.longest) is not None:
        where = f"{longest.path}:{longest.line}"
        rows.append(("longest function", f"{longest.name}, {longest.lines:,} lines, {where}"))
    rows += [("workflow", f"{workflow:.1f} s"), ("plain loop", f"{plain:.1f} s")]
    facts(console, rows)


def print_audit(console: Console, audit: Audit, killed: int) -> None:
    """Print what killing workers came to."""
    facts(
        console,
        [
            ("workers killed", killed),
            ("handlers run", f"{audit.executions:,} times, for {audit.calls:,} calls"),
            ("calls redelivered", audit.redelivered),
            ("committed twice", audit.doubled),
            ("lost", audit.lost),
        ],
    )
