"""Servers that are full, frozen, away or alarmed: what clients are told, and what workers do meanwhile.

Each test ends with the server as it was, and wants everything to go on with nobody's help.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.integration.sites import LIMIT, Flavour, Work, eventually, until, works

from pwf import StoreFullError, publish


async def refused_as_full(client: Any) -> None:
    """Check that a start is refused at once, with the error that says why."""
    began = time.monotonic()
    with pytest.raises(StoreFullError):
        await client.start(publish("work.chain", 1))
    assert time.monotonic() - began < 5


def test_full_memory(flavour: Flavour, backend_url: str, work: Work, admin: Any) -> None:
    """Starts are refused; what frees room settles, beside what has to wait for it."""

    async def main() -> None:
        worker: Any
        async with (
            flavour.client(backend_url) as client,
            flavour.worker(client, work.service) as worker,
        ):
            await works(client)
            held = await client.start(publish("work.fork"))
            resting = await client.start_many([publish("work.rest") for _ in range(3)])
            await eventually(lambda: len(work.held) == 4)
            admin.config_set("maxmemory", 1)
            await refused_as_full(client)

            work.go.set()
            await until(lambda health: "full" in health.problem, flavour, worker)
            work.rested.set()
            assert [await run.result(timeout=LIMIT) for run in resting] == ["done"] * 3

            admin.config_set("maxmemory", 0)
            assert await held.result(timeout=LIMIT) == "done"
            await works(client)
            assert work.held == [1] * 4

    asyncio.run(main())
