"""`pwf worker`: run services that live in modules, in this process or in several."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Annotated, Any, Literal

import attrs
from cyclopts import Parameter

from pwf._options import WorkerOptions
from pwf.cli._crew import Crew, leave_with_parent
from pwf.cli._options import AtLeastOne, Connection, Duration
from pwf.cli._problems import UsageError
from pwf.client import Client
from pwf.logs import CallFilter
from pwf.worker import Worker
from pwf_core.service import Service

__all__ = ["Serving", "worker"]

logger = logging.getLogger("pwf")

_DEFAULTS = WorkerOptions()
_FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s %(message)s"
_IN_A_CALL = " [%(task)s run %(run_id)s call %(call_id)s]"


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Serving:
    """How a worker process works.

    Attributes:
        concurrency: Calls run at once, per process.
        threads: Threads for sync handlers, per process.
        lease: How long a call waits for its worker should that die: 5, 500ms, 1m.
        grace: How long handlers may take to finish when the worker leaves: 10, 1m.
        resource: module:callable that returns a context manager, for ctx.resource(); repeatable.
        log_level: What to log to stderr: this, and what is worse.
    """

    concurrency: AtLeastOne = _DEFAULTS.concurrency
    threads: AtLeastOne = _DEFAULTS.threads
    lease: Duration = _DEFAULTS.lease
    grace: Duration = _DEFAULTS.grace
    resource: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def check(self) -> None:
        """Check the numbers here, once: processes that cannot start would try for ever.

        Raises:
            ConfigurationError: If one cannot be.
        """
        WorkerOptions(
            concurrency=self.concurrency,
            threads=self.threads,
            lease=self.lease,
            grace=self.grace,
        )

    def arguments(self) -> list[str]:
        """Return the arguments that say the same on a command line."""
        return [
            f"--concurrency={self.concurrency}",
            f"--threads={self.threads}",
            f"--lease={self.lease.total_seconds()}",
            f"--grace={self.grace.total_seconds()}",
            *(f"--resource={name}" for name in self.resource),
            f"--log-level={self.log_level}",
        ]


def worker(
    services: Annotated[tuple[str, ...], Parameter(name="SERVICE")],
    /,
    *,
    processes: AtLeastOne = 1,
    serving: Serving | None = None,
    connection: Connection | None = None,
    supervised: Annotated[bool, Parameter(show=False)] = False,
) -> None:
    """Run the calls of one or more services, until SIGTERM or Ctrl-C.

    Then calls that run are finished first; a second signal leaves at once.

    Args:
        services: module:variable of each service, such as shop.tasks:payments.
        processes: Processes, each with an event loop; one that dies is started again.
        serving: How each of them works.
        connection: Which backend.
        supervised: Leave when stdin ends: whoever started this process is gone then.
    """
    serving, connection = serving or Serving(), connection or Connection()
    client = connection.connect()  # opens nothing; what is wrong with the options shows here
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 -- an entry of sys.path is a string
    found = [_service(name) for name in services]
    makers = [_callable(name) for name in serving.resource]
    serving.check()
    _log_to_stderr(serving.log_level)
    if processes == 1:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(client, found, makers, serving, supervised=supervised))
        return
    if not client.capabilities.shared:
        technology = client.capabilities.technology
        raise UsageError(
            f"{technology} lives in one process, so --processes {processes} cannot share it. "
            "Use a --url such as embedded:///folder or redis://localhost.",
        )
    arguments = ["worker", *services, *serving.arguments(), *connection.arguments()]
    crew = Crew(
        arguments,
        processes,
        environment=connection.environment(),
        grace=serving.grace + serving.lease + timedelta(seconds=1),
    )
    asyncio.run(_supervise(client, crew))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes uvloop's event loop, which is faster, where uvloop is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(
    client: Client,
    services: list[Service],
    makers: list[Callable[[], Any]],
    serving: Serving,
    *,
    supervised: bool,
) -> None:
    async with AsyncExitStack() as stack:
        if supervised:
            stack.callback(leave_with_parent())
        backend = await stack.enter_async_context(client)
        # What has been loaded stays; to look through it for garbage held up handlers for 10 ms each time.
        gc.collect()
        gc.freeze()
        names = ", ".join(service.name for service in services)
        technology = backend.capabilities.technology
        # Said once signals are heard: whoever waits for this line may stop us by one.
        asyncio.get_running_loop().call_soon(logger.info, "serving %s on %s", names, technology)
        await Worker(
            backend,
            *services,
            concurrency=serving.concurrency,
            threads=serving.threads,
            lease=serving.lease,
            grace=serving.grace,
            resources=makers,
        ).run()


async def _supervise(client: Client, crew: Crew) -> None:
    """Keep the crew alive until a signal comes."""
    loop = asyncio.get_running_loop()
    leave = asyncio.Event()

    def on_signal() -> None:
        crew.terminate()  # a second signal hurries them
        leave.set()

    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, on_signal)
    # The client is for servers that live only as long as their programs: they outlive a restart.
    async with client, crew:
        await leave.wait()


def _service(name: str) -> Service:
    found = _find(name)
    if isinstance(found, Service):
        return found
    raise UsageError(f"{name} is {type(found).__name__} {found!r:.60}, not a pwf.Service.")


def _callable(name: str) -> Callable[[], Any]:
    found = _find(name)
    if callable(found):
        made: Callable[[], Any] = found
        return made
    raise UsageError(f"{name} is {type(found).__name__} {found!r:.60}, which cannot be called.")


def _find(name: str) -> object:
    """Return what *name*, module:variable, stands for.

    Raises:
        UsageError: If there is no such module or variable. What a module raises itself is its own.
    """
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise UsageError(f"{name!r} is not module:variable, such as shop.tasks:payments.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(f"{module_name} cannot be imported: {error}.") from error
        raise UsageError(
            f"there is no module {error.name!r}, neither installed nor in {os.getcwd()}.",  # noqa: PTH109
        ) from error
    found: object = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            services = [n for n, value in vars(module).items() if isinstance(value, Service)]
            known = f" It has the services {', '.join(services)}." if services else ""
            raise UsageError(f"module {module_name} has no {path!r}.{known}") from error
    return found


class _CallFormatter(logging.Formatter):
    """Adds the ids of the call to what is logged inside of one."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)
        self._in_a_call = logging.Formatter(_FORMAT + _IN_A_CALL)

    def format(self, record: logging.LogRecord) -> str:
        if getattr(record, "call_id", "-") != "-":
            return self._in_a_call.format(record)
        return super().format(record)


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler()
    handler.addFilter(CallFilter())
    handler.setFormatter(_CallFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
