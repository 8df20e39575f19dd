"""A store that has lost its last second: what it forgot is gone, and nothing takes its names."""

from __future__ import annotations

from typing import Any

import pytest

from pwf_core.context import Context
from pwf_core.directives import Next, gather, publish, result
from pwf_core.errors import RunNotFoundError
from pwf_core.service import Service
from pwf_core.testing.harness import PATIENCE, WorkflowHarness, behaviour


@behaviour()
async def test_ids_are_never_reused(harness: WorkflowHarness[Any]) -> None:
    """The same start after the loss is another run, and none of its calls has an id of the lost one."""
    client, ids, work = await harness.client(), list[str](), Service("work")

    @work.task
    async def fan(ctx: Context, size: int) -> Next:
        ids.append(ctx.call_id)
        return gather([publish(leaf, number) for number in range(size)], then=publish(total))

    @work.task
    async def leaf(ctx: Context, number: int) -> Next:
        ids.append(ctx.call_id)
        return result(number)

    @work.task
    async def total(ctx: Context) -> Next:
        ids.append(ctx.call_id)
        return result(sum(ctx.results_as(int)))

    async def once(key: str) -> str:
        async with harness.worker(client, work):
            run = await client.start(publish(fan, 4), key=key)
            assert 6 == await run.result(int, timeout=PATIENCE)
            return str(run.id)

    known = await once("known")
    await harness.remember()
    lost = await once("lost")
    await harness.rewind()
    with pytest.raises(RunNotFoundError):
        await client.run(lost).status()
    again = await once("lost")

    assert again != lost
    assert 18 == len(ids) == len(set(ids))
    assert known == (await client.start(publish(fan, 4), key="known")).id
    with pytest.raises(RunNotFoundError):
        await client.run(lost).status()
