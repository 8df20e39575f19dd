"""A RabbitMQ cluster of three nodes loses one in mid-load, and nothing else.

The node killed is the one that leads the queue of the service; with `kill -9`, while chains and
gathers are under way. It comes back later, with the data that it had.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import attrs
import pytest
from tests.integration.sites import Flavour, ctl, eventually, fresh_name, paired

from pwf import Context, Next, Service, gather, publish, result
from pwf.testing.servers import LOOPBACK, RabbitServer, RedisServer
from pwf_rabbit.topology import Topology

pytest.importorskip("aio_pika")
pytest.importorskip("pika")
redis = pytest.importorskip("redis")

pytestmark = [pytest.mark.rabbit, pytest.mark.redis]

PATIENCE = 60.0  # seconds; generous, and never waited for in full
RUNS = 100  # before the node dies, while it is away, and once it is back: as many each time
LENGTH = 5


@attrs.frozen
class Cluster:
    """Nodes that know each other."""

    nodes: tuple[RabbitServer, ...]

    @property
    def url(self) -> str:
        """The URL that names all of them."""
        hosts = ",".join(f"{LOOPBACK}:{one.port}" for one in self.nodes)
        return f"amqp://guest:guest@{hosts}/"

    def queue(self, name: str) -> tuple[RabbitServer, int]:
        """Return who leads a quorum queue, and how many members it has; it takes a second."""
        for line in ctl(self.nodes[0], "list_queues", "name", "leader", "members").splitlines():
            found, leader, members = line.split("\t")
            if found == name:
                (first,) = (one for one in self.nodes if one.node == leader)
                return first, members.count("@")
        raise LookupError(name)


@pytest.fixture(scope="module")
def cluster(rabbit_server: object) -> Iterator[Cluster]:
    """Three nodes; `rabbit_server` is asked for so that absence is said alike."""
    with ExitStack() as stack:
        first = stack.enter_context(RabbitServer())
        others = [stack.enter_context(RabbitServer(beside=first)) for _ in range(2)]
        yield Cluster((first, *others))


class Works:
    """A service that notes what it executes.

    Attributes:
        executed: Handlers, by run and argument.
    """

    def __init__(self) -> None:
        self.service = Service("work")
        self.executed: Counter[tuple[str, str, int]] = Counter()

        @self.service.task
        async def chain(ctx: Context, left: int) -> Next:
            self.executed[ctx.run_id, "chain", left] += 1
            return publish("work.chain", left - 1) if left else result("done")

        @self.service.task
        async def fan(ctx: Context, width: int) -> Next:
            self.executed[ctx.run_id, "fan", width] += 1
            return gather(
                [publish("work.part", number) for number in range(width)],
                then=publish("work.total"),
            )

        @self.service.task
        async def part(ctx: Context, number: int) -> Next:
            self.executed[ctx.run_id, "part", number] += 1
            return result(number)

        @self.service.task
        async def total(ctx: Context) -> Next:
            self.executed[ctx.run_id, "total", 0] += 1
            return result(sum(ctx.results_as(int)))


async def start(client: Any) -> list[Any]:
    """Start chains and gathers, in turn."""
    kinds = [publish("work.chain", LENGTH), publish("work.fan", LENGTH)]
    runs: list[Any] = await client.start_many([kinds[n % 2] for n in range(RUNS)])
    return runs


async def check(runs: list[Any]) -> None:
    """Wait for the results, which must be right."""
    found = await asyncio.gather(*(run.result(timeout=PATIENCE) for run in runs))
    wanted: list[object] = ["done", sum(range(LENGTH))]
    assert found == [wanted[n % 2] for n in range(RUNS)]


def pending(store: RedisServer, space: str) -> list[bytes]:
    """Return the calls that have a due time, as all in the outbox have; what else has is a run."""
    with redis.Redis.from_url(store.url) as admin:
        due = admin.zrange(f"pwf:{{{space}:0}}:due", 0, -1)
    assert due  # the ended runs, at least
    return [one for one in due if not one.endswith(b"::")]


def test_the_leader_is_killed(
    cluster: Cluster, own_redis: RedisServer, driving: tuple[Flavour, str]
) -> None:
    """Everything ends right, every handler runs once, and the node takes part again later."""
    flavour, driver = driving
    space, works = fresh_name(), Works()
    url = paired(cluster.url, own_redis.url, namespace=space, driver=driver)
    queue = Topology(space).queue("work").name

    async def main() -> None:
        async with flavour.client(url) as client, flavour.worker(client, works.service):
            await check(await start(client))
            leader, members = await asyncio.to_thread(cluster.queue, queue)
            assert members == 3

            before = works.executed.total()
            runs = await start(client)
            await eventually(lambda: works.executed.total() > before + RUNS)
            assert works.executed.total() < before + RUNS * (LENGTH + 1)  # in mid-load
            leader.kill()
            more = await start(client)
            await check(runs)
            await check(more)

            await asyncio.to_thread(leader.restart)
            await check(await start(client))
            assert set(works.executed.values()) == {1}
            assert pending(own_redis, space) == []

    asyncio.run(main())
