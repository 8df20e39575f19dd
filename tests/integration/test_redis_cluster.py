"""A cluster: runs are spread over its nodes, and go on when nodes die, slots move, partitions are added."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.clusters import Node, RedisCluster, ValkeyNode, redis_cluster
from tests.integration.certificates import Authority
from tests.integration.sites import (
    LIMIT,
    Flavour,
    Work,
    eventually,
    free_port,
    fresh_name,
    paired,
    until,
    with_options,
    works,
)

from pwf import ConfigurationError, KeyConflictError, RunNotFoundError, publish
from pwf.testing.servers import LOOPBACK, RedisServer
from pwf_core.ids import place_in

pytest.importorskip("redis")

from pwf_redis.keys import Keys

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def cluster(redis_server: RedisServer) -> Iterator[RedisCluster]:
    """Three masters; `redis_server` is asked for so that absence is said alike."""
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
def space() -> str:
    """A namespace that nobody has used."""
    return fresh_name()


@pytest.fixture
def url(cluster: RedisCluster, space: str) -> str:
    """The URL of a namespace of six partitions."""
    return beside("", cluster, space)


@pytest.fixture(params=["alone", "with streams"])
def broker(request: pytest.FixtureRequest, redis_server: RedisServer) -> str:
    """What carries messages: the URL of a broker beside the cluster, or "" for the cluster itself."""
    return "" if request.param == "alone" else redis_server.url


def beside(broker: str, cluster: RedisCluster, space: str) -> str:
    """Return the URL of a namespace of six partitions."""
    if not broker:
        return with_options(cluster.url, namespace=space, partitions=6)
    return paired(broker, with_options(cluster.url, partitions=6), namespace=space)


def slot_of(run: Any, space: str) -> int:
    """Return where a run is."""
    return Keys(space, place_in(run.id) or 0).slot


async def chains(client: Any, count: int = 60, steps: int = 5) -> list[Any]:
    """Start many short runs, all over the partitions."""
    return list(await client.start_many([publish("work.chain", steps) for _ in range(count)]))


async def done(runs: list[Any]) -> None:
    """Check that all finish."""
    assert [await run.result(timeout=LIMIT) for run in runs] == ["done"] * len(runs)


def test_runs_are_spread_over_the_nodes(
    flavour: Flavour, cluster: RedisCluster, url: str, space: str, work: Work
) -> None:
    async def main() -> None:
        async with flavour.client(url) as client, flavour.worker(client, work.service):
            runs = await chains(client, 300)  # drawn: none is left out but once in 10^23 times
            assert {place_in(run.id) for run in runs} == {*range(6)}
            assert {cluster.master_of(slot_of(run, space)) for run in runs} == {*cluster.masters}
            await done(runs)
            keyed = await client.start(publish("work.chain", 1), key="order-7")
            again = await client.start(publish("work.chain", 1), key="order-7")
            assert keyed.id == again.id
            with pytest.raises(KeyConflictError):
                await client.start(publish("work.chain", 2), key="order-7")

    asyncio.run(main())


def test_valkey(flavour: Flavour, redis_server: RedisServer, work: Work) -> None:
    """A later Redis, by another name."""

    async def main(cluster: RedisCluster) -> None:
        async with flavour.client(cluster.url) as client, flavour.worker(client, work.service):
            await done(await chains(client))

    with redis_cluster(kind=ValkeyNode) as cluster:
        asyncio.run(main(cluster))


@pytest.mark.rabbit
def test_cluster_is_a_store(
    flavour: Flavour, amqp_url: str, cluster: RedisCluster, space: str, work: Work
) -> None:
    """RabbitMQ carries the messages."""

    async def main() -> None:
        url = beside(amqp_url, cluster, space)
        async with flavour.client(url) as client, flavour.worker(client, work.service):
            await done(await chains(client))

    asyncio.run(main())


def test_node_that_hangs_holds_up_nobody_else(
    flavour: Flavour, cluster: RedisCluster, broker: str, space: str, work: Work
) -> None:
    """Its runs wait for it; the worker says so, and runs the others meanwhile."""
    url = beside(broker, cluster, space)

    async def main() -> None:
        async with (
            flavour.client(url) as client,
            flavour.client(url) as other,
            flavour.worker(other, work.service, lease=timedelta(minutes=1)) as worker,
        ):
            held = await client.start_many([publish("work.hold") for _ in range(12)])
            await eventually(lambda: len(work.held) == 12)
            places = {run.id: cluster.master_of(slot_of(run, space)) for run in held}
            node = places[held[0].id]
            there = [run for run in held if places[run.id] is node]
            here = [run for run in held if places[run.id] is not node]
            assert here
            node.pause()
            try:
                work.go.set()
                async with asyncio.timeout(LIMIT / 4):  # a node's time-out is longer
                    await until(lambda one: "did not answer" in one.problem, flavour, worker)
                    await done(here)
            finally:
                node.resume()
            await done(there)
            assert work.held == [1] * 12
            await until(lambda one: not one.problem, flavour, worker)

    asyncio.run(main())


@pytest.mark.rabbit
def test_messages_for_a_node_that_hangs_hold_up_no_others(
    flavour: Flavour, amqp_url: str, cluster: RedisCluster, space: str, work: Work
) -> None:
    """Though RabbitMQ gives out only so many at a time; and they are not lost."""
    url = beside(amqp_url, cluster, space)

    async def main() -> None:
        async with flavour.client(url) as client, flavour.client(url) as other:
            runs = await chains(client, 300, 2)
            nodes = [cluster.master_of(slot_of(run, space)) for run in runs]
            silent = max(cluster.masters, key=nodes.count)
            there = [run for run, node in zip(runs, nodes, strict=True) if node is silent]
            here = [run for run, node in zip(runs, nodes, strict=True) if node is not silent]
            assert len(there) > 64  # the prefetch
            assert here
            silent.pause()
            try:
                async with flavour.worker(other, work.service) as worker:
                    async with asyncio.timeout(LIMIT):
                        await done(here)
                    assert "did not answer" in (await flavour.health(worker)).problem
                    silent.resume()
                    async with asyncio.timeout(LIMIT):  # and not of a minute
                        await done(there)
                    await until(lambda one: not one.problem, flavour, worker)
            finally:
                silent.resume()

    asyncio.run(main())


def test_slot_moves_while_work_goes_on(
    flavour: Flavour, cluster: RedisCluster, url: str, space: str, work: Work
) -> None:
    """Its partition waits until all its keys are together again; no step is taken in between."""

    async def main() -> None:
        async with flavour.client(url) as client, flavour.worker(client, work.service):
            held = await client.start_many([publish("work.hold") for _ in range(12)])
            await eventually(lambda: len(work.held) == 12)
            slot = slot_of(held[0], space)
            source = cluster.master_of(slot)
            target = next(node for node in cluster.masters if node is not source)
            runs = await chains(client, steps=30)
            await asyncio.to_thread(cluster.move, slot, target)
            work.go.set()
            await done(runs)
            await done(held)
            assert work.held == [1] * 12
            await done(await chains(client))

    asyncio.run(main())


class TestAddingPartitions:
    """They are added by whoever connects with a larger number; nothing moves."""

    def test_while_work_goes_on(
        self, flavour: Flavour, cluster: RedisCluster, space: str, work: Work
    ) -> None:
        small, large = (
            with_options(cluster.url, namespace=space, partitions=number) for number in (2, 6)
        )

        async def main() -> None:
            async with flavour.client(small) as client, flavour.worker(client, work.service):
                held = await client.start_many([publish("work.hold") for _ in range(8)])
                keys = [f"order-{n}" for n in range(20)]
                keyed = await client.start_many([publish("work.chain", 1)] * 20, keys=keys)
                await eventually(lambda: len(work.held) == 8)
                async with flavour.client(large) as other:
                    assert other.capabilities.partitions == 6
                    runs = await chains(other)  # the worker has never heard of their partitions
                    await done(runs)
                    again = await other.start_many([publish("work.chain", 1)] * 20, keys=keys)
                    assert [run.id for run in again] == [run.id for run in keyed]
                    fresh = await other.start_many(
                        [publish("work.chain", 1)] * 20, keys=[f"{k}x" for k in keys]
                    )
                    assert max(place_in(run.id) or 0 for run in fresh) > 1
                    known = await client.start_many(
                        [publish("work.chain", 1)] * 20, keys=[f"{k}x" for k in keys]
                    )
                    assert [run.id for run in known] == [run.id for run in fresh]
                    assert await client.run(runs[-1].id).result(timeout=LIMIT) == "done"
                assert client.capabilities.partitions == 6
                await done(await chains(client))
                work.go.set()
                await done(held)
                await done([client.run(run.id) for run in [*keyed, *fresh]])
                assert work.held == [1] * 8

        asyncio.run(main())

    def test_it_is_finished_by_the_next_if_who_began_it_dies(
        self, flavour: Flavour, cluster: RedisCluster, space: str, work: Work
    ) -> None:
        small = with_options(cluster.url, namespace=space, partitions=2)

        async def main() -> None:
            async with flavour.client(small) as client, flavour.worker(client, work.service):
                await works(client)
                keys = Keys(space)
                node = cluster.master_of(keys.slot)
                assert node.ask("GET", keys.format) == b"1 fused 2"
                node.ask("SET", keys.format, "1 fused 2>3")
                await works(
                    client
                )  # or in the other partition, which is told by the one that finishes
                await eventually(lambda: client.capabilities.partitions == 3)
                assert node.ask("GET", keys.format) == b"1 fused 2 3"
                await done(await chains(client))

        asyncio.run(main())

    def test_partition_that_a_failover_has_taken_back_is_brought_along(
        self, flavour: Flavour, cluster: RedisCluster, space: str, work: Work
    ) -> None:
        """Its replica, in the place of its master now, had not heard of the latest layout."""
        small, large = (
            with_options(cluster.url, namespace=space, partitions=number) for number in (2, 6)
        )

        async def main() -> None:
            async with flavour.client(small), flavour.client(large):
                pass
            async with flavour.client(small) as client, flavour.worker(client, work.service):
                for number in (1, 0):
                    keys = Keys(space, number)
                    node = cluster.master_of(keys.slot)
                    node.ask("SET", keys.format, "1 fused 2")
                    await done(await chains(client))
                    assert node.ask("GET", keys.format) == b"1 fused 2 6"

        asyncio.run(main())

    def test_a_smaller_number_takes_none_away(
        self, flavour: Flavour, cluster: RedisCluster, url: str, space: str
    ) -> None:
        async def main() -> None:
            async with flavour.client(url):
                pass
            small = with_options(cluster.url, namespace=space, partitions=2)
            async with flavour.client(small) as client:
                assert client.capabilities.partitions == 6
                with pytest.raises(RunNotFoundError):
                    await client.run("0" * 32 + "-200").status()

        asyncio.run(main())


class TestWhatIsNoCluster:
    """One line says what was found, and what to write."""

    async def refused(self, flavour: Flavour, url: str) -> str:
        with pytest.raises(ConfigurationError) as caught:
            async with flavour.client(url) as client:
                await client.dead_letters()
        return str(caught.value)

    def test_server_alone(self, flavour: Flavour, redis_server: RedisServer) -> None:
        text = asyncio.run(self.refused(flavour, f"redis+cluster://{LOOPBACK}:{redis_server.port}"))
        assert "connect to redis://" in text

    def test_node_taken_for_a_server(self, flavour: Flavour, cluster: RedisCluster) -> None:
        slots = Keys("default").slot
        elsewhere = next(one for one in cluster.masters if one is not cluster.master_of(slots))
        text = asyncio.run(self.refused(flavour, f"redis://{LOOPBACK}:{elsewhere.port}"))
        assert "connect to redis+cluster://" in text

    def test_namespace_of_several_partitions(
        self, flavour: Flavour, cluster: RedisCluster, url: str, space: str
    ) -> None:
        async def main() -> None:
            async with flavour.client(url):
                pass
            node = cluster.master_of(Keys(space).slot)
            one = with_options(f"redis://{LOOPBACK}:{node.port}/0", namespace=space)
            assert "connect to redis+cluster://" in await self.refused(flavour, one)

        asyncio.run(main())


def test_encrypted(flavour: Flavour, redis_server: RedisServer, tmp_path: Path, work: Work) -> None:
    """Nodes show certificates, and want to see one."""
    authority = Authority(tmp_path)
    cert, key = authority.sign("server")
    ours = dict(zip(("certfile", "keyfile"), authority.sign("client"), strict=True))
    tls = [f"tls-cert-file {cert}", f"tls-key-file {key}", f"tls-ca-cert-file {authority.ca}"]
    port = free_port()

    async def main(node: Node) -> None:
        node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        await eventually(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"))
        url = with_options(f"rediss+cluster://{LOOPBACK}:{port}", **ours, ca_certs=authority.ca)
        async with flavour.client(url) as client, flavour.worker(client, work.service):
            await done(await chains(client))

    with Node(*tls, f"tls-port {port}", "tls-cluster yes") as node:
        asyncio.run(main(node))


def test_master_dies(flavour: Flavour, broker: str, space: str, work: Work) -> None:
    """Its replica takes its place: what that has goes on then, and the other masters never wait."""

    async def main(cluster: RedisCluster) -> None:
        url = beside(broker, cluster, space)
        async with (
            flavour.client(url) as client,
            flavour.worker(client, work.service, lease=timedelta(minutes=1)) as worker,
        ):
            held = await client.start_many([publish("work.hold") for _ in range(12)])
            await eventually(lambda: len(work.held) == 12)
            runs = await chains(client, 30, 200)
            places = {run.id: cluster.master_of(slot_of(run, space)) for run in [*held, *runs]}
            node = places[held[0].id]
            there = [run for run in [*held, *runs] if places[run.id] is node]
            here = [run for run in held if places[run.id] is not node]
            longer = [run for run in runs if places[run.id] is not node]
            assert here
            assert longer
            waiting = asyncio.create_task(held[0].result(timeout=3 * LIMIT))
            heir = cluster.replicas[cluster.masters.index(node)]
            # It waits until it is told, for as long as that takes.
            heir.ask("CONFIG", "SET", "cluster-replica-no-failover", "yes")
            heir.ask("CONFIG", "SET", "cluster-replica-validity-factor", 0)
            await asyncio.to_thread(cluster.replicated)
            node.kill()
            work.go.set()
            async with asyncio.timeout(LIMIT / 4):
                await done(here)
            await done(longer)
            assert not waiting.done()
            heir.ask("CONFIG", "SET", "cluster-replica-no-failover", "no")
            await done(there)
            assert await waiting == "done"
            assert work.held == [1] * 12
            await done(await chains(client))
            await until(lambda one: not one.problem, flavour, worker)

    with redis_cluster(replicas=True) as cluster:
        asyncio.run(main(cluster))


@pytest.mark.parametrize("begins", ["before", "after"])
def test_client_that_only_waits_hears_of_a_failover(
    flavour: Flavour, space: str, work: Work, begins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens where the run is now, though it has asked for nothing else meanwhile."""
    never = 3600.0
    monkeypatch.setattr("pwf._waiting.RECHECK", never)  # so only hearing helps

    async def main(cluster: RedisCluster) -> None:
        url = with_options(cluster.url, namespace=space, partitions=6)
        async with flavour.client(url) as client, flavour.client(url) as other:
            run = await client.start(publish("work.chain", 1))
            await asyncio.to_thread(cluster.replicated)
            slot = slot_of(run, space)
            node = cluster.master_of(slot)
            witness = next(one for one in cluster.masters if one is not node)

            async def listening() -> asyncio.Task[Any]:
                at = cluster.master_of(slot)
                waiting = asyncio.create_task(run.result(timeout=never))
                await eventually(lambda: at.ask("PUBSUB", "CHANNELS", f"*:{run.id}"))
                return waiting

            if begins == "before":
                waiting = await listening()
            node.kill()
            await eventually(lambda: witness.master_of(slot) != node.port)
            if begins == "after":
                waiting = await listening()
            async with flavour.worker(other, work.service), asyncio.timeout(LIMIT):
                assert await waiting == "done"

    with redis_cluster(replicas=True) as cluster:
        asyncio.run(main(cluster))
