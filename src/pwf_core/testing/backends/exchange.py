"""Exchange: a worker's round trip, which may be sent again."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from pwf_core.commands import Answer, Command, Granted
from pwf_core.errors import UnavailableError
from pwf_core.ids import CallId, claim_id_of
from pwf_core.ports import Backend, Exchanged, Take
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import PATIENCE, Harness, behaviour
from pwf_core.testing.making import LEASE, SERVICE, call, commit, decision, join, start
from pwf_core.transition import DEFER_MS, SUSPECT_LOST
from pwf_core.views import Phase, Status

_LISTENING = 9  # a lane of those that wait

_ONE_OR_HUNDREDS = pytest.mark.parametrize("size", [1, 300])


class _Worker:
    """Takes as a worker does: one claim id per exchange, repeated only with the same exchange."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._session = secrets.token_hex(8)
        self._exchanges = 0

    def take(
        self, limit: int = 10, services: tuple[str, ...] = (SERVICE,), *, lane: int = 0
    ) -> Take:
        self._exchanges += 1
        return Take(services, limit, claim_id_of(self._session, lane, self._exchanges), LEASE)

    async def exchange(self, take: Take, *commands: Command) -> Exchanged:
        return await self.backend.exchange(commands, take)

    async def wait(self, *services: str) -> None:
        """Wait until there may be calls, and take none."""
        take = self.take(0, services or (SERVICE,), lane=_LISTENING)
        await self.backend.idle(take, 0.05)

    async def until_granted(self, *services: str) -> tuple[Take, list[Granted]]:
        """Exchange until something is granted; return the last take and its grants."""
        async with asyncio.timeout(PATIENCE):
            while True:
                take = self.take(services=services or (SERVICE,))
                grants = (await self.exchange(take)).grants
                if grants:
                    return take, grants
                await self.wait(*services)

    async def until_all(self, count: int, grants: Sequence[Granted] = ()) -> dict[CallId, Granted]:
        """Go on from *grants* until there are *count*; return them by call."""
        held = {one.call_id: one for one in grants}
        async with asyncio.timeout(PATIENCE):
            while len(held) < count:
                more = (await self.exchange(self.take(count - len(held)))).grants
                held |= {one.call_id: one for one in more}
                if not more:
                    await self.wait()
        return held


@behaviour()
async def test_exchange_answers_and_grants(harness: Harness[Backend]) -> None:
    """An exchange answers its commands, and grants calls under its claim id."""
    worker = _Worker(await harness.connect())
    first = start()
    await worker.backend.apply([first])
    take, (grant,) = await worker.until_granted()

    assert (first.run_id, first.call.call_id) == (grant.run_id, grant.call_id)
    assert take.claim_id == grant.claim_id
    reply = await worker.exchange(worker.take(), commit(grant, decision(result=b"\x01")))
    assert ([Answer.DONE], []) == (reply.replies, reply.grants)


@behaviour()
async def test_repeated_exchange_is_one(harness: Harness[Backend]) -> None:
    """An exchange whose reply was lost may be sent again: all of it is as if sent once."""
    worker = _Worker(await harness.connect())
    root = start()
    await worker.backend.apply([root])
    _, (grant,) = await worker.until_granted()
    child = call("work.child")
    made = commit(grant, decision(calls=[child]))
    take = worker.take()
    reply = await worker.exchange(take, made)
    again = await worker.exchange(take, made)
    third = await worker.exchange(take, made)

    assert [Answer.DONE] == reply.replies
    assert [again.replies] == [third.replies]
    assert again.replies in ([Answer.DONE], [Answer.ENDED])
    grants = {one.call_id: one for one in [*reply.grants, *again.grants, *third.grants]}
    if not grants:
        _, found = await worker.until_granted()
        grants = {one.call_id: one for one in found}
    assert {child.call_id} == set(grants)
    (granted,) = grants.values()
    assert 1 == granted.attempt
    reply = await worker.exchange(worker.take(), commit(granted))
    assert ([Answer.DONE], []) == (reply.replies, reply.grants)
    (view,) = await worker.backend.read([root.run_id])
    assert view is not None
    assert Status.FINISHED is view.outcome.status


