"""Durable workflows from plain functions and messages: what users import."""

import importlib
import logging
from typing import TYPE_CHECKING

from pwf.connect import connect, connect_blocking
from pwf_core.context import Context
from pwf_core.directives import (
    Directive,
    Next,
    Publish,
    emit,
    gather,
    join,
    publish,
    result,
    tolerate,
)
from pwf_core.errors import (
    BrokerUnavailableError,
    CodecError,
    ConfigurationError,
    DefinitionError,
    DirectiveError,
    KeyConflictError,
    PayloadTooLargeError,
    PwfError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    RunStalledError,
    StoreFullError,
    StoreUnavailableError,
    UnavailableError,
    UnsupportedError,
)
from pwf_core.events import Event
from pwf_core.retries import Retry
from pwf_core.service import Service
from pwf_core.tasks import Task
from pwf_core.views import DeadLetter, Phase, RunView, Status

if TYPE_CHECKING:
    from pwf._health import Health
    from pwf.blocking import BlockingClient, BlockingRun
    from pwf.blocking_worker import BlockingWorker
    from pwf.client import Client, Run
    from pwf.worker import Worker

logging.getLogger(__name__).addHandler(logging.NullHandler())  # the program decides what is shown

__all__ = [
    "BlockingClient",
    "BlockingRun",
    "BlockingWorker",
    "BrokerUnavailableError",
    "Client",
    "CodecError",
    "ConfigurationError",
    "Context",
    "DeadLetter",
    "DefinitionError",
    "Directive",
    "DirectiveError",
    "Event",
    "Health",
    "KeyConflictError",
    "Next",
    "PayloadTooLargeError",
    "Phase",
    "Publish",
    "PwfError",
    "Retry",
    "Run",
    "RunCancelledError",
    "RunFailedError",
    "RunNotFoundError",
    "RunStalledError",
    "RunView",
    "Service",
    "Status",
    "StoreFullError",
    "StoreUnavailableError",
    "Task",
    "UnavailableError",
    "UnsupportedError",
    "Worker",
    "connect",
    "connect_blocking",
    "emit",
    "gather",
    "join",
    "publish",
    "result",
    "tolerate",
]

# Clients and workers are imported when they are first asked for: with asyncio they take as long as
# all the rest, a module of handlers needs none of them, and hardly a program both flavours. Type
# checkers see the imports above, and not that anything could be asked for.
_LATER = {
    "BlockingClient": "pwf.blocking",
    "BlockingRun": "pwf.blocking",
    "BlockingWorker": "pwf.blocking_worker",
    "Client": "pwf.client",
    "Health": "pwf._health",
    "Run": "pwf.client",
    "Worker": "pwf.worker",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a client or a worker."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_LATER[name]), name)
        globals()[name] = value  # so that this is asked once
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})
