"""A worker's options, their defaults and the reasons for them; checked once for both flavours."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import attrs

from pwf_core.commands import Granted
from pwf_core.engine import Engine
from pwf_core.errors import ConfigurationError
from pwf_core.protocol import Outcome
from pwf_core.retries import milliseconds
from pwf_core.service import Service
from pwf_core.tasks import Task
from pwf_core.texts import printable

__all__ = [
    "IDLE_RECHECK",
    "LISTEN_AFTER",
    "LISTEN_FOR",
    "OutcomeLog",
    "WorkerOptions",
    "log_end",
    "make_engine",
]

logger = logging.getLogger("pwf")

# A wake-up is a hint that can get lost with a connection; an idle worker looks again this often, in
# seconds, and moves on timers that others have set.
IDLE_RECHECK = 1.0

# As long as handlers are quick, the exchanges that carry what they concluded look for calls as well. To be
# told of new ones, which takes round trips of its own, is asked for once none has gone out for so long; in
# seconds.
LISTEN_AFTER = 0.002

# For how long an idle worker listens at a time, in seconds: what it hears then, which may be nothing, saves
# it from looking.
LISTEN_FOR = 0.8 * IDLE_RECHECK


@attrs.frozen(kw_only=True)
class WorkerOptions:
    """How a worker works.

    Attributes:
        concurrency: Calls run at once.
        threads: Threads for sync handlers.
        lease: How long a call waits for its worker after the worker died; renewed every third of it.
        grace: How long `close` waits for handlers to finish before their calls are handed back.
    """

    concurrency: int = 64  # async handlers mostly wait; with fewer, batches get small
    threads: int = 16  # sync handlers mostly wait, too, but each holds a stack
    lease: timedelta = timedelta(seconds=5)
    grace: timedelta = timedelta(seconds=10)

    def __attrs_post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("threads", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigurationError(
                    f"Worker({name}=) is a whole number from {least}, not {value!r}."
                )
        for name, shortest in (("lease", timedelta(seconds=0.1)), ("grace", timedelta(0))):
            value = getattr(self, name)
            if not isinstance(value, timedelta) or value < shortest:
                raise ConfigurationError(
                    f"Worker({name}=) is a timedelta of at least {shortest.total_seconds()} seconds, not {value!r}.",
                )


def make_engine(
    services: Sequence[Service],
    options: WorkerOptions,
    session: str,
    find_resource: Callable[[type[Any]], Any],
    *,
    lanes: int = 1,
) -> Engine:
    """Return the bookkeeping of a worker of *services*.

    Raises:
        ConfigurationError: If there is none, or two have one name.
        DefinitionError: If a task has an annotation that cannot be resolved.
    """
    if not services:
        raise ConfigurationError("A worker needs at least one service: Worker(backend, users).")
    tasks: dict[str, Task[..., Any, Any]] = {}
    for service in services:
        if not isinstance(service, Service):
            raise ConfigurationError(f"A worker takes services, not {service!r}.")
        tasks.update(service.tasks)
    names = [service.name for service in services]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"Two services of one worker have the same name: {names}.")
    for task in tasks.values():
        task.prepare()
    return Engine(
        services=tuple(names),
        tasks=tasks,
        session=session,
        concurrency=options.concurrency,
        lease_ms=milliseconds(options.lease),
        find_resource=find_resource,
        on_outcome=OutcomeLog(),
        lanes=lanes,
    )


_LEVELS = {
    Outcome.COMMITTED: logging.DEBUG,
    Outcome.ENDED: logging.INFO,
    Outcome.HANDED_BACK: logging.INFO,
    Outcome.RETRIED: logging.WARNING,
    Outcome.PARKED: logging.WARNING,
    Outcome.LEASE_LOST: logging.WARNING,
    Outcome.BURIED: logging.ERROR,
}


def log_end(error: BaseException) -> None:
    """Write down why a worker stops; whoever leaves it is told, but that may be much later."""
    if isinstance(error, ConfigurationError):
        logger.error("the worker stops: %s", error)
    else:
        logger.error("the worker stops: this is a bug in pwf or in an adapter", exc_info=error)


# Parked calls come again every two seconds, all of them, until somebody deploys what they wait for.
_QUIET = 60.0  # seconds between two warnings of one task for one reason
_REMEMBERED = 256  # tasks and reasons; strangers may send any address


class OutcomeLog:
    """Writes down how the calls of one worker end, and after which error; never a payload."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[int, float] = {}  # by a hash, so that it stays small; oldest first

    def __call__(self, grant: Granted, outcome: Outcome, problem: str) -> None:
        """Write down one."""
        level = _LEVELS[outcome]
        if outcome is Outcome.PARKED and not self._is_news(grant.address, problem):
            level = logging.DEBUG
        if not logger.isEnabledFor(level):
            return
        logger.log(
            level,
            "%s: %s%s (run %s, call %s, attempt %s)",
            printable(grant.address),
            outcome.value,
            f" after {problem}" if problem else "",
            grant.run_id,
            grant.call_id,
            grant.attempt,
        )

    def _is_news(self, address: str, problem: str) -> bool:
        name, now = hash((address, problem)), self._clock()
        if now < self._told.get(name, -math.inf) + _QUIET:
            return False
        self._told.pop(name, None)
        self._told[name] = now
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        return True