@_ONE_OR_HUNDREDS
@behaviour()
async def test_exchange_of_any_size(harness: Harness[Backend], size: int) -> None:
    """One exchange carries as many commits as there are and brings as many calls; again, the same."""
    worker = _Worker(await harness.connect())
    starts = [start() for _ in range(size)]
    await worker.backend.apply(starts)
    first = await worker.until_all(size)
    children = {call_id: call("work.child") for call_id in first}
    commits = [
        commit(grant, decision(calls=[children[call_id]])) for call_id, grant in first.items()
    ]
    take = worker.take(size)
    reply = await worker.exchange(take, *commits)
    again = await worker.exchange(take, *commits)

    assert [Answer.DONE] * size == reply.replies
    assert size == len(again.replies)
    assert set(again.replies) <= {Answer.DONE, Answer.ENDED}
    if worker.backend.capabilities.fused:
        assert size == len(reply.grants)
        assert sorted(map(_id, reply.grants)) == sorted(map(_id, again.grants))
    second = await worker.until_all(size, [*reply.grants, *again.grants])
    assert {one.call_id for one in children.values()} == set(second)
    assert {1} == {one.attempt for one in second.values()}
    last = await worker.exchange(worker.take(size), *map(commit, second.values()))
    assert ([Answer.DONE] * size, []) == (last.replies, last.grants)
    views = await worker.backend.read([one.run_id for one in starts])
    assert {Status.FINISHED} == {view.outcome.status for view in views if view is not None}


@_ONE_OR_HUNDREDS
@behaviour()
async def test_two_exchanges_of_a_worker_at_once(harness: Harness[Backend], size: int) -> None:
    """Each lane of a worker has what it was granted, and what it asks again is its own."""
    worker = _Worker(await harness.connect())
    starts = [start() for _ in range(2 * size)]
    await worker.backend.apply(starts)
    lanes: list[list[Granted]] = [[], []]
    async with asyncio.timeout(PATIENCE):
        while sum(map(len, lanes)) < 2 * size:
            room = [max(size - len(lane), 0) for lane in lanes]
            takes = [worker.take(limit, lane=number) for number, limit in enumerate(room)]
            replies = await asyncio.gather(*(worker.exchange(take) for take in takes))
            for lane, reply in zip(lanes, replies, strict=True):
                lane.extend(reply.grants)
            if not any(reply.grants for reply in replies):
                await worker.wait()
    held = {one.call_id: one for one in [*lanes[0], *lanes[1]]}

    assert {one.call.call_id for one in starts} == set(held)
    assert {1} == {one.attempt for one in held.values()}
    made = [[commit(one, decision(calls=[call("work.child")])) for one in lane] for lane in lanes]
    takes = [worker.take(size, lane=lane) for lane in (0, 1)]
    replies = await asyncio.gather(
        *(worker.exchange(take, *commits) for take, commits in zip(takes, made, strict=True))
    )
    again = [
        await worker.exchange(take, *commits) for take, commits in zip(takes, made, strict=True)
    ]
    assert [[Answer.DONE] * len(lane) for lane in lanes] == [one.replies for one in replies]
    if worker.backend.capabilities.fused:
        assert [{one.call_id for one in reply.grants} for reply in replies] == [
            {one.call_id for one in reply.grants} for reply in again
        ]
    granted = [one for reply in [*replies, *again] for one in reply.grants]
    second = await worker.until_all(2 * size, granted)
    assert {1} == {one.attempt for one in second.values()}
    for first in range(0, 2 * size, size):
        commits = [*map(commit, second.values())][first : first + size]
        assert [Answer.DONE] * size == await worker.backend.apply(commits)


@behaviour()
async def test_repeated_take_gives_the_same_grants(harness: Harness[Backend]) -> None:
    """The same claim id again gets the same calls: one attempt, nothing lost, nothing doubled.

    With a broker beside the store more may come meanwhile, and only what an exchange that failed had
    claimed comes again.
    """
    worker = _Worker(await harness.connect())
    starts = [start() for _ in range(5)]
    await worker.backend.apply(starts)
    take, grants = await worker.until_granted()
    again = (await worker.exchange(take)).grants
    if worker.backend.capabilities.fused:
        assert sorted(grants, key=_id) == sorted(again, key=_id)
    known = {one.call_id: one for one in grants}
    assert [known.get(one.call_id, one) for one in again] == again
    held = {one.call_id: one for one in [*grants, *again]}
    async with asyncio.timeout(PATIENCE):
        while len(held) < len(starts):
            take, grants = await worker.until_granted()
            held |= {one.call_id: one for one in grants}

    assert {1} == {one.attempt for one in held.values()}
    views = await worker.backend.read([one.run_id for one in starts])
    assert [[(Phase.LEASED, 1)]] * 5 == [
        [(one.phase, one.attempts) for one in view.calls] for view in views if view
    ]


