"""The Redis adapter where the contract suite does not look: hints, strangers, faults of the server.

The blocking flavour stands for both, unless something is about an event loop; what they share is
everything but the waiting.
"""

import asyncio
import gc
import multiprocessing
import queue
import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from tests.least import redis_user

from pwf import BlockingWorker, Service, Worker, connect, connect_blocking
from pwf.testing.servers import RedisServer
from pwf_core.adapters import Settings, Url
from pwf_core.commands import (
    Answer,
    Commit,
    Emit,
    Message,
    Postpone,
    Postponement,
    Renew,
    Settle,
    Start,
)
from pwf_core.decisions import Decision, NewCall, NewJoin
from pwf_core.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    StoreFullError,
    StoreUnavailableError,
)
from pwf_core.ids import derive_call_id
from pwf_core.ports import Take
from pwf_core.state import Rules
from pwf_core.transition import SUSPECT_LOST
from pwf_core.views import Status
from pwf_redis.adapter import adapter
from pwf_redis.checks import NEEDED, USED_IF_ALLOWED
from pwf_redis.keys import Keys
from pwf_redis.scripts import EXCHANGE, START

redis = pytest.importorskip("redis")

pytestmark = pytest.mark.redis

BODY = b"\x90"
PATIENCE = 30.0  # seconds until something that must come counts as missing


def fresh(**options):
    return Settings(namespace=uuid.uuid4().hex, **options)


def run_of(service="a", body=BODY):
    run_id = uuid.uuid4().hex
    address = f"{service}.task"
    return Start(run_id, NewCall(derive_call_id(run_id, "root", address, 0), address, body))


def runs_of(count, **options):
    return [run_of(**options) for _ in range(count)]


def take(limit=64, *services, claim="w:1", lease_ms=30_000):
    return Take(services or ("a",), limit, claim, lease_ms)


def commit(grant, decision=None):
    return Commit(grant.run_id, grant.call_id, grant.claim_id, decision or Decision())


def with_calls(backend, count):
    """Return a call that is taken, and as many that may follow from it."""
    backend.apply(runs_of(1))
    (granted,) = backend.exchange([], take(1, claim="first:1")).grants
    ids = (derive_call_id(granted.run_id, granted.call_id, "a.task", n) for n in range(count))
    return granted, tuple(NewCall(call_id, "a.task", BODY) for call_id in ids)


@contextmanager
def backend_on(url, settings=None):
    backend = adapter.blocking_backend(Url.parse(url), settings or fresh())
    backend.open()
    try:
        yield backend
    finally:
        backend.close()


@pytest.fixture
def settings():
    return fresh()


@pytest.fixture
def keys(settings):
    return Keys(settings.namespace)


@pytest.fixture
def backend(redis_url, settings):
    with backend_on(redis_url, settings) as backend:
        yield backend


@pytest.fixture
def server(redis_url):
    with redis.Redis.from_url(redis_url) as server:
        yield server


