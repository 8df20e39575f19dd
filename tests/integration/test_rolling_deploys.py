"""What other versions of pwf have left behind, or write beside this one: read, kept, or not touched."""

from __future__ import annotations

import asyncio
import json
import secrets
from operator import itemgetter
from pathlib import Path

import msgspec
import pytest
from tests.golden import payloads
from tests.golden.dump import dump, load
from tests.golden.scenes import SCENES

from pwf import (
    BlockingWorker,
    ConfigurationError,
    RunNotFoundError,
    Service,
    Status,
    Worker,
    connect,
    connect_blocking,
    emit,
    gather,
    join,
    publish,
    result,
)
from pwf_core.commands import Commit, Message, Postpone, Postponement
from pwf_core.decide import decide, directives_in
from pwf_core.errors import CodecError
from pwf_core.ports import Take
from pwf_core.signing import Signer
from pwf_core.wire import decode_messages
from pwf_redis.keys import Keys

redis = pytest.importorskip("redis")

VERSIONS = sorted((Path(__file__).parents[1] / "golden").glob("v*"))
LIMIT = 30.0

# What a later version may append to a record: four values, one after the other.
APPENDED = b"".join(map(msgspec.msgpack.encode, ["later", 7, True, ["x", 2]]))
RECORDS = ("h", "c:", "j:", "n:", "s:")


def contents(version, name):
    return json.loads((version / f"{name}.json").read_text(encoding="utf-8"))


def entries(name):
    """Return the entries of a file in every version, as parameters."""
    return pytest.mark.parametrize(
        "entry",
        [
            pytest.param(entry, id=f"{version.name}-{title}")
            for version in VERSIONS
            for title, entry in contents(version, name).items()
        ],
    )


@pytest.fixture
def server(redis_url):
    with redis.Redis.from_url(redis_url) as server:
        yield server


@pytest.fixture
def namespace():
    return secrets.token_hex(6)


@pytest.fixture
def prefix(namespace):
    return Keys(namespace).prefix


@pytest.fixture(params=["fused", "paired"])
def layout(request):
    return request.param


@pytest.fixture
def options(redis_url, namespace, layout):
    """The arguments of `connect`."""
    store = {"store": redis_url} if layout == "paired" else {}
    return {"url": redis_url, "namespace": namespace, **store}


@pytest.fixture(params=VERSIONS, ids=[one.name for one in VERSIONS])
def left(request, layout):
    """What a version has left in a store of that layout."""
    return contents(request.param, layout)


def append(server, prefix):
    """Append to all records what a later version might."""
    for key in server.scan_iter(f"{prefix}run:*"):
        for field, value in server.hgetall(key).items():
            if field == b"h" or field[:2].decode() in RECORDS:
                server.hset(key, field, value + APPENDED)


def lasting(server, prefix):
    """Return what is stored, but for the tokens that idle workers take."""
    tokens = ("wake:", "ready:")
    found = dump(server, prefix)
    return {name: found[name] for name in found if not name.startswith(tokens)}


class TestFiles:
    def test_there_are_some(self):
        assert VERSIONS

    @entries("messages")
    def test_messages_are_read(self, entry):
        signer = Signer(entry["namespace"], [entry["key"]]) if entry["key"] else None
        sent = [Message(*parts) for parts in entry["messages"]]

        assert decode_messages(bytes.fromhex(entry["body"]), signer, "shop") == sent

    @entries("values")
    def test_values_are_read(self, entry):
        decode = payloads.KINDS[entry["kind"]]

        assert payloads.show(decode(bytes.fromhex(entry["body"]))) == entry["shows"]


