"""Worker processes: they leave when asked, come back when they die, and never stay behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from pwf.cli._crew import Crew

# A backend in the memory of each worker itself: nothing to do there, and nothing to install.
IDLE = ["worker", "pwf.cli._index:library", "--url=memory://idle"]
COMMAND = [sys.executable, "-m", "pwf.cli"]
LIMIT = 30.0


async def eventually(condition):
    async with asyncio.timeout(LIMIT):
        while not (found := condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def started(*arguments, **options):
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process, text):
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    pytest.fail("".join(lines))


class TestCrew:
    async def _run(self, act, arguments=IDLE, count=2):
        with open(os.devnull, "wb") as nothing:  # noqa: ASYNC230, PTH123
            async with Crew(arguments, count, stderr=nothing) as crew:
                await act(crew)
                pids = crew.pids
        assert not [pid for pid in pids if lives(pid)]
        return crew

    def test_one_that_was_killed_is_replaced(self):
        async def act(crew):
            first, other = await eventually(lambda: crew.pids if len(crew.pids) == 2 else None)
            crew.kill(first)
            pids = await eventually(
                lambda: crew.pids if crew.killed and len(crew.pids) == 2 else None
            )
            assert other in pids
            assert first not in pids

        crew = asyncio.run(self._run(act))

        assert (crew.killed, crew.replaced, crew.failing) == (1, 1, 0)

    def test_one_that_died_otherwise_is_replaced_and_counted_apart(self):
        async def act(crew):
            first, _ = await eventually(lambda: crew.pids if len(crew.pids) == 2 else None)
            os.kill(first, signal.SIGKILL)
            await eventually(lambda: crew.replaced and len(crew.pids) == 2)

        crew = asyncio.run(self._run(act))

        assert (crew.killed, crew.replaced, crew.failing) == (0, 1, 1)

    def test_those_that_cannot_start_are_not_tried_in_a_hot_loop(self):
        async def act(crew):
            await eventually(lambda: crew.failing >= 2)

        began = time.monotonic()
        asyncio.run(self._run(act, ["worker", "nonsense:x", "--url=memory://x"], 1))

        assert time.monotonic() - began > 0.2  # the first pause

    def test_they_leave_when_their_parent_is_killed(self):
        program = (
            "import asyncio\n"
            "from pwf.cli._crew import Crew\n"
            "async def main():\n"
            f"    async with Crew({IDLE!r}, 2) as crew:\n"
            "        while len(crew.pids) < 2:\n"
            "            await asyncio.sleep(0.01)\n"
            "        print(*crew.pids, flush=True)\n"
            "        await asyncio.sleep(600)\n"
            "asyncio.run(main())\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        ) as parent:
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            parent.kill()

        assert len(pids) == 2
        asyncio.run(eventually(lambda: not any(map(lives, pids))))


class TestWorker:
    @pytest.mark.parametrize("one", [signal.SIGTERM, signal.SIGINT])
    def test_leaves_on_a_signal_with_code_0(self, one):
        with started(*IDLE) as process:
            read_until(process, "serving")
            process.send_signal(one)

            assert process.wait(LIMIT) == 0

    def test_several_are_supervised(self, redis_url):
        arguments = ["worker", "pwf.cli._index:library", f"--url={redis_url}", "--processes=2"]
        with started(*arguments, "--namespace=supervised") as process:
            first = int(read_until(process, "serving")[-1].split()[2])
            read_until(process, "serving")
            os.kill(first, signal.SIGKILL)
            read_until(process, f"worker {first} died of SIGKILL")
            third = int(read_until(process, "serving")[-1].split()[2])
            process.send_signal(signal.SIGTERM)

            assert process.wait(LIMIT) == 0
            assert not lives(third)
