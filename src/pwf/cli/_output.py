"""What commands write: tables and lines for a terminal, JSON lines for anything else.

Text that others have chosen (payloads, reasons, names) is written through `printable` or `as_json`
only, wherever it goes: what is in a pipe or a file now is on a terminal later.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import msgspec

from pwf.cli._problems import UsageError
from pwf_core.texts import printable

__all__ = [
    "ago",
    "as_json",
    "confirm",
    "due_in",
    "last_line",
    "print_json",
    "say",
    "shows_tables",
]


def say(text: str) -> None:
    """Write a line for people to stderr."""
    print(f"pwf: {printable(text)}", file=sys.stderr)


def shows_tables(*, json: bool) -> bool:
    """Whether stdout is for a person: it is a terminal, and JSON was not asked for."""
    return not json and sys.stdout.isatty()


def last_line(reason: str) -> str:
    """Return the last line of a reason: in a traceback the one that names the error."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""


def as_json(value: object) -> str:
    """Return *value* as JSON on one line; bytes become base64, what JSON has no form for its repr.

    JSON itself demands escapes below U+0020 only; here everything that is not printable has one.
    """
    try:
        text = msgspec.json.encode(value, enc_hook=repr).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        text = msgspec.json.encode(repr(value)).decode()  # keys that are no strings, say
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def print_json(value: Any) -> None:
    """Write one JSON line to stdout, at once: whoever reads it may be waiting."""
    print(as_json(value), flush=True)


def due_in(due_ms: int | None) -> str:
    """Return how long until a moment by the store's clock, as far as ours agrees with it."""
    if due_ms is None:
        return ""
    left = due_ms / 1000 - time.time()
    return "now" if left <= 0 else _duration(left)


def ago(moment_ms: int) -> str:
    """Return how long ago a moment by the store's clock was, as far as ours agrees with it."""
    return f"{_duration(max(time.time() - moment_ms / 1000, 0))} ago"


def _duration(seconds: float) -> str:
    minute, hour, day = 60, 3600, 86400
    if seconds < minute:
        return f"{seconds:.1f} s"
    if seconds < hour:
        return f"{seconds / minute:.0f} min"
    if seconds < 2 * day:
        return f"{seconds / hour:.0f} h"
    return f"{seconds / day:.0f} d"


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what cannot be undone.

    Raises:
        UsageError: If the answer is not yes, or there is nobody to ask.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{question} Nobody is here to ask: say --yes.")
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was done.")
