"""`pwf purge`: empty the queue of a service."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from pwf.cli._options import Connection, Flag
from pwf.cli._output import confirm, print_json
from pwf_core.names import check_name

__all__ = ["purge"]


async def purge(
    service: Annotated[str, Parameter(name="SERVICE")],
    /,
    *,
    yes: Flag = False,
    json: Flag = False,
    connection: Connection | None = None,
) -> None:
    """Empty the queue of a service, its delayed calls included.

    Calls that are running are left to finish; runs that lose a call end as failed.

    Args:
        service: Its name.
        yes: Do not ask.
        json: Write a JSON line.
        connection: Which backend.
    """
    check_name(service, "service")
    client = (connection or Connection()).connect()
    confirm(f"Drop all waiting calls of {service!r}?", yes=yes)
    async with client as backend:
        gone = await backend.purge(service)
    if json:
        print_json({"purged": gone})
    else:
        print(f"{gone} {'call' if gone == 1 else 'calls'} purged")
