"""The parts of the RabbitMQ adapter that decide and do no I/O, and what is refused at start-up."""

import asyncio
import itertools
import re
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.sites import eventually

from pwf_core.adapters import Durability, Settings, Url
from pwf_core.commands import Message
from pwf_core.errors import BrokerUnavailableError, ConfigurationError, UnsupportedError
from pwf_rabbit.adapter import adapter
from pwf_rabbit.broker import RabbitBroker
from pwf_rabbit.confirms import Confirms
from pwf_rabbit.envelopes import CALLS, pack, unpack
from pwf_rabbit.errors import AccessRefusedError, QueueMissingError, translate
from pwf_rabbit.intake import Intake
from pwf_rabbit.lanes import Lane
from pwf_rabbit.ledger import Ack, Ledger
from pwf_rabbit.link import Sent
from pwf_rabbit.options import Driver, Options
from pwf_rabbit.outlet import Outlet
from pwf_rabbit.supervisor import Supervisor, pause
from pwf_rabbit.topology import QueueKind, Topology


def message(service, number=0):
    return Message(f"{number:032x}", f"{number:032x}", 0, f"{service}.task")


def options(text, **settings):
    return Options.read(Url.parse(text), Settings(**settings))


class TestLedger:
    def test_acks_a_run_at_once(self):
        ledger = Ledger()
        for number in (1, 2, 3, 4):
            ledger.add(number, 1)

        assert ledger.settle([(2, 1), (1, 1), (3, 1)]) == [Ack(3, multiple=True)]
        assert ledger.settle([(4, 1)]) == [Ack(4, multiple=False)]

    def test_acks_what_lies_behind_a_gap_alone(self):
        ledger = Ledger()
        for number in (1, 2, 3, 4):
            ledger.add(number, 1)

        assert ledger.settle([(1, 1), (3, 1), (4, 1)]) == [
            Ack(1, multiple=False),
            Ack(3, multiple=False),
            Ack(4, multiple=False),
        ]

    def test_acks_with_the_last_part(self):
        ledger = Ledger()
        ledger.add(1, 32)

        assert ledger.settle([(1, 5)]) == []
        assert ledger.settle([(1, 26)]) == []
        assert ledger.settle([(1, 1)]) == [Ack(1, multiple=False)]

    def test_acks_nothing_twice(self):
        ledger = Ledger()
        ledger.add(1, 1)
        ledger.settle([(1, 1)])

        assert ledger.settle([(1, 1), (7, 1)]) == []

    @given(st.lists(st.integers(1, 4), max_size=12), st.randoms(use_true_random=False))
    def test_acks_everything_once_as_a_server_counts(self, parts, chance):
        """Whatever the order, each delivery is acked exactly once, and never before its last part."""
        ledger, unacked = Ledger(), set()
        for number, count in enumerate(parts, start=1):
            ledger.add(number, count)
            unacked.add(number)
        waiting = [number for number, count in enumerate(parts, start=1) for _ in range(count)]
        chance.shuffle(waiting)
        left = dict(enumerate(parts, start=1))
        while waiting:
            batch, waiting = waiting[:3], waiting[3:]
            for number in batch:
                left[number] -= 1
            for ack in ledger.settle([(number, 1) for number in batch]):
                covered = {
                    n for n in unacked if n == ack.number or (ack.multiple and n < ack.number)
                }
                assert ack.number in covered
                assert all(left[n] == 0 for n in covered)
                unacked -= covered

        assert not unacked
        assert not len(ledger)


