"""Register users: a fork over two services, and a join of three events.

`users.register` sends off two checks of its own service and one task of another, and says what is to
run once all three have reported, in whatever order they do. Several users register at the same
time, and several workers share the work; no event of one run reaches another.

    python examples/registration.py [--url URL]
"""

from __future__ import annotations

import argparse
import asyncio
import os

import attrs

from pwf import Context, Event, Next, Retry, Service, Worker, connect, emit, join, publish, result


@attrs.frozen
class User:
    """Who wants to register; travels from task to task as msgpack."""

    name: str
    email: str
    card: str


@attrs.frozen
class Registered:
    """What a run comes to."""

    user: str
    checks: list[str]
    pages: int


# --- the users service ---------------------------------------------------------------------------

users = Service("users")

email_verified = Event("email_verified", str)
card_verified = Event("card_verified", str)
contract_ready = Event("contract_ready", int)


@users.task
async def register(user: User) -> Next:
    return (
        publish(verify_email, user.email),
        publish(verify_card, user.card),
        publish("documents.draw_up", user.name),  # lives elsewhere: an address is enough
        join(email_verified, card_verified, contract_ready, then=publish(finish, user)),
    )


@users.task(retry=Retry(attempts=3))
async def verify_email(address: str) -> Next:
    return emit(email_verified, f"{address} is reachable")


@users.task(retry=Retry(attempts=3))
def verify_card(number: str) -> Next:  # not async: runs in a thread, so it may block
    return emit(card_verified, f"card ending in {number[-4:]} is valid")


@users.task
async def finish(ctx: Context, user: User) -> Next:
    checks = [ctx.events[email_verified], ctx.events[card_verified]]
    return result(Registered(user.name, checks, ctx.events[contract_ready]))


# --- the documents service: as a rule another program, which shares only names with the first --------

documents = Service("documents")


@documents.task
def draw_up(name: str) -> Next:
    contract = f"This contract is between {name} and us."
    return emit("contract_ready", 1 + len(contract) // 2000)


# --- the program ---------------------------------------------------------------------------------


async def main(url: str) -> None:
    new = [
        User(name, email=f"{name.lower()}@example.org", card=f"4000 000{number}")
        for number, name in enumerate(["Ann", "Ben", "Cleo", "Dan", "Eve"])
    ]
    async with (
        connect(url) as backend,
        Worker(backend, users),
        Worker(backend, users),
        Worker(backend, documents),
    ):
        runs = await backend.start_many(publish(register, user) for user in new)
        for run in runs:
            done = await run.result(Registered, timeout=30)
            print(f"{done.user}: {'; '.join(done.checks)}; a contract of {done.pages} page(s)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Register five users at the same time.")
    parser.add_argument("--url", default=os.environ.get("PWF_URL", "memory://"))
    asyncio.run(main(parser.parse_args().url))
