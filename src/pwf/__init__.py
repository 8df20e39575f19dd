"""Durable workflows from plain functions and messages: what users import."""

import logging

from pwf._health import Health
from pwf.blocking import BlockingClient, BlockingRun
from pwf.blocking_worker import BlockingWorker
from pwf.client import Client, Run
from pwf.connect import connect, connect_blocking
from pwf.worker import Worker
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
