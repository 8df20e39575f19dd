"""Clients: keys, many starts, waiting, retention, and what they say about runs they do not know."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable
from datetime import timedelta
from inspect import isawaitable
from typing import Any

import attrs
import pytest

from pwf_core.directives import Next, publish, result
from pwf_core.errors import (
    KeyConflictError,
    PayloadTooLargeError,
    RunNotFoundError,
    UnavailableError,
)
from pwf_core.service import Service
from pwf_core.state import Rules
from pwf_core.testing.cable import Cable
from pwf_core.testing.harness import PATIENCE, WorkflowHarness, behaviour
from pwf_core.testing.making import new_run_id
from pwf_core.testing.workflows._waiting import eventually
from pwf_core.views import Status

_SOON = 4  # seconds; a client that waits looks at its run again after five


@attrs.frozen
class _Looks:
    """A port that tells when somebody has looked at a run."""

    _port: Any
    _looks: list[object]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def read(self, run_ids: Any) -> Any:
        found = self._port.read(run_ids)
        if isawaitable(found):
            return self._noted(run_ids, found)
        self._looks.append(run_ids)
        return found

    async def _noted(self, run_ids: Any, found: Awaitable[Any]) -> Any:
        views = await found
        self._looks.append(run_ids)
        return views


def _service(name: str = "work") -> Service:
    service = Service(name)

    @service.task
    async def echo(value: Any) -> Next:
        return result(value)

    return service


@behaviour()
async def test_key_names_one_run(harness: WorkflowHarness[Any]) -> None:
    """Many clients that start with one key at the same time get one run, which runs once."""
    clients = [await harness.client() for _ in range(3)]
    work = Service("work")
    ran: list[int] = []

    @work.task
    async def once(number: int) -> Next:
        ran.append(number)
        return result(number)

    async with harness.worker(clients[0], work):
        runs = await asyncio.gather(
            *(clients[number % 3].start(publish(once, 7), key="k") for number in range(30))
        )
        (run_id,) = {run.id for run in runs}

        assert 7 == await runs[0].result(int, timeout=PATIENCE)
        assert run_id == (await clients[1].start(publish(once, 7), key="k")).id
        with pytest.raises(KeyConflictError) as caught:
            await clients[2].start(publish(once, 8), key="k")
        assert ("k", run_id) == (caught.value.key, caught.value.run_id)
        other = await clients[2].start(publish(once, 8), key="k2")
        await other.result(timeout=PATIENCE)
    assert [7, 8] == ran


@behaviour()
async def test_start_many(harness: WorkflowHarness[Any]) -> None:
    """Many starts at once are runs of their own, in the order given."""
    client = await harness.client()
    async with harness.worker(client, _service()):
        runs = await client.start_many([publish("work.echo", number) for number in range(300)])

        assert 300 == len({run.id for run in runs})
        results = await asyncio.gather(*(run.result(int, timeout=PATIENCE) for run in runs))
        assert list(range(300)) == results
        assert [] == await client.start_many([])


@behaviour()
async def test_waiting_has_a_limit(harness: WorkflowHarness[Any]) -> None:
    """Waiting longer than one wants to is a TimeoutError, and the run goes on."""
    client = await harness.client()
    run = await client.start(publish("work.echo", 1))
    with pytest.raises(TimeoutError):
        await run.result(timeout=0.05)
    with pytest.raises(TimeoutError):
        await run.wait(timeout=timedelta(milliseconds=50))

    assert Status.RUNNING is await run.status()
    async with harness.worker(client, _service()):
        assert 1 == await run.result(int, timeout=PATIENCE)
        assert Status.FINISHED is await run.wait(timeout=PATIENCE)


@behaviour()
async def test_waiting_for_a_backend_that_is_away(harness: WorkflowHarness[Any]) -> None:
    """What cannot be asked is an outage and no time-out, also for a run that has long ended."""
    client, lost = await harness.client(), await harness.client(doomed=True)
    async with harness.worker(client, _service()):
        ended = await client.start(publish("work.echo", 1))
        await ended.result(timeout=PATIENCE)
    running = await client.start(publish("work.echo", 2))
    with pytest.raises(TimeoutError):
        await lost.run(running.id).result(timeout=0)
    waiting = asyncio.create_task(lost.run(running.id).result(timeout=1))
    with pytest.raises(TimeoutError):
        await lost.run(running.id).result(timeout=0.05)  # by now the other one listens, too
    await harness.crash(lost)

    asked = [lost.run(ended.id).result(timeout=0.3), lost.run(ended.id).wait(timeout=0)]
    began = time.monotonic()
    for answer in await asyncio.gather(waiting, *asked, return_exceptions=True):
        assert isinstance(answer, UnavailableError), repr(answer)
    assert time.monotonic() - began < PATIENCE / 5
    assert Status.FINISHED is await client.run(ended.id).wait(timeout=0)


@behaviour()
async def test_waiting_outlives_lost_connections(harness: WorkflowHarness[Any]) -> None:
    """Who waits for a result notices nothing of a short outage."""
    cable = Cable()
    client, other = await harness.client(cable), await harness.client()
    run = await client.start(publish("work.echo", "x"))
    cable.is_cut = True
    waiting = asyncio.create_task(run.result(str, timeout=PATIENCE))

    async def has_met_it() -> bool:
        return cable.lost > 1 or waiting.done()

    await eventually(has_met_it)
    cable.is_cut = False
    async with harness.worker(other, _service()):
        assert "x" == await waiting


@behaviour()
async def test_unknown_run(harness: WorkflowHarness[Any]) -> None:
    """Asking for a run that never was is an error that names it."""
    client = await harness.client()
    run = client.run(new_run_id())
    for asked in (run.status(), run.wait(timeout=1), run.result(timeout=1), run.view()):
        with pytest.raises(RunNotFoundError, match=run.id):
            await asked
    with pytest.raises(RunNotFoundError):
        await client.emit(run.id, "e", 1)


@behaviour()
async def test_handle_is_found_again(harness: WorkflowHarness[Any]) -> None:
    """Another client gets at a run by its id."""
    client, other = await harness.client(), await harness.client()
    async with harness.worker(client, _service()):
        run = await client.start(publish("work.echo", "x"))

        assert "x" == await other.run(run.id).result(str, timeout=PATIENCE)


@behaviour(rules=Rules(retention_ms=0))
async def test_waiting_client_gets_the_result_without_retention(
    harness: WorkflowHarness[Any],
) -> None:
    """With a retention of 0 who waits gets the result; afterwards the run is not known."""
    looks = list[object]()
    client = await harness.client(lambda port: _Looks(port, looks))
    work = Service("work")
    go = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def is_listening() -> bool:  # who waits listens first, and then looks
        return bool(looks)

    @work.task
    async def wait() -> Next:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go.wait(), loop))
        return result("x")

    async with harness.worker(client, work):
        run = await client.start(publish(wait))
        waiting = asyncio.create_task(run.result(str, timeout=PATIENCE))
        await eventually(is_listening)
        go.set()

        assert "x" == await waiting
        with pytest.raises(RunNotFoundError):
            await run.status()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param('it\'s "quoted" \\ and `more`', id="quotes"),
        pytest.param("a\0b", id="nul"),
        pytest.param("größe 日本語 🎉", id="emoji"),
        pytest.param(bytes(range(256)), id="bytes"),
        pytest.param("x" * 65536, id="64k"),
        pytest.param("x" * 1_000_000, id="1m"),
        pytest.param({"a": [1, 2.5, None, True, {"b": -(2**63)}]}, id="nested"),
    ],
)
@behaviour()
async def test_values_make_the_round_trip(harness: WorkflowHarness[Any], value: Any) -> None:
    """What goes in as an argument comes out as the result, whatever it is."""
    client = await harness.client()
    async with harness.worker(client, _service()):
        run = await client.start(publish("work.echo", value), key=f"key {secrets.token_hex(4)}")

        assert value == await run.result(timeout=PATIENCE)


@behaviour()
async def test_oversized_payload_is_never_sent(harness: WorkflowHarness[Any]) -> None:
    """More than a MiB is refused where it is made, the same on every adapter."""
    client = await harness.client()
    with pytest.raises(PayloadTooLargeError):
        await client.start(publish("work.echo", "x" * 1024 * 1024))


@behaviour()
async def test_strangers_see_nothing(harness: WorkflowHarness[Any]) -> None:
    """Two clients of different namespaces in one process share no run, no key and no call."""
    client, stranger = await harness.client(), await harness.stranger()
    run = await client.start(publish("work.echo", 1), key="k")
    other = await stranger.start(publish("work.echo", 2), key="k")

    assert run.id != other.id
    with pytest.raises(RunNotFoundError):
        await stranger.emit(run.id, "e", 1)
    async with harness.worker(stranger, _service()):
        assert 2 == await other.result(int, timeout=PATIENCE)
    assert Status.RUNNING is await run.status()
    async with harness.worker(client, _service()):
        assert 1 == await run.result(int, timeout=PATIENCE)


@behaviour()
async def test_close_lets_go_who_waits(harness: WorkflowHarness[Any]) -> None:
    """Who waits for a run through a client that is closed is told so at once."""
    looks: list[object] = []
    client = await harness.client(lambda port: _Looks(port, looks))
    runs = [await client.start(publish("nobody.task")) for _ in range(3)]
    waiting = [asyncio.create_task(run.result()) for run in runs]

    async def all_have_looked() -> bool:
        return len(looks) == len(runs)

    await eventually(all_have_looked)
    async with asyncio.timeout(_SOON):
        await client.close()
        ends = await asyncio.gather(*waiting, return_exceptions=True)

    assert [True] * 3 == [isinstance(one, UnavailableError) for one in ends]


@behaviour()
async def test_close_twice_is_fine(harness: WorkflowHarness[Any]) -> None:
    """A client may be closed twice, a worker too, also when there was nothing to do."""
    client = await harness.client()
    worker = harness.worker(client, _service())
    async with worker as inside:
        await inside.close()
        await inside.close()
    await client.close()
    await client.close()
