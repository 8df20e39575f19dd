"""The program that starts runs, cancels or answers some, and waits for all of them.

`python -m tests.chaos.client --url URL --seed 1 --first 0 --stride 2` starts runs 0, 2, 4, … with
so many at a time, until SIGTERM; then it waits for those under way and leaves. It goes through the
same faults as the workers, and asks again whatever was not answered.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import suppress

from tests.chaos.diary import Diary, What, own_diary
from tests.chaos.shapes import Plan, draw
from tests.chaos.workflows import ANSWER, run_node

from pwf import (
    Client,
    Run,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    RunStalledError,
    UnavailableError,
    connect,
)

__all__: list[str] = []

PAUSE = 0.1  # seconds until something is asked again: an outage must not become a storm


class Customer:
    """Has runs done, and tells the diary what became of them."""

    def __init__(self, backend: Client, diary: Diary, seed: int) -> None:
        self._backend = backend
        self._diary = diary
        self._seed = seed

    async def order(self, number: int) -> None:
        """See one run through."""
        plan = draw(self._seed, number)
        run = await self._start(plan)
        if run is None:
            return
        try:
            if plan.kind in {"cancelled", "raced"}:
                await asyncio.sleep(plan.pause)
                await self._cancel(run, number)
            if plan.kind == "asked":
                await asyncio.sleep(plan.pause)
                await self._answer(run, plan.value)
            status, value, why = await self._end(run)
        except asyncio.CancelledError:
            self._diary.write(What.UNFINISHED, number=number, run=run.id)
            raise
        self._diary.write(
            What.ENDED, number=number, run=run.id, status=status, value=value, note=why
        )

    async def _start(self, plan: Plan) -> Run | None:
        first = run_node(plan.root)
        while True:
            try:
                run = await self._backend.start(first, key=plan.key or None)
            except UnavailableError:
                if not plan.key:
                    self._diary.write(What.UNKNOWN, number=plan.number)
                    return None
                await asyncio.sleep(PAUSE)
            else:
                self._diary.write(What.ACCEPTED, number=plan.number, run=run.id, note=plan.kind)
                return run

    async def _cancel(self, run: Run, number: int) -> None:
        answer = "no"
        while True:
            try:
                if await run.cancel(reason="chaos"):
                    answer = "yes"
                break
            except RunNotFoundError:
                break
            except UnavailableError:
                answer = "maybe"  # it may have arrived; then the next one says that it was over
                await asyncio.sleep(PAUSE)
        self._diary.write(What.CANCELLED, number=number, run=run.id, note=answer)

    async def _answer(self, run: Run, value: int) -> None:
        for _ in range(2):  # the second one changes nothing
            while True:
                try:
                    await self._backend.emit(run.id, ANSWER, value)
                    break
                except RunNotFoundError:
                    return  # it shows when we ask for its end
                except UnavailableError:
                    await asyncio.sleep(PAUSE)

    async def _end(self, run: Run) -> tuple[str, int | None, str]:
        while True:
            try:
                return "finished", await run.result(int), ""
            except RunFailedError as error:
                return "failed", None, error.reason
            except RunCancelledError as error:
                return "cancelled", None, error.reason
            except RunStalledError as error:
                return "stalled", None, error.reason
            except RunNotFoundError:
                return "gone", None, ""
            except UnavailableError:
                await asyncio.sleep(PAUSE)


async def main(url: str, *, seed: int, first: int, stride: int, limit: int, rate: float) -> None:
    """Start runs until SIGTERM, then wait for them; a second one leaves them."""
    loop = asyncio.get_running_loop()
    leave, now = asyncio.Event(), asyncio.Event()

    def on_term() -> None:
        (now if leave.is_set() else leave).set()

    loop.add_signal_handler(signal.SIGTERM, on_term)
    diary = own_diary()
    open_runs: set[asyncio.Task[None]] = set()
    async with connect(url) as backend:
        customer = Customer(backend, diary, seed)
        number = first
        while not leave.is_set():
            while len(open_runs) < limit:
                open_runs.add(asyncio.create_task(customer.order(number)))
                number += stride
                with suppress(TimeoutError):
                    await asyncio.wait_for(leave.wait(), 1 / rate)
                if leave.is_set():
                    break
            open_runs = await _settle(open_runs, leave)
        hurry = asyncio.create_task(now.wait())
        while open_runs and not hurry.done():
            await asyncio.wait({*open_runs, hurry}, return_when=asyncio.FIRST_COMPLETED)
            open_runs = _without_done(open_runs)
        hurry.cancel()
        for one in open_runs:
            one.cancel()
        await asyncio.gather(*open_runs, return_exceptions=True)


async def _settle(tasks: set[asyncio.Task[None]], leave: asyncio.Event) -> set[asyncio.Task[None]]:
    leaving = asyncio.create_task(leave.wait())
    await asyncio.wait({*tasks, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    return _without_done(tasks)


def _without_done(tasks: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    for one in tasks:
        if one.done():
            one.result()  # a client that has a fault must not hide it
    return {one for one in tasks if not one.done()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--rate", type=float, default=10.0)
    options = parser.parse_args()
    asyncio.run(main(**vars(options)))