class TestEnvelopes:
    def test_share_a_service_and_keep_its_order(self):
        batch = [message("ab"[number % 2] * 3, number) for number in range(150)]
        envelopes = pack(batch)

        assert sorted(item for one in envelopes for item in one.items) == list(range(150))
        assert all(len(one.items) <= CALLS for one in envelopes)
        assert len(envelopes) == 2 * 10  # of 8 each, but for the last
        for service in ("aaa", "bbb"):
            numbers = [
                int(inner.call_id, 16)
                for one in envelopes
                if one.service == service
                for inner in unpack(one.body)[0]
            ]
            assert numbers == sorted(numbers)

    @pytest.mark.parametrize(
        ("calls", "size"), [(1, 1), (3, 1), (4, 2), (20, 4), (256, 16), (9999, 16)]
    )
    def test_are_as_many_as_large(self, calls, size):
        """A few slow calls are spread over the workers."""
        sizes = [len(one.items) for one in pack([message("a", n) for n in range(calls)])]
        assert (sum(sizes), max(sizes)) == (calls, size)
        assert len(sizes) >= size or size == CALLS

    def test_stay_small(self):
        longest = Message("f" * 32, "f" * 32, 2**53, "s" * 100 + "." + "t" * 100)

        assert max(len(one.body) for one in pack([longest] * 100)) < 16 * 1024

    @given(st.binary(max_size=200))
    def test_take_any_bytes(self, body):
        messages, problem = unpack(body)

        assert bool(messages) != bool(problem)


class TestConfirms:
    def test_answers_in_bulk(self):
        async def check():
            confirms = Confirms()
            futures = [confirms.expect()[1] for _ in range(4)]
            confirms.returned(2)
            confirms.confirmed(3, multiple=True, accepted=True)
            confirms.confirmed(4, multiple=False, accepted=False)
            confirms.confirmed(4, multiple=True, accepted=True)
            return [one.result() for one in futures]

        assert asyncio.run(check()) == [
            Sent.CONFIRMED,
            Sent.RETURNED,
            Sent.CONFIRMED,
            Sent.REFUSED,
        ]

    def test_leaves_nobody_waiting(self):
        async def check():
            confirms = Confirms()
            before = confirms.expect()[1]
            confirms.lost()
            after = confirms.expect()[1]
            return before.result(), after.result()

        assert asyncio.run(check()) == (Sent.UNKNOWN, Sent.UNKNOWN)


class TestTopology:
    def test_no_two_queues_share_a_name(self):
        topology = Topology("live")

        assert topology.queue("rejected").name == "pwf.live.rejected"
        assert topology.rejected.name.count(".") > topology.queue("any").name.count(".")

    @pytest.mark.parametrize("odd", ["a b", "ä" * 50, "#", "*" * 100, "x#y", "'\"\\;--"])
    def test_odd_names_are_spelled(self, odd):
        topology = Topology("n" * 40)
        name = topology.queue(odd).name

        assert re.fullmatch(r"[A-Za-z0-9_.#-]{1,255}", name)
        assert len({name, topology.queue("_" * len(odd)).name, topology.queue(odd + "x").name}) == 3

    def test_rejected_messages_are_bounded_and_found(self):
        topology = Topology("live", QueueKind.CLASSIC)

        assert topology.rejected.arguments["x-overflow"] == "drop-head"
        arguments = topology.queue("users").arguments
        assert arguments["x-dead-letter-routing-key"] == topology.rejected.name
        assert arguments["x-queue-type"] == "classic"


class TestErrors:
    def test_names_queue_and_argument(self):
        queue = Topology("live").queue("users")
        said = (
            "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'pwf.live.users' in "
            "vhost '/': received 'quorum' but current is 'classic'"
        )
        error = translate(ValueError(406, said), "mq:5672", queue)

        assert isinstance(error, ConfigurationError)
        assert "pwf.live.users" in str(error)
        assert "'x-queue-type'" in str(error)
        assert "current is 'classic'" in str(error)

    @pytest.mark.parametrize(
        ("said", "kind"),
        [
            ("ACCESS_REFUSED - Login was refused", AccessRefusedError),
            ("NOT_ALLOWED - vhost nowhere not found", ConfigurationError),
            ("NOT_FOUND - no queue 'x' in vhost '/'", QueueMissingError),
            ("RESOURCE_ERROR - too many", BrokerUnavailableError),
            ("CONNECTION_FORCED - broker forced connection closure", BrokerUnavailableError),
        ],
    )
    def test_sorts_by_what_the_server_said(self, said, kind):
        """However deep a driver has wrapped it."""
        for wrapped in (RuntimeError([OSError(ValueError(403, said))]), OSError((403, said))):
            error = translate(wrapped, "mq:5672")

            assert isinstance(error, kind)
            assert "mq:5672" in str(error)

    def test_says_once_what_the_server_said(self):
        """However many layers of a driver repeat it, and nothing of those layers."""
        said = "ACCESS_REFUSED - Login was refused. For details see the broker logfile."
        error = ConnectionError(said)
        error.__cause__ = ValueError(403, said, f"got <Connection.Close object at {id(said)}>")

        assert str(translate(error, "mq:5672")) == (
            "RabbitMQ at mq:5672 refused: ACCESS_REFUSED - Login was refused. For details see the "
            "broker logfile. Check user, password and permissions."
        )

    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (
                OSError(111, "Connect call failed"),
                "cannot be reached: [Errno 111] Connect call failed",
            ),
            (TimeoutError(), "did not answer in time"),
        ],
    )
    def test_says_what_to_do_where_there_is_no_connection(self, error, text):
        told = str(translate(error, "mq:5672", connecting=True))

        assert told == f"RabbitMQ at mq:5672 {text}. Is it running, and is that where it listens?"

    def test_waits_grow_to_a_limit(self):
        pauses = [pause(attempt, chance=lambda: 1.0) for attempt in range(50)]

        assert pauses == sorted(pauses)
        assert pauses[-1] <= 2.0
        assert pause(3, chance=lambda: 0.0) < pause(3, chance=lambda: 1.0)


