"""Reset a queue: purge a service, with all that is queued or delayed, and its runs stay consistent.

Five runs go round and round, and five wait for a reminder in a week. A purge ends them all: every
call that it takes is a failure that its run knows of, so nobody waits for a run that cannot go on,
and what the run has of other services is still done. Afterwards the queue works as before.

    python examples/reset.py [--url URL]
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections import Counter
from datetime import timedelta

from pwf import Next, Run, RunFailedError, Service, Worker, connect, publish, result

mill = Service("mill")
archive = Service("archive")

noted: asyncio.Queue[str] = asyncio.Queue()  # so that the program knows when to go on


@mill.task
async def turn(times: int) -> Next:
    return publish(turn, times + 1)  # for ever


@mill.task
async def remember(name: str) -> Next:
    return (
        publish(remind, name).after(timedelta(days=7)),
        publish(note, name),  # of another service: no purge of this one touches it
    )


@mill.task
async def remind(name: str) -> Next:
    return result(f"{name} was reminded")


@archive.task
async def note(name: str) -> Next:
    noted.put_nowait(name)
    return result(f"{name} is noted down")


async def main(url: str) -> None:
    async with connect(url) as backend:
        async with Worker(backend, mill), Worker(backend, archive):
            guests = [f"guest {number}" for number in range(5)]
            runs = await backend.start_many(publish(turn, 0) for _ in range(5))
            runs += await backend.start_many(publish(remember, guest) for guest in guests)
            for _ in guests:
                await noted.get()
        print("before:", await count(runs))

        # The worker has left, so nothing is in the middle of a turn, which a purge lets finish.
        print("purged:", await backend.purge("mill"), "calls")
        print("after: ", await count(runs))
        print("again: ", await backend.purge("mill"), "calls")

        async with Worker(backend, mill), Worker(backend, archive):
            try:
                await runs[-1].result(str, timeout=30)
            except RunFailedError as error:
                print("why:   ", error.reason)
            run = await backend.start(publish(remind, "a new guest"))
            print("then:  ", await run.result(str, timeout=30))


async def count(runs: list[Run]) -> str:
    """Return how many runs have which status."""
    found = Counter([(await run.status()).value for run in runs])
    return ", ".join(f"{number} {status}" for status, number in found.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Purge a service that never stops working.")
    parser.add_argument("--url", default=os.environ.get("PWF_URL", "memory://"))
    asyncio.run(main(parser.parse_args().url))
