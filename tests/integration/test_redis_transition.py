"""The Lua scripts beside the reference `transition`: same answers, same effects, same state.

Random command sequences, several commands of one run in a batch among them, repeated, stale and
senseless ones; with an outbox and without. The model below holds runs in dictionaries, moved on by
`transition`, and builds queues, timers and lists from its effects alone.
"""

import copy
import itertools
import uuid
from collections import defaultdict

import attrs
import msgspec
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from pwf_core.commands import (
    Answer,
    Bury,
    Cancel,
    Claim,
    Collect,
    Commit,
    Drop,
    Emit,
    Fire,
    Granted,
    Message,
    Postpone,
    Postponement,
    Renew,
    Requeue,
    Settle,
    Start,
    Started,
)
from pwf_core.decisions import Decision, NewCall, NewGather, NewJoin
from pwf_core.effects import (
    BuryCall,
    ClearTimer,
    DeleteRun,
    EndRun,
    Enqueue,
    SetTimer,
    UnburyCall,
)
from pwf_core.ids import derive_call_id
from pwf_core.names import service_of
from pwf_core.ports import Applied, Exchanged, Take
from pwf_core.staging import in_parts
from pwf_core.state import Rules, RunState, view
from pwf_core.steps import drive
from pwf_core.transition import transition
from pwf_core.views import Phase

redis = pytest.importorskip("redis")

from pwf_core.adapters import Url  # noqa: E402
from pwf_redis.checks import Facts  # noqa: E402
from pwf_redis.keys import Keys  # noqa: E402
from pwf_redis.links import BlockingLinks  # noqa: E402
from pwf_redis.operations import Operations  # noqa: E402
from pwf_redis.records import decode_run, outcome_of  # noqa: E402
from pwf_redis.target import Target  # noqa: E402

pytestmark = pytest.mark.redis

START_MS = 1_800_000_000_000
SWEEP = 256


# -- the model ------------------------------------------------------------------------------------


@attrs.define
class Model:
    """What the reference makes of the same commands."""

    rules: Rules
    now_ms: int = START_MS
    runs: dict = attrs.field(factory=dict)
    keys: dict = attrs.field(factory=dict)
    due: dict = attrs.field(factory=dict)
    dead: dict = attrs.field(factory=dict)
    queues: dict = attrs.field(factory=lambda: defaultdict(list))
    enqueued: list = attrs.field(factory=list)
    ends: list = attrs.field(factory=list)
    taken: dict = attrs.field(factory=dict)

    def apply(self, commands, sweep):
        self.sweep(sweep)
        replies = [self.do(one) for one in commands]
        enqueued, self.enqueued = self.enqueued, []
        return Applied(replies, enqueued, self.next_due_ms())

    def exchange(self, commands, take):
        session, _, number = take.claim_id.partition(":")
        before = self.taken.get(session)
        if before is not None and before[0] == take.claim_id:
            _, replies, claims = before
            grants = [one for one in map(self.do, claims) if isinstance(one, Granted)]
            replies = [
                self.do(command) if isinstance(reply, Granted) else reply
                for command, reply in zip(commands, replies, strict=True)
            ]
            return Exchanged(replies, grants, self.next_due_ms())
        self.sweep(SWEEP)
        replies = [self.do(one) for one in commands]
        is_late = before is not None and int(before[0].partition(":")[2]) > int(number)
        if is_late:
            take = msgspec.structs.replace(take, limit=0)
        turn = int(number) % len(take.services)
        grants, claims = self.take(take, (*take.services[turn:], *take.services[:turn]))
        if not is_late and (commands or claims or not take.limit):
            self.taken[session] = (take.claim_id, replies, claims)
        return Exchanged(replies, grants, self.next_due_ms())

    def take(self, take, services):
        grants, claims, suspects = [], [], take.suspects
        waiting = [self.queues[service] for service in services]
        while len(grants) < take.limit and any(waiting):
            for queue in waiting:
                granted = len(grants) == take.limit
                while queue and not granted:
                    message = queue.pop(0)
                    claim = Claim(
                        message.run_id,
                        message.call_id,
                        message.generation,
                        take.claim_id,
                        take.lease_ms,
                        suspects,
                    )
                    reply = self.do(claim)
                    granted = isinstance(reply, Granted)
                    if granted:
                        grants.append(reply)
                        claims.append(msgspec.structs.replace(claim, generation=-1))
                        suspects = suspects and not reply.suspect
        return grants, claims

    def sweep(self, limit):
        late = sorted((due, name) for name, due in self.due.items() if due <= self.now_ms)
        for due, name in late[:limit]:
            if self.due.get(name) != due:
                continue
            del self.due[name]
            run_id, call_id, _ = name.split(":", 2)
            is_rest = run_id in self.runs and call_id in self.runs[run_id].rests
            self.do(Fire(run_id, call_id))
            if is_rest:
                break

    def next_due_ms(self):
        return max(min(self.due.values()) - self.now_ms, 0) if self.due else None

    def do(self, command):
        if isinstance(command, Start):
            known = self.keys.get(command.key) if command.key else None
            if known is not None:
                return Started(known[0], created=False, conflict=known[1] != command.fingerprint)
            if command.run_id in self.runs:
                return Started(command.run_id, created=False)
            self.runs[command.run_id] = RunState(command.run_id)
            if command.key:
                self.keys[command.key] = (command.run_id, command.fingerprint)
        run = self.runs.get(command.run_id)
        if run is None:
            return Answer.ENDED
        reply, effects = transition(run, command, self.rules, self.now_ms)
        for effect in effects:
            self.perform(run.run_id, effect)
        return reply

    def perform(self, run_id, effect):
        match effect:
            case Enqueue(call_id, generation, address):
                message = Message(run_id, call_id, generation, address)
                if self.rules.paired:
                    self.enqueued.append(message)
                else:
                    self.queues[service_of(address)].append(message)
            case SetTimer(call_id, due_ms, address):
                self.due[f"{run_id}:{call_id}:{service_of(address)}"] = due_ms
            case ClearTimer(call_id, address):
                self.due.pop(f"{run_id}:{call_id}:{service_of(address)}", None)
            case BuryCall(call_id, address):
                self.dead[f"{run_id}:{call_id}:{service_of(address)}"] = self.now_ms
            case UnburyCall(call_id, address):
                self.dead.pop(f"{run_id}:{call_id}:{service_of(address)}", None)
            case EndRun(outcome):
                self.ends.append((run_id, outcome))
            case DeleteRun():
                del self.runs[run_id]


