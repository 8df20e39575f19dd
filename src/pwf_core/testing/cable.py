"""A hop between a client and its backend that tests can cut, where there is no network to cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from pwf_core.commands import Command, Renew, Reply
from pwf_core.errors import UnavailableError
from pwf_core.ids import RunId
from pwf_core.ports import Leases, Take

__all__ = ["Cable"]


@attrs.define
class Cable:
    """Between clients and their backends: once cut, nothing gets through.

    Attributes:
        is_cut: Whether it is.
        drops_renewals: Whether renewals of leases do not get through.
        lost: How many requests have met it cut.
    """

    is_cut: bool = False
    drops_renewals: bool = False
    lost: int = 0

    def __call__(self, port: Any) -> Any:
        """Return the backend *port*, as it is reached through this cable."""
        return _Plugged(self, port)

    def check(self) -> None:
        """Raise if it is cut."""
        if self.is_cut:
            self.lost += 1
            raise UnavailableError("The cable is cut.")


@attrs.frozen(eq=False)
class _Plugged:
    _cable: Cable
    _port: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def apply(self, commands: Sequence[Command]) -> Any:
        self._cable.check()
        return self._port.apply(commands)

    def read(self, run_ids: Sequence[RunId]) -> Any:
        """See `Backend.read`."""
        self._cable.check()
        return self._port.read(run_ids)

    def leases(self) -> _Leases:
        return _Leases(self._cable, self._port.leases())

    def exchange(self, commands: Sequence[Command], take: Take) -> Any:
        self._cable.check()
        return self._port.exchange(commands, take)

    def idle(self, take: Take, timeout: float) -> Any:
        self._cable.check()
        return self._port.idle(take, timeout)


@attrs.frozen
class _Leases:
    _cable: Cable
    _leases: Leases

    def renew(self, renewals: Sequence[Renew]) -> list[Reply]:
        self._cable.check()
        if self._cable.drops_renewals:
            raise UnavailableError("The cable drops renewals.")
        return self._leases.renew(renewals)

    def close(self) -> None:
        self._leases.close()
