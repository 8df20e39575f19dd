"""Run and call ids in log records: which call a line was written for, in handlers of any kind."""

from __future__ import annotations

import logging
from contextvars import ContextVar

from msgspec import Struct

__all__ = ["CallFilter", "CurrentCall", "current_call"]


class CurrentCall(Struct, frozen=True):
    """The call that is being handled where this is asked."""

    run_id: str
    call_id: str
    address: str


current_call: ContextVar[CurrentCall | None] = ContextVar("pwf_current_call", default=None)


class CallFilter(logging.Filter):
    """Adds `run_id`, `call_id` and `task` to every record; "-" outside of a handler.

    Example:
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(CallFilter())
        >>> handler.setFormatter(logging.Formatter("%(run_id)s %(task)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids; never drops a record."""
        call = current_call.get()
        record.run_id = call.run_id if call else "-"
        record.call_id = call.call_id if call else "-"
        record.task = call.address if call else "-"
        return True