# -- the real thing -------------------------------------------------------------------------------


class Real:
    """The same on a Redis server, in a namespace of its own."""

    def __init__(self, target, server, rules):
        self.links = BlockingLinks(target)
        self.operations = Operations(Keys(uuid.uuid4().hex), rules, Facts(target.where))
        self.operations.now_ms = START_MS
        self.drive(self.operations.open())
        self.server = server
        self.keys = self.operations.keys
        self.ears = server.pubsub(ignore_subscribe_messages=True)
        self.ears.psubscribe(self.keys.done("*"))
        self.ears.get_message(timeout=5)

    def close(self):
        self.ears.close()
        self.links.close()
        for key in self.server.scan_iter(f"{self.keys.prefix}*", count=1000):
            self.server.delete(key)

    def drive(self, steps):
        return drive(steps, lambda effect: self.links.ask(effect.commands))

    def runs(self):
        prefix = self.keys.run("")
        return {
            key.decode()[len(prefix) :]: decode_run(
                key.decode()[len(prefix) :], self.server.hgetall(key)
            )
            for key in self.server.scan_iter(f"{prefix}*", count=1000)
        }

    def index(self, key):
        return {
            member.decode(): int(score)
            for member, score in self.server.zrange(key, 0, -1, withscores=True)
        }

    def queue(self, service):
        # Several messages share an entry, each as a field of the same name.
        script = "return redis.call('XRANGE', KEYS[1], '-', '+')"
        return [
            tuple(field.decode().split(":"))
            for _, fields in self.server.eval(script, 1, self.keys.queue(service))
            for field in fields[1::2]
        ]

    def ends(self, count):
        """What was published; *count* messages are expected, and a fence after them."""
        heard = []
        self.server.publish(self.keys.done("fence"), b"")
        while True:
            message = self.ears.get_message(timeout=5)
            assert message is not None, f"{count} ends expected, heard {heard}"
            run_id = message["channel"].decode().rpartition(":")[2]
            if run_id == "fence":
                return heard
            heard.append((run_id, outcome_of(message["data"])))


@pytest.fixture(scope="module")
def target(redis_url):
    return Target.of_url(Url.parse(redis_url))


@pytest.fixture(scope="module")
def server(redis_url):
    client = redis.Redis.from_url(redis_url)
    yield client
    client.close()