class OpenChannel:
    is_open = is_consuming = True


class TestLane:
    def test_that_has_ended_hands_out_nothing(self):
        """Its channel may still be closing: all that it holds is about to come again."""

        async def main():
            lane = Lane("s", Topology("n").queue("s"), lambda: None, prefetch=1)
            tray = lane.begin(OpenChannel())
            lane.deliver(tray, 1, b"body")
            assert lane.has_work
            lane.end()
            assert not lane.has_work

        asyncio.run(main())


class Node:
    """A link that is lost when the test says so; it needs no crew."""

    def __init__(self, where):
        self.where = where
        self.lost = asyncio.Event()

    @property
    def is_open(self):
        return not self.lost.is_set()

    async def close(self):
        self.lost.set()

    async def prepare(self, link):
        pass

    async def tend(self, link):
        await link.lost.wait()


class TestClosing:
    """A driver may swallow the cancellation that was to end what it does."""

    def test_ends_a_supervisor_whose_driver_connects_all_the_same(self):
        async def main():
            connecting, link = asyncio.Event(), Node("a")

            async def connect(_options, _name):
                connecting.set()
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                return link

            supervisor = Supervisor(connect, options("amqp://a"), "test", Node("crew"))
            supervisor.start()
            await connecting.wait()
            async with asyncio.timeout(10):
                await supervisor.close()
            assert link.lost.is_set()

        asyncio.run(main())

    def test_ends_a_crew_that_goes_on(self):
        class Stubborn(Node):
            async def tend(self, link):
                for _ in range(2):
                    with suppress(asyncio.CancelledError):
                        await asyncio.Event().wait()

        async def main():
            link = Node("a")

            async def connect(_options, _name):
                return link

            supervisor = Supervisor(connect, options("amqp://a"), "test", Stubborn("crew"))
            async with asyncio.timeout(10):
                await supervisor.link()
                await asyncio.sleep(0)  # the crew has begun
                await supervisor.close()
            assert link.lost.is_set()

        asyncio.run(main())

    def test_ends_a_link_that_was_doubted_for_nothing(self):
        """Its server is well, and would go on pushing into it; at that moment its crew still ends."""

        class Parting(Node):
            def __init__(self):
                super().__init__("a")
                self.ending, self.is_closed = asyncio.Event(), False

            async def close(self):
                self.is_closed = True

            async def tend(self, link):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.ending.set()
                    await asyncio.Event().wait()

        async def main():
            link = Parting()

            async def connect(_options, _name):
                return link

            supervisor = Supervisor(connect, options("amqp://a"), "test", link)
            async with asyncio.timeout(10):
                await supervisor.link()
                await asyncio.sleep(0)  # the crew has begun
                link.lost.set()
                await link.ending.wait()
                await supervisor.close()
            assert link.is_closed
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())