class TestWaking:
    """Idle workers block on a token, which is only a hint."""

    def test_a_start_wakes_one(self, backend, redis_url, settings):
        woken = threading.Event()
        waiter = threading.Thread(
            target=lambda: (backend.idle(take(0, "a", "b"), PATIENCE), woken.set()),
        )
        waiter.start()
        with backend_on(redis_url, settings) as client:
            client.apply([run_of()])

            assert woken.wait(PATIENCE)
        waiter.join()

    def test_waiting_work_is_seen_without_a_token(self, backend, server, keys):
        backend.apply([run_of()])
        server.delete(keys.wake("a"))
        started = time.monotonic()
        reply = backend.idle(take(), PATIENCE)

        assert len(reply.grants) == 1
        assert time.monotonic() - started < PATIENCE / 2

    def test_who_waits_has_what_comes_in_the_same_round_trip(self, backend, redis_url, settings):
        replies = queue.SimpleQueue()
        waiter = threading.Thread(target=lambda: replies.put(backend.idle(take(), PATIENCE)))
        waiter.start()
        first = run_of()
        with backend_on(redis_url, settings) as client:
            eventually(lambda: backend._client._waiting._busy)
            client.apply([first])
        reply = replies.get(timeout=PATIENCE)
        waiter.join()

        assert [first.run_id] == [grant.run_id for grant in reply.grants]

    @pytest.mark.parametrize("is_full", [False, True])
    def test_a_claim_that_has_ended_is_granted_nothing(self, backend, is_full):
        """As of a wait that was given up, and that the server comes to later."""
        backend.apply(runs_of(2))
        if is_full:
            (granted,) = backend.exchange([], take(1)).grants
            again = backend.exchange([], take(0)).grants
            assert [granted.call_id] == [grant.call_id for grant in again]
        else:
            assert backend.exchange([], take(0)).grants == []
        late = backend.idle(take(2), 0.001).grants

        assert len(late) == is_full

    def test_there_is_one_token_at_the_most(self, backend, server, keys):
        for one in runs_of(5):
            backend.apply([one])

        assert server.llen(keys.wake("a")) == 1

    def test_who_leaves_something_wakes_the_next(self, backend, server, keys):
        backend.apply(runs_of(5))
        server.delete(keys.wake("a"))
        backend.exchange([], take(3))

        assert server.llen(keys.wake("a")) == 1

    def test_who_leaves_nothing_wakes_nobody(self, backend, server, keys):
        backend.apply(runs_of(3))
        server.delete(keys.wake("a"))
        backend.exchange([], take(4, claim="w:2"))

        assert server.llen(keys.wake("a")) == 0

    def test_an_earlier_timer_wakes_who_waits_for_a_later_one(self, backend, server, keys):
        root = run_of()
        backend.apply([root])
        grant = backend.exchange([], take()).grants[0]
        server.delete(keys.wake("a"))
        soon = NewCall("1" * 32, "a.task", BODY, delay_ms=50)
        later = NewCall("2" * 32, "b.task", BODY, delay_ms=90_000)
        backend.apply([commit(grant, Decision(calls=(later, soon)))])

        assert server.llen(keys.wake("a")) == 1
        assert server.llen(keys.wake("b")) == 0

    def test_closing_ends_a_wait(self, redis_url):
        with backend_on(redis_url) as backend:
            backend.apply([])
            waiter = threading.Thread(target=backend.idle, args=(take(), 3600))
            waiter.start()
            eventually(lambda: backend._client._waiting._busy)
            backend.close()
            waiter.join(PATIENCE)

            assert not waiter.is_alive()


@pytest.mark.parametrize("flavour", ["asyncio", "threads"])
def test_a_worker_of_one_call_runs_a_suspect(backend, redis_url, settings, flavour):
    """What listens has all of its room then, so nothing else of it could take one."""
    work, done = Service("a"), threading.Event()

    @work.task
    def task():
        done.set()

    first = run_of()
    backend.apply([first])
    for number in range(SUSPECT_LOST):
        lost = take(1, claim=f"dead:{number}", lease_ms=50)
        eventually(lambda lost=lost: backend.exchange([], lost).grants)
    url = f"{redis_url}?namespace={settings.namespace}"

    async def serve():
        async with connect(url) as client, Worker(client, work, concurrency=1):
            await asyncio.to_thread(done.wait, PATIENCE)

    if flavour == "asyncio":
        asyncio.run(serve())
    else:
        with connect_blocking(url) as client, BlockingWorker(client, work, threads=1):
            done.wait(PATIENCE)
    assert done.is_set()


def eventually(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.005)


