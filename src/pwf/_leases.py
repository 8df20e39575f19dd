"""Keeps a worker's leases, from a thread of its own: handlers may block whatever they like."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from pwf_core.commands import Renew, Reply
from pwf_core.errors import UnavailableError
from pwf_core.ports import Leases

__all__ = ["LeaseKeeper"]

logger = logging.getLogger("pwf")


class LeaseKeeper:
    """Renews every third of a lease, from when it is made until it is closed.

    Args:
        leases: What renews.
        lease: How long one holds, in seconds.
        renewals: Returns what is to be renewed now; called in the keeper's thread.
        renewed: Told what was sent and answered; called in the keeper's thread.
    """

    def __init__(
        self,
        leases: Leases,
        lease: float,
        renewals: Callable[[], Sequence[Renew]],
        renewed: Callable[[Sequence[Renew], Sequence[Reply]], object],
    ) -> None:
        self._leases = leases
        self._pause = lease / 3
        self._renewals = renewals
        self._renewed = renewed
        self._closed = threading.Event()
        # A daemon: what keeps its program from ending also keeps its calls from others.
        threading.Thread(target=self._keep, name="pwf-leases", daemon=True).start()

    def close(self) -> None:
        """Let the leases run out; again is fine."""
        self._closed.set()
        self._leases.close()

    def _keep(self) -> None:
        while not self._closed.wait(self._pause):
            renewals = self._renewals()
            if not renewals:
                continue
            try:
                replies = self._leases.renew(renewals)
            except UnavailableError:
                continue  # the exchange reports it; the next try may still be in time
            except Exception:
                logger.exception("leases cannot be renewed; trying again")
            else:
                self._renewed(renewals, replies)
