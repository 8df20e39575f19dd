"""What commands write: tables and lines for a terminal, JSON lines for anything else.

Text that others have chosen (payloads, reasons, names) goes to a terminal through `clean` only: a
control character in it could move the cursor, set the title, or worse.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec

from pwf.cli._problems import UsageError

__all__ = [
    "ago",
    "as_json",
    "clean",
    "confirm",
    "due_in",
    "last_line",
    "print_json",
    "say",
    "shows_tables",
]


def say(text: str) -> None:
    """Write a line for people to stderr."""
    print(f"pwf: {clean(text)}", file=sys.stderr)


def shows_tables(*, json: bool) -> bool:
    """Whether stdout is for a person: it is a terminal, and JSON was not asked for."""
    return not json and sys.stdout.isatty()


def clean(text: str, *, multiline: bool = False) -> str:
    r"""Return *text* with everything that is not printable written as an escape (`\x1b`)."""
    return "".join(
        char
        if char.isprintable() or (multiline and char == "\n")
        else char.encode("unicode_escape").decode()
        for char in text
    )


def last_line(reason: str) -> str:
    """Return the last line of a reason: in a traceback the one that names the error."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return clean(lines[-1]) if lines else ""


def as_json(value: object) -> str:
    """Return *value* as JSON on one line; bytes become base64, what JSON has no form for its repr."""
    try:
        return msgspec.json.encode(value, enc_hook=repr).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        return msgspec.json.encode(repr(value)).decode()  # keys that are no strings, say


def print_json(value: Any) -> None:
    """Write one JSON line to stdout, at once: whoever reads it may be waiting."""
    text = as_json(value)
    print(clean(text) if sys.stdout.isatty() else text, flush=True)


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
    print(f"{clean(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was done.")