class TestStreams:
    def test_taken_work_leaves_its_stream(self, backend, server, keys):
        backend.apply(runs_of(20))

        assert server.xlen(keys.queue("a")) == 3  # several share an entry
        backend.exchange([], take(16, claim="w:1"))
        assert server.xlen(keys.queue("a")) == 1
        backend.exchange([], take(4, claim="w:2"))
        assert server.xlen(keys.queue("a")) == 0

    def test_work_that_shares_an_entry_is_taken_once(self, backend, server, keys):
        """Also by those who take one call at a time; it leaves with the last."""
        starts = runs_of(8)
        backend.apply(starts)
        taken = []
        for number in range(8):
            assert server.xlen(keys.queue("a")) == 1
            taken += backend.exchange([], take(1, claim=f"w:{number}")).grants
        handed_back = Postpone(
            taken[7].run_id, taken[7].call_id, taken[7].claim_id, Postponement.HAND_BACK, 0, "why"
        )

        assert [grant.run_id for grant in taken] == [one.run_id for one in starts]
        assert server.xlen(keys.queue("a")) == 0
        assert backend.exchange([], take(claim="w:8")).grants == []
        (again,) = backend.exchange([handed_back], take(claim="w:9")).grants
        assert again.call_id == taken[7].call_id

    def test_work_that_is_taken_at_once_never_enters_one(self, backend, server, keys):
        granted, calls = with_calls(backend, 5)
        before = server.xinfo_stream(keys.queue("a"))["last-generated-id"]
        exchanged = backend.exchange([commit(granted, Decision(calls=calls))], take(5))

        assert [grant.call_id for grant in exchanged.grants] == [one.call_id for one in calls]
        assert server.xinfo_stream(keys.queue("a"))["last-generated-id"] == before

    def test_what_waits_goes_first(self, backend):
        granted, new = with_calls(backend, 3)
        old = runs_of(3)
        backend.apply(old)
        first = backend.exchange([commit(granted, Decision(calls=new))], take(4))
        second = backend.exchange([], take(4, claim="w:2"))

        order = [grant.call_id for grant in first.grants + second.grants]
        assert order == [one.call.call_id for one in old] + [one.call_id for one in new]

    def test_no_service_starves(self, backend):
        backend.apply(runs_of(50, service="a") + runs_of(2, service="b"))
        grants = backend.exchange([], take(6, "a", "b")).grants

        assert sorted(grant.address for grant in grants) == ["a.task"] * 4 + ["b.task"] * 2

    def test_large_batches_work(self, backend):
        """Beyond what Lua's `unpack` and one reply of XRANGE take."""
        starts = runs_of(2500)
        replies = backend.apply(starts)
        grants = backend.exchange([], take(2500)).grants
        done = backend.exchange([commit(grant) for grant in grants], take(0, claim="w:2"))

        assert all(reply.created for reply in replies)
        assert len(grants) == 2500
        assert set(done.replies) == {Answer.DONE}

    @pytest.mark.parametrize(
        ("fields", "aside"),
        [
            ({"m": "not a message"}, [b"m not a message"]),
            ({"m": ""}, [b"m "]),
            ({"x": "1"}, [b"x 1"]),
            ({"m": "a:b:c"}, [b"m a:b:c"]),
            # Well-formed names of nothing are just dropped.
            ({"m": b"\xff:\xff:1"}, []),
            ({"m": "a:b:1", "n": "2"}, []),
            ({"m": "a:b:99999999999999999999999"}, []),
        ],
    )
    def test_what_strangers_put_there_is_set_aside(self, backend, server, keys, fields, aside):
        start = run_of()
        entry = server.xadd(keys.queue("a"), fields)
        backend.apply([start])
        grants = backend.exchange([], take()).grants

        assert [grant.run_id for grant in grants] == [start.run_id]
        assert server.xlen(keys.queue("a")) == 0
        found = server.lrange(keys.undecodable, 0, -1)
        assert found == [b"a %b %b" % (entry, what) for what in aside]

    def test_what_is_set_aside_is_bounded_and_said(self, backend, server, keys, caplog):
        with server.pipeline() as pipe:
            for _ in range(1200):
                pipe.xadd(keys.queue("a"), {"x": "1"})
            pipe.execute()
        backend.exchange([], take(1300))

        assert server.llen(keys.undecodable) == 1000
        (said,) = [one.getMessage() for one in caplog.records]
        assert "1200 messages" in said
        assert keys.undecodable in said

    def test_purge_leaves_others_alone(self, backend):
        backend.apply(runs_of(600, service="a") + runs_of(2, service="b"))

        assert backend.purge("a") == 600
        assert backend.purge("a") == 0
        assert len(backend.exchange([], take(64, "a", "b")).grants) == 2


