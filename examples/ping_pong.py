"""Ping-pong: two services that know each other by address only, handing one run to and fro.

Each service has a worker of its own, as if it were its own program; `pong` has two, which share the
work. Nothing waits between two strokes: no thread, no coroutine, only a message.

    python examples/ping_pong.py [--url URL] [--strokes N]
"""

from __future__ import annotations

import argparse
import asyncio
import os

import attrs

from pwf import Next, Service, Worker, connect, publish, result


@attrs.frozen
class Ball:
    """The strokes so far, and how many are left."""

    strokes: list[str]
    left: int

    def hit(self, sound: str) -> Ball:
        """Return the ball after one more stroke."""
        return Ball([*self.strokes, sound], self.left - 1)


ping = Service("ping")
pong = Service("pong")


@ping.task(name="hit")
async def hit_by_ping(ball: Ball) -> Next:
    ball = ball.hit("ping")
    print("ping", end=" ", flush=True)
    return publish("pong.hit", ball) if ball.left else result(ball)


@pong.task(name="hit")
async def hit_by_pong(ball: Ball) -> Next:
    ball = ball.hit("pong")
    print("pong", end=" ", flush=True)
    return publish("ping.hit", ball) if ball.left else result(ball)


async def main(url: str, strokes: int) -> None:
    async with (
        connect(url) as backend,
        Worker(backend, ping),
        Worker(backend, pong),
        Worker(backend, pong),
    ):
        run = await backend.start(publish(hit_by_ping, Ball([], strokes)))
        ball = await run.result(Ball, timeout=60)
    print(f"\nthe last of {len(ball.strokes)} strokes was a {ball.strokes[-1]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Play a rally between two services.")
    parser.add_argument("--url", default=os.environ.get("PWF_URL", "memory://"))
    parser.add_argument("--strokes", type=int, default=10)
    args = parser.parse_args()
    asyncio.run(main(args.url, args.strokes))
