"""Tables for terminals: every cell is text that others have chosen, and none of it is markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import indent

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pwf_core.texts import printable

__all__ = ["facts", "make_console", "show_reason", "table"]

_NUMBERS = {"attempts", "due in"}  # headings of columns that are right-aligned
_READABLE = 40  # characters of a column that may be folded; shorter ones are shown on one line
_PADDING = 3  # between columns
_LONGEST_CELL = 300  # characters; JSON has the rest


def make_console() -> Console:
    """Return a console on stdout that adds no colours of its own."""
    return Console(highlight=False)


def table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings; one below the other where the terminal is too narrow for that."""
    cells = [[_shortened(printable(str(value))) for value in row] for row in rows]
    if not _fits(console.width, columns, cells):
        for row in cells:
            console.print()
            facts(console, zip(columns, row, strict=True))
        return
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(columns):
        longest = max((len(row[number]) for row in cells), default=0)
        made.add_column(
            name,
            justify="right" if name in _NUMBERS else "left",
            overflow="fold",
            no_wrap=longest <= _READABLE,
        )
    for row in cells:
        made.add_row(*map(Text, row))
    console.print(made)


def facts(console: Console, rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line; those without a value are left out."""
    known = [(name, printable(str(value))) for name, value in rows if value not in {"", None}]
    width = max((len(name) for name, _ in known), default=0)
    if not console.is_terminal:
        for name, value in known:
            console.print(Text(f"{name:{width}}  {value}"), soft_wrap=True)
        return
    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in known:
        made.add_row(name, Text(value))
    console.print(made)


def show_reason(console: Console, heading: str, reason: str) -> None:
    """Print a whole reason, with its lines indented so that none looks like a heading, below one."""
    console.print(Text(printable(heading), style="bold"))
    console.print(Text(indent(printable(reason.rstrip(), multiline=True), "  ")))
    console.print()


def _fits(width: int, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> bool:
    widths = [max(len(name), *(len(row[n]) for row in cells)) for n, name in enumerate(columns)]
    return sum(min(one, _READABLE) + _PADDING for one in widths) - _PADDING <= width


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else text[:_LONGEST_CELL] + "…"
