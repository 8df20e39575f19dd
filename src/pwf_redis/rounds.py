"""Round trips as values: what the generators of this adapter yield.

The generator says what to send and is sent the replies; who waits for them is the shell's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from msgspec import Struct
from redis.exceptions import NoScriptError

from pwf_core.errors import StoreUnavailableError
from pwf_core.steps import Steps
from pwf_redis.keys import Keys
from pwf_redis.scripts import Script

__all__ = ["CONFIRM", "Command", "Round", "ask", "call"]

Command: TypeAlias = tuple[str | bytes | int | float, ...]
"""A command's name and arguments."""

# Waits until the server's own disk (1), and no replica's (0), has all that this connection wrote; 0: as
# long as the round trip may take. See https://redis.io/docs/latest/commands/waitaof/.
CONFIRM: Command = ("WAITAOF", 1, 0, 0)


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
    confirmed: bool = False,
) -> Steps[Round, Any]:
    """Run a script and return its reply.

    Args:
        script: What to run.
        keys: Where; scripts derive every key from one of them.
        arguments: Its ARGV.
        flagged: Whether the server knows script flags.
        confirmed: Whether to wait until what it wrote is on the server's disk.
    """
    further = [CONFIRM] if confirmed else []
    name = ("EVALSHA", script.sha(flagged=flagged), 1, keys.due, *arguments)
    try:
        replies = yield Round([name, *further])
    except NoScriptError:
        # A restart, a failover, SCRIPT FLUSH: sending the text loads it, too.
        text = ("EVAL", script.text(flagged=flagged), 1, keys.due, *arguments)
        replies = yield Round([text, *further])
    if confirmed and replies[1][0] < 1:
        raise StoreUnavailableError("Redis does not confirm that it has written to its disk.")
    return replies[0]