class TestBrokenState:
    """Something of ours was overwritten: its neighbours must not suffer."""

    def test_a_command_that_cannot_be_judged_is_refused_alone(self, backend, server, keys, caplog):
        starts = runs_of(3)
        backend.apply(starts)
        grants = backend.exchange([], take()).grants
        server.delete(keys.run(grants[1].run_id))
        server.set(keys.run(grants[1].run_id), "a string")
        replies = backend.apply([commit(grant) for grant in grants])

        assert replies == [Answer.DONE, Answer.REFUSED, Answer.DONE]
        assert "WRONGTYPE" in caplog.text

    def test_a_queued_call_that_cannot_be_judged_is_set_aside(self, backend, server, keys, caplog):
        starts = runs_of(3)
        backend.apply(starts)
        call_id = starts[1].call.call_id
        server.hset(keys.run(starts[1].run_id), f"c:{call_id}", b"\xc1 garbage")
        grants = backend.exchange([], take()).grants

        assert [one.run_id for one in grants] == [starts[0].run_id, starts[2].run_id]
        assert server.llen(keys.undecodable) == 1
        assert "Set aside message" in caplog.text

    def test_a_timer_that_cannot_be_judged_is_set_aside(self, backend, server, keys, caplog):
        start = run_of()
        backend.apply([start])
        grant = backend.exchange([], take(lease_ms=1)).grants[0]
        server.hset(keys.run(start.run_id), f"c:{grant.call_id}", b"\xc1")
        server.zadd(keys.due, {"no such thing\n\x1b": 1})
        eventually(lambda: backend.exchange([], take(claim="w:2")).next_due_ms is None)

        assert "Set aside timer" in caplog.text
        assert all(record.getMessage().isprintable() for record in caplog.records)

    def test_a_later_format_is_not_touched(self, backend, server, keys):
        start = run_of()
        backend.apply([start])
        later = b"\x02" + server.hget(keys.run(start.run_id), "h")[1:]
        server.hset(keys.run(start.run_id), "h", later)

        assert backend.apply([Emit(start.run_id, "e", b"")]) == [Answer.REFUSED]
        assert server.hget(keys.run(start.run_id), "h") == later


class TestScripts:
    @pytest.mark.parametrize("kept", [True, False])
    def test_are_loaded_again_whenever_they_are_gone(self, backend, server, kept):
        """By several threads at once, with somebody flushing."""
        backend.operations.facts.keeps_functions = kept
        stop = threading.Event()

        def flush():
            while not stop.is_set():
                server.script_flush()
                server.function_flush()

        flusher = threading.Thread(target=flush)
        flusher.start()
        try:
            with ThreadPoolExecutor(4) as pool:
                replies = [*pool.map(backend.apply, [[run_of()] for _ in range(200)])]
        finally:
            stop.set()
            flusher.join()

        assert all(reply[0].created for reply in replies)

    def test_work_without_flags(self, backend, server):
        """As on Redis 6.2, which does not know them."""
        facts = backend.operations.facts
        facts.knows_flags = facts.keeps_functions = False
        server.script_flush()
        backend.apply([run_of()])
        grants = backend.exchange([], take()).grants

        assert backend.apply([commit(grants[0])]) == [Answer.DONE]
        assert len(backend.read([grants[0].run_id])) == 1

    def test_are_kept_by_the_server(self):
        with (
            RedisServer() as own,
            backend_on(own.url) as backend,
            redis.Redis.from_url(own.url) as server,
        ):
            for number in range(2):
                backend.apply([run_of()])
                (grant,) = backend.exchange([], take(claim=f"w:{number}")).grants
                assert backend.apply([commit(grant)]) == [Answer.DONE]

            assert {library[1] for library in server.function_list()} == {
                EXCHANGE.function,
                START.function,
            }
            stats = server.info("commandstats")
            assert stats["cmdstat_evalsha"]["calls"] == 2  # the first time
            assert stats["cmdstat_fcall"]["calls"] == 6

    @pytest.mark.parametrize("missing", ["fcall", "function|load"])
    def test_are_run_as_such_for_users_who_may_have_none_kept(self, server, redis_url, missing):
        server.function_flush()
        allowed = (*NEEDED, *(one for one in USED_IF_ALLOWED if one != missing))
        with backend_on(redis_user(redis_url, "*", allowed, "eve")) as backend:
            backend.apply([run_of()])
            (grant,) = backend.exchange([], take()).grants

            assert backend.apply([commit(grant)]) == [Answer.DONE]
            assert not backend.operations.facts.keeps_functions


class TestRepeats:
    def test_the_same_exchange_gives_the_same_and_counts_once(self, backend):
        backend.apply(runs_of(3))
        grants = backend.exchange([], take(1)).grants
        ask = ([commit(grants[0])], take(64, claim="w:2"))
        first, again = backend.exchange(*ask), backend.exchange(*ask)

        assert again.replies == first.replies
        assert again.grants == first.grants
        assert len(first.grants) == 2

    def test_what_is_kept_of_a_worker_expires(self, backend, server, keys):
        backend.apply([run_of()])
        backend.exchange([], take())

        assert 0 < server.pttl(f"{keys.prefix}take:w") <= 60_000


