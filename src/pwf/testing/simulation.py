"""A whole workflow on virtual time, synchronously: the real protocol, the real rules, no waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, TypeVar, overload

import attrs

from pwf import _requests as requests
from pwf._handlers import call_sync, gather_returned
from pwf._options import WorkerOptions, make_engine
from pwf._resources import Resources
from pwf.logs import CurrentCall, current_call
from pwf.testing._loops import run_anywhere
from pwf_core.commands import Granted
from pwf_core.directives import Publish
from pwf_core.engine import Engine
from pwf_core.errors import PwfError
from pwf_core.events import Event
from pwf_core.ids import RunId
from pwf_core.protocol import Outcome
from pwf_core.service import Service
from pwf_core.underway import RunningCall
from pwf_core.views import Phase, RunView, Status
from pwf_memory.clock import VirtualClock
from pwf_memory.tables import Tables

__all__ = ["Execution", "Simulation", "UnfinishedError", "simulate"]

T = TypeVar("T")

_LIMIT = 1_000_000  # executions: a workflow that never ends is an error, not a hang


@attrs.frozen
class Execution:
    """One execution of a handler in a simulation.

    Attributes:
        address: The task.
        attempt: 1 for the first.
        outcome: How it ended.
        at: Virtual time since the start of the run.
    """

    address: str
    attempt: int
    outcome: Outcome
    at: timedelta


class UnfinishedError(PwfError):
    """A simulation came to a rest before its run had ended."""

    def __init__(self, view: RunView) -> None:
        stuck = [
            f"call {call.address!r} is {call.phase.value}"
            f" ({call.reason or 'no service of this simulation has its queue'})"
            for call in view.calls
        ]
        missing = sorted({name for join in view.joins for name in join.missing})
        if missing:
            names = ", ".join(map(repr, missing))
            stuck.append(f"joins wait for {names}; simulation.emit(...) goes on from here")
        super().__init__(f"The run has not ended: {'; '.join(stuck)}.")


class Simulation:
    """A run that has been simulated until nothing was left to do. Made by `simulate`.

    Attributes:
        executions: Every execution of a handler, in order.
    """

    def __init__(self, services: Sequence[Service], resources: Sequence[Callable[[], Any]]) -> None:
        self.executions: list[Execution] = []
        self._clock = VirtualClock()
        self._began = self._clock.now_ms()
        self._tables = Tables(clock=self._clock)
        self._resources = Resources(resources)
        self._engine: Engine = make_engine(
            services,
            WorkerOptions(),
            "simulation",
            self._resources.find,
        )
        self._engine.on_outcome = self._note
        self._run_id = RunId("")

    @property
    def status(self) -> Status:
        """How the run stands."""
        return self.view.outcome.status

    @property
    def view(self) -> RunView:
        """The run with its open calls and joins."""
        (view,) = self._tables.read([self._run_id])
        assert view is not None
        return view

    @property
    def elapsed(self) -> timedelta:
        """Virtual time that has passed since the start."""
        return timedelta(milliseconds=self._clock.now_ms() - self._began)

    @overload
    def result(self, /) -> Any: ...
    @overload
    def result(self, type_: type[T], /) -> T: ...
    def result(self, type_: Any = Any, /) -> Any:
        """Return the value that the run was given, decoded to *type_*; None without one.

        A run that waits for events goes on here with the time-outs of its joins.

        Raises:
            RunFailedError: If it failed.
            RunStalledError: If nothing is left that could fire its joins.
            UnfinishedError: If it waits for something from outside this simulation.
            CodecError: If the value is not of that type.
        """
        if self.status is Status.WAITING:
            self._settle(patient=True)
        outcome = requests.outcome_of(self._run_id, self.view)
        requests.raise_for(self._run_id, outcome)
        if outcome.status is not Status.FINISHED:
            raise UnfinishedError(self.view)
        return requests.value_of(self._run_id, outcome, type_)

    @overload
    def emit(self, event: Event[None], /) -> Simulation: ...
    @overload
    def emit(self, event: Event[T], payload: T, /) -> Simulation: ...
    @overload
    def emit(self, event: str, payload: Any = None, /) -> Simulation: ...
    def emit(self, event: Event[Any] | str, payload: Any = None, /) -> Simulation:
        """Emit an event from outside, then go on until nothing is left again."""
        emit = requests.make_emit(self._run_id, event, payload)
        self._tables.apply([emit])
        self._settle()
        return self

    def start(self, first: Publish) -> None:
        """Start the run and go on until nothing is left; called by `simulate`."""
        start = requests.make_start(first, None)
        self._run_id = start.run_id
        self._tables.apply([start])
        self._settle()

    def _settle(self, *, patient: bool = False) -> None:
        run_anywhere(lambda: self._go_on(patient=patient))

    async def _go_on(self, *, patient: bool) -> None:
        goes_on = {Status.RUNNING, Status.WAITING} if patient else {Status.RUNNING}
        async with AsyncExitStack() as stack:
            await self._resources.open_async(stack)
            while True:
                await asyncio.sleep(0)  # lets Ctrl-C in
                exchange = self._engine.next_exchange()
                reply = self._tables.exchange(exchange.commands, exchange.take)
                for call in self._engine.exchanged(exchange, reply):
                    await self._handle(call)
                if self._engine.has_conclusions or reply.grants:
                    continue
                view = self.view
                if view.outcome.status not in goes_on or reply.next_due_ms is None:
                    return
                if view.calls and all(call.phase is Phase.PARKED for call in view.calls):
                    return
                self._clock.advance(max(reply.next_due_ms, 1))

    async def _handle(self, call: RunningCall) -> None:
        invoke, grant = call.invoke, call.grant
        assert invoke is not None
        task = invoke.task
        args = [invoke.context, *invoke.args] if task.takes_context else invoke.args
        token = current_call.set(CurrentCall(grant.run_id, grant.call_id, grant.address))
        try:
            value = await gather_returned(call_sync(task.fn, args, invoke.kwargs))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if _is_interrupted():
                raise
            self._engine.raised(call, error)  # the protocol decides what it means
        else:
            self._engine.returned(call, value)
        finally:
            current_call.reset(token)

    def _note(self, grant: Granted, outcome: Outcome, _problem: str) -> None:
        if len(self.executions) == _LIMIT:
            raise PwfError(f"The workflow made {_LIMIT} executions and goes on; does it ever end?")
        self.executions.append(Execution(grant.address, grant.attempt, outcome, self.elapsed))


def simulate(
    first: Publish,
    /,
    *services: Service,
    resources: Sequence[Callable[[], Any]] = (),
) -> Simulation:
    """Run a whole workflow, on virtual time, until nothing is left to do.

    Delays and retries take no real time. Handlers of any kind run one after the other, in this
    thread, under the rules that every backend is held to.

    Args:
        first: The run's first call, made by `publish`.
        services: Whose tasks take part.
        resources: As for `Worker`.

    Example:
        >>> simulate(publish(register, user), users, documents).result(str)
    """
    simulation = Simulation(services, resources)
    simulation.start(first)
    return simulation


def _is_interrupted() -> bool:
    """Whether Ctrl-C was typed: `asyncio.run` cancels its task then, and says so afterwards."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
