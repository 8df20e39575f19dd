"""The figures of a soak as a table, and what was missed."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

__all__ = ["Row", "Verdict", "table"]


@attrs.frozen
class Row:
    """A figure.

    Attributes:
        target: What it must be, for people; "" if it is only told.
        is_met: Whether it is.
    """

    name: str
    value: str
    target: str = ""
    is_met: bool = True


@attrs.frozen
class Verdict:
    """What a soak came to.

    Attributes:
        title: Which soak.
        rows: Its figures.
        misses: What was wrong, a line each.
    """

    title: str
    rows: tuple[Row, ...]
    misses: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether nothing was missed."""
        return not self.misses and all(row.is_met for row in self.rows)


def table(verdict: Verdict) -> str:
    """Return the figures as a table, what was wrong below it."""
    cells = [("figure", "value", "target", "")]
    cells += [
        (row.name, row.value, row.target, "" if row.is_met else "MISSED") for row in verdict.rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [_line(line, widths) for line in cells]
    lines.insert(1, _line(["-" * width for width in widths], widths))
    return "\n".join([verdict.title, *lines, *(f"! {miss}" for miss in verdict.misses)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
