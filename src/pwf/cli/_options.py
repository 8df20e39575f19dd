"""Options that several commands share: which backend, and values with units."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import attrs
from cyclopts import Parameter, validators

from pwf.cli._problems import UsageError
from pwf.client import Client
from pwf.connect import connect, parse_duration
from pwf_core.adapters import Url

__all__ = ["AtLeastOne", "Connection", "Duration", "Flag"]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Connection:
    """Which backend to use.

    Attributes:
        url: URL of the backend, such as redis://localhost; $PWF_URL by default.
        namespace: Keeps deployments apart that share a server; "default" by default.
    """

    url: str | None = None
    namespace: str | None = None

    def named(self) -> str:
        """Return the URL: as given, or from the environment.

        Raises:
            UsageError: If there is none.
        """
        url = self.url or os.environ.get("PWF_URL")
        if not url:
            raise UsageError("which backend? Give --url, or set PWF_URL.")
        return url

    def arguments(self) -> list[str]:
        """Return what says the same to another process, but for the URL: it may hold a password."""
        return [f"--namespace={self.namespace}"] if self.namespace else []

    def environment(self) -> dict[str, str]:
        """Return the variables that tell another process the URL."""
        return {"PWF_URL": self.named()}

    def connect(self) -> Client:
        """Return a client of a backend that others may use, too.

        Raises:
            UsageError: If there is no URL, or it stands for nothing but memory of this process.
            PwfError: As `pwf.connect` does.
        """
        client = connect(self.named(), namespace=self.namespace)
        where = Url.parse(self.named())
        if not client.capabilities.shared and not (where.host or where.path):
            raise UsageError(
                f"{where} is empty and ends with this command. Use a backend that others share, "
                "such as embedded:///folder or redis://localhost.",
            )
        return client


def _read_duration(_: Any, tokens: Sequence[Any]) -> timedelta:
    text = tokens[0].value
    try:
        return timedelta(seconds=float(text))
    except ValueError:
        return parse_duration(text)


def _show_duration(value: timedelta) -> str:
    return f"{value.total_seconds():g}s"


Duration = Annotated[
    timedelta,
    Parameter(converter=_read_duration, n_tokens=1, show_default=_show_duration),
]
"""Seconds, or a number with a unit, as in URLs: 5, 500ms, 15m."""

AtLeastOne = Annotated[int, Parameter(validator=validators.Number(gte=1))]
"""A number from 1."""

Flag = Annotated[bool, Parameter(show_default=False)]
"""Off unless given."""