class TestSize:
    def test_a_run_that_waits_with_a_join_takes_less_than_a_kilobyte(self, redis_url):
        with (
            RedisServer() as own,
            backend_on(own.url) as backend,
            redis.Redis.from_url(own.url) as server,
        ):
            before = server.info("memory")["used_memory"]
            for number in range(20):
                waiting(backend, 100, claim=f"w:{number}")
            server.delete(f"{backend.operations.keys.prefix}take:w")
            per_run = (server.info("memory")["used_memory"] - before) / 2000

        assert per_run < 1024

    def test_what_ends_leaves_nothing(self, redis_url):
        with backend_on(redis_url, fresh(rules=Rules(retention_ms=0))) as backend:
            keys = backend.operations.keys
            for number in range(3):
                backend.apply(runs_of(10))
                grants = backend.exchange([], take(claim=f"w:{number}")).grants
                decision = Decision(emits=(("e", b"x"),), result=b"r")
                backend.apply([commit(grant, decision) for grant in grants])
            with redis.Redis.from_url(redis_url) as server:
                server.delete(f"{keys.prefix}take:w")
                left = {key.decode() for key in server.scan_iter(f"{keys.prefix}*")}

                assert left == {keys.format, keys.queue("a"), keys.wake("a")}
                assert server.xlen(keys.queue("a")) == 0


def waiting(backend, count, **options):
    """Make runs that wait for something from outside."""
    backend.apply(runs_of(count))
    grants = backend.exchange([], take(count, **options)).grants
    backend.apply(
        [
            commit(
                grant,
                Decision(
                    joins=(
                        NewJoin(
                            NewCall(
                                derive_call_id(grant.call_id, "join", "a.next", 0), "a.next", BODY
                            ),
                            ("email_verified",),
                            ("email_verified",),
                        ),
                    ),
                ),
            )
            for grant in grants
        ],
    )
    return grants


class TestListings:
    def test_a_huge_run_is_listed_in_part(self, backend):
        backend.apply([run_of()])
        grant = backend.exchange([], take()).grants[0]
        children = tuple(
            NewCall(derive_call_id(grant.call_id, "publish", "a.child", n), "a.child", BODY)
            for n in range(6000)
        )
        backend.apply([commit(grant, Decision(calls=children))])
        (view,) = backend.read([grant.run_id])

        assert view.outcome.status is Status.RUNNING
        assert 1000 < len(view.calls) < 6000

    def test_many_runs_are_read_at_once(self, backend):
        starts = runs_of(300)
        backend.apply(starts)

        assert all(backend.read([one.run_id for one in starts]))


class TestFullServer:
    @pytest.fixture
    def full(self):
        with RedisServer("maxmemory-policy noeviction") as server:
            yield server

    def fill(self, full):
        """Leave the server no room at all."""
        with redis.Redis.from_url(full.url) as server:
            used = server.info("memory")["used_memory"]
            server.config_set("maxmemory", used - 500_000)

    def test_takes_nothing_more_and_can_be_worked_empty(self, full):
        with backend_on(full.url, fresh(rules=Rules(retention_ms=0))) as backend:
            for _ in range(20):
                backend.apply(runs_of(20, body=b"x" * 10_000))
            self.fill(full)
            with pytest.raises(StoreFullError, match="full"):
                backend.apply([run_of()])
            fork = Decision(calls=tuple(run.call for run in runs_of(2)))
            exchanged = backend.exchange([], take(10))
            big, small = exchanged.grants[0], exchanged.grants[1:]
            with pytest.raises(StoreFullError):
                backend.apply([commit(big, fork), *(commit(grant) for grant in small)])

            again = backend.apply([commit(grant) for grant in small])
            assert set(again) == {Answer.ENDED}  # they were let through beside the large one
            done, number = len(small), 1
            while grants := backend.exchange([], take(claim=f"w:{(number := number + 1)}")).grants:
                done += backend.apply([commit(grant) for grant in grants]).count(Answer.DONE)
            assert done == 399
            assert backend.apply([commit(big, fork)]) == [Answer.DONE]

    def test_of_a_pair_settles(self, full):
        store = adapter.blocking_store(Url.parse(full.url), fresh(rules=Rules(paired=True)))
        store.open()
        messages = store.apply(runs_of(50, body=b"x" * 10_000)).enqueued
        self.fill(full)
        with pytest.raises(StoreFullError):
            store.apply([run_of()])
        settles = [Settle(one.run_id, one.call_id, one.generation) for one in messages]

        assert set(store.apply(settles).replies) == {Answer.DONE}
        store.close()


