"""Messages that are none of ours: they are shown as problems, and stop nobody."""

from __future__ import annotations

import msgspec
import pytest

from pwf_core.commands import Message
from pwf_core.ids import CallId, RunId
from pwf_core.ports import Broker
from pwf_core.testing.brokers._consumer import assert_empty, receive, receive_and_ack
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import SERVICE, message, new_call_id, new_run_id

_encode = msgspec.msgpack.encode

BODIES = {
    "empty": b"",
    "text": b"hello",
    "json": b'{"id": 1}',
    "not-utf8": b"\xff\xfe\x00\x80",
    "nul": b"\0" * 100,
    "cut-short": _encode([1, [new_run_id(), new_call_id(), 0, "work.task"]])[:-3],
    "version-2": _encode([2, [new_run_id(), new_call_id(), 0, "work.task"]]),
    "no-calls": _encode([1]),
    "wrong-id": _encode([1, ["../../etc", new_call_id(), 0, "work.task"]]),
    "wrong-generation": _encode([1, [new_run_id(), new_call_id(), -1, "work.task"]]),
    "wrong-address": _encode([1, [new_run_id(), new_call_id(), 0, "no dot"]]),
    "deep": b"\x91" * 5000 + b"\xc0",
    "large": b"x" * 200_000,
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in BODIES.items()])
@behaviour()
async def test_undecodable_is_a_problem(harness: Harness[Broker], body: bytes) -> None:
    """What cannot be read is delivered without messages and with the reason; the next one is fine."""
    broker = await harness.connect()
    sent = message()
    await broker.publish([message()])  # there is a queue now
    await receive_and_ack(broker, 1)
    await harness.inject(SERVICE, body)
    await broker.publish([sent])
    bad, good = sorted(await receive(broker, 2), key=lambda one: len(one.messages))

    assert (SERVICE, ()) == (bad.service, bad.messages)
    assert bad.problem
    assert (sent,) == good.messages
    await broker.reject([bad])
    await broker.ack([good])
    await assert_empty(broker)


@behaviour()
async def test_rejected_problem_does_not_come_again(harness: Harness[Broker]) -> None:
    """A problem that was set aside is with nobody, after a close either."""
    first, second = await harness.connect(), await harness.connect()
    await first.publish([message()])
    await receive_and_ack(first, 1)
    await harness.inject(SERVICE, b"hello")
    await first.reject(await receive(first, 1))
    await first.close()

    await assert_empty(second)


@behaviour()
async def test_problem_that_is_left_comes_again(harness: Harness[Broker]) -> None:
    """A problem that nobody set aside is delivered again, like anything else."""
    first, second = await harness.connect(), await harness.connect()
    await first.publish([message()])
    await receive_and_ack(first, 1)
    await harness.inject(SERVICE, b"hello")
    await receive(first, 1)
    await first.close()

    (again,) = await receive(second, 1)
    assert again.problem
    await second.reject([again])


@behaviour()
async def test_forged_names_are_a_problem_or_carried(harness: Harness[Broker]) -> None:
    """A message that names no possible call never looks like one that does."""
    broker = await harness.connect()
    forged = Message(RunId("*"), CallId("'; drop"), 0, f"{SERVICE}.task")
    await broker.publish([forged])
    (delivery,) = await receive(broker, 1)

    assert bool(delivery.problem) is not bool(delivery.messages)
    await broker.reject([delivery])
    await assert_empty(broker)
