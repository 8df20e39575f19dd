"""Handlers that take longer than RabbitMQ waits, for an acknowledgement or for a heartbeat."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from datetime import timedelta

import pytest
from tests.integration.sites import LIMIT, Pair, Work, eventually, works

from pwf import publish
from pwf.testing.servers import RabbitServer

pika = pytest.importorskip("pika")

pytestmark = [pytest.mark.redis, pytest.mark.rabbit]

GIVEN_UP = ("missed heartbeats from client", "timed out waiting for delivery acknowledgement")


def outlast(server: RabbitServer, name: str, go: threading.Event) -> None:
    """Set *go* when the server has given up those who were as slow as who waits for it.

    One of them neither reads nor sends heartbeats, the other reads, and does not ack.
    """
    before = len(server.log)
    silent = pika.BlockingConnection(pika.URLParameters(f"{server.url}?heartbeat=1"))
    hoarder = pika.BlockingConnection(pika.URLParameters(server.url))
    channel = hoarder.channel()
    channel.queue_declare(name, durable=True)
    channel.basic_publish("", name, b"")
    channel.basic_consume(name, lambda *_: None)
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        with suppress(pika.exceptions.AMQPError):
            hoarder.process_data_events(0.1)
        if all(words in server.log[before:] for words in GIVEN_UP):
            go.set()
            break
    for one in (silent, hoarder):
        with suppress(pika.exceptions.AMQPError):
            one.close()


@pytest.mark.parametrize("task", ["hold", "linger", "block"])
def test_longer_than_time_outs(
    harmed_pair: Pair,
    harmed_rabbit: RabbitServer,
    work: Work,
    task: str,
) -> None:
    """They run once and commit once, while the server gives up others that are as slow.

    What blocks the event loop costs its connections, and nothing else.
    """
    flavour, name = harmed_pair.flavour, f"{harmed_pair.space}-slow"
    others = threading.Thread(target=outlast, args=(harmed_rabbit, name, work.go))

    async def main() -> None:
        url, lease = harmed_pair.url(heartbeat=1), timedelta(minutes=1)
        async with flavour.client(url) as client, flavour.worker(client, work.service, lease=lease):
            await works(client)
            others.start()
            run = await client.start(publish(f"work.{task}"))
            await eventually(lambda: work.held)
            assert await run.result(timeout=LIMIT) == "done"
            assert work.go.is_set()  # else it has given up waiting for that
            await works(client)

    asyncio.run(main())
    others.join()
    assert work.held == [1]