def compare(model, real):
    """Everything that can be seen of both is the same."""
    assert real.runs() == model.runs
    assert real.index(real.keys.due) == model.due
    assert real.index(real.keys.dead) == model.dead
    for service, messages in model.queues.items():
        expected = [(one.run_id, one.call_id, str(one.generation)) for one in messages]
        found = real.queue(service)
        taken = len(found) - len(expected)  # at most all but one of an entry, which stays with that
        assert 0 <= taken < (8 if expected else 1)
        assert found[taken:] == expected
    expected, model.ends = model.ends, []
    assert sorted(real.ends(len(expected)), key=str) == sorted(expected, key=str)


# -- commands -------------------------------------------------------------------------------------

ADDRESSES = st.sampled_from(["a.one", "a.two", "b.one"])
EVENTS = st.sampled_from(["e", "f", "g.ö"])
PAYLOADS = st.sampled_from([b"", b"\x00'\"\xff", b"x" * 300, b"y" * 600, b"\x90", b"1"])
CLAIMS = st.sampled_from(["w:1", "w:2", "v:1"])
LEASES = st.sampled_from([1, 500, 30_000])
REASONS = st.sampled_from(["", "boom", "Übel: 'x' \n\t\x00"])
RUNS = [uuid.UUID(int=number).hex for number in range(1, 4)]