class TestNodes:
    """Of several nodes, which is connected to."""

    def supervise(self, connect, query=""):
        found = options(f"amqp://ann:secret@a:1,b:2,c:3/{query}")
        return Supervisor(connect, found, "test", Node("crew"))

    def test_the_next_one_follows_the_lost_one(self):
        async def connect(found, _name):
            if found.host == "b":
                raise ConnectionRefusedError("down")
            return Node(found.host)

        async def main():
            supervisor = self.supervise(connect)
            went = []
            for _ in range(4):
                link = await supervisor.link()
                went.append(link.where)
                link.lost.set()
            await supervisor.close()
            return "".join(went)

        assert asyncio.run(main()) in {"acac", "caca"}

    def test_any_is_the_first(self):
        async def connect(found, _name):
            return Node(found.host)

        async def first():
            supervisor = self.supervise(connect)
            link = await supervisor.link()
            await supervisor.close()
            return link.where

        async def main():
            return {await first() for _ in range(200)}

        assert asyncio.run(main()) == {"a", "b", "c"}

    def test_all_that_fail_are_named(self):
        asked = []

        async def connect(found, _name):
            asked.append(found.host)
            raise ConnectionRefusedError("down")

        async def main():
            supervisor = self.supervise(connect)
            with pytest.raises(BrokerUnavailableError) as caught:
                await supervisor.link()
            await supervisor.close()
            return str(caught.value)

        told = asyncio.run(main())

        assert all(f"RabbitMQ at {one} cannot be reached" in told for one in ("a:1", "b:2", "c:3"))
        assert sorted(asked[:3]) == ["a", "b", "c"]
        assert "secret" not in told

    def test_one_that_refuses_the_user_is_told_at_start_up(self):
        """Although another is away, which may pass."""

        async def connect(found, _name):
            if found.host == "a":
                raise ConnectionRefusedError("down")
            raise ConnectionError("ACCESS_REFUSED - who?")

        async def main():
            supervisor = self.supervise(connect)
            with pytest.raises(ConfigurationError, match="Check user"):
                await supervisor.link()
            await supervisor.close()

        asyncio.run(main())

    @pytest.mark.parametrize("silent", ["a", "ab", "abc"])
    def test_those_that_say_nothing_cost_their_share(self, silent):
        async def connect(found, _name):
            if found.host in silent:
                await asyncio.Event().wait()
            return Node(found.host)

        async def main():
            supervisor = self.supervise(connect, "?timeout=0.3")
            began = asyncio.get_running_loop().time()
            if silent == "abc":
                with pytest.raises(BrokerUnavailableError, match="did not answer in time"):
                    await supervisor.link()
            else:
                assert (await supervisor.link()).where not in silent
            assert asyncio.get_running_loop().time() - began < 2
            await supervisor.close()

        asyncio.run(main())


class Wire(Node):
    """A link whose channels answer as the test says; queues can be declared at any time."""

    def __init__(self):
        super().__init__("wire")
        self.publishing = []  # channels, in order
        self.answers = iter(())  # to what is published; what comes after them is left to the test

    async def is_blocked(self):
        return False

    async def channel(self, *, publishes=False):
        channel = WireChannel(self)
        if publishes:
            self.publishing.append(channel)
        return channel


class WireChannel(OpenChannel):
    """Publishes are here with their futures; closing it loses those without an answer."""

    def __init__(self, wire):
        self.is_open = True
        self.sent = []
        self.wire = wire

    async def declare(self, queue, *, passive=False):
        pass

    def publish(self, queue, body, headers):
        future = asyncio.get_running_loop().create_future()
        self.sent.append(future)
        for answer in itertools.islice(self.wire.answers, 1):
            future.set_result(answer)
        return future

    async def close(self):
        self.is_open = False
        for future in self.sent:
            if not future.done():
                future.set_result(Sent.UNKNOWN)


