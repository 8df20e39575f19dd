"""`pwf.testing.simulate`: whole workflows on virtual time."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta

import pytest

from pwf import (
    Context,
    Event,
    Next,
    Retry,
    RunFailedError,
    Service,
    Status,
    emit,
    gather,
    join,
    publish,
    result,
)
from pwf.testing import UnfinishedError, simulate

tree = Service("tree")
approval = Service("approval")

approved = Event("approved", bool, external=True)
prepared = Event("prepared")


@tree.task
async def node(depth: int) -> Next:
    if not depth:
        return result(1)
    children = [publish(node, depth - 1) for _ in range(2)]
    return gather(children, then=publish(total).after(timedelta(hours=1)))


@tree.task
def total(ctx: Context) -> Next:
    return result(sum(ctx.results_as(int)))


@tree.task(retry=Retry(attempts=4, base=timedelta(hours=1), cap=timedelta(days=1)))
def flaky(ctx: Context, failures: int) -> Next:
    if ctx.attempt <= failures:
        raise ConnectionError
    return result(ctx.attempt)


@approval.task
def ask() -> Next:
    return (publish(prepare), join(approved, prepared, then=publish(answer)))


@approval.task
def prepare() -> Next:
    return emit(prepared)


@approval.task
def answer(ctx: Context) -> Next:
    return result("yes" if ctx.events[approved] else "no")


def test_nested_gathers_sum_up() -> None:
    """Results go outwards, from gathers inside gathers, and delays take no real time."""
    simulation = simulate(publish(node, 5), tree)

    assert simulation.result(int) == 2**5
    assert simulation.elapsed == timedelta(hours=5)


def test_retries_take_virtual_time() -> None:
    """A call that fails three times succeeds with its fourth attempt."""
    simulation = simulate(publish(flaky, 3), tree)

    assert simulation.result(int) == 4
    assert [one.attempt for one in simulation.executions] == [1, 2, 3, 4]
    assert simulation.elapsed > timedelta(0)


def test_exhausted_attempts_fail_the_run() -> None:
    """The reason names the call and the error."""
    simulation = simulate(publish(flaky, 4), tree)

    assert simulation.status is Status.FAILED
    with pytest.raises(RunFailedError, match=r"(?s)tree\.flaky.*ConnectionError"):
        simulation.result()


def test_outside_events_go_in_by_hand() -> None:
    """A run that waits says for what, and goes on when it comes."""
    simulation = simulate(publish(ask), approval)

    assert simulation.status is Status.WAITING
    with pytest.raises(UnfinishedError, match="'approved'"):
        simulation.result()
    assert simulation.emit(approved, payload_of(yes=True)).result(str) == "yes"


def payload_of(*, yes: bool) -> bool:
    return yes


def test_missing_service_is_named() -> None:
    """A call that nobody here takes is named."""
    simulation = simulate(publish(ask), tree)

    with pytest.raises(UnfinishedError, match=r"approval\.ask' is queued"):
        simulation.result()


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
@pytest.mark.parametrize("is_async", [False, True])
def test_no_error_of_a_handler_stops_the_simulation(error: BaseException, is_async: bool) -> None:
    """What is meant for the process or the loop counts as a failed attempt, as in a worker."""
    service = Service("exits")

    def leave(ctx: Context) -> Next:
        if ctx.attempt == 1:
            raise error
        return result(ctx.attempt)

    async def leave_async(ctx: Context) -> Next:
        return leave(ctx)

    task = service.task(leave_async if is_async else leave)

    assert simulate(publish(task), service).result(int) == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_interrupt_stops_the_simulation(is_async: bool) -> None:
    """Ctrl-C is typed by a person; no attempt is made after it."""
    service = Service("long")
    attempts: list[int] = []

    @service.task
    def work(ctx: Context) -> Next:
        attempts.append(ctx.attempt)
        signal.raise_signal(signal.SIGINT)
        return publish(work)

    @service.task
    async def work_async(ctx: Context) -> Next:
        attempts.append(ctx.attempt)
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)
        return None

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            simulate(publish(work_async if is_async else work), service)
    finally:
        signal.signal(signal.SIGINT, before)

    assert attempts == [1]


def test_works_inside_a_running_loop() -> None:
    """Also where the test itself is async."""

    async def main() -> int:
        return simulate(publish(node, 1), tree).result(int)

    assert asyncio.run(main()) == 2
