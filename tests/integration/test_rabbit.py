"""The RabbitMQ broker against a real server, through each driver, in both flavours.

The async flavour runs behind a thin shim, so that one test speaks for all.
"""

import asyncio
import importlib
import itertools
import logging
import shlex
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from tests.least import as_user, blocks

from pwf.testing.servers import LOOPBACK, RabbitServer
from pwf_core.adapters import Settings, Url
from pwf_core.commands import Message
from pwf_core.errors import BrokerUnavailableError, ConfigurationError
from pwf_rabbit.adapter import adapter
from pwf_rabbit.errors import QueueMissingError
from pwf_rabbit.ledger import Ack
from pwf_rabbit.link import Sent
from pwf_rabbit.options import Options
from pwf_rabbit.topology import Queue, QueueKind, Topology

pytest.importorskip("aio_pika")
pika = pytest.importorskip("pika")

pytestmark = pytest.mark.rabbit

PATIENCE = 30.0  # seconds until something that must come counts as missing


class Async:
    """An async broker, called from threads."""

    def __init__(self, broker):
        self._broker = broker
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def __getattr__(self, name):
        method = getattr(self._broker, name)

        def call(*args, **kwargs):
            future = asyncio.run_coroutine_threadsafe(method(*args, **kwargs), self._loop)
            return future.result(PATIENCE * 2)

        return call

    def end(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


FLAVOURS = {
    "async-aio-pika": lambda url, settings: Async(adapter.broker(url, settings)),
    "async-pika": lambda url, settings: Async(
        adapter.broker(with_option(url, driver="pika"), settings)
    ),
    "blocking-pika": adapter.blocking_broker,
}


def with_option(url, **options):
    return Url.parse(
        str(url.raw) + "?" + "&".join(f"{k}={v}" for k, v in {**url.query, **options}.items())
    )


class Site:
    """A namespace of its own on a server, and the brokers opened there."""

    def __init__(self, url, flavour, kind, stack, namespace=None):
        self.url, self.flavour, self.kind = url, flavour, kind
        self.namespace = namespace or f"t{uuid4().hex[:12]}"
        self.topology = Topology(self.namespace, QueueKind(kind))
        self._stack = stack

    def broker(self, query="", *, opened=True):
        url = Url.parse(f"{self.url}?queue={self.kind}{query}")
        made = FLAVOURS[self.flavour](url, Settings(namespace=self.namespace))
        if isinstance(made, Async):
            self._stack.callback(made.end)
        self._stack.callback(made.close)
        if opened:
            made.open()
        return made

    @contextmanager
    def channel(self):
        """A plain channel, to look behind the broker's back."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            connection.close()


@pytest.fixture(params=list(FLAVOURS))
def flavour(request):
    return request.param


@pytest.fixture(params=["quorum", "classic"])
def kind(request):
    return request.param


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def site(amqp_url, flavour, kind, stack):
    return Site(amqp_url, flavour, kind, stack)


@pytest.fixture
def quorum(amqp_url, flavour, stack):
    """A site for what does not depend on the kind of queue."""
    return Site(amqp_url, flavour, "quorum", stack)


_numbers = itertools.count()


def messages(count, service="users"):
    return [
        Message(uuid4().hex, f"{next(_numbers):032x}", 0, f"{service}.task") for _ in range(count)
    ]


def named(deliveries):
    return [message for one in deliveries for message in one.messages]


def collect(broker, count, *, service="users", ack=True, limit=1000):
    """Receive until *count* calls have come."""
    deliveries, deadline = [], time.monotonic() + PATIENCE
    while len(named(deliveries)) < count:
        assert time.monotonic() < deadline, f"{len(named(deliveries))} of {count} came"
        got = patient(lambda: broker.receive([service], limit))
        if ack:
            broker.ack(got)
        deliveries += got
        if not got:
            broker.idle([service], 1.0)
    return deliveries


def patient(act):
    """Return what *act* does once the server can be reached."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return act()
        except BrokerUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def waiting_in(site, service="users"):
    """Return how many AMQP messages are ready in the queue."""
    with site.channel() as channel:
        queue = site.topology.queue(service)
        return channel.queue_declare(queue.name, passive=True).method.message_count


def eventually(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def publish_all(broker, wanted):
    """Publish until everything is confirmed."""
    left = list(wanted)

    def act():
        confirmed = broker.publish(left)
        left[:] = [one for one, known in zip(left, confirmed, strict=True) if not known]
        return not left

    eventually(lambda: patient(act))


class TestCarrying:
    def test_brings_messages_in_order(self, site):
        broker = site.broker()
        sent = messages(100)

        assert broker.publish(sent) == [True] * 100
        assert named(collect(broker, 100)) == sent

    def test_publishes_nothing(self, quorum):
        assert quorum.broker().publish([]) == []

    def test_calls_of_a_batch_share_messages(self, quorum):
        broker = quorum.broker()
        broker.publish(messages(70, "a") + messages(3, "b"))

        assert [len(one.messages) for one in broker.drain("a", 1000)] == [8] * 8 + [6]
        assert [len(one.messages) for one in broker.drain("b", 1000)] == [1] * 3

    def test_never_hands_out_more_than_asked_for(self, quorum):
        """An envelope is opened where the limit falls into it, and acked with its last call."""
        broker = quorum.broker()
        sent = messages(100)  # ten in each envelope
        broker.publish(sent)
        first = collect(broker, 5, limit=5, ack=False)
        assert len(named(first)) == 5
        broker.ack(first)
        rest = collect(broker, 95, limit=7, ack=False)
        assert all(len(one.messages) <= 7 for one in rest)
        assert named(first + rest) == sent
        broker.ack(rest[:-1])
        broker.close()

        other = quorum.broker()
        assert named(collect(other, 10)) == sent[-10:]

    def test_keeps_what_nobody_consumes_yet(self, site):
        """A message whose service has no queue makes one."""
        sent = messages(3, "later")
        site.broker().publish(sent)

        assert named(collect(site.broker(), 3, service="later")) == sent

    def test_serves_services_in_turn(self, quorum):
        broker = quorum.broker()
        broker.publish(messages(200, "busy") + messages(2, "quiet"))
        services = ["busy", "quiet"]
        assert broker.receive(services, 0) == []
        for service in services:
            broker.idle([service], PATIENCE)
        one, other = named(broker.receive(services, 64)), named(broker.receive(services, 64))

        assert {message.address for message in one + other} == {"busy.task", "quiet.task"}

    def test_two_consumers_share(self, site):
        left, right = site.broker("&prefetch=1"), site.broker("&prefetch=1")
        for each in (left, right):
            assert each.receive(["users"], 1) == []
        sent = messages(20)
        for one in sent:
            left.publish([one])
        got = {id(left): [], id(right): []}
        deadline = time.monotonic() + PATIENCE
        while sum(map(len, got.values())) < 20:
            assert time.monotonic() < deadline
            for each in (left, right):
                deliveries = each.receive(["users"], 1)
                each.ack(deliveries)
                got[id(each)] += named(deliveries)

        assert Counter(got[id(left)] + got[id(right)]) == Counter(sent)
        assert got[id(left)]
        assert got[id(right)]

    def test_idle_waits_for_arrivals(self, quorum):
        broker, other = quorum.broker(), quorum.broker()
        assert broker.receive(["users"], 1) == []
        began = time.monotonic()
        broker.idle(["users"], 0.05)
        assert time.monotonic() - began >= 0.05

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(broker.idle, ["users"], PATIENCE)
            other.publish(messages(1))
            waiting.result(PATIENCE)
            assert time.monotonic() - began < PATIENCE
        assert len(broker.receive(["users"], 1)) == 1

    def test_many_threads_publish(self, quorum):
        broker = quorum.broker()
        batches = [messages(20) for _ in range(16)]
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda batch: publish_all(broker, batch), batches):
                pass

        assert Counter(named(collect(broker, 320))) == Counter(itertools.chain(*batches))

    def test_drains(self, site):
        """Without consuming; what was already pushed here is part of it, unless it is on its way."""
        broker = site.broker()
        assert broker.drain("users", 10) == []
        sent = messages(40)
        for start in range(0, 40, 10):
            broker.publish(sent[start : start + 10])
        first = broker.drain("users", 20)
        assert len(named(first)) == 20
        broker.ack(first)
        taken = collect(broker, 5, limit=5)
        rest = broker.drain("users", 1000)
        rest += collect(broker, 15 - len(named(rest)), ack=False)

        assert Counter(named(first) + named(taken) + named(rest)) == Counter(sent)
        broker.ack(rest)
        broker.close()
        assert site.broker().drain("users", 10) == []


class TestSettling:
    def test_unacked_come_again(self, site):
        broker = site.broker()
        sent = messages(5)
        broker.publish(sent)
        collect(broker, 5, ack=False)
        broker.close()

        assert Counter(named(collect(site.broker(), 5))) == Counter(sent)

    def test_acked_do_not_come_again(self, site):
        broker = site.broker()
        sent = messages(64)
        for one in sent:
            broker.publish([one])
        deliveries = collect(broker, 64, ack=False)
        broker.ack(deliveries[::2])
        broker.ack(deliveries)  # some of them a second time
        broker.ack(deliveries[:1])
        fence = messages(1)
        broker.publish(fence)
        assert named(collect(broker, 1)) == fence
        broker.close()

        assert site.broker().drain("users", 100) == []

    def test_an_old_epoch_cannot_be_acked(self, quorum):
        broker = quorum.broker()
        sent = messages(2)
        broker.publish(sent)
        old = collect(broker, 2, ack=False)
        broker.close()
        broker.open()
        again = collect(broker, 2, ack=False)
        broker.ack(old)
        broker.reject(old)
        broker.ack(again[:0])
        broker.close()

        assert Counter(named(collect(quorum.broker(), 2))) == Counter(sent)

    def test_garbage_is_set_aside(self, site, caplog):
        broker = site.broker()
        broker.publish(messages(1))
        body = b"\xff no msgpack \x00"
        with site.channel() as channel:
            channel.basic_publish("", site.topology.queue("users").name, body)
        broker.publish(after := messages(1))
        deliveries, deadline = [], time.monotonic() + PATIENCE
        while len(deliveries) < 3:
            assert time.monotonic() < deadline
            broker.idle(["users"], 1.0)
            deliveries += broker.receive(["users"], 10)
        (bad,) = [one for one in deliveries if one.problem]
        assert bad.messages == ()
        broker.reject([bad])
        broker.ack([one for one in deliveries if not one.problem])
        assert named(deliveries)[-1] == after[0]
        (said,) = [one.getMessage() for one in caplog.records if "set aside" in one.getMessage()]
        assert "1 messages" in said
        assert site.topology.rejected.name in said

        broker.publish(more := messages(1))
        assert named(collect(broker, 1)) == more
        broker.close()
        assert site.broker().drain("users", 10) == []
        with site.channel() as channel:
            _, properties, found = channel.basic_get(site.topology.rejected.name, auto_ack=True)
        assert found == body
        assert properties.headers["pwf-queue"] == site.topology.queue("users").name
        assert properties.headers["pwf-problem"] == bad.problem

    def test_what_cannot_be_set_aside_stays(self, quorum, monkeypatch):
        """It is handed out again until it can be, and nothing is lost or stuck."""
        broker = quorum.broker()
        broker.receive(["users"], 1)
        with quorum.channel() as channel:
            channel.basic_publish("", quorum.topology.queue("users").name, b"garbage")
        broker.idle(["users"], PATIENCE)
        (bad,) = broker.receive(["users"], 1)
        original = "pwf_rabbit.outlet.Outlet.send"
        with monkeypatch.context() as patch:

            async def fail(*_):
                raise BrokerUnavailableError("gone")

            patch.setattr(original, fail)
            broker.reject([bad])
        broker.idle(["users"], PATIENCE)
        (again,) = broker.receive(["users"], 1)
        assert again.problem == bad.problem
        broker.reject([again])
        broker.close()

        assert quorum.broker().drain("users", 1) == []


class TestClosing:
    def test_twice(self, quorum):
        broker = quorum.broker()
        broker.close()
        broker.close()

        with pytest.raises(BrokerUnavailableError, match="closed"):
            broker.publish(messages(1))

    def test_unopened(self, quorum):
        quorum.broker(opened=False).close()

    def test_opens_at_first_use_and_again(self, quorum):
        broker = quorum.broker(opened=False)
        sent = messages(1)
        assert broker.publish(sent) == [True]
        broker.close()
        broker.open()

        assert named(collect(broker, 1)) == sent

    def test_while_idle(self, quorum):
        broker = quorum.broker()
        broker.receive(["users"], 1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(broker.idle, ["users"], PATIENCE * 2)
            began = time.monotonic()
            broker.close()
            waiting.result(PATIENCE)

        assert time.monotonic() - began < PATIENCE / 2


class TestHealing:
    def test_queue_deleted_under_a_consumer(self, site, monkeypatch):
        """The queue is made anew, and consumed, whether or not the server cancels the consumer."""
        monkeypatch.setattr("pwf_rabbit.intake._RENEWAL", 1.0)
        monkeypatch.setattr("pwf_rabbit.intake._PATIENCE", PATIENCE)  # what is here stays here
        broker = site.broker()
        first = messages(3)
        assert broker.receive(["users"], 3) == []
        for one in first:
            broker.publish([one])
        taken = collect(broker, 1, limit=1, ack=False)  # two more are on their way, or here
        eventually(lambda: waiting_in(site) == 0)
        with site.channel() as channel:
            channel.queue_delete(site.topology.queue("users").name)
        sent = messages(3)
        publish_all(site.broker(), sent)

        broker.ack(taken)
        came = named(taken + collect(broker, 5))
        assert Counter(came) == Counter(first + sent)  # what was here already is not lost
        publish_all(broker, more := messages(1))
        assert named(collect(broker, 1)) == more

    def test_queue_deleted_under_a_publisher(self, site):
        """What comes back for want of a queue is published again, once."""
        broker = site.broker()
        broker.publish(messages(1))
        with site.channel() as channel:
            channel.queue_delete(site.topology.queue("users").name)
        sent = messages(40) + messages(1, "other")

        assert broker.publish(sent) == [True] * 41
        assert named(collect(broker, 40)) == sent[:40]

    def test_a_closed_channel_alone(self, quorum):
        """Here by an ack that the server refuses, as an acknowledgement time-out does."""
        broker = quorum.broker()
        sent = messages(2)
        broker.publish(sent)
        deliveries = collect(broker, 2, ack=False)
        tray = deliveries[0].tag.tray
        tray.ledger.add(99, 1)
        deliveries[0].tag.number = 99
        broker.ack(deliveries[:1])
        eventually(lambda: not tray.channel.is_open)

        assert Counter(named(collect(broker, 2))) == Counter(sent)

    def test_full_workers_do_not_hoard(self, quorum):
        """What a worker does not get round to goes to others, and it comes back when asked."""
        full, free = quorum.broker(), quorum.broker()
        assert full.receive(["users"], 1) == []
        sent = messages(3)
        full.publish(sent)
        full.idle(["users"], PATIENCE)  # they are here now, and nobody takes them

        assert Counter(named(collect(free, 3))) == Counter(sent)
        free.close()
        full.publish(more := messages(1))
        assert named(collect(full, 1)) == more


@pytest.mark.parametrize("driver", ["link_aio", "link_pika"])
def test_channels_that_the_server_closes_do_not_end_the_connection(amqp_url, driver):
    """However many others are being opened at that moment."""
    connect = importlib.import_module(f"pwf_rabbit.{driver}").connect

    async def miss(link):
        channel = await link.channel()
        with pytest.raises(QueueMissingError):
            await channel.declare(Queue("missing"), passive=True)
        await channel.close()

    async def main():
        link = await connect(Options.read(Url.parse(amqp_url), Settings()), "test")
        for _ in range(30):
            await asyncio.gather(*(miss(link) for _ in range(20)))
        assert link.is_open
        await link.close()

    asyncio.run(main())


@pytest.mark.parametrize("driver", ["link_aio", "link_pika"])
def test_acks_on_a_channel_that_is_being_closed_do_not_end_the_connection(amqp_url, driver):
    """What comes too late for it is dropped; the deliveries are on their way back already."""
    connect = importlib.import_module(f"pwf_rabbit.{driver}").connect
    queue, count = Queue(f"t{uuid4().hex[:12]}"), 50

    async def main():
        link = await connect(Options.read(Url.parse(amqp_url), Settings()), "test")
        await (await link.channel()).declare(queue)
        outlet = await link.channel(publishes=True)
        sent = await asyncio.gather(*(outlet.publish(queue.name, b"x", {}) for _ in range(count)))
        assert set(sent) == {Sent.CONFIRMED}
        for _ in range(5):
            channel, came = await link.channel(), []
            await channel.consume(
                queue, count, lambda number, _body, came=came: came.append(number)
            )
            await asyncio.to_thread(eventually, lambda came=came: len(came) == count)
            closing = asyncio.create_task(channel.close())
            await asyncio.sleep(0)  # it has begun
            for number in itertools.cycle(came):
                await channel.ack([Ack(number, multiple=False)])
                await asyncio.sleep(0)
                if closing.done():
                    break
            await closing
        assert link.is_open
        await (await link.channel()).close()
        await link.close()

    asyncio.run(main())


class TestRefusing:
    def test_a_queue_with_other_arguments(self, quorum, caplog):
        name = quorum.topology.queue("users").name
        with quorum.channel() as channel:
            channel.queue_declare(name, durable=True, arguments={"x-queue-type": "classic"})
            channel.basic_publish("", name, b"precious")
        broker = quorum.broker()
        for act in (
            lambda: broker.publish(messages(1)),
            lambda: broker.receive(["users"], 1),
            lambda: broker.drain("users", 1),
        ):
            with pytest.raises(ConfigurationError) as caught:
                act()
            assert name in str(caught.value)
            assert "exists with another 'x-" in str(caught.value)  # the first that differs
        assert not caplog.records  # whoever called was told

        # Its neighbours are not harmed, and it is as it was.
        mixed = messages(1) + messages(1, "other")
        assert broker.publish(mixed) == [False, True]
        assert "cannot be sent: Queue" in caplog.text
        with quorum.channel() as channel:
            assert channel.basic_get(name)[2] == b"precious"

    def test_mixed_options(self, amqp_url, flavour, stack):
        """A namespace is quorum or classic; the other is refused when it is opened."""
        site = Site(amqp_url, flavour, "quorum", stack)
        site.broker().publish(messages(1))
        other = Site(amqp_url, flavour, "classic", stack, site.namespace).broker(opened=False)

        with pytest.raises(ConfigurationError, match="x-queue-type") as caught:
            other.open()

        assert "PRECONDITION_FAILED" not in str(caught.value)

    @pytest.mark.parametrize(
        ("part", "words", "advice"),
        [
            ("ann:s3cret@", "ACCESS_REFUSED - ", "Check user, password and permissions."),
            ("/no", "NOT_ALLOWED - ", "Check the virtual host in the URL's path."),
        ],
    )
    def test_wrong_credentials(self, quorum, part, words, advice, caplog):
        """The server's own words, once, and no line in the log besides."""
        server = quorum.url.rstrip("/")
        quorum.url = server + part if part == "/no" else server.replace("guest:guest@", part)
        broker = quorum.broker(opened=False)
        with pytest.raises(ConfigurationError, match=words) as caught:
            broker.open()

        told = str(caught.value)
        assert told.count(words) == 1
        assert told.endswith(advice)
        assert " object at 0x" not in told
        assert not caplog.records
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


class TestOutage:
    def test_nobody_listens(self, flavour, stack, caplog):
        caplog.set_level(logging.DEBUG)
        port = free_port()
        url = f"amqp://ann:s3cret@{LOOPBACK}:{port}/"
        broker = Site(url, flavour, "quorum", stack).broker(opened=False)
        for act in (
            broker.open,
            lambda: broker.publish(messages(1)),
            lambda: broker.receive(["users"], 1),
            lambda: broker.drain("users", 1),
        ):
            with pytest.raises(BrokerUnavailableError, match=f"{LOOPBACK}:{port}") as caught:
                act()
            assert "s3cret" not in "".join(traceback.format_exception(caught.value))
        broker.idle(["users"], 0.01)
        broker.ack([])
        assert f"{LOOPBACK}:{port}" in broker.health()
        assert "s3cret" not in caplog.text
        loud = [one for one in caplog.records if one.levelno >= logging.WARNING]
        # Who opens and publishes is told; that nothing is consumed is said once, not at each attempt.
        assert [one.args[0] for one in loud] == ["consume"]

    def test_nobody_answers(self, flavour, stack):
        """A server that accepts and says nothing costs the deadline, and no more."""
        with socket.create_server((LOOPBACK, 0)) as silent:
            url = f"amqp://{LOOPBACK}:{silent.getsockname()[1]}/"
            broker = Site(url, flavour, "quorum", stack).broker("&timeout=0.5", opened=False)
            began = time.monotonic()
            with pytest.raises(BrokerUnavailableError, match=LOOPBACK):
                broker.open()
            assert time.monotonic() - began < 5
            broker.close()
            assert time.monotonic() - began < 10


def free_port():
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


class TestFork:
    def test_a_child_connects_anew(self, amqp_url, stack):
        """And leaves the parent's connection alone."""
        site = Site(amqp_url, "blocking-pika", "quorum", stack)
        program = f"""
import os, sys
from uuid import uuid4
from pwf_core.adapters import Settings, Url
from pwf_core.commands import Message
from pwf_rabbit.adapter import adapter

broker = adapter.blocking_broker(Url.parse({amqp_url!r}), Settings(namespace={site.namespace!r}))
publish = lambda: all(broker.publish([Message(uuid4().hex, uuid4().hex, 0, "users.task")]))
assert publish()
child = os.fork()
if child == 0:
    fine = publish()
    broker.close()
    os._exit(0 if fine else 1)
assert os.waitpid(child, 0)[1] == 0
assert publish()
broker.close()
"""
        command = [sys.executable, "-W", "ignore", "-c", program]
        subprocess.run(command, check=True, timeout=PATIENCE)

        assert len(named(collect(site.broker(), 3))) == 3


@pytest.fixture(scope="module")
def own_server(rabbit_server):
    """A server to be killed; `rabbit_server` is asked for so that absence is said alike."""
    with RabbitServer() as server:
        yield server


class TestOwnServer:
    def test_killed_and_restarted(self, own_server, stack):
        """Everything heals without an operator, and nothing that was confirmed is lost."""
        sites = [Site(own_server.url, one, "quorum", stack) for one in FLAVOURS]
        brokers = [(site.broker(), messages(100)) for site in sites]
        unacked = []
        for broker, sent in brokers:
            assert all(broker.publish(sent[:60]))
            unacked.append(collect(broker, 20, limit=20, ack=False))
        for site in sites:
            # RabbitMQ 3.10 writes down after a while which quorum queues there are. One that is
            # younger when a single node is killed comes back empty, and refuses everything.
            eventually(lambda: is_written_down(own_server, site.topology.queue("users")))  # noqa: B023
        own_server.kill()
        for broker, sent in brokers:
            eventually(broker.health)
            with pytest.raises(BrokerUnavailableError):
                broker.publish(sent[:1])
        own_server.restart()
        for (broker, sent), old in zip(brokers, unacked, strict=True):
            publish_all(broker, sent[60:])
            broker.ack(old)  # of an epoch that is over
            came = set(named(collect(broker, 100)))
            assert came == set(sent)
            eventually(lambda: not broker.health())  # noqa: B023 -- called at once

    def test_a_frozen_server(self, own_server, stack):
        """Publishing and closing keep their deadlines, and work goes on afterwards."""
        sites = [Site(own_server.url, one, "quorum", stack) for one in FLAVOURS]
        brokers = [site.broker("&timeout=1") for site in sites]
        for broker in brokers:
            broker.publish(messages(1))
            collect(broker, 1)
        own_server.pause()
        eventually(lambda: is_frozen(own_server.pid))
        try:
            for broker in brokers:
                began = time.monotonic()
                with pytest.raises(BrokerUnavailableError):
                    broker.publish(messages(1))
                assert time.monotonic() - began < 5
        finally:
            own_server.resume()
        for broker in brokers:
            publish_all(broker, sent := messages(2))
            came = set()
            while not came.issuperset(sent):
                came.update(named(collect(broker, 1)))

    def test_an_alarm(self, own_server, stack):
        """Publishing fails at once while the server is short of memory; consuming goes on."""
        sites = [Site(own_server.url, one, "quorum", stack) for one in FLAVOURS]
        brokers = [site.broker("&timeout=2") for site in sites]
        for broker in brokers:
            assert broker.publish(messages(1)) == [True]
        ctl(own_server, "set_vm_memory_high_watermark", "0.0000001")
        try:
            for broker in brokers:
                with pytest.raises(BrokerUnavailableError):
                    broker.publish(messages(1))
                began = time.monotonic()
                with pytest.raises(BrokerUnavailableError, match="short of memory"):
                    broker.publish(messages(1))
                assert time.monotonic() - began < 1
                assert "short of memory" in broker.health()
                collect(broker, 1)
        finally:
            ctl(own_server, "set_vm_memory_high_watermark", "0.4")
        for broker in brokers:
            publish_all(broker, messages(1))
            eventually(lambda: not broker.health())  # noqa: B023 -- called at once

    def test_a_user_without_rights_to_configure(self, own_server, stack, tmp_path):
        """Works with queues that are there, and says which one is missing; made as the docs say."""
        (lines,), (queues,) = blocks("sh"), blocks("json")
        (tmp_path / "queues.json").write_text(queues)
        for line in lines.replace("queues.json", str(tmp_path / "queues.json")).splitlines():
            ctl(own_server, *shlex.split(line)[1:])
        url = as_user(own_server.url, "worker", "password")
        for flavour in FLAVOURS:
            broker = Site(url, flavour, "quorum", stack, "default").broker()
            assert broker.publish(messages(2, "shop")) == [True, True]
            assert len(named(collect(broker, 2, service="shop"))) == 2
            with pytest.raises(ConfigurationError, match=r"missing.* does not exist"):
                broker.publish(messages(1, "missing"))


def is_frozen(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def is_written_down(server, queue):
    files = list(server.folder.rglob("names.dets"))
    assert files
    return any(queue.name.encode() in file.read_bytes() for file in files)


def ctl(server, *command):
    program = server.find().with_name("rabbitmqctl")
    node = f"pwf-{server.port}@localhost"
    subprocess.run(
        [program, "-q", "-n", node, *command], env=server._environment(), check=True, timeout=60
    )
