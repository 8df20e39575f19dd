"""Bulk work: many tasks side by side that fail at random and are retried; the results are gathered.

`bulk.start` opens one scope with a member per number. Its `then` runs once, when the last member is
done, and sees one result per member in the order of the members, however often each has failed.

    python examples/bulk.py [--url URL] [--tasks N]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
from datetime import timedelta

import attrs

from pwf import Context, Next, Retry, Service, Worker, connect, gather, publish, result


@attrs.frozen
class Square:
    """What one task computed, and in how many attempts."""

    number: int
    square: int
    attempts: int


@attrs.frozen
class Report:
    """What all tasks came to."""

    total: int
    tasks: int
    attempts: int


bulk = Service("bulk")

# Half of the attempts fail, so 40 in a row would have to: once in 10^12 tasks.
patient = Retry(attempts=40, base=timedelta(milliseconds=10), cap=timedelta(milliseconds=100))


@bulk.task
async def start(tasks: int) -> Next:
    return gather([publish(compute, number) for number in range(tasks)], then=publish(report))


@bulk.task(retry=patient)
async def compute(ctx: Context, number: int) -> Next:
    if random.random() < 0.5:  # noqa: PLR2004
        raise ConnectionError("the server was busy")
    return result(Square(number, number * number, ctx.attempt))


@bulk.task
async def report(ctx: Context) -> Next:
    squares = ctx.results_as(Square)
    return result(
        Report(
            total=sum(one.square for one in squares),
            tasks=len(squares),
            attempts=sum(one.attempts for one in squares),
        )
    )


async def main(url: str, tasks: int) -> None:
    # A failed attempt is worth a warning; here they are the point.
    logging.getLogger("pwf").setLevel(logging.ERROR)

    async with connect(url) as backend, Worker(backend, bulk):
        run = await backend.start(publish(start, tasks))
        done = await run.result(Report, timeout=60)

    print(f"{done.tasks} tasks took {done.attempts} attempts; their squares add up to {done.total}")
    wanted = sum(number * number for number in range(tasks))
    print("as they should" if done.total == wanted else f"but should add up to {wanted}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compute squares with tasks that fail at random.")
    parser.add_argument("--url", default=os.environ.get("PWF_URL", "memory://"))
    parser.add_argument("--tasks", type=int, default=100)
    args = parser.parse_args()
    asyncio.run(main(args.url, args.tasks))
