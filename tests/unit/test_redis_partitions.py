"""Partitions without a server: which keys and slots, which layouts, what goes where."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pwf_core.adapters import Durability, Url
from pwf_core.commands import Answer, Commit, Renew
from pwf_core.decisions import Decision, NewCall
from pwf_core.errors import (
    ConfigurationError,
    StoreClosedError,
    StoreFullError,
    StoreUnavailableError,
)
from pwf_core.ids import ClaimId, RunId, home_of, place_in, placed
from pwf_core.ports import Applied, Take
from pwf_core.state import Rules
from pwf_core.steps import drive

pytest.importorskip("redis")

from pwf_redis.checks import Facts
from pwf_redis.cluster import Cluster, ClusterTarget
from pwf_redis.cluster_links import BlockingClusterLinks, _spread
from pwf_redis.keys import MOST_PARTITIONS, Keys
from pwf_redis.layout import Layout, OtherFormatError
from pwf_redis.partitions import Partitions
from pwf_redis.rounds import Round, Spread, ask, together
from pwf_redis.scripts import ADVANCE
from pwf_redis.traffic import Traffic

CALL = NewCall("c" * 32, "work.task", b"", 0, 0)
RUNS = [RunId(f"{number:032x}") for number in range(100)]


class TestKeys:
    def test_nodes_get_as_many_partitions_as_the_next(self):
        for nodes in (2, 3, 4, 5, 8):
            for partitions in (8, 16, 32, 64, MOST_PARTITIONS):
                slots = [Keys("any", number).slot for number in range(partitions)]
                counts = [0] * nodes
                for slot in slots:
                    counts[slot * nodes // 16_384] += 1
                assert max(counts) - min(counts) <= 2
                assert len(set(slots)) == partitions

    def test_stay_as_they_are(self):
        """What is stored is found by these names for ever."""
        prefixes = [Keys("default", number).prefix for number in range(4)]

        assert prefixes == [
            "pwf:{default:0}:",
            "pwf:{default:1.112}:",
            "pwf:{default:2.317}:",
            "pwf:{default:3.371}:",
        ]


class TestIds:
    def test_say_where_a_run_is(self):
        run_id = placed(RUNS[1], 12)

        assert run_id == f"{RUNS[1]}-12"
        assert place_in(run_id) == 12
        assert placed(run_id, 3) == f"{RUNS[1]}-3"

    @pytest.mark.parametrize(
        "text", [RUNS[1], "order-7", f"{RUNS[1]}-007", f"{RUNS[1]}-", f"{RUNS[1]}-7\n"]
    )
    def test_of_others_say_nothing(self, text):
        assert place_in(RunId(text)) is None

    def test_homes_of_keys_stay_as_they_are(self):
        assert [home_of(f"order-{number}", 8) for number in range(8)] == [
            *(1, 5, 3, 0),
            *(2, 6, 5, 1),
        ]


class TestLayout:
    @pytest.mark.parametrize(
        ("layout", "text"),
        [
            (Layout(paired=False), "1 fused"),
            (Layout(paired=True), "1 paired"),
            (Layout(paired=False, sizes=(8,)), "1 fused 8"),
            (Layout(paired=False, sizes=(1, 4, 16)), "1 fused 1 4 16"),
            (Layout(paired=False, sizes=(8,), growing=32), "1 fused 8>32"),
            (Layout(paired=False, sizes=(1,), growing=32), "1 fused 1>32"),
            (Layout(paired=False, sizes=(), growing=8), "1 fused >8"),
        ],
    )
    def test_is_written_and_read(self, layout, text):
        assert layout.text == text
        assert Layout.parse(text, paired=layout.paired) == layout
        assert Layout.parse(text, paired=not layout.paired) is None

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "2 fused",
            "1 fused ",
            "1 fused 0",
            "1 fused 8 8",
            "1 fused 16 8",
            "1 fused 8>8",
            "1 fused x",
            "1 fused8",
            "1 fused 8>",
        ],
    )
    def test_of_others_is_not_read(self, text):
        assert Layout.parse(text, paired=False) is None

    def test_runs_stay_where_they_are(self):
        """However often partitions are added."""
        small, large = (Layout(paired=False, sizes=sizes) for sizes in ((2,), (2, 8, 64)))
        ids = [*RUNS, *(placed(run_id, 1) for run_id in RUNS), RunId("anything")]

        assert [small.place_of(one) for one in ids] == [large.place_of(one) for one in ids]
        assert {small.place_of(one) for one in RUNS} == {0, 1}
        assert large.place_of(placed(RUNS[0], 63)) == 63

    def test_keys_are_looked_for_where_they_were(self):
        layout = Layout(paired=False, sizes=(2, 8))
        homes = layout.homes_of("order-7")

        assert homes[0] == home_of("order-7", 8)
        assert {*homes} == {home_of("order-7", 8), home_of("order-7", 2)}


def test_together_keeps_troubles_apart():
    """Steps of several slots share round trips; one that fails stops no other."""

    def two():
        first = yield from ask("A")
        second = yield from ask("B")
        return first + second

    rounds = []

    def perform(effect):
        assert isinstance(effect, Spread)
        rounds.append({slot: commands[0][0] for slot, commands in effect.rounds.items()})
        return {
            slot: ConfigurationError("no") if (slot, commands[0][0]) == (7, "B") else [slot]
            for slot, commands in effect.rounds.items()
        }

    found = drive(together({5: two(), 6: ask("A"), 7: two()}), perform)

    assert rounds == [{5: "A", 6: "A", 7: "A"}, {5: "B", 7: "B"}]
    assert (found[5], found[6]) == (10, 6)
    assert isinstance(found[7], ConfigurationError)


class FakeCluster:
    """One node that knows the key `format` of each slot, and its settings."""

    def __init__(self):
        self.formats = {}
        self.checked = set()

    def __call__(self, effect):
        return {
            slot: [self._answer(slot, *command) for command in commands]
            for slot, commands in effect.rounds.items()
        }

    def _answer(self, slot, name, *arguments):
        match name:
            case "INFO":
                self.checked.add(slot)
                return b"redis_version:7.4.0"
            case "CONFIG":
                settings = {"appendonly": b"yes", "appendfsync": b"everysec"}
                name = arguments[1]
                return [name.encode(), settings[name]] if name in settings else []
            case "WAITAOF":
                return [1, 0]
            case "GET":
                return self.formats.get(slot)
            case "SET":
                self.formats.setdefault(slot, arguments[1].encode())
                return None
        assert (name, arguments[0]) == ("EVALSHA", ADVANCE.sha(flagged=False))
        text, *before = (one.encode() for one in arguments[4:])
        if self.formats.get(slot) in {None, *before}:
            self.formats[slot] = text
        return None


class TestPartitions:
    def of(self, cluster, wanted=None):
        facts = Facts(where="here", durability=Durability.FSYNC)
        partitions = Partitions("any", Rules(), facts, wanted)
        drive(partitions.open(), cluster)
        return partitions

    def formats(self, cluster, size):
        return [cluster.formats[Keys("any", number).slot].decode() for number in range(size)]

    def refuse(self, partitions, cluster, number):
        text = cluster.formats[Keys("any", number).slot].decode()
        refused = {number: OtherFormatError("other", text)}
        return drive(partitions._catch_up(refused), cluster)

    def test_each_is_checked_also_those_that_come_later(self):
        """What they are told waits for the disk, too."""
        cluster = FakeCluster()
        first = self.of(cluster, 2)
        self.of(cluster, 4)
        cluster.checked.clear()
        self.refuse(first, cluster, 0)

        assert first.layout.sizes == (2, 4)
        assert [part.facts.waits_for_disk for part in first._parts] == [True] * 4
        assert cluster.checked == {Keys("any", number).slot for number in (2, 3)}

    @pytest.mark.parametrize("number", range(3))
    def test_one_that_has_lost_its_layout_is_brought_along(self, number):
        """A replica that has taken over need not have heard of it."""
        cluster = FakeCluster()
        self.of(cluster, 2)
        self.of(cluster, 4)
        partitions = self.of(cluster)
        cluster.formats[Keys("any", number).slot] = b"1 fused 2"
        asked = number or 1  # where a script is refused

        assert self.refuse(partitions, cluster, asked)
        assert self.formats(cluster, 4) == ["1 fused 2 4"] * 4
        assert partitions.layout.sizes == (2, 4)

    def test_nobody_forgets_a_layout(self):
        """Or what it has in hand would go where it is not known."""
        cluster = FakeCluster()
        self.of(cluster, 2)
        partitions = self.of(cluster, 4)
        partitions.wanted = None
        cluster.formats[Keys("any", 0).slot] = b"1 fused 2"
        self.refuse(partitions, cluster, 0)

        assert partitions.layout.sizes == (2, 4)
        assert self.formats(cluster, 4) == ["1 fused 2 4"] * 4

    @pytest.mark.parametrize("text", ["2 fused 4", "1 paired 4", "1 fused 3 9"])
    def test_one_that_is_used_otherwise_stops_everybody(self, text):
        cluster = FakeCluster()
        partitions = self.of(cluster, 4)
        cluster.formats[Keys("any", 2).slot] = text.encode()

        with pytest.raises(OtherFormatError):
            self.refuse(partitions, cluster, 2)


class FakePart:
    """Operations that ask a fake node in one round trip."""

    def __init__(self, keys, *_):
        self.keys = keys
        self.layout = None
        self.now_ms = 0

    def check(self):
        yield from ()

    def apply(self, commands, *, sweep):
        (done,) = yield Round([("APPLY", *commands, sweep)])
        return done


class FakeNodes:
    """A node for each of four partitions of a paired store.

    Attributes:
        trouble: What is wrong with which.
        asked: How many timers each is to fire that was asked last.
        told: How often the cluster was asked for anything else.
        patience: For how long those were waited for.
    """

    def __init__(self):
        facts = Facts(where="here", durability=Durability.FSYNC)
        self.partitions = Partitions("any", Rules(paired=True), facts, 4)
        self.cluster = FakeCluster()
        drive(self.partitions.open(), self.cluster)
        self.partitions._parts = [FakePart(part.keys) for part in self.partitions._parts]
        self.partitions.now_ms = 1000
        self.slots = {Keys("any", number).slot: number for number in range(8)}
        self.trouble = {}
        self.asked = {}
        self.told = 0
        self.patience = None

    def __call__(self, effect):
        if not all(one[0] == "APPLY" for (one, *_) in effect.rounds.values()):
            self.told += 1
            return {
                slot: AWAY if self.trouble.get(self.slots[slot]) is AWAY else answer
                for slot, answer in self.cluster(effect).items()
            }
        self.patience = effect.patience
        return {slot: self._apply(self.slots[slot], *one) for slot, (one,) in effect.rounds.items()}

    def _apply(self, number, _, *commands_and_sweep):
        *commands, self.asked[number] = commands_and_sweep
        if number in self.trouble:
            return self.trouble[number]
        return [Applied([Answer.DONE] * len(commands), [f"copy {number}"], None)]

    def apply(self, *places, sweep=0, partly=True):
        """Return what becomes of commands for these partitions."""
        self.asked.clear()
        commands = [commit(place) for place in places]
        return drive(self.partitions.apply(commands, sweep=sweep, partly=partly), self)


class TestPairedStore:
    @pytest.fixture
    def nodes(self):
        return FakeNodes()

    def test_one_that_is_away_holds_up_no_other(self, nodes):
        nodes.trouble[1] = AWAY
        applied = nodes.apply(1, 2, 1, 3)

        assert applied.replies == [Answer.AWAY, Answer.DONE, Answer.AWAY, Answer.DONE]
        assert applied.enqueued == ["copy 2", "copy 3"]
        assert applied.problem == "away"

    def test_one_that_is_away_is_left_alone_for_a_while(self, nodes):
        """Nor are its timers fired; then it is asked again, and waited for longer."""
        nodes.trouble[1] = AWAY
        nodes.apply(1, sweep=256)
        nodes.trouble.clear()
        again = nodes.apply(1, 2, sweep=256)

        assert (again.replies, again.problem) == ([Answer.AWAY, Answer.DONE], "away")
        assert (nodes.patience, 1 in nodes.asked) == (1, False)
        nodes.partitions.now_ms = 2000
        assert nodes.apply(1).replies == [Answer.DONE]
        assert nodes.patience == 2
        assert nodes.apply(1).problem == ""
        assert nodes.patience == 1

    def test_one_that_is_full_is_left_alone_for_a_moment(self, nodes):
        nodes.trouble[1] = FULL
        assert nodes.apply(1, 2).replies == [Answer.AWAY, Answer.DONE]
        nodes.trouble.clear()
        nodes.partitions.now_ms = 1100

        assert nodes.apply(1, 2).replies == [Answer.DONE] * 2

    def test_sweeps_are_shared_out_among_those_that_are_there(self, nodes):
        nodes.trouble[1] = AWAY
        nodes.apply(1)
        nodes.partitions.now_ms = 1999
        nodes.apply(sweep=256)

        assert sorted(nodes.asked) == [0, 2, 3]
        assert sum(nodes.asked.values()) == 256

    def test_when_all_are_away_somebody_has_to_wait(self, nodes):
        nodes.trouble = dict.fromkeys(range(4), AWAY)

        with pytest.raises(StoreUnavailableError):
            nodes.apply(0, 1, 2, 3)
        with pytest.raises(StoreUnavailableError):
            nodes.apply(0)
        assert nodes.asked == {}

    def test_client_wants_all_or_an_error(self, nodes):
        """Whatever workers have found out: it may be asking for nothing else."""
        nodes.trouble[1] = AWAY
        nodes.apply(1)
        with pytest.raises(StoreUnavailableError):
            nodes.apply(1, 2, partly=False)
        nodes.trouble[2] = FULL
        with pytest.raises(StoreFullError):
            nodes.apply(2, partly=False)
        nodes.trouble.clear()

        assert nodes.apply(1, 2, partly=False).replies == [Answer.DONE] * 2
        assert nodes.patience is None

    def test_one_of_another_layout_is_asked_again(self, nodes):
        """Once that is known: nothing was done, and nothing is wrong."""
        text = b"1 paired 4>8"  # said by the first, and not by the others yet
        nodes.cluster.formats[Keys("any", 0).slot] = text
        nodes.trouble[0] = OtherFormatError("other", text.decode())
        applied = nodes.apply(0, 2)

        assert (applied.replies, applied.problem) == ([Answer.AWAY, Answer.DONE], "")
        assert nodes.partitions.layout.sizes == (4, 8)
        nodes.trouble.clear()
        assert nodes.apply(0).replies == [Answer.DONE]

    def test_one_that_nobody_can_tell_of_holds_up_no_other(self, nodes, monkeypatch):
        """It has been added by others, and the first is away, which would tell how many there are."""
        nodes.cluster.formats = dict.fromkeys(nodes.slots, b"1 paired 4 8")
        nodes.trouble[0] = AWAY
        assert nodes.apply(6, 2).replies == [Answer.AWAY, Answer.DONE]
        told = nodes.told
        assert nodes.apply(2, 6).replies == [Answer.DONE, Answer.AWAY]
        assert nodes.told == told  # and not asked again for a while
        with pytest.raises(StoreUnavailableError):
            nodes.apply(6, 2, partly=False)
        assert drive(nodes.partitions.renew([renew(6)]), nodes) == [Answer.AWAY]
        nodes.trouble.clear()
        nodes.partitions.now_ms = 2000
        monkeypatch.setattr("pwf_redis.partitions.Operations", FakePart)

        assert nodes.apply(6, 2).replies == [Answer.DONE] * 2
        assert nodes.partitions.layout.sizes == (4, 8)

    def test_what_is_no_trouble_of_a_node_is_raised(self, nodes):
        nodes.trouble[1] = ConfigurationError("may not")

        with pytest.raises(ConfigurationError):
            nodes.apply(1, 2)


class TestNodes:
    def test_one_in_trouble_is_asked_last(self):
        """Cut off from the others, it would tell of old times for ever."""
        first, second = ("a", 1), ("b", 1)
        cluster = Cluster((first, second))
        asked = []

        def shares(address):
            asked.append(address)
            return [(0, 16_383, (address[0].encode(), 1))]

        drive(cluster.find(), shares)
        cluster.doubt(first)
        drive(cluster.find(), shares)

        assert asked == [first, second]
        assert cluster.address_of(7) == second

    def test_nobody_tells_where_slots_are(self):
        """Then that is what went wrong in each slot, and all that depends on one takes note."""
        target = ClusterTarget(where="here", cluster=Cluster((("a", 1),)))
        steps = _spread(target, {5: [("A",)], 6: [("A",)]})

        def silent(step):
            raise AWAY

        found = drive(steps, silent)

        assert found == {5: AWAY, 6: AWAY}

    def test_threads_that_ask_nodes_end_when_it_is_closed(self):
        """Also for those who were about to ask: they are told, and start no others."""
        first, second = ("a", 1), ("b", 1)
        links = BlockingClusterLinks(ClusterTarget(where="here", cluster=Cluster((first, second))))
        links._threads = ThreadPoolExecutor()
        links._threads.shutdown()
        with pytest.raises(RuntimeError):
            links._step({first: [], second: []})
        links.close()

        with pytest.raises(StoreClosedError):
            links._step({first: [], second: []})
        assert links._threads is None

    def test_password_is_not_shown(self):
        target = ClusterTarget.of_url(Url.parse("redis+cluster://me:secret@a:1,b:2"))

        assert "secret" not in repr((target, target.node(("a", 1)), target.place(7)))
        assert target.arguments["password"] == "secret"


def commit(place):
    return Commit(placed(RUNS[place], place), CALL.call_id, ClaimId("w:1"), Decision())


def renew(place):
    return Renew(placed(RUNS[place], place), CALL.call_id, ClaimId("w:1"), 5000)


def take(number=1, limit=30, lane=0, worker="w"):
    return Take(("work",), limit, ClaimId(f"{worker}.{lane}:{number}"), 1000)


AWAY, FULL = StoreUnavailableError("away"), StoreFullError("full")


class TestTraffic:
    @pytest.fixture
    def traffic(self):
        """Four partitions, each of which has been asked at the time of 1000 and had nothing."""
        traffic = Traffic()
        traffic.grow(4)
        for number in range(4):
            traffic.answered(number, None, 1000)
            traffic.granted(number, 0, 1)
        return traffic

    def limits(self, sent):
        return {number: taking.limit for number, (_, taking) in sent.items()}

    def test_whoever_has_nothing_to_say_looks_everywhere(self, traffic):
        limits = self.limits(traffic.to_send({}, take(limit=6), 1001))
        assert sorted(limits) == [0, 1, 2, 3]
        assert sorted(limits.values()) == [1, 1, 2, 2]

    def test_commands_go_where_they_belong_and_bring_calls(self, traffic):
        sent = traffic.to_send({3: [commit(3)]}, take(), 1001)

        assert [*sent] == [3]
        assert sent[3] == ([commit(3)], take())

    def test_calls_come_from_where_there_are_some(self, traffic):
        """Few at a time, so that batches stay large; and from all of them in turn."""
        for number in range(4):
            traffic.warm(number)

        assert traffic.is_warm(1001)
        taken = [self.limits(traffic.to_send({}, take(n, limit=20), 1001)) for n in range(4)]
        assert [sum(one.values()) for one in taken] == [20] * 4
        assert {number for one in taken for number in one} == {0, 1, 2, 3}
        assert max(map(len, taken)) == 2

    @pytest.mark.parametrize("limit", [1, 2, 3, 8])
    def test_those_that_no_commands_go_to_get_their_part(self, traffic, limit):
        """Also of a worker that has room for one call at a time, and goes on with one run."""
        taken = []
        for now in range(1100, 11_100, 100):
            limits = self.limits(traffic.to_send({0: [commit(0)] * limit}, take(now, limit), now))
            taken.append(limits)
            for number, its in limits.items():
                traffic.answered(number, None, now)
                traffic.granted(number, int(number == 0) * its, its)

        assert [sum(one.values()) for one in taken] == [limit] * 100
        for number in (1, 2, 3):
            assert sum(one.get(number, 0) > 0 for one in taken) >= 3  # in ten seconds
        assert sum(one[0] for one in taken) >= 60 * limit

    def test_only_a_look_counts_as_one(self, traffic):
        """A client that starts a run looks for nothing."""
        traffic.answered(1, None, 1900, looked=False)
        traffic.answered(2, 50, 1900, looked=False)

        assert {*self.limits(traffic.to_send({0: []}, take(1, 0), 1949))} == {0}
        assert {*self.limits(traffic.to_send({0: []}, take(2, 0), 1950))} == {0, 2}
        assert {*self.limits(traffic.to_send({0: []}, take(3, 0), 2000))} == {0, 1, 2, 3}

    def test_each_is_looked_at_in_time(self, traffic):
        """Once a second, and when a timer is due; also by those who have no room."""
        traffic.answered(2, 300, 1000)

        assert traffic.next_due_ms(1100) == 200
        assert self.limits(traffic.to_send({0: [commit(0)]}, take(1, 0), 1301)) == {2: 0, 0: 0}
        traffic.answered(2, None, 1301)
        sent = traffic.to_send({0: [commit(0)]}, take(2, 0), 2100)
        assert {*self.limits(sent)} == {0, 1, 3}

    def test_the_same_claim_gets_the_same_calls(self, traffic):
        """Whatever has become known meanwhile, and whatever other lanes do."""
        first = traffic.to_send({}, take(1), 1001)
        traffic.warm(2)
        other = traffic.to_send({}, take(1, lane=1), 1001)

        assert [*other] == [2]
        assert self.limits(traffic.to_send({}, take(1), 1001)) == self.limits(first)
        assert [*traffic.to_send({}, take(2), 1001)] == [2]

    def test_one_that_is_away_is_left_alone_for_a_second(self, traffic):
        traffic.answered(1, 100, 1000)
        (sent,) = traffic.to_send({1: [commit(1)]}, take(), 1001).values()
        traffic.failed(1, AWAY, sent, 1002)

        assert traffic.problem(1002) == "away"
        assert traffic.next_due_ms(1300) == 702  # and no reason to ask before
        assert 1 not in traffic.to_send({1: [commit(1)]}, take(2), 2001)
        assert 1 not in traffic.reachable(2001)
        assert 1 in traffic.reachable(2002)

    def test_one_that_was_silent_is_waited_for_by_one_alone(self, traffic):
        """Longer than before; and it is left alone for twice as long as that took."""
        assert traffic.patience([0, 1]) == 1
        (sent,) = traffic.to_send({1: [commit(1)]}, take(), 1001).values()
        traffic.failed(1, AWAY, sent, 2001, 500)
        traffic.failed(1, AWAY, sent, 2001, 500)

        traffic.failed(2, AWAY, ([], take()), 2500)
        assert {1, 2} <= {*traffic.to_send({1: [commit(1)]}, take(2), 3001)}
        assert (traffic.patience([0, 1]), traffic.patience([0])) == (2, 1)
        others = traffic.to_send({1: [commit(1)], 2: []}, take(1, lane=1), 3002)
        assert not {1, 2} & {*others}
        traffic.failed(1, AWAY, sent, 7001, 4000)
        assert 1 not in traffic.reachable(15000)
        assert 1 in traffic.reachable(15001)
        traffic.answered(1, None, 15001)
        assert traffic.patience([1]) == 1

    def test_what_got_lost_is_made_again_as_it_was(self, traffic):
        """Its claim gets what it was granted then; whoever asks next has to wait for that."""
        (lost,) = traffic.to_send({1: [commit(1)]}, take(1), 1001).values()
        traffic.failed(1, AWAY, lost, 1002)
        again = traffic.to_send({1: [commit(1)] * 2}, take(7, lane=1), 2002)

        assert again[1] == lost
        traffic.answered(1, None, 2002)
        assert traffic.to_send({1: [commit(1)] * 2}, take(8), 2002)[1][0] == [commit(1)] * 2

    def test_what_got_lost_is_made_again_by_its_worker(self, traffic):
        """What it has granted is of that worker's services; others would not know the tasks."""
        (lost,) = traffic.to_send({1: [commit(1)]}, take(1), 1001).values()
        traffic.failed(1, AWAY, lost, 1002)
        other = traffic.to_send({1: [commit(1)]}, take(1, worker="x"), 2002)

        assert other[1] != lost
        traffic.answered(1, None, 2002)
        assert traffic.to_send({1: []}, take(2), 2002)[1] == lost

    def test_of_commands_alone_nothing_is_made_again(self, traffic):
        """Whoever has no answer asks again."""
        traffic.to_send({1: [commit(1)]}, take(1), 1001)
        traffic.failed(1, AWAY, None, 1002)
        assert traffic.to_ask([1, 2], 1002) == [2]

        assert traffic.to_send({1: []}, take(2), 2002)[1][0] == []

    def test_one_that_is_full_has_done_nothing(self, traffic):
        (sent,) = traffic.to_send({1: [commit(1)]}, take(), 1001).values()
        traffic.failed(1, FULL, sent, 1002)

        assert 1 not in traffic.reachable(1101)
        again = traffic.to_send({1: []}, take(2), 1102)
        assert again[1] == ([], take(2))

    def test_when_all_are_away_somebody_has_to_wait(self, traffic):
        for number in range(4):
            assert number == 0 or traffic.problem(1001) == "away"
            traffic.failed(number, AWAY, ([], take()), 1001)

        with pytest.raises(StoreUnavailableError):
            traffic.problem(1002)
        assert traffic.reachable(1002) == []
        traffic.answered(0, None, 2001)
        assert traffic.problem(2001) == ""

    def test_sweeps_are_shared_out(self, traffic):
        assert sum(traffic.sweeps(10, [], 1001).values()) == 10
        assert traffic.sweeps(10, [3], 1001) == {3: 10}
        traffic.answered(1, 5, 1001)
        assert traffic.sweeps(10, [3], 1006) == {1: 5, 3: 5}