class TestOutlet:
    def on(self, check, query=""):
        """Run *check* on an outlet and its wire."""

        async def main():
            wire = Wire()

            async def connect(_options, _name):
                return wire

            outlet = Outlet(connect, options(f"amqp://mq/{query}"))
            try:
                async with asyncio.timeout(10):
                    await outlet.supervisor.link()
                    await check(outlet, wire)
            finally:
                await outlet.supervisor.close()

        asyncio.run(main())

    def test_a_queue_without_a_leader_is_waited_for(self, caplog):
        """Whoever declares a quorum queue while another makes it is refused until it has one."""

        async def check(outlet, wire):
            wire.answers = iter([Sent.REFUSED] * 5 + [Sent.CONFIRMED])
            assert await outlet.publish([message("a")]) == [True]
            assert [one.is_open for one in wire.publishing] == [False] * 5 + [True]

        self.on(check)
        assert caplog.text == ""

    def test_a_queue_that_goes_on_refusing_is_waited_for_once(self, caplog):
        """Others have been waiting with it; from then on it has a second chance, and that at once."""

        async def check(outlet, wire):
            wire.answers = itertools.repeat(Sent.REFUSED)
            assert await outlet.publish([message("a")]) == [False]
            attempts = len(wire.publishing)
            assert attempts > 3
            assert await outlet.publish([message("a")]) == [False]
            assert len(wire.publishing) == attempts + 2

        self.on(check, "?timeout=1")
        (said,) = caplog.messages
        assert "is not confirmed: refused" in said

    async def refuse_first_of_two(self, wire):
        """Have the first of two messages on a channel refused, and sent again on another channel."""
        await eventually(lambda: wire.publishing and len(wire.publishing[0].sent) == 2)
        first = wire.publishing[0]
        first.sent[0].set_result(Sent.REFUSED)
        await eventually(lambda: len(wire.publishing) == 2 and wire.publishing[1].sent)
        return wire.publishing

    @pytest.mark.parametrize("last", [Sent.CONFIRMED, Sent.REFUSED])
    def test_a_refused_channel_is_closed_once_all_on_it_are_answered(self, last):
        """What others have in flight there is not lost."""

        async def check(outlet, wire):
            refused = asyncio.create_task(outlet.publish([message("a")]))
            other = asyncio.create_task(outlet.publish([message("b")]))
            first, second = await self.refuse_first_of_two(wire)
            second.sent[0].set_result(Sent.CONFIRMED)
            assert await refused == [True]
            assert first.is_open
            assert not other.done()
            first.sent[1].set_result(last)
            if last is Sent.REFUSED:
                await eventually(lambda: len(second.sent) == 2)
                second.sent[1].set_result(Sent.CONFIRMED)
            assert await other == [True]
            assert not first.is_open
            assert second.is_open

        self.on(check)

    def test_a_channel_given_up_in_flight_is_closed_by_the_next_publish(self):
        """Who was cancelled waits for nothing, so nothing of it keeps a channel."""

        async def check(outlet, wire):
            refused = asyncio.create_task(outlet.publish([message("a")]))
            cancelled = asyncio.create_task(outlet.publish([message("b")]))
            first, second = await self.refuse_first_of_two(wire)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            second.sent[0].set_result(Sent.CONFIRMED)
            assert await refused == [True]
            assert not first.is_open
            assert second.is_open

        self.on(check)


class Server(Wire):
    """A link whose channels consume; the server is silent about queues of the services in `silent`."""

    def __init__(self):
        super().__init__()
        self.silent = set()
        self.consumed = []  # services, with the channels that consume them or did, in order
        self.stubborn = False  # whether a driver loses the cancellation of who waits for its answer
        self.fault = None  # what it raises

    async def channel(self, *, publishes=False):
        channel = ServerChannel(self)
        if publishes:
            self.publishing.append(channel)
        return channel

    def of(self, service):
        """Return the channels of that service."""
        return [channel for name, channel in self.consumed if name == service]


class ServerChannel(WireChannel):
    is_consuming = True

    def __init__(self, wire):
        super().__init__(wire)
        self.closing = asyncio.Event()
        self.closing.set()

    async def consume(self, queue, prefetch, on_delivery):
        service = queue.name.rpartition(".")[2]
        if self.wire.fault is not None:
            raise self.wire.fault
        self.prefetch, self.push = prefetch, on_delivery
        self.wire.consumed.append((service, self))
        if service in self.wire.silent:
            if self.wire.stubborn:
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
            await asyncio.Event().wait()

    async def ack(self, acks):
        pass

    async def close(self):
        self.is_open = False
        await self.closing.wait()


