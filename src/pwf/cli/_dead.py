"""`pwf dead`: look after calls whose attempts are exhausted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from pwf.cli._options import AtLeastOne, Connection, Flag
from pwf.cli._output import ago, confirm, last_line, print_json, say, shows_tables
from pwf.cli._problems import FAILED, UsageError
from pwf.client import Client
from pwf_core import arguments
from pwf_core.views import DeadLetter

__all__ = ["drop", "list_letters", "requeue"]

_PAGE = 1000  # dead letters per look; each brings its traceback

Id = Annotated[str, Parameter(name="ID")]
All = Annotated[bool, Parameter(name="--all", show_default=False)]


async def list_letters(
    *,
    service: str | None = None,
    limit: AtLeastOne = 100,
    full: Flag = False,
    json: Flag = False,
    connection: Connection | None = None,
) -> None:
    """List dead letters, oldest first.

    Args:
        service: Only those of this service.
        limit: At most so many.
        full: Show the whole traceback of each.
        json: Write JSON lines.
        connection: Which backend.
    """
    async with (connection or Connection()).connect() as backend:
        letters = await backend.dead_letters(service, limit=limit)
    if not shows_tables(json=json):
        for letter in letters:
            print_json(_as_dict(letter))
        return
    if not letters:
        print("No dead letters.")
        return
    _print(letters, full=full)
    if len(letters) == limit:
        print(f"There may be more: --limit is {limit}.")


async def requeue(
    *ids: Id,
    all_: All = False,
    service: str | None = None,
    json: Flag = False,
    connection: Connection | None = None,
) -> int:
    """Run dead letters again, their attempts counted from zero.

    Args:
        ids: Calls, or runs: all dead calls of them.
        all_: All there are.
        service: Only those of this service.
        json: Write a JSON line.
        connection: Which backend.
    """
    _check(ids, all_=all_, service=service)
    async with (connection or Connection()).connect() as backend:
        return await _each(backend, ids, service, backend.requeue, "requeued", json=json)


async def drop(
    *ids: Id,
    all_: All = False,
    service: str | None = None,
    yes: Flag = False,
    json: Flag = False,
    connection: Connection | None = None,
) -> int:
    """Give dead letters up for good; their runs end as failed.

    Args:
        ids: Calls, or runs: all dead calls of them.
        all_: All there are.
        service: Only those of this service.
        yes: Do not ask.
        json: Write a JSON line.
        connection: Which backend.
    """
    _check(ids, all_=all_, service=service)
    async with (connection or Connection()).connect() as backend:
        if not ids:
            found = len(await backend.dead_letters(service, limit=_PAGE))
            many = f"{found} or more" if found == _PAGE else str(found)
            if found:
                confirm(f"Drop {many} dead letters for good?", yes=yes)
        return await _each(backend, ids, service, backend.discard, "dropped", json=json)


def _check(ids: tuple[str, ...], *, all_: bool, service: str | None) -> None:
    if ids and all_:
        raise UsageError("give either ids or --all, not both.")
    if not ids and not all_:
        alone = f" --service={service} alone is not enough:" if service else ""
        raise UsageError(f"which dead letters?{alone} give ids, or --all.")


async def _each(
    backend: Client,
    ids: tuple[str, ...],
    service: str | None,
    act: Callable[[DeadLetter], Awaitable[bool]],
    done: str,
    *,
    json: bool,
) -> int:
    """Act on each letter that is meant, say how many, and return the exit code."""
    count = 0
    missing = set(ids)
    async for letter in _letters(backend, service):
        if ids and letter.call_id not in ids and letter.run_id not in ids:
            continue
        missing -= {letter.call_id, letter.run_id}
        count += await act(letter)
    if json:
        print_json({done: count, "missing": sorted(missing)})
    else:
        print(f"{count} {done}")
    for one in sorted(missing):
        say(f"no dead letter is or belongs to {one}")
    return FAILED if missing else 0


async def _letters(backend: Client, service: str | None) -> AsyncIterator[DeadLetter]:
    """Yield every dead letter once, while those that were yielded before may go away, or die again.

    LIMIT: the ones that stay are read again with each look. A cursor in the port would lift that.
    """
    seen: set[str] = set()
    limit = _PAGE
    while True:
        letters = await backend.dead_letters(service, limit=limit)
        new = [letter for letter in letters if letter.call_id not in seen]
        for letter in new:
            seen.add(letter.call_id)
            yield letter
        if not new or len(letters) < limit:
            return
        limit = len(seen) + _PAGE


def _as_dict(letter: DeadLetter) -> dict[str, Any]:
    known = msgspec.to_builtins(letter)
    del known["body"]
    return {**known, "arguments": _decoded(letter)}


def _decoded(letter: DeadLetter) -> Any:
    """Return the arguments: a list by position, a dict by name, None if that is why it died."""
    try:
        return msgspec.msgpack.decode(letter.body)
    except (ValueError, msgspec.MsgspecError):
        return None


def _print(letters: list[DeadLetter], *, full: bool) -> None:
    from pwf.cli._tables import make_console, show_reason, table

    console = make_console()
    if full:
        for letter in letters:
            known = _decoded(letter) is not None
            given = ", ".join(arguments.show(letter.body)) if known else "(undecodable)"
            heading = f"{letter.address}({given}), call {letter.call_id} of run {letter.run_id}"
            died = f", died {ago(letter.died_ms)} in attempt {letter.attempts}"
            show_reason(console, heading + died, letter.reason)
        return
    table(
        console,
        ["call", "task", "attempts", "died", "reason"],
        (
            (
                letter.call_id,
                letter.address,
                letter.attempts,
                ago(letter.died_ms),
                last_line(letter.reason),
            )
            for letter in letters
        ),
    )
