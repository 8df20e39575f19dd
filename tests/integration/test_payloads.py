"""Payloads are in no log, whatever becomes of them, on each backend and in both flavours."""

import asyncio
import enum
import time
import uuid
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from pwf import (
    BlockingWorker,
    Context,
    Event,
    Next,
    Retry,
    Service,
    Worker,
    connect,
    connect_blocking,
    emit,
    gather,
    join,
    publish,
    result,
)
from pwf.testing.servers import RedisServer
from pwf_core import values
from pwf_core.errors import PwfError

SECRET = "4111-1111-1111"
LIMIT = 30.0
ONCE = Retry(attempts=1)

shop = Service("shop")
paid = Event("paid", str)
approved = Event("approved", str, external=True)


class Color(enum.Enum):
    RED = "red"


class Card(msgspec.Struct, tag="card"):
    number: str


class Cash(msgspec.Struct, tag="cash"):
    amount: int


@shop.task
def succeed(text: str) -> Next:
    return publish(pay, text), join(paid, then=publish(collect, [text]))


@shop.task
def wait(text: str) -> Next:
    return join(approved, then=publish(echo, text))


@shop.task
def pay(text: str) -> Next:
    return emit(paid, text)


@shop.task
def collect(ctx: Context, texts: list[str]) -> Next:
    return gather([publish(echo, text) for text in texts], then=publish(finish, ctx.events[paid]))


@shop.task
def echo(text: str) -> Next:
    return result(text)


@shop.task
def finish(ctx: Context, text: str) -> Next:
    return result([text, *ctx.results])


@shop.task(retry=Retry(attempts=2, base=timedelta(milliseconds=1)))
def fail(text: str) -> Next:
    raise ValueError("the bank is closed")


@shop.task(retry=ONCE)
def return_it(text: str) -> Any:
    return {"number": text}


@shop.task(retry=ONCE)
def return_it_in_an_odd_object(text: str) -> Any:
    return Odd(text)


class Odd:
    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return f"two\nlines {self.text}"


@shop.task(retry=ONCE)
def return_too_much(text: str) -> Next:
    return result(text * 200_000)


@shop.task(retry=ONCE)
def return_what_has_no_form(text: str) -> Next:
    return result({text: object()})


@shop.task(retry=ONCE)
def publish_what_does_not_fit(text: str) -> Next:
    return publish(color, text)  # type: ignore[arg-type]


@shop.task(retry=ONCE)
def read_as_something_else(text: str) -> Next:
    values.decode(msgspec.msgpack.encode(text), Color, "A result")  # as `results_as` does


@shop.task
def color(one: Color) -> Next:
    return None


@shop.task
def means(one: Card | Cash) -> Next:
    return None


# What is started, and how it stands once nothing moves any more: an outcome in the log.
CASES = {
    "success": (publish(succeed, SECRET), "shop.finish: committed"),
    "failure": (publish(fail, SECRET), "shop.fail: buried after ValueError: the bank is closed"),
    "no-directive": (publish(return_it, SECRET), "buried after DirectiveError"),
    "odd-object": (publish(return_it_in_an_odd_object, SECRET), "buried after DirectiveError"),
    "oversized": (publish(return_too_much, SECRET), "buried after PayloadTooLargeError"),
    "no-form": (publish(return_what_has_no_form, SECRET), "buried after CodecError"),
    "no-fit": (publish(publish_what_does_not_fit, SECRET), "buried after CodecError"),
    "read-wrong": (publish(read_as_something_else, SECRET), "buried after CodecError"),
    "unknown": (publish("shop.unknown", SECRET), "shop.unknown: parked"),
    "wrong-enum": (publish("shop.color", SECRET), "shop.color: parked after CodecError"),
    "wrong-tag": (publish("shop.means", {"type": SECRET}), "shop.means: parked after CodecError"),
    "wrong-name": (publish("shop.echo", **{SECRET: 1}), "shop.echo: parked after CodecError"),
    "wrong-count": (publish("shop.echo", SECRET, SECRET), "shop.echo: parked after CodecError"),
}


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("rabbit-aio-pika", marks=[pytest.mark.redis, pytest.mark.rabbit]),
        pytest.param("rabbit-pika", marks=[pytest.mark.redis, pytest.mark.rabbit]),
    ]
)
def url(request):
    name = f"p{uuid.uuid4().hex[:12]}"
    if request.param == "memory":
        return f"memory://{name}"
    redis_url = request.getfixturevalue("redis_url")
    if request.param == "redis":
        return f"{redis_url}?namespace={name}"
    amqp_url = request.getfixturevalue("amqp_url")
    driver = request.param.removeprefix("rabbit-")
    return f"{amqp_url}?driver={driver}&namespace={name}&store={redis_url}"


def check(said):
    """No payload, and nothing that breaks lines, or is not printable otherwise."""
    assert [line for line in said if SECRET in line] == []
    assert [line for line in said if line.startswith("shop.") and not line.isprintable()] == []


def missing(said):
    """Return what is still to be said."""
    lines = list(said)
    return [sign for _, sign in CASES.values() if not any(sign in line for line in lines)]


def test_async(url, said):
    async def main():
        async with connect(url) as backend, Worker(backend, shop):
            await backend.start_many([first for first, _ in CASES.values()])
            run = await backend.start(publish(wait, SECRET), key=SECRET)
            await backend.emit(run.id, approved, SECRET)
            assert await run.result(str, timeout=LIMIT) == SECRET
            async with asyncio.timeout(LIMIT):
                while missing(said):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            for letter in await backend.dead_letters():
                await backend.requeue(letter)
            await backend.purge("shop")

    asyncio.run(main())
    check(said)


def test_blocking(url, said):
    with connect_blocking(url) as backend, BlockingWorker(backend, shop):
        backend.start_many([first for first, _ in CASES.values()])
        deadline = time.monotonic() + LIMIT
        while missing(said):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        backend.purge("shop")
    check(said)


@pytest.mark.redis
def test_a_server_that_quotes_them(redis_url, said):
    """Redis repeats the arguments of a command that it does not know; our errors do not."""
    with (
        RedisServer(
            *(f'rename-command {one} ""' for one in ("EVAL", "EVALSHA", "FCALL"))
        ) as server,
        connect_blocking(server.url) as backend,
        pytest.raises(PwfError, match="unknown command") as caught,
    ):
        backend.start(publish("shop.echo", SECRET))

    assert SECRET not in str(caught.value)
    check(said)