class TestIntake:
    def on(self, check):
        """Run *check* on an intake and its server; nothing of it goes on afterwards."""

        async def main():
            server = Server()

            async def connect(_options, _name):
                server.lost.clear()
                return server

            intake = Intake(connect, options("amqp://mq/"))
            async with asyncio.timeout(10):
                try:
                    await check(intake, server)
                finally:
                    await intake.close()
            await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})

        asyncio.run(main())

    def test_a_queue_without_a_leader_holds_up_no_other(self):
        """The server says nothing for as long as it has none; whoever receives hears of the others."""

        async def check(intake, server):
            server.silent = {"a"}
            receiving = asyncio.create_task(intake.receive(["a", "b"], 1))
            await eventually(lambda: server.of("a") and server.of("b"))
            assert not receiving.done()
            server.of("b")[0].push(1, pack([message("b")])[0].body)
            assert [one.service for one in await receiving] == ["b"]
            server.of("b")[0].is_consuming = False  # cancelled
            await eventually(lambda: len(server.of("b")) == 2)
            assert len(server.of("a")) == 1

        self.on(check)

    def test_ends_all_that_the_server_owes_an_answer(self):
        """Also where a driver loses the first cancellation."""

        async def check(intake, server):
            server.silent, server.stubborn = {"a", "b"}, True
            receiving = asyncio.create_task(intake.receive(["a", "b"], 1))
            await eventually(lambda: server.of("a") and server.of("b"))
            await intake.close()
            with pytest.raises(BrokerUnavailableError):
                await receiving

        self.on(check)

    def test_a_lane_that_is_asked_for_while_it_is_handed_back_is_raised_at_once(self, monkeypatch):
        monkeypatch.setattr("pwf_rabbit.intake._PATIENCE", 0)
        monkeypatch.setattr("pwf_rabbit.intake._WATCH", 1000)  # only who is asked for is looked at

        async def check(intake, server):
            await intake.receive(["a"], 1)
            (first,) = server.of("a")
            first.closing.clear()
            first.push(1, pack([message("a")])[0].body)
            await intake.receive(["b"], 1)
            await eventually(lambda: not first.is_open)  # it is handed back
            assert await intake.receive(["a"], 1) == []
            await intake.receive(["c"], 1)  # the lanes have been looked at
            assert len(server.of("a")) == 1
            first.closing.set()
            await eventually(lambda: len(server.of("a")) == 2)

        self.on(check)

    def test_a_fault_of_a_lane_is_logged_and_ends_the_epoch(self, caplog):
        async def check(intake, server):
            await intake.receive(["a"], 1)
            server.fault = ZeroDivisionError("ours")
            server.of("a")[0].is_consuming = False
            await eventually(lambda: "a fault of pwf_rabbit itself" in caplog.text)
            server.fault = None
            await eventually(lambda: len(server.of("a")) == 2)

        self.on(check)


class TestRejecting:
    @pytest.mark.parametrize("answer", [Sent.CONFIRMED, Sent.UNKNOWN])
    def test_goes_on_while_the_broker_is_closed(self, answer):
        """They come again to somebody else, and are set aside then."""

        async def main():
            server = Server()

            async def connect(_options, _name):
                return server

            broker = RabbitBroker(options("amqp://mq/"), connect)
            await broker.receive(["a"], 1)
            server.of("a")[0].push(1, b"rubbish")
            rejecting = asyncio.create_task(broker.reject(await broker.receive(["a"], 1)))
            await eventually(lambda: server.publishing and server.publishing[0].sent)
            await broker.close()
            server.publishing[0].sent[0].set_result(answer)
            async with asyncio.timeout(10):
                await rejecting

        asyncio.run(main())


