"""What can go wrong on the command line, and its one line for people: no traceback, no password."""

from __future__ import annotations

import re

__all__ = ["FAILED", "INTERRUPTED", "USAGE", "UsageError", "explain", "without_passwords"]

FAILED = 1
USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# But for what our own help writes: a reader must see what to put where.
_PASSWORD = re.compile(r"(://(?!user:password@host:port/)[^/@:\s]*):[^/\s]*@")


class UsageError(Exception):
    """The command line asks for what cannot be; change it and try again."""


def explain(error: BaseException) -> str:
    """Return what *error* says, on one line.

    Of a message with many lines (a traceback in the reason of a failed run) the first and the last
    are kept: what failed, and why.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        lines = [type(error).__name__]
    text = lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"
    return without_passwords(text)


def without_passwords(text: str) -> str:
    """Return *text* with the password of any URL in it masked.

    Our own errors never hold one; those of drivers and of argument parsing may.
    """
    return _PASSWORD.sub(r"\1:***@", text)