class TestOutage:
    def test_a_restart_goes_unnoticed(self):
        with RedisServer() as server, backend_on(server.url) as backend:
            start = run_of()
            backend.apply([start])
            server.restart()

            assert backend.exchange([], take()).grants[0].run_id == start.run_id

    def test_a_crash_loses_nothing(self):
        """With `everysec` it may: that keeps acknowledged writes back while the disk is busy."""
        with RedisServer("appendfsync no") as server, backend_on(server.url) as backend:
            starts = runs_of(100)
            backend.apply(starts)
            server.kill()
            with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{server.port}"):
                backend.apply([run_of()])
            server.restart()

            assert len(backend.exchange([], take(100)).grants) == 100

    def test_a_frozen_server_is_given_up_in_time(self):
        with RedisServer() as server, backend_on(f"{server.url}?timeout=0.3") as backend:
            server.pause()
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError):
                backend.apply([run_of()])
            late = time.monotonic() - started
            server.resume()

            assert late < 5
            assert backend.apply([run_of()])[0].created

    def test_a_watch_hears_over_a_restart(self):
        with RedisServer() as server, backend_on(server.url) as backend:
            backend.apply([run_of()])
            grant = backend.exchange([], take()).grants[0]
            with backend.watch(grant.run_id) as watch:
                server.restart()
                assert watch.wait(PATIENCE) is None  # "look at the run": it was away
                backend.apply([commit(grant, Decision(result=b"r"))])
                deadline = time.monotonic() + PATIENCE
                while (heard := watch.wait(PATIENCE)) is None:  # again, "look at the run"
                    assert time.monotonic() < deadline, "it is deaf"

        assert heard.result == b"r"

    def test_nobody_there_is_one_clear_error(self):
        backend = adapter.blocking_backend(
            Url.parse("redis://me:secret@127.0.0.1:1/0?timeout=1"),
            fresh(),
        )
        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1") as caught:
            backend.open()

        assert "secret" not in str(caught.value)
        assert "secret" not in repr(backend)

    def test_a_broker_that_is_away_is_not_a_store_that_is(self):
        broker = adapter.blocking_broker(Url.parse("redis://127.0.0.1:1/0?timeout=1"), fresh())
        with pytest.raises(BrokerUnavailableError):
            broker.open()
        with pytest.raises(BrokerUnavailableError):
            broker.publish([Message("r" * 32, "c" * 32, 0, "a.task")])

    def test_a_wrong_password_is_a_configuration_error(self):
        with RedisServer() as server:
            with redis.Redis.from_url(server.url) as open_door:
                open_door.config_set("requirepass", "right")
            for login, ok in (("", False), (":wrong@", False), (":right@", True)):
                url = server.url.replace("://", f"://{login}")
                backend = adapter.blocking_backend(Url.parse(url), fresh())
                if ok:
                    backend.open()
                else:
                    with pytest.raises(ConfigurationError, match="password"):
                        backend.open()
                backend.close()


class TestProcesses:
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # that is the point
    def test_a_fork_uses_connections_of_its_own(self, backend):
        backend.apply([run_of()])
        with backend.watch("0" * 32):
            context = multiprocessing.get_context("fork")
            child = context.Process(target=_in_a_fork, args=(backend,))
            child.start()
            for _ in range(50):
                backend.apply([run_of()])
            child.join(PATIENCE)

        assert child.exitcode == 0
        assert len(backend.exchange([], take(200)).grants) == 101

    def test_threads_share_one(self, backend):
        with ThreadPoolExecutor(32) as pool:
            replies = [*pool.map(lambda _: backend.apply([run_of()]), range(200))]

        assert all(reply[0].created for reply in replies)
        assert len(backend._client._links._idle) <= backend._client._links.most


def _in_a_fork(backend):
    for _ in range(50):
        backend.apply([run_of()])
    with backend.watch("0" * 32) as watch:
        watch.wait(0)
    backend.close()


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 -- nothing tells
            await asyncio.sleep(0)


