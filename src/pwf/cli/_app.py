"""The table of commands, and how errors of any kind end: one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError, Parameter

from pwf.cli._output import say
from pwf.cli._problems import FAILED, INTERRUPTED, USAGE, UsageError, explain
from pwf_core.errors import PwfError

__all__ = ["run"]

# command -> (where its function lives, its line in a list of commands)
_COMMANDS = {
    "demo": (
        "pwf.cli._demo:demo",
        "Index Python's own standard library with a workflow, and check the result.",
    ),
    "worker": ("pwf.cli._worker:worker", "Run the calls of one or more services."),
    "start": ("pwf.cli._start:start", "Start a run, and follow it."),
    "runs show": ("pwf.cli._runs:show", "Show a run with all that is open in it."),
    "dead list": ("pwf.cli._dead:list_letters", "List dead letters, oldest first."),
    "dead requeue": ("pwf.cli._dead:requeue", "Run dead letters again."),
    "dead drop": ("pwf.cli._dead:drop", "Give dead letters up; their runs fail."),
    "purge": ("pwf.cli._purge:purge", "Empty the queue of a service."),
}
_GROUPS = {
    "runs": "Look at runs.",
    "dead": "Look after calls whose attempts are exhausted.",
}


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0, 1 (failed), 2 (usage) or 130 (Ctrl-C)."""
    try:
        code = _make_app(arguments)(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        say(f"{explain(error).rstrip('.')}. Try --help.")
        return USAGE
    except UsageError as error:
        say(explain(error))
        return USAGE
    except (PwfError, TimeoutError) as error:
        say(explain(error))
        return FAILED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not trip over it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code if isinstance(code, int) else 0


def _make_app(arguments: Sequence[str]) -> App:
    """Return the commands; none is imported before it is called, or its own help is shown."""
    app = App(
        name="pwf",
        help="Durable workflows made of plain functions and messages.",
        version=lambda: version("pubsub-workflow"),
        version_flags=["--version"],
        help_format="plaintext",
        default_parameter=Parameter(negative=""),
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    groups = {name: App(name=name, help=line) for name, line in _GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for command, (place, line) in _COMMANDS.items():
        *group_name, name = command.split()
        # On its own page a command is described by its docstring, which says more than the line.
        is_asked = list(arguments[: len(group_name) + 1]) == [*group_name, name]
        parent = groups[group_name[0]] if group_name else app
        parent.command(place, name=name, **({} if is_asked else {"help": line}))
    return app
