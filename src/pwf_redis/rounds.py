"""Round trips as values: what the generators of this adapter yield.

The generator says what to send and is sent the replies; who waits for them is the shell's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from msgspec import Struct
from redis.exceptions import NoScriptError

from pwf_core.steps import Steps
from pwf_redis.keys import Keys
from pwf_redis.scripts import Script

__all__ = ["Command", "Round", "ask", "call"]

Command: TypeAlias = tuple[str | bytes | int | float, ...]
"""A command's name and arguments."""


class Round(Struct, frozen=True):
    """One round trip: send these, and send back their replies."""

    commands: Sequence[Command]


def ask(*command: str | bytes | float) -> Steps[Round, Any]:
    """Send one command and return its reply."""
    replies = yield Round([command])
    return replies[0]


def call(
    script: Script,
    keys: Keys,
    arguments: Sequence[str | bytes | int],
    *,
    flagged: bool,
) -> Steps[Round, Any]:
    """Run a script and return its reply.

    Args:
        script: What to run.
        keys: Where; scripts derive every key from one of them.
        arguments: Its ARGV.
        flagged: Whether the server knows script flags.
    """
    try:
        return (yield from ask("EVALSHA", script.sha(flagged=flagged), 1, keys.due, *arguments))
    except NoScriptError:
        # A restart, a failover, SCRIPT FLUSH: sending the text loads it, too.
        return (yield from ask("EVAL", script.text(flagged=flagged), 1, keys.due, *arguments))