class TestEventLoop:
    def test_cancelled_round_trips_never_mix_up_replies(self, redis_url):
        """Off by one replies were once a fault of this driver; each reply here names its asker."""

        async def ask(backend, run_id):
            (view,) = await backend.read([run_id])
            assert view is not None
            assert view.run_id == run_id
            assert [call.call_id for call in view.calls] == [
                derive_call_id(run_id, "root", "a.task", 0)
            ]
            return True

        async def main():
            chance = random.Random(1)
            backend = adapter.backend(Url.parse(redis_url), fresh())
            await backend.open()
            starts = runs_of(20)
            await backend.apply(starts)
            answered = 0
            for _ in range(150):
                asking = [asyncio.create_task(ask(backend, one.run_id)) for one in starts]
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(0)
                for task in chance.sample(asking, 10):
                    task.cancel()
                outcomes = await asyncio.gather(*asking, return_exceptions=True)
                assert all(
                    one is True or isinstance(one, asyncio.CancelledError) for one in outcomes
                )
                answered += outcomes.count(True)
            await backend.close()
            return answered

        assert asyncio.run(main()) > 1000

    def test_a_cancelled_wait_costs_nobody_else_their_wake(self, redis_url):
        async def main():
            backend = adapter.backend(Url.parse(redis_url), fresh())
            await backend.open()
            first = asyncio.create_task(backend.idle(take(claim="w:1"), 3600))
            second = asyncio.create_task(backend.idle(take(claim="v:1"), 3600))
            await until(lambda: len(backend._client._waiting._busy) == 2)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await backend.apply([run_of()])
            async with asyncio.timeout(PATIENCE):
                assert len((await second).grants) == 1
            await backend.close()

        asyncio.run(main())

    @pytest.mark.filterwarnings("ignore")  # what the first loop left open
    def test_one_backend_may_live_through_several_loops(self, redis_url):
        backend = adapter.backend(Url.parse(redis_url), fresh())

        async def start():
            await backend.open()
            return await backend.apply([run_of()])

        assert asyncio.run(start())[0].created
        assert asyncio.run(start())[0].created
        asyncio.run(backend.close())
        gc.collect()

    def test_closing_ends_a_wait(self, redis_url):
        async def main():
            backend = adapter.backend(Url.parse(redis_url), fresh())
            await backend.open()
            waiting_for_work = asyncio.create_task(backend.idle(take(), 3600))
            await until(lambda: backend._client._waiting._busy)
            await backend.close()
            await backend.close()
            async with asyncio.timeout(PATIENCE):
                await waiting_for_work
            with pytest.raises(StoreUnavailableError, match="closed"):
                await backend.apply([run_of()])

        asyncio.run(main())

    def test_watchers_share_a_connection(self, redis_url):
        async def main():
            backend = adapter.backend(Url.parse(redis_url), fresh())
            await backend.open()
            starts = runs_of(30)
            await backend.apply(starts)
            grants = (await backend.exchange([], take())).grants

            async def hear(run_id, ready):
                async with backend.watch(run_id) as watch:
                    ready.release()
                    return await watch.wait(PATIENCE)

            ready = asyncio.Semaphore(0)
            watching = [asyncio.create_task(hear(one.run_id, ready)) for one in starts * 2]
            for _ in watching:
                await ready.acquire()
            with redis.Redis.from_url(redis_url) as server:
                listening = [
                    one for one in server.client_list(_type="pubsub") if one["sub"] == "30"
                ]
            await backend.apply([commit(grant, Decision(result=b"r")) for grant in grants])
            outcomes = await asyncio.gather(*watching)
            await backend.close()
            return listening, outcomes

        listening, outcomes = asyncio.run(main())
        assert len(listening) == 1
        assert all(one.result == b"r" for one in outcomes)


class TestNamespace:
    def test_cannot_be_fused_and_paired(self, redis_url, backend, settings):
        store = adapter.blocking_store(
            Url.parse(redis_url),
            Settings(namespace=settings.namespace, rules=Rules(paired=True)),
        )
        with pytest.raises(ConfigurationError, match="another namespace"):
            store.open()
        store.close()


class TestRenewing:
    def test_does_not_move_the_body(self, backend, server, keys):
        """A long handler's renewals cost what its record costs, not what its arguments do."""
        backend.apply([run_of(body=b"x" * 500_000)])
        grant = backend.exchange([], take()).grants[0]
        before = server.info("persistence")["aof_current_size"]
        backend.apply([Renew(grant.run_id, grant.call_id, grant.claim_id, 1000)])

        assert server.info("persistence")["aof_current_size"] - before < 2000
