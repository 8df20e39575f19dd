"""Signed messages on real brokers: whole runs, strangers, and keys that are replaced in between."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta

import pytest

from pwf import Context, Service, Worker, connect, connect_blocking, gather, publish, result
from pwf.blocking_worker import BlockingWorker
from pwf_core.adapters import Settings, Url
from pwf_core.commands import Message
from pwf_core.wire import encode_messages
from pwf_rabbit.adapter import adapter as rabbit
from pwf_redis.adapter import adapter as redis

pytest.importorskip("aio_pika")
pytest.importorskip("redis")

OLD, NEW = "old-key-old-key-old-key", "new-key-new-key-new-key"
LIMIT = 30.0

BROKERS = {
    "redis": ("", pytest.mark.redis),
    "aio-pika": ("?driver=aio-pika&queue=classic", pytest.mark.rabbit),
    "pika": ("?driver=pika&queue=classic", pytest.mark.rabbit),
}


@pytest.fixture(params=[pytest.param(name, marks=mark) for name, (_, mark) in BROKERS.items()])
def broker_url(request):
    """The URL of a broker that carries no state."""
    server = "redis_url" if request.param == "redis" else "amqp_url"
    return request.getfixturevalue(server) + BROKERS[request.param][0]


@pytest.fixture
def options(redis_url):
    """What all clients of one deployment have in common, but for keys."""
    return {"store": redis_url, "namespace": secrets.token_hex(6)}


def a_service():
    """Return a service of its own, and the calls that have run."""
    shop, ran = Service("shop"), []

    @shop.task
    def order(size):
        ran.append("order")
        return gather([publish(weigh, n) for n in range(size)], then=publish("shop.ship"))

    @shop.task
    def weigh(number):
        ran.append(f"weigh {number}")
        return result(number)

    @shop.task
    def ship(ctx: Context):
        return result(sum(ctx.results))

    return shop, ran


class Stranger:
    """Somebody who can reach the broker, and has other keys, or none."""

    def __init__(self, broker_url, namespace, *keys):
        url = Url.parse(broker_url)
        settings = Settings(namespace=namespace, signing_keys=tuple(key.encode() for key in keys))
        make = rabbit.blocking_broker if url.scheme == "amqp" else redis.blocking_broker
        self.broker = make(url, settings)

    def __enter__(self):
        self.broker.open()
        return self.broker

    def __exit__(self, *_):
        self.broker.close()


async def eventually(condition):
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_signed_runs_end(broker_url, options):
    """A fork and a join of forty calls, on the async flavour."""
    shop, ran = a_service()

    async def main():
        async with (
            connect(broker_url, signing_keys=[NEW], **options) as backend,
            Worker(backend, shop),
        ):
            run = await backend.start(publish("shop.order", 40))
            return await run.result(int, timeout=LIMIT)

    assert asyncio.run(main()) == sum(range(40))
    assert len(ran) == 41


def test_signed_runs_end_on_the_blocking_flavour(broker_url, options, monkeypatch):
    """With the keys from the environment."""
    monkeypatch.setenv("PWF_SIGNING_KEYS", f"{NEW},{OLD}")
    shop, ran = a_service()
    with connect_blocking(broker_url, **options) as backend, BlockingWorker(backend, shop):
        run = backend.start(publish("shop.order", 40))

        assert run.result(int, timeout=LIMIT) == sum(range(40))
        assert len(ran) == 41


@pytest.mark.parametrize("keys", [(), (OLD,)], ids=["unsigned", "another-key"])
def test_forged_message_runs_nothing(broker_url, options, keys, caplog):
    """Though it names a call that is open: it is set aside, and the consumer goes on."""
    shop, ran = a_service()

    async def main():
        async with connect(broker_url, signing_keys=[NEW], **options) as backend:
            # Open, and not due for a day: a newer generation would be taken for a store that has
            # lost its memory, and run it at once.
            sleeping = await backend.start(publish("shop.weigh", 7).after(timedelta(days=1)))
            (call,) = (await sleeping.view()).calls
            forged = Message(sleeping.id, call.call_id, call.generation + 1, call.address)
            with Stranger(broker_url, options["namespace"], *keys) as stranger:
                await asyncio.to_thread(stranger.publish, [forged])
            async with Worker(backend, shop):
                await eventually(lambda: "set aside" in caplog.text)
                run = await backend.start(publish("shop.weigh", 1))
                await run.result(int, timeout=LIMIT)
            return (await sleeping.view()).calls == (call,)

    assert asyncio.run(main())
    assert ran == ["weigh 1"]
    assert "signed" in caplog.text
    assert "key-" not in caplog.text


def test_genuine_message_moved_to_another_deployment_runs_nothing(broker_url, options, caplog):
    """The same keys, and even the same run: it was signed for another namespace."""
    shop, ran = a_service()

    async def main():
        async with connect(broker_url, signing_keys=[NEW], **options) as backend:
            sleeping = await backend.start(publish("shop.weigh", 7).after(timedelta(days=1)))
            (call,) = (await sleeping.view()).calls
            message = Message(sleeping.id, call.call_id, call.generation + 1, call.address)
            elsewhere = Settings(namespace="elsewhere", signing_keys=(NEW.encode(),))
            body = encode_messages([message], elsewhere.signer)
            with Stranger(broker_url, options["namespace"]) as stranger:
                await asyncio.to_thread(put, stranger, body)
            async with Worker(backend, shop):
                await eventually(lambda: "set aside" in caplog.text)
                return (await sleeping.view()).calls == (call,)

    assert asyncio.run(main())
    assert ran == []


def put(broker, body):
    """Send these very bytes."""
    message = Message("0" * 32, "0" * 32, 0, "shop.weigh")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("pwf_redis.consuming", "pwf_rabbit.envelopes"):
            patch.setattr(f"{module}.encode_messages", lambda *_: body)
        broker.publish([message])


def test_keys_are_replaced_while_work_goes_on(broker_url, options):
    """Worker by worker, in the order that the tutorial gives; nothing is set aside."""
    shop, _ = a_service()
    steps = [((OLD,), (OLD, NEW)), ((OLD, NEW), (NEW, OLD)), ((NEW, OLD), (NEW,))]

    async def main(keys, others):
        async with (
            connect(broker_url, signing_keys=keys, **options) as backend,
            connect(broker_url, signing_keys=others, **options) as other,
            Worker(backend, shop, concurrency=2),
            Worker(other, shop, concurrency=2),
        ):
            runs = [await one.start(publish("shop.order", 10)) for one in (backend, other) * 3]
            return [await run.result(int, timeout=LIMIT) for run in runs]

    for keys, others in steps:
        assert asyncio.run(main(keys, others)) == [45] * 6


def test_worker_without_keys_says_what_it_needs(broker_url, options, caplog):
    """It runs nothing of what it cannot read, and names the option."""
    shop, ran = a_service()

    async def main():
        async with connect(broker_url, signing_keys=[NEW], **options) as backend:
            await backend.start(publish("shop.weigh", 1))
            async with connect(broker_url, **options) as other, Worker(other, shop):
                await eventually(lambda: "set aside" in caplog.text)

    asyncio.run(main())

    assert ran == []
    assert "PWF_SIGNING_KEYS" in caplog.text
