"""A hop between a client and its backend that tests can cut, where there is no network to cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import attrs

from pwf_core.commands import Command, Renew
from pwf_core.errors import UnavailableError
from pwf_core.ids import RunId
from pwf_core.ports import Take

__all__ = ["Cable"]


@attrs.define
class Cable:
    """Between a client and its backend: once cut, nothing gets through.

    Attributes:
        is_cut: Whether it is.
        drops_renewals: Whether renewals of leases do not get through.
        lost: How many requests have met it cut.
    """

    is_cut: bool = False
    drops_renewals: bool = False
    lost: int = 0
    _port: Any = None

    def __call__(self, port: Any) -> Self:
        """Plug the backend in."""
        self._port = port
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def apply(self, commands: Sequence[Command]) -> Any:
        """See `Backend.apply`."""
        if self.drops_renewals and any(isinstance(one, Renew) for one in commands):
            raise UnavailableError("The cable drops renewals.")
        return self._through().apply(commands)

    def exchange(self, commands: Sequence[Command], take: Take) -> Any:
        """See `Backend.exchange`."""
        return self._through().exchange(commands, take)

    def idle(self, services: Sequence[str], timeout: float) -> Any:
        """See `Backend.idle`."""
        return self._through().idle(services, timeout)

    def read(self, run_ids: Sequence[RunId]) -> Any:
        """See `Backend.read`."""
        return self._through().read(run_ids)

    def _through(self) -> Any:
        if self.is_cut:
            self.lost += 1
            raise UnavailableError("The cable is cut.")
        return self._port
