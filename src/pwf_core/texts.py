"""Text that others have chosen (names, reasons, payloads), made fit for a line that people read.

A control character could move the cursor, set a terminal's title or, in a log, begin a line that
looks like one of ours; a bidirectional override could turn around what is read.
"""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str, *, multiline: bool = False) -> str:
    r"""Return *text* with everything that is not printable written as an escape (`\x1b`).

    Args:
        text: Anything.
        multiline: Whether to leave ends of lines as they are.
    """
    return "".join(
        char
        if char.isprintable() or (multiline and char == "\n")
        else char.encode("unicode_escape").decode()
        for char in text
    )
