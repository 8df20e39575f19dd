"""Thirteen workflows, each of another shape."""

from __future__ import annotations

from datetime import timedelta

from pwf import (
    Context,
    Event,
    Next,
    Publish,
    Retry,
    Service,
    emit,
    gather,
    join,
    publish,
    result,
    tolerate,
)

__all__ = ["SERVICES", "SHAPES"]

work = Service("work")
other = Service("other")
SERVICES = (work, other)

HOUR = timedelta(hours=1)
LEFT, RIGHT, NEVER = Event("left", int), Event("right", int), Event("never", int)


@work.task
def leaf(n: int) -> Next:
    return result(n)


@other.task
def far_leaf(n: int) -> Next:
    return result(n)


@work.task
def quiet(n: int) -> Next:
    return None


@work.task
def say(name: str, n: int) -> Next:
    return emit(name, n)


@work.task
async def total(ctx: Context) -> Next:
    ctx.effect("charge")
    return result(sum(one or 0 for one in ctx.results))


@work.task
async def both(ctx: Context) -> Next:
    return result(ctx.events[LEFT] + ctx.events[RIGHT])


@work.task
def chain(n: int) -> Next:
    return publish(chain, n - 1) if n else result("end")


@work.task
def ping(n: int) -> Next:
    return publish(pong, n)


@other.task
def pong(n: int) -> Next:
    return publish(ping, n - 1) if n else result("end")


@work.task
def fork(n: int) -> Next:
    return [publish(quiet, i) for i in range(n)]


@work.task
def fork_and_join() -> Next:
    return [
        publish(say, "left", 1),
        publish(say, "right", 2),
        join(LEFT, RIGHT, then=publish(both)),
    ]


@work.task
def late_join() -> Next:
    return [emit(LEFT, 1), emit(RIGHT, 2), publish(registers_late)]


@work.task
def registers_late() -> Next:
    return join(LEFT, RIGHT, then=publish(both))


@work.task
def flat_gather(n: int) -> Next:
    return gather([publish(leaf, i) for i in range(n)], then=publish(total))


@other.task
def nested_gather(depth: int) -> Next:
    if not depth:
        return result(1)
    inner = [publish(nested_gather, depth - 1), publish(far_leaf, depth)]
    return gather(inner, then=publish(total))


@work.task
def empty_gather() -> Next:
    return [gather([], then=publish(total)), publish(quiet, 1)]


@work.task
def timers() -> Next:
    return [publish(quiet, n).after(n * HOUR) for n in range(3)]


@work.task(retry=Retry(attempts=4))
def stumbles(ctx: Context) -> Next:
    if ctx.attempt < 3:
        raise RuntimeError("not yet")
    return publish(leaf, 1)


@work.task(retry=Retry(attempts=2))
def breaks(n: int) -> Next:
    raise RuntimeError(f"no {n}")


@work.task
def tolerant() -> Next:
    members = [publish(breaks, 1), publish(leaf, 2), publish(nested_gather, 1)]
    return gather(members, then=publish(total), on_failure=tolerate(1))


@work.task
def overdue() -> Next:
    late = publish(flat_gather, 2)
    return [publish(quiet, 1), join(NEVER, then=publish(both), timeout=HOUR, on_timeout=late)]


@work.task
def doomed() -> Next:
    return [publish(breaks, 1), publish(quiet, 2)]


SHAPES: dict[str, Publish] = {
    "chain": publish(chain, 3),
    "ping-pong": publish(ping, 2),
    "fork": publish(fork, 3),
    "join": publish(fork_and_join),
    "late join": publish(late_join),
    "gather": publish(flat_gather, 3),
    "nested gather": publish(nested_gather, 2),
    "empty gather": publish(empty_gather),
    "timers": publish(timers),
    "retries": publish(stumbles),
    "tolerance": publish(tolerant),
    "time-out": publish(overdue),
    "dead letter": publish(doomed),
}