class TestOptions:
    def test_have_defaults(self):
        found = options("amqp://localhost")

        assert (found.host, found.port, found.username, found.vhost) == (
            "localhost",
            5672,
            "guest",
            "/",
        )
        assert found.topology == Topology("default", QueueKind.QUORUM)
        assert not found.tls
        assert (found.prefetch, found.heartbeat, found.timeout) == (64, 5, 10.0)
        assert found == Options()

    def test_are_read(self):
        found = options(
            "amqps://ann:p%40ss@mq/%2Fdeep?queue=classic&prefetch=7&heartbeat=0&timeout=2.5&driver=pika",
            namespace="live",
        )

        assert (found.username, found.password) == ("ann", "p@ss")
        assert (found.port, found.vhost, found.tls) == (5671, "/deep", True)
        assert (found.prefetch, found.heartbeat, found.timeout) == (7, 0, 2.5)
        assert found.driver is Driver.PIKA
        assert found.topology == Topology("live", QueueKind.CLASSIC)
        assert "p@ss" not in repr(found)

    @pytest.mark.parametrize(
        ("query", "words"),
        [
            ("qeue=classic", "Unknown option qeue"),
            ("queue=mirrored", "quorum or classic"),
            ("prefetch=0", "from 1"),
            ("prefetch=many", "prefetch='many'"),
            ("heartbeat=-1", "from 0"),
            ("timeout=0", "above 0"),
            ("timeout=nan", "above 0"),
            ("driver=kombu", "aio-pika or pika"),
        ],
    )
    def test_are_refused_with_a_reason(self, query, words):
        with pytest.raises(ConfigurationError, match=words) as caught:
            options(f"amqp://ann:secret@mq/?{query}")

        assert "secret" not in str(caught.value)

    def test_name_several_nodes(self):
        found = options("amqp://ann:p%40,ss@one:5673,two,[::1]:7/live?driver=pika")

        assert found.nodes == (("one", 5673), ("two", 5672), ("::1", 7))
        assert (found.username, found.password, found.vhost) == ("ann", "p@,ss", "live")
        assert found.where == "one:5673, two:5672, [::1]:7"
        assert [one.where for one in found.apart()] == ["one:5673", "two:5672", "[::1]:7"]
        assert [one.host for one in found.apart()] == ["one", "two", "::1"]

    @pytest.mark.parametrize(
        "hosts",
        ["one,", ",two", "one,,two", "one:0,two", "one:x,two", "one:65536,two", "::1,two", "a b,c"],
    )
    def test_refuse_what_is_no_node(self, hosts):
        with pytest.raises(ConfigurationError, match="is no node") as caught:
            options(f"amqp://ann:secret@{hosts}/")

        assert "secret" not in str(caught.value)

    def test_have_one_user_for_all_nodes(self):
        with pytest.raises(ConfigurationError, match="stand once") as caught:
            options("amqp://ann:secret@one,ann:secret@two/")

        assert "secret" not in str(caught.value)

    def test_refuse_a_vhost_of_two_parts(self):
        with pytest.raises(ConfigurationError, match="%2F"):
            options("amqp://mq/a/b")

    def test_classic_queues_cannot_survive_a_power_cut(self):
        with pytest.raises(UnsupportedError, match="quorum"):
            options("amqp://mq/?queue=classic", durability=Durability.FSYNC)

        assert options("amqp://mq/", durability=Durability.FSYNC).port == 5672


class TestAdapter:
    @pytest.mark.parametrize("part", ["backend", "blocking_backend", "store", "blocking_store"])
    def test_needs_a_store(self, part):
        url = Url.parse("amqp://ann:secret@mq:5672/")
        with pytest.raises(UnsupportedError) as caught:
            getattr(adapter, part)(url, Settings())

        assert "amqp://ann:***@mq:5672/?store=redis://localhost:6379/0" in str(caught.value)

    @pytest.mark.parametrize(
        ("part", "module"), [("broker", "aio_pika"), ("blocking_broker", "pika")]
    )
    def test_says_which_package_is_missing(self, part, module, monkeypatch):
        monkeypatch.setattr("pwf_rabbit.drivers.find_spec", lambda _name: None)
        with pytest.raises(ConfigurationError) as caught:
            getattr(adapter, part)(Url.parse("amqp://mq"), Settings())

        assert "pip install 'pubsub-workflow[rabbit]'" in str(caught.value)
        assert module.replace("_", "-") in str(caught.value)

    def test_is_imported_without_drivers(self):
        program = (
            "import sys, pwf_rabbit.adapter; "
            "print([name for name in ('pika', 'aio_pika', 'aiormq') if name in sys.modules])"
        )
        said = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )

        assert said.stdout.strip() == "[]"