@behaviour()
async def test_commit_and_next_in_one_round_trip(harness: Harness[Backend]) -> None:
    """A fused backend grants what the very same exchange has committed."""
    worker = _Worker(await harness.connect())
    await worker.backend.apply([start()])
    _, (grant,) = await worker.until_granted()
    for number in range(5):
        address = f"work.step-{number}"
        made = commit(grant, decision(calls=[call(address)]))
        reply = await worker.exchange(worker.take(), made)
        grants = reply.grants

        assert [Answer.DONE] == reply.replies
        if worker.backend.capabilities.fused:
            assert 1 == len(grants)
        elif not grants:
            _, grants = await worker.until_granted()
        (grant,) = grants
        assert address == grant.address


@behaviour()
async def test_take_keeps_to_its_limit(harness: Harness[Backend]) -> None:
    """Not more calls than asked for, not even where a broker's message names more."""
    bench = await open_bench(harness)
    await bench.do(*(start() for _ in range(10)))
    worker = _Worker(await harness.connect())
    seen: set[str] = set()
    async with asyncio.timeout(PATIENCE):
        while len(seen) < 10:
            grants = (await worker.exchange(worker.take(3))).grants
            assert len(grants) <= 3
            seen |= {one.call_id for one in grants}
            if not grants:
                await worker.wait()


@behaviour()
async def test_take_of_nothing_commits_only(harness: Harness[Backend]) -> None:
    """Who has no room gets no calls, and its commands are applied."""
    worker = _Worker(await harness.connect())
    await worker.backend.apply([start(), start()])
    async with asyncio.timeout(PATIENCE):
        grants: list[Granted] = []
        while len(grants) < 2:
            grants += (await worker.until_granted())[1]
    take = worker.take(0)
    made = commit(grants[0], decision(calls=[call()]))
    reply = await worker.exchange(take, made)
    again = await worker.exchange(take, made)

    assert ([Answer.DONE], []) == (reply.replies, reply.grants)
    assert [] == again.grants
    assert again.replies in ([Answer.DONE], [Answer.ENDED])
    assert 1 == len((await worker.until_granted())[1])


@behaviour()
async def test_no_service_no_calls(harness: Harness[Backend]) -> None:
    """Who serves nothing gets nothing, and neither does one whose services have no work."""
    worker = _Worker(await harness.connect())
    await worker.backend.apply([start()])

    assert [] == (await worker.exchange(worker.take(services=()))).grants
    assert [] == (await worker.exchange(worker.take(services=("nobody",)))).grants
    assert 1 == len((await worker.until_granted())[1])


@behaviour()
async def test_bad_command_fails_alone(harness: Harness[Backend]) -> None:
    """A refused command in an exchange leaves its neighbours and the take alone."""
    bench = await open_bench(harness)
    one, two = await bench.begin(), await bench.begin()
    await bench.commit(two)
    worker = _Worker(await harness.connect())
    root = start(call("other.task"))
    await worker.backend.apply([root])
    reply = await worker.exchange(
        worker.take(services=("other",)),
        commit(two, decision(calls=[call("work.ghost")])),
        commit(one, decision(emits=[("a", b"\x01")], joins=[join("a", then=call("work.then"))])),
    )

    assert [Answer.ENDED, Answer.DONE] == reply.replies
    grants = reply.grants or (await worker.until_granted("other"))[1]
    assert [root.call.call_id] == [grant.call_id for grant in grants]
    then = await bench.take_one("work.then")
    assert {"a": b"\x01"} == then.events
    await bench.nothing()


@behaviour()
async def test_exchange_moves_on_what_is_due(harness: Harness[Backend]) -> None:
    """Every exchange fires what is due, of any service, and says when the next timer is."""
    worker = _Worker(await harness.connect())
    other = start(call("other.task", delay_ms=harness.tick))
    await worker.backend.apply([other, start(call(delay_ms=500_000))])
    await harness.elapse(harness.tick)
    reply = await worker.exchange(worker.take())

    assert [] == reply.grants
    assert reply.next_due_ms is not None
    assert reply.next_due_ms <= 500_000
    take, (grant,) = await worker.until_granted("other")
    assert (other.run_id, take.claim_id) == (grant.run_id, grant.claim_id)


