"""Round trips as values: what the generators of this adapter yield.

The generator says what to send and is sent the replies; who waits for them is the shell's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct
from redis.exceptions import NoScriptError

from pwf_core.errors import StoreUnavailableError
from pwf_core.steps import Steps
from pwf_redis.keys import Keys
from pwf_redis.scripts import Script

__all__ = [
    "CONFIRM",
    "Command",
    "Round",
    "Spread",
    "after",
    "ask",
    "call",
    "call_kept",
    "keep",
    "together",
    "wait_in",
]

T = TypeVar("T")

Command: TypeAlias = tuple[str | bytes | int | float, ...]
"""A command's name and arguments."""

# Waits until the server's own disk (1), and no replica's (0), has all that this connection wrote; 0: as
# long as the round trip may take. See https://redis.io/docs/latest/commands/waitaof/.
CONFIRM: Command = ("WAITAOF", 1, 0, 0)


class Round(Struct, frozen=True):
    """One round trip: send these, and send back their replies."""

    commands: Sequence[Command]


class Spread(Struct, frozen=True):
    """Round trips to make at the same time, by the slot of a cluster that each is for.

    Send back a mapping, too: the replies of each slot, or what went wrong there, as an exception.
    After *patience*, in seconds, who has not answered yet counts as away, however long one may take.
    """

    rounds: Mapping[int, Sequence[Command]]
    patience: float | None = None


def together(
    parts: Mapping[int, Steps[Round, T]], patience: float | None = None
) -> Steps[Spread, dict[int, T | Exception]]:
    """Take steps in several slots, with their round trips at the same time.

    Args:
        parts: The steps, by slot.
        patience: See `Spread`.

    Returns:
        What each has come to; an exception where it has failed.
    """
    ended: dict[int, T | Exception] = {}
    asked: dict[int, Sequence[Command]] = {}

    def go_on(slot: int, step: Callable[[], Round]) -> None:
        try:
            asked[slot] = step().commands
        except StopIteration as stop:
            ended[slot] = stop.value
        except Exception as error:  # noqa: BLE001 -- what it means, those who asked decide
            ended[slot] = error

    for slot, steps in parts.items():
        go_on(slot, partial(next, steps))
    while asked:
        found = yield Spread(dict(asked), patience)
        asked.clear()
        for slot, reply in found.items():
            steps = parts[slot]
            if isinstance(reply, Exception):
                go_on(slot, partial(steps.throw, reply))
            else:
                go_on(slot, partial(steps.send, reply))
    return ended


def wait_in(names: Sequence[str], seconds: float) -> Command:
    """Return what waits for a token in one of these lists."""
    # Redis takes 0 for "for ever", and some versions take a thousandth of a second for 0.
    return ("BLPOP", *names, max(seconds, 0.002))


def after(command: Command, steps: Steps[Round, T]) -> Steps[Round, T]:
    """Take steps, with *command* sent before them in the same round trip."""
    begun = next(steps)
    effect, sent = Round([command, *begun.commands]), 1
    try:
        while True:
            try:
                replies = yield effect
            except Exception as error:  # noqa: BLE001 -- it is for the steps
                effect = steps.throw(error)
            else:
                effect = steps.send(replies[sent:])
            sent = 0
    except StopIteration as stop:
        ended: T = stop.value
        return ended


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
        keys: Where; scripts derive every key from one of them. On a cluster they are given another
            one, which is never there: while a slot moves to another node, Redis refuses what names
            keys that it does not have, and it must not run a script that finds some and not others.
        arguments: Its ARGV.
        flagged: Whether the server knows script flags.
        confirmed: Whether to wait until what it wrote is on the server's disk.
    """
    given = (*_named(keys), *arguments)
    try:
        return (
            yield from _run(("EVALSHA", script.sha(flagged=flagged), *given), confirmed=confirmed)
        )
    except NoScriptError:
        # A restart, a failover, SCRIPT FLUSH: sending the text loads it, too.
        return (
            yield from _run(("EVAL", script.text(flagged=flagged), *given), confirmed=confirmed)
        )


def call_kept(
    script: Script,
    keys: Keys,
    arguments: Sequence[str | bytes | int],
    *,
    confirmed: bool = False,
) -> Steps[Round, Any]:
    """Do the same with a script that the server keeps as a function.

    Raises:
        NoFunctionError: If it does not, or not any more.
        NotAllowedError: If it never will.
    """
    return (
        yield from _run(("FCALL", script.function, *_named(keys), *arguments), confirmed=confirmed)
    )


def keep(script: Script) -> Steps[Round, None]:
    """Have the server keep a script as a function.

    Raises:
        NotAllowedError: If it never will.
    """
    yield Round([("FUNCTION", "LOAD", "REPLACE", script.library)])


def _named(keys: Keys) -> Command:
    return (2, keys.due, keys.never) if keys.is_spread else (1, keys.due)


def _run(command: Command, *, confirmed: bool) -> Steps[Round, Any]:
    replies = yield Round([command, CONFIRM] if confirmed else [command])
    if confirmed and replies[1][0] < 1:
        raise StoreUnavailableError("Redis does not confirm that it has written to its disk.")
    return replies[0]