@attrs.define
class Names:
    """Draws commands: such as the state invites, and such as make no sense."""

    model: Model
    known: dict = attrs.field(factory=lambda: defaultdict(list))

    def batch(self, draw, size):
        """Commands that build on each other; none of them has been applied yet."""
        real, self.model = self.model, copy.deepcopy(self.model)
        commands = []
        for _ in range(size):
            sensible = draw(st.integers(0, 4)) > 0
            for one in self.parts(draw, self.sensible(draw) if sensible else self.any(draw)):
                commands.append(one)
                self.model.do(one)
        self.model = real
        return commands

    def parts(self, draw, command):
        """Now and then a decision in small parts, of which one may get lost."""
        if not isinstance(command, Commit) or draw(st.integers(0, 2)):
            return [command]
        parts = list(in_parts(command, draw(st.integers(0, 2))))
        if draw(st.integers(0, 5)) == 0:
            del parts[draw(st.integers(0, len(parts) - 1))]
        return parts

    def sensible(self, draw):
        """Something that moves a run on."""
        open_calls = [
            (run_id, call_id, call)
            for run_id, run in self.model.runs.items()
            for call_id, call in run.calls.items()
        ]
        unused = [run_id for run_id in RUNS if run_id not in self.model.runs]
        if unused and (not open_calls or draw(st.integers(0, 5)) == 0):
            return self.start(draw, unused[0])
        waiting = [
            (run_id, event)
            for run_id, run in self.model.runs.items()
            for event in sorted(run.waiting)
        ]
        if waiting and (not open_calls or draw(st.integers(0, 5)) == 0):
            run_id, event = draw(st.sampled_from(waiting))
            return Emit(run_id, event, draw(PAYLOADS))
        if not open_calls:
            return self.any(draw)
        run_id, call_id, call = draw(st.sampled_from(open_calls))
        suspects = draw(st.integers(0, 3)) > 0
        choices = {
            Phase.OUTBOX: (Claim, Claim, Settle, Drop, Fire),
            Phase.QUEUED: (Claim, Claim, Claim, Claim, Drop),
            Phase.LEASED: (
                *[Commit] * 10,
                Renew,
                Bury,
                Bury,
                Postpone,
                Postpone,
                Fire,
                Claim,
                Collect,
            ),
            Phase.TIMED: (Fire, Fire, Drop),
            Phase.PARKED: (Fire, Fire, Drop),
            Phase.DEAD: (Requeue, Requeue, Drop, Fire, Claim),
        }
        kind = draw(st.sampled_from(choices[call.phase]))
        if kind is Claim:
            newer = draw(st.sampled_from([0, 0, 0, 0, 0, 1]))
            generation = call.generation + newer
            return Claim(run_id, call_id, generation, draw(CLAIMS), draw(LEASES), suspects)
        if kind is Drop:
            return Drop(run_id, call_id, call.phase is Phase.DEAD, draw(REASONS))
        if kind is Settle:
            return Settle(run_id, call_id, call.generation)
        return self.make(draw, kind, run_id, call_id, call.claim_id)

    def any(self, draw):
        """Something that may be late, repeated, or wrong."""
        run_id = draw(st.sampled_from([*RUNS, "0" * 32]))
        run = self.model.runs.get(run_id)
        call_id = draw(
            st.sampled_from([*(run.calls if run else ()), *self.known[run_id][-4:], "f" * 32]),
        )
        call = run.calls.get(call_id) if run else None
        kind = draw(
            st.sampled_from(
                [Start, Claim, Renew, Commit, Postpone, Bury, Emit, Settle, Fire, Requeue, Drop] * 2
                + [Cancel, Collect],
            ),
        )
        claim_ids = [call.claim_id, "w:1"] if call else ["w:1"]
        if kind is Start:
            return self.start(draw, run_id)
        if kind is Emit:
            return Emit(run_id, draw(EVENTS), draw(PAYLOADS))
        if kind is Cancel:
            return Cancel(run_id, draw(REASONS))
        if kind is Drop:
            return Drop(run_id, call_id, draw(st.booleans()), draw(REASONS))
        if kind in {Claim, Settle}:
            generation = draw(st.integers(0, 2)) + (call.generation if call else 0)
            generation = max(generation - 1, 0)
            if kind is Settle:
                return Settle(run_id, call_id, generation)
            suspects = draw(st.booleans())
            return Claim(run_id, call_id, generation, draw(CLAIMS), draw(LEASES), suspects)
        return self.make(draw, kind, run_id, call_id, draw(st.sampled_from(claim_ids)))

    def start(self, draw, run_id):
        call = self.new(draw, run_id, run_id, "root", defaultdict(itertools.count))
        key = draw(st.sampled_from(["", "", "", "k", "schlüssel:'"]))
        return Start(run_id, call, key, draw(st.sampled_from(["p", "p", "q"])))

    def make(self, draw, kind, run_id, call_id, claim_id):
        if kind is Fire:
            run = self.model.runs.get(run_id)
            others = [*run.joins, *run.rests] if run else []
            return Fire(run_id, draw(st.sampled_from([call_id, call_id, "", *others])))
        if kind is Requeue:
            return Requeue(run_id, call_id)
        if kind is Collect:
            return Collect(run_id, call_id, claim_id, draw(st.integers(0, 2)))
        if kind is Renew:
            return Renew(run_id, call_id, claim_id, draw(LEASES))
        if kind is Commit:
            return Commit(run_id, call_id, claim_id, self.decision(draw, run_id, call_id))
        if kind is Bury:
            return Bury(run_id, call_id, claim_id, draw(REASONS))
        why, delay_ms = (
            draw(st.sampled_from(list(Postponement))),
            draw(st.sampled_from([0, 0, 400])),
        )
        return Postpone(run_id, call_id, claim_id, why, delay_ms, draw(REASONS))

    def new(self, draw, run_id, parent, kind, ordinals):
        address = draw(ADDRESSES)
        ordinal = next(ordinals[kind, address])
        call_id = derive_call_id(parent, kind, address, ordinal)
        self.known[run_id].append(call_id)
        delay_ms, due_ms = draw(
            st.sampled_from(
                [(0, 0), (0, 0), (0, 0), (700, 0), (0, 5), (0, START_MS + 2_000)],
            ),
        )
        return NewCall(call_id, address, draw(PAYLOADS), delay_ms, due_ms)

    def decision(self, draw, run_id, parent):
        ordinals = defaultdict(itertools.count)
        many = st.sampled_from([0, 0, 1, 2])
        return Decision(
            calls=tuple(
                self.new(draw, run_id, parent, "publish", ordinals) for _ in range(draw(many))
            ),
            emits=tuple((draw(EVENTS), draw(PAYLOADS)) for _ in range(draw(many))),
            joins=tuple(
                NewJoin(
                    self.new(draw, run_id, parent, "join", ordinals),
                    events := tuple(draw(st.lists(EVENTS, min_size=1, max_size=3, unique=True))),
                    tuple(draw(st.lists(st.sampled_from(events), max_size=2, unique=True))),
                    timeout_ms := draw(st.sampled_from([0, 0, 300, 900])),
                    self.new(draw, run_id, parent, "timeout", ordinals)
                    if timeout_ms and draw(st.booleans())
                    else None,
                )
                for _ in range(draw(many))
            ),
            gathers=tuple(
                NewGather(
                    self.new(draw, run_id, parent, "gather", ordinals),
                    tuple(
                        self.new(draw, run_id, parent, "member", ordinals)
                        for _ in range(draw(st.integers(0, 3)))
                    ),
                    draw(st.sampled_from([0, 0, 1, 3])),
                )
                for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2])))
            ),
            result=draw(st.none() | PAYLOADS),
        )


RULES = st.builds(
    Rules,
    paired=st.booleans(),
    retention_ms=st.sampled_from([0, 1500, 10_000]),
    dead_retention_ms=st.sampled_from([1000, 20_000]),
)


# -- laws -----------------------------------------------------------------------------------------