@pytest.mark.redis
@pytest.mark.parametrize("later", [False, True], ids=["as-it-was", "with-later-fields"])
class TestStoredRuns:
    def test_are_read_and_go_on_to_their_end(self, server, prefix, options, left, later):
        """Every run that a version has left is seen as it stood, and a worker of today ends it."""
        load(server, prefix, left["keys"])
        if later:
            append(server, prefix)
        with connect_blocking(**options) as client:
            for scene in SCENES:
                was = left["runs"][name(scene)]
                view = json.loads(msgspec.json.encode(client.run(was["run_id"]).view()))
                for one in (view, was["view"]):
                    one["calls"].sort(key=itemgetter("call_id"))  # their order says nothing
                assert part_of(view, was["view"]) == was["view"], name(scene)
                again = client.start(scene.first, key=f"key of {name(scene)}")
                assert again.id == was["run_id"]
            asyncio.run(self.go_on(options, left["runs"]))
            assert client.dead_letters() == []
        assert leftovers(server, prefix) == []

    async def go_on(self, options, runs):
        services = [scene.service for scene in SCENES]
        async with connect(**options) as client, Worker(client, *services):
            letters = {letter.run_id: letter for letter in await client.dead_letters()}
            for scene in SCENES:
                run_id = runs[name(scene)]["run_id"]
                for event, payload in scene.events:
                    assert await client.emit(run_id, event, payload)
                if scene.requeue:
                    assert await client.requeue(letters.pop(run_id))
            assert letters == {}
            for scene in SCENES:
                run = client.run(runs[name(scene)]["run_id"])
                if scene.status is None:
                    await gone(run)
                    continue
                assert await run.wait(timeout=LIMIT) is scene.status, name(scene)
                if scene.status is Status.FINISHED:
                    assert await run.result(timeout=LIMIT) == scene.value, name(scene)


def part_of(found, like):
    """Return *found* without fields that *like* does not have: views may grow."""
    match found, like:
        case dict(), dict():
            return {key: part_of(found.get(key), value) for key, value in like.items()}
        case list(), list() if len(found) == len(like):
            return [part_of(one, other) for one, other in zip(found, like, strict=True)]
    return found


def name(scene):
    return scene.service.name


async def gone(run):
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                await run.status()
            except RunNotFoundError:
                return
            await asyncio.sleep(0.02)


def leftovers(server, prefix):
    """Return what is there beside what retention keeps: outcomes, their timers, and users' keys."""
    found = []
    for key, content in dump(server, prefix).items():
        kind = key.partition(":")[0]
        ((_, what),) = content.items()
        match kind:
            case "run":
                found += [
                    f"{key} {field}" for field in what if field not in {"h", "k", "y", "r::0"}
                ]
            case "due":
                found += [member for member in what if not member.endswith("::")]
            case "queue" | "stream" | "dead":
                found += [f"{key} {one}" for one in what]
            case "wake" | "ready" | "key" | "format":
                pass
            case _:
                found.append(key)
    return found


@pytest.mark.redis
class TestFieldsOfALaterVersion:
    """Records to which a later version of the same format has appended something."""

    @pytest.fixture
    def client(self, redis_url, namespace):
        with connect_blocking(redis_url, namespace=namespace) as client:
            yield client

    def test_stay_with_a_record_that_is_written_again(self, client, server, prefix):
        """Header, call, join and gather keep them through whatever happens to them here."""
        shop = Service("shop")
        take = iter(Take(("shop",), 1, f"w:{number}", 30_000) for number in range(9))

        @shop.task
        def first():
            return (
                join("one", "two", then=publish("shop.last")),
                gather([publish("shop.leaf"), publish("shop.leaf")], then=publish("shop.last")),
            )

        run = client.start(publish(first))
        (grant,) = client.port.exchange([], next(take)).grants
        client.port.apply([committed(grant, first)])
        append(server, prefix)
        before = records(server, prefix, run)
        (grant,) = client.port.exchange([], next(take)).grants  # leases a call
        client.port.apply([committed(grant, result, 1)])  # one of the gather's
        client.emit(run.id, "one")  # one of the join's
        (grant,) = client.port.exchange([], next(take)).grants
        retry = Postpone(
            grant.run_id, grant.call_id, grant.claim_id, Postponement.RETRY, 5_000, "later"
        )
        client.port.apply([retry])
        after = records(server, prefix, run)

        assert {field[:2] for field in after} == {b"h", b"c:", b"j:", b"s:"}
        assert all(after[field] != before[field] for field in after)
        assert all(value.endswith(APPENDED) for value in after.values())
        assert all(value.count(APPENDED) == 1 for value in after.values())

    def test_message_may_have_more_fields(self, client, server, prefix):
        """What follows the field that this version knows is ignored."""
        shop = Service("shop")

        @shop.task
        def first():
            return result("done")

        run = client.start(publish(first))
        queue = f"{prefix}queue:shop"
        ((_, fields),) = server.xrange(queue)
        server.xtrim(queue, maxlen=0)
        server.xadd(queue, {**fields, b"later": b"x"})
        with BlockingWorker(client, shop):
            assert run.result(str, timeout=LIMIT) == "done"