@behaviour()
async def test_idle_is_over_when_work_comes(harness: Harness[Backend]) -> None:
    """A worker that waits is woken by a call that another connection starts, and may have it then."""
    worker, client = _Worker(await harness.connect()), await harness.connect()
    await worker.exchange(worker.take())
    take, first = worker.take(lane=_LISTENING), start()
    waiting = asyncio.create_task(worker.backend.idle(take, 2 * PATIENCE))
    await asyncio.sleep(0)
    await client.apply([first])
    async with asyncio.timeout(PATIENCE):
        reply = await waiting
        while reply is None or not reply.grants:
            take = worker.take(lane=_LISTENING)
            reply = await worker.backend.idle(take, 0.05) or await worker.exchange(take)
    (grant,) = reply.grants

    assert (first.run_id, take.claim_id) == (grant.run_id, grant.claim_id)
    assert [Answer.DONE] == (await worker.exchange(worker.take(0), commit(grant))).replies


@behaviour()
async def test_idle_ends_with_its_time(harness: Harness[Backend]) -> None:
    """Without work, waiting is over after the time-out, and that is no error."""
    worker = _Worker(await harness.connect())
    async with asyncio.timeout(PATIENCE):
        for seconds, services in ((0.05, (SERVICE,)), (0, (SERVICE, "other"))):
            reply = await worker.backend.idle(worker.take(services=services), seconds)
            assert reply is None or not reply.grants


@behaviour()
async def test_who_waits_no_more_takes_no_more(harness: Harness[Backend]) -> None:
    """What was granted to a wait that was given up is learnt by an exchange, which ends its claim."""
    worker, client = _Worker(await harness.connect()), await harness.connect()
    other, chance = _Worker(await harness.connect()), random.Random(5)
    starts, grants = [start() for _ in range(40)], []
    for first in starts:
        take = worker.take(lane=_LISTENING)
        waiting = asyncio.create_task(worker.backend.idle(take, 0.05))  # a thread waits to the end
        await asyncio.sleep(0.0005)
        started = asyncio.create_task(client.apply([first]))
        for _ in range(chance.randrange(20)):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        grants += (await worker.exchange(replace(take, limit=0))).grants
        await started
    held = await other.until_all(len(starts), grants)

    assert {one.call.call_id for one in starts} == set(held)
    assert {1} == {one.attempt for one in held.values()}


@behaviour()
async def test_close_lets_go_who_is_idle(harness: Harness[Backend]) -> None:
    """Closing ends every wait; who waited sees at most that the connection is gone."""
    worker = _Worker(await harness.connect())
    await worker.exchange(worker.take())
    takes = [worker.take(lane=_LISTENING + number) for number in range(3)]
    waiting = [asyncio.create_task(worker.backend.idle(take, 2 * PATIENCE)) for take in takes]
    ended, _ = await asyncio.wait(waiting, timeout=0.1)
    async with asyncio.timeout(PATIENCE):
        await worker.backend.close()
        ends = await asyncio.gather(*waiting, return_exceptions=True)

    assert not ended
    assert all(one is None or isinstance(one, UnavailableError) for one in ends)


@behaviour()
async def test_suspects_are_deferred_where_unwanted(harness: Harness[Backend]) -> None:
    """A worker that has a suspect gets no other; one without gets it."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(root, calls=[call("work.next")])
    for _ in range(SUSPECT_LOST):
        await bench.take_one("work.next", lease_ms=harness.tick)
        await bench.elapse(harness.tick)
    async with asyncio.timeout(PATIENCE):
        while (await bench.call(root.run_id)).phase is not Phase.TIMED:
            assert [] == await bench.grants(suspects=False)
    await bench.elapse(DEFER_MS)
    (grant,) = await bench.take(1)

    assert (True, SUSPECT_LOST + 1, 0) == (grant.suspect, grant.attempt, grant.failures)


def _id(grant: Granted) -> str:
    return grant.call_id


@behaviour()
async def test_a_thousand_late_commits(harness: Harness[Backend]) -> None:
    """Of workers that lost their leases none commits anything, however many there are."""
    bench = await open_bench(harness)
    for _ in range(4):
        await bench.do(*(start() for _ in range(250)))
    late = await bench.take(1000, lease_ms=harness.tick)
    await harness.elapse(harness.tick)
    grants = await bench.take(1000)
    replies = [
        reply
        for first in range(0, 1000, 250)
        for reply in await bench.do(
            *(commit(one, decision(result=b"\x01")) for one in late[first : first + 250])
        )
    ]

    assert [Answer.LOST] * 1000 == replies
    assert {one.call_id for one in late} == {one.call_id for one in grants}
    done = [
        reply
        for first in range(0, 1000, 250)
        for reply in await bench.do(*(commit(one) for one in grants[first : first + 250]))
    ]
    assert [Answer.DONE] * 1000 == done
