"""Redis Streams as a plain broker, where the contract suite does not look: the server's own bookkeeping."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from pwf_core.adapters import Settings, Url
from pwf_core.commands import Message
from pwf_redis.adapter import adapter
from pwf_redis.keys import Keys

redis = pytest.importorskip("redis")

from pwf_redis import consuming  # noqa: E402

pytestmark = pytest.mark.redis


@pytest.fixture
def settings():
    return Settings(namespace=uuid.uuid4().hex)


@pytest.fixture
def stream(settings):
    return Keys(settings.namespace).stream("a")


@pytest.fixture
def server(redis_url):
    with redis.Redis.from_url(redis_url) as server:
        yield server


@pytest.fixture
def connect(redis_url, settings):
    brokers = []

    def connect():
        broker = adapter.blocking_broker(Url.parse(redis_url), settings)
        broker.open()
        brokers.append(broker)
        return broker

    yield connect
    for broker in brokers:
        broker.close()


def messages(count, service="a"):
    return [
        Message(uuid.uuid4().hex, uuid.uuid4().hex, number, f"{service}.task")
        for number in range(count)
    ]


def named(deliveries):
    return [message for one in deliveries for message in one.messages]


def test_acknowledged_messages_leave_nothing(connect, server, stream):
    broker = connect()
    sent = messages(20)
    broker.publish(sent)
    deliveries = broker.receive(["a"], 20)
    broker.ack(deliveries)
    broker.ack(deliveries)

    assert named(deliveries) == sent
    assert server.xlen(stream) == 0
    assert server.xpending(stream, consuming.GROUP)["pending"] == 0


def test_a_lost_group_is_made_again_from_the_first_entry(connect, server, stream):
    broker = connect()
    broker.receive(["a"], 1)
    server.delete(stream)  # FLUSHALL, a failover, an eviction
    sent = messages(3)
    broker.publish(sent)

    assert named(broker.receive(["a"], 10)) == sent


def test_many_may_make_the_group_at_once(connect):
    brokers = [connect() for _ in range(8)]
    sent = messages(64)
    brokers[0].publish(sent)
    with ThreadPoolExecutor(8) as pool:
        received = [*pool.map(lambda broker: named(broker.receive(["a"], 8)), brokers)]

    assert sorted(message.call_id for part in received for message in part) == sorted(
        message.call_id for message in sent
    )


def test_closing_hands_back_at_once_and_leaves_no_consumer(connect, server, stream):
    leaving, staying = connect(), connect()
    sent = messages(1200)  # more than one chunk of a script
    leaving.publish(sent)
    leaving.receive(["a"], 1200)
    assert staying.receive(["a"], 10) == []
    leaving.close()

    assert named(staying.receive(["a"], 2000)) == sent
    names = [one["name"] for one in server.xinfo_consumers(stream, consuming.GROUP)]
    assert names == [staying.consuming.consumer.encode()]


def test_what_the_dead_held_is_taken_over_and_they_are_forgotten(connect, server, stream):
    dead, other = connect(), connect()
    sent = messages(5)
    dead.publish(sent)
    dead.receive(["a"], 5)
    held = [
        one["message_id"] for one in server.xpending_range(stream, consuming.GROUP, "-", "+", 9)
    ]
    idle = consuming.ABANDONED_MS
    server.xclaim(stream, consuming.GROUP, dead.consuming.consumer, 0, held, idle=idle)
    deliveries = other.receive(["a"], 9)
    other.ack(deliveries)

    assert named(deliveries) == sent
    assert server.xpending(stream, consuming.GROUP)["pending"] == 0
    # One of the dead that has been silent long enough, and holds nothing any more.
    flagged = other.consuming.facts.knows_flags
    from pwf_redis.rounds import call
    from pwf_redis.scripts import TIDY

    gone = other._client.run(
        call(TIDY, other.consuming.keys, (consuming.GROUP, "a", -1), flagged=flagged),
    )
    assert gone == 2


def test_a_full_hand_leaves_a_token_for_the_next(connect, server, settings):
    broker, ready = connect(), Keys(settings.namespace).ready("a")
    broker.publish(messages(5))
    assert server.llen(ready) == 1
    server.delete(ready)
    broker.receive(["a"], 3)

    assert server.llen(ready) == 1


def test_rejected_messages_are_listed_in_bounds(connect, server, settings, stream, caplog):
    broker = connect()
    broker.publish(messages(1100))
    broker.reject(broker.receive(["a"], 1100))

    assert server.llen(Keys(settings.namespace).rejected) == 1000
    assert server.xlen(stream) == 0
    (said,) = [one.getMessage() for one in caplog.records]
    assert "1100 messages" in said
    assert Keys(settings.namespace).rejected in said


def test_services_share_what_is_received(connect):
    broker = connect()
    broker.publish(messages(50, "a") + messages(3, "b"))
    services = [message.address for message in named(broker.receive(["a", "b"], 10))]

    assert len(services) == 10
    assert services.count("b.task") == 3