def committed(grant, fn, *args):
    """Return the commit of what *fn* returns."""
    returned = directives_in(grant.address, fn(*args))
    decision = decide(grant.call_id, grant.address, returned)
    return Commit(grant.run_id, grant.call_id, grant.claim_id, decision)


def records(server, prefix, run):
    found = server.hgetall(f"{prefix}run:{run.id}")
    return {field: value for field, value in found.items() if field[:2].decode() in RECORDS}


@pytest.mark.redis
class TestLaterFormat:
    """A namespace that a later version has taken over, by writing its own format there."""

    def test_is_refused_at_the_start(self, server, prefix, options, layout):
        server.set(f"{prefix}format", f"2 {layout}")
        before = dump(server, prefix)
        with (
            pytest.raises(ConfigurationError, match=rf"'2 {layout}'.*Upgrade"),
            connect_blocking(**options),
        ):
            pass

        assert dump(server, prefix) == before

    def test_stops_clients_and_workers_that_were_there_before(
        self, server, prefix, options, layout, caplog
    ):
        """They change nothing any more, not even what they have in hand, and say why they stop."""
        shop, started, finish = Service("shop"), asyncio.Event(), asyncio.Event()

        @shop.task
        async def held():
            started.set()
            await finish.wait()
            return emit("done"), result(1)

        async def main():
            async with connect(**options) as client:
                worker = Worker(client, shop)
                async with asyncio.timeout(LIMIT):
                    await worker.__aenter__()
                    await client.start(publish(held))
                    await started.wait()
                    server.set(f"{prefix}format", f"2 {layout}")
                    before = lasting(server, prefix)
                    finish.set()
                    while worker.health().is_serving:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                    with pytest.raises(ConfigurationError, match=rf"'2 {layout}'.*Upgrade"):
                        await client.start(publish(held))
                    with pytest.raises(ConfigurationError, match="Upgrade"):
                        await worker.close()
                    return before

        assert asyncio.run(main()) == lasting(server, prefix)
        assert "the worker stops: Namespace" in caplog.text
        assert "bug" not in caplog.text

    def test_stops_blocking_workers_as_well(self, server, prefix, options, layout, caplog):
        """At their next look."""
        shop = Service("shop")
        with connect_blocking(**options) as client:
            worker = BlockingWorker(client, shop)
            worker.__enter__()
            server.set(f"{prefix}format", f"2 {layout}")
            worker._ready.set()
            worker._threads[0].join(LIMIT)
            with pytest.raises(ConfigurationError, match="Upgrade"):
                worker.close()

        assert "the worker stops: Namespace" in caplog.text

    def test_of_a_single_run_is_not_read(self, server, prefix, options, layout):
        """Though the namespace has ours: its numbers may mean something else."""
        with connect_blocking(**options) as client:
            run = client.start(publish("shop.first"))
            key = f"{prefix}run:{run.id}"
            server.hset(key, "h", b"\x02" + server.hget(key, "h")[1:])
            with pytest.raises(CodecError, match="format 2 is not known"):
                run.status()
