"""Round trips shared by tasks that ask at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pwf import Service, connect, publish
from pwf._combining import Combiner
from pwf._requests import BATCH
from pwf_core.commands import Answer, Command, Emit, Reply
from pwf_core.errors import UnavailableError
from pwf_core.ids import RunId


def emit(number: int) -> Emit:
    return Emit(RunId("r"), f"event-{number}", b"")


class Server:
    """Answers each command by its event, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.news = asyncio.Event()
        self.failing: set[str] = set()

    async def apply(self, commands: Sequence[Command]) -> list[Reply]:
        events = [one.event for one in commands if isinstance(one, Emit)]
        self.batches.append(events)
        self.news.set()
        await self.open.wait()
        if self.failing & set(events):
            raise UnavailableError("away")
        return [Answer.REFUSED if one.endswith("7") else Answer.DONE for one in events]

    async def heard(self, count: int) -> None:
        """Wait until *count* commands have come."""
        while sum(map(len, self.batches)) < count:
            self.news.clear()
            await self.news.wait()


def test_who_is_alone_goes_at_once() -> None:
    """One after the other, each has a round trip of its own."""

    async def main() -> None:
        server = Server()
        server.open.set()
        combiner = Combiner(server.apply)

        assert [await combiner.ask(emit(number)) for number in (6, 7)] == [
            Answer.DONE,
            Answer.REFUSED,
        ]
        assert [["event-6"], ["event-7"]] == server.batches

    asyncio.run(main())


def test_those_who_ask_meanwhile_share_the_next() -> None:
    """Each gets the reply to what it asked; a batch has an end."""

    async def main() -> None:
        server = Server()
        combiner = Combiner(server.apply)
        count = 2 * BATCH + 10
        asking = asyncio.gather(*(combiner.ask(emit(number)) for number in range(count)))
        await server.heard(count)
        server.open.set()

        assert [number % 10 == 7 for number in range(count)] == [
            reply is Answer.REFUSED for reply in await asking
        ]
        assert [1, BATCH, BATCH, 9] == [len(batch) for batch in server.batches]

    asyncio.run(main())


def test_who_has_gone_takes_nobody_along() -> None:
    """A task that is cancelled leaves its round trip to the others."""

    async def main() -> None:
        server = Server()
        combiner = Combiner(server.apply)
        tasks = [asyncio.create_task(combiner.ask(emit(number))) for number in range(4)]
        await server.heard(4)
        tasks[0].cancel()
        tasks[2].cancel()
        server.open.set()
        replies = await asyncio.gather(*tasks, return_exceptions=True)

        assert [asyncio.CancelledError, Answer, asyncio.CancelledError, Answer] == [
            type(reply) for reply in replies
        ]
        assert Answer.DONE is await combiner.ask(emit(1))

    asyncio.run(main())


def test_failure_is_for_those_of_its_round_trip() -> None:
    """And for nobody else."""

    async def main() -> None:
        server = Server()
        server.failing = {"event-2"}
        combiner = Combiner(server.apply)
        asking = asyncio.gather(
            *(combiner.ask(emit(number)) for number in range(3)), return_exceptions=True
        )
        await server.heard(3)
        server.open.set()

        assert [Answer, UnavailableError, UnavailableError] == [type(one) for one in await asking]
        with pytest.raises(UnavailableError):
            await combiner.ask(emit(2))

    asyncio.run(main())


def test_starts_at_the_same_moment_are_all_made() -> None:
    """With keys or without, on a backend."""

    async def main() -> None:
        work = Service("work")

        @work.task
        async def task(number: int) -> None: ...

        async with connect("memory://") as backend:
            starts = [backend.start(publish(task, n), key=f"k{n % 50}") for n in range(50)]
            runs = await asyncio.gather(*starts)
            again = await backend.start(publish(task, 7), key="k7")

        assert 50 == len({run.id for run in runs})
        assert runs[7] == again

    asyncio.run(main())
