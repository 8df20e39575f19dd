"""`pwf runs show`: a run as it stands."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from pwf import _requests as requests
from pwf.cli._options import Connection, Flag
from pwf.cli._output import as_json, due_in, last_line, print_json, shows_tables
from pwf_core.ids import RunId
from pwf_core.views import Outcome, RunView, Status

__all__ = ["show"]

_SHOWN = 50  # rows of a table; more would scroll the first ones away


async def show(
    run_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    json: Flag = False,
    connection: Connection | None = None,
) -> None:
    """Show a run: its status, the calls that are open, the joins that wait, its result.

    Args:
        run_id: The run.
        json: Write a JSON line.
        connection: Which backend.
    """
    async with (connection or Connection()).connect() as backend:
        view = await backend.run(run_id).view()
    outcome = requests.outcome_of(RunId(run_id), view)
    if shows_tables(json=json):
        _print(view, outcome)
    else:
        print_json(_as_dict(view, outcome))


def _result(view: RunView, outcome: Outcome) -> Any:
    return requests.value_of(view.run_id, outcome, Any)


def _as_dict(view: RunView, outcome: Outcome) -> dict[str, Any]:
    known = msgspec.to_builtins(view)
    return {
        "run_id": view.run_id,
        "status": outcome.status,
        "result": _result(view, outcome),
        "reason": outcome.reason,
        "calls": known["calls"],
        "joins": known["joins"],
        "events": known["events"],
    }


def _print(view: RunView, outcome: Outcome) -> None:
    from pwf.cli._tables import facts, make_console, table

    console = make_console()
    rows: list[tuple[str, object]] = [("run", view.run_id), ("status", outcome.status.value)]
    if outcome.result is not None or outcome.status is Status.FINISHED:
        rows.append(("result", as_json(_result(view, outcome))))
    if outcome.reason:
        rows.append(("reason", last_line(outcome.reason)))
    if view.events:
        rows.append(("events", ", ".join(view.events)))
    facts(console, rows)
    if view.calls:
        console.print(f"\n{len(view.calls)} open {'call' if len(view.calls) == 1 else 'calls'}")
        table(
            console,
            ["call", "task", "phase", "attempts", "due in", "reason"],
            (
                (
                    call.call_id,
                    call.address,
                    call.phase.value,
                    f"{call.attempts} ({call.lost} lost)" if call.lost else call.attempts,
                    due_in(call.due_ms),
                    last_line(call.reason),
                )
                for call in view.calls[:_SHOWN]
            ),
        )
        if len(view.calls) > _SHOWN:
            console.print(f"and {len(view.calls) - _SHOWN} more; --json has them all")
    if view.joins:
        console.print(f"\n{len(view.joins)} waiting {'join' if len(view.joins) == 1 else 'joins'}")
        table(
            console,
            ["call", "then runs", "still waits for"],
            ((join.call_id, join.address, ", ".join(join.missing)) for join in view.joins[:_SHOWN]),
        )
        if len(view.joins) > _SHOWN:
            console.print(f"and {len(view.joins) - _SHOWN} more; --json has them all")
