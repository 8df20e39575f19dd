"""Services for worker processes that are to be stopped, killed and poisoned.

Handlers tell what they do by appending a line to the file `PWF_TEST_LOG`, outside of any store.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

from pwf import Context, Next, Retry, Service, gather, publish, result

service = Service("processes")

SOON = Retry(base=timedelta(milliseconds=10))


def note(text: str) -> None:
    """Append a line to the log; short enough to be atomic."""
    with Path(os.environ["PWF_TEST_LOG"]).open("a", encoding="utf-8") as log:
        log.write(f"{text}\n")


def may_go(attempt: int | None = None) -> bool:
    """Whether nobody has to hang any more, or this attempt has not."""
    return Path(f"{os.environ['PWF_TEST_LOG']}.go{attempt or ''}").exists()


@service.task(retry=SOON)
async def hang_once(ctx: Context) -> Next:
    """Hang until killed or stopped; finish when run again."""
    note(f"hang_once {ctx.attempt}")
    if not may_go():
        await asyncio.Event().wait()
    return result(ctx.attempt)


@service.task(retry=SOON)
async def stubborn(ctx: Context) -> Next:
    """Go on once this attempt may; until then the loop does nothing, not even hear of a lost lease."""
    note(f"stubborn {ctx.attempt}")
    while not may_go(ctx.attempt):
        time.sleep(0.02)  # noqa: ASYNC251 -- that is the point
    return publish(innocent, ctx.attempt)


@service.task
async def blocking(ctx: Context, seconds: float) -> Next:
    """Hold up the event loop, as a library that knows none does."""
    note(f"blocking {ctx.attempt}")
    time.sleep(seconds)  # noqa: ASYNC251 -- that is the point
    return result(ctx.attempt)


@service.task
async def seizing(ctx: Context, seconds: float) -> Next:
    """Hold the interpreter's lock, as an extension written in C may: no thread runs meanwhile."""
    note(f"seizing {ctx.attempt}")
    if ctx.attempt == 1:
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    while ctx.attempt > 1 and not may_go():  # noqa: ASYNC110 -- a file has no event to wait for
        await asyncio.sleep(0.02)
    return result(ctx.attempt)


@service.task(retry=SOON)
async def poison(ctx: Context, kind: str) -> Next:
    """Take the whole process down, every time."""
    note(f"poison {ctx.attempt}")
    match kind:
        case "segfault":
            ctypes.string_at(0)
        case "kill":  # as when memory runs out
            os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)


@service.task(retry=SOON)
async def innocent(ctx: Context, number: int) -> Next:
    """Be around when that happens."""
    note(f"innocent {number}")
    await asyncio.sleep(0.01)
    return result(number)


@service.task
async def fan(n: int) -> Next:
    """Gather *n* innocent calls."""
    return gather([publish(innocent, number) for number in range(n)], then=publish(total))


@service.task
def total(ctx: Context) -> Next:
    """Sum the numbers up."""
    return result(sum(ctx.results_as(int)))


@service.task
async def chain(n: int) -> Next:
    """Count down to 0, one call per number."""
    return publish(chain, n - 1) if n else result("done")