@given(data=st.data(), rules=RULES)
def test_store_does_what_the_reference_does(target, server, data, rules):
    """Whatever is asked, in whatever batches; those of starts alone have a script of their own."""
    model, real = Model(rules), Real(target, server, rules)
    names = Names(model)
    try:
        for _ in range(data.draw(st.integers(3, 12), label="batches")):
            model.now_ms += data.draw(st.sampled_from([0, 1, 600, 3000]), label="time passes")
            real.operations.now_ms = model.now_ms
            if data.draw(st.integers(0, 3), label="nothing but starts") == 0:
                wanted = data.draw(st.lists(st.sampled_from(RUNS), min_size=1, max_size=3))
                batch = [names.start(data.draw, run_id) for run_id in wanted]
            else:
                batch = names.batch(data.draw, data.draw(st.integers(1, 12)))
            if batch and data.draw(st.integers(0, 4)) == 0:
                batch += batch[: data.draw(st.integers(1, len(batch)))]
            sweep = data.draw(st.sampled_from([0, 1, SWEEP]), label="sweep")
            expected = model.apply(batch, sweep)
            answer = real.drive(real.operations.apply(batch, sweep=sweep))

            note(f"{batch} at {model.now_ms} -> {expected}")
            assert answer.replies == expected.replies
            assert sorted(answer.enqueued, key=str) == sorted(expected.enqueued, key=str)
            if (
                rules.paired or answer.next_due_ms is not None
            ):  # no client asks a backend of its own for it
                assert answer.next_due_ms == expected.next_due_ms
            compare(model, real)
            for run_id, seen in zip(RUNS, real.drive(real.operations.read(RUNS)), strict=True):
                run = model.runs.get(run_id)
                assert (seen is None) == (run is None)
                if run is not None:
                    wanted = view(run)
                    assert seen.outcome == wanted.outcome
                    assert set(seen.calls) == set(wanted.calls)
                    assert set(seen.joins) == set(wanted.joins)
                    assert set(seen.events) == set(wanted.events)
    finally:
        real.close()


@given(data=st.data(), rules=RULES.map(lambda rules: attrs.evolve(rules, paired=False)))
def test_backend_does_what_the_reference_does(target, server, data, rules):
    """Workers that exchange, die, repeat themselves and take from two services."""
    model, real = Model(rules), Real(target, server, rules)
    names = Names(model)
    numbers, grants, last, takes = itertools.count(1), [], None, []
    try:
        starts = [
            Start(
                run_id, names.new(data.draw, run_id, run_id, "root", defaultdict(itertools.count))
            )
            for run_id in RUNS
        ]
        assert (
            real.drive(real.operations.apply(starts, sweep=0)).replies
            == model.apply(starts, 0).replies
        )
        for _ in range(data.draw(st.integers(3, 15), label="exchanges")):
            model.now_ms += data.draw(st.sampled_from([0, 1, 600, 3000]), label="time passes")
            real.operations.now_ms = model.now_ms
            if last is not None and data.draw(st.integers(0, 5)) == 0:
                commands, take = last  # its reply was lost
            elif takes and data.draw(st.integers(0, 5)) == 0:
                commands, take = [], data.draw(st.sampled_from(takes))
                if data.draw(st.booleans()):  # a wait that is given up, or one that comes late
                    take = msgspec.structs.replace(take, limit=0)
            else:
                done = [grant for grant in grants if data.draw(st.integers(0, 3))]
                grants = [grant for grant in grants if grant not in done]
                commands = [
                    Commit(
                        grant.run_id,
                        grant.call_id,
                        grant.claim_id,
                        names.decision(data.draw, grant.run_id, grant.call_id),
                    )
                    for grant in done
                ]
                others = names.batch(data.draw, data.draw(st.integers(0, 3)))
                commands += [
                    one for one in others if not isinstance(one, Start)
                ]  # as `exchange` says
                worker = data.draw(st.sampled_from("wv"))
                take = Take(
                    data.draw(st.sampled_from([("a",), ("a", "b"), ("b", "a", "c")])),
                    data.draw(st.sampled_from([0, 1, 2, 64])),
                    f"{worker}:{next(numbers)}",
                    data.draw(LEASES),
                    data.draw(st.booleans()),
                )
                last = commands, take
                takes += [] if commands else [take]
            expected = model.exchange(commands, take)
            answer = real.drive(real.operations.exchange(commands, take))

            note(f"{commands} {take} at {model.now_ms} -> {expected}")
            assert answer == expected
            compare(model, real)
            grants += [grant for grant in answer.grants if grant not in grants]
    finally:
        real.close()
