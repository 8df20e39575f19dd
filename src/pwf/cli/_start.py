"""`pwf start`: start a run, and follow it if that is wanted."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from pwf.cli._options import Connection, Flag
from pwf.cli._output import print_json, say
from pwf.cli._problems import FAILED, INTERRUPTED, UsageError
from pwf.client import Client, Run
from pwf_core.directives import Publish, publish
from pwf_core.errors import RunFailedError, RunNotFoundError, RunStalledError
from pwf_core.values import DECODE_ERRORS
from pwf_core.views import Status

__all__ = ["start"]

_LOOK = 1.0  # seconds between two looks at a run that is followed


def start(
    address: str,
    arguments: Annotated[str, Parameter(name="JSON", allow_leading_hyphen=True)] = "[]",
    /,
    *,
    follow: Flag = False,
    key: str | None = None,
    json: Flag = False,
    connection: Connection | None = None,
) -> int:
    """Start a run, print its id and, with --follow, what it came to.

    Ctrl-C stops following; the run goes on.

    Args:
        address: The task to run first: service.task.
        arguments: Its arguments: a JSON array by position, an object by name; "-" reads stdin.
        follow: Wait for the run to end, and print its result as JSON.
        key: Names the run for those who start it: the same key, the same run.
        json: Write JSON lines.
        connection: Which backend.
    """
    first = _publish(address, sys.stdin.read() if arguments == "-" else arguments)
    client = (connection or Connection()).connect()
    return asyncio.run(_start(client, first, key, follow=follow, json=json))


def _publish(address: str, text: str) -> Publish:
    try:
        given: Any = msgspec.json.decode(text)
    except DECODE_ERRORS as error:
        raise UsageError(f"the arguments are not JSON ({error}): {text:.60}") from error
    match given:
        case list():
            return publish(address, *given)
        case dict():
            return publish(address, **given)
        case _:
            raise UsageError(
                f"the arguments are a JSON array (by position) or object (by name), not {text:.60}; "
                f"for a single one write '[{text:.60}]'.",
            )


async def _start(
    client: Client,
    first: Publish,
    key: str | None,
    *,
    follow: bool,
    json: bool,
) -> int:
    async with client:
        run = await client.start(first, key=key)
        if json:
            print_json({"run_id": run.id})
        else:
            print(run.id, flush=True)
        if not follow:
            return 0
        try:
            value = await _follow(run)
        except asyncio.CancelledError:
            say(f"stopped following; the run goes on: pwf runs show {run.id}")
            return INTERRUPTED
        except (RunFailedError, RunStalledError) as error:
            if not json:
                raise
            status = Status.FAILED if isinstance(error, RunFailedError) else Status.STALLED
            print_json({"run_id": run.id, "status": status, "reason": error.reason})
            return FAILED
        if json:
            print_json({"run_id": run.id, "status": Status.FINISHED, "result": value})
        else:
            print_json(value)
        return 0


async def _follow(run: Run) -> Any:
    """Return the run's result; meanwhile a terminal shows how many calls are open."""
    if not sys.stderr.isatty():
        return await run.result()
    from rich.console import Console

    waiting = asyncio.ensure_future(run.result())
    try:
        with Console(stderr=True).status("running") as line:
            while not (await asyncio.wait([waiting], timeout=_LOOK))[0]:
                with suppress(RunNotFoundError):  # it has ended, and is kept no longer
                    view = await run.view()
                    line.update(f"{view.outcome.status.value}, open calls: {len(view.calls)}")
        return waiting.result()
    finally:
        waiting.cancel()
