"""Harnesses of the memory adapter; time is a clock that only tests move."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable
from typing import Any

import attrs

from pwf_core.adapters import Settings, Url
from pwf_core.commands import Message
from pwf_core.names import service_of
from pwf_core.paired import BlockingPaired, Paired
from pwf_core.state import Rules
from pwf_core.testing.cable import Cable
from pwf_core.testing.making import message
from pwf_core.testing.shims import unblocked
from pwf_core.wire import encode_messages
from pwf_memory.adapter import adapter
from pwf_memory.clock import SystemClock, VirtualClock

from .flavours import Driving


@attrs.define
class MovableClock(SystemClock):
    """The wall clock, which tests may set ahead."""

    ahead_ms: int = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms

    def advance(self, ms: int) -> None:
        self.ahead_ms += ms


# What tables hold of runs; the rest is about who is connected.
STATE = ("runs", "queues", "dead", "_keys", "_dying_keys", "_timers", "_heap", "_taken")


class _Memory:
    """One server, a URL of its own: queues, tables and a clock."""

    tick = 1000
    virtual = True
    paired = False
    new_clock: type[VirtualClock | MovableClock] = VirtualClock

    def __init__(self, *, blocking: bool) -> None:
        self.blocking = blocking
        self.clock = self.new_clock()

    async def open(self, rules: Rules) -> None:
        self.ports: list[Any] = []
        self.rules = attrs.evolve(rules, paired=self.paired)
        self.url = Url.parse(f"memory://{secrets.token_hex(6)}")
        # Kept here, as a server would, also while no port is open.
        self.tables = self.make_store(here=True)._tables
        self.queues = self.make_broker(here=True)._consumer.queues

    async def close(self) -> None:
        for port in self.ports:
            await port.close()

    async def connect(self, *, doomed: bool = False) -> Any:
        return await self.opened(self.make_port(here=True))

    async def elsewhere(self) -> Any:
        return await self.opened(self.make_port(here=False))

    async def crash(self, port: Any) -> None:
        await port.close()  # a server hands back what a lost connection held

    async def elapse(self, ms: int) -> None:
        self.clock.advance(ms)
        self.tables.wake_all()

    async def remember(self) -> None:
        state = {name: getattr(self.tables, name) for name in STATE}
        self.remembered = copy.deepcopy(state)

    async def rewind(self) -> None:
        for name, value in self.remembered.items():
            setattr(self.tables, name, value)

    async def inject(self, service: str, body: bytes) -> None:
        self.queues.put(service, body)

    async def redeliver(self, message: Message) -> None:
        await self.inject(service_of(message.address), encode_messages([message]))

    def settings(self, here: bool) -> Settings:
        return Settings(namespace="here" if here else "there", rules=self.rules)

    def make_broker(self, here: bool) -> Any:
        make = adapter.blocking_broker if self.blocking else adapter.broker
        return make(self.url, self.settings(here))

    def make_store(self, here: bool) -> Any:
        make = adapter.blocking_store if self.blocking else adapter.store
        return self.timed(make(self.url, self.settings(here)))

    def timed(self, port: Any) -> Any:
        """Have the tables of *port* go by the clock of this harness."""
        port._tables.clock = self.clock
        return port

    def make_port(self, here: bool) -> Any:
        raise NotImplementedError

    async def opened(self, port: Any) -> Any:
        self.ports.append(unblocked(port) if self.blocking else port)
        await self.ports[-1].open()
        return self.ports[-1]


class MemoryBrokerHarness(_Memory):
    def make_port(self, here: bool) -> Any:
        return self.make_broker(here)


class MemoryStoreHarness(_Memory):
    paired = True

    def make_port(self, here: bool) -> Any:
        return self.make_store(here)


class MemoryBackendHarness(_Memory):
    async def inject(self, service: str, body: bytes) -> None:
        await self.redeliver(message(f"{service}.task"))

    async def redeliver(self, message: Message) -> None:
        self.tables.enqueue(message)

    def make_port(self, here: bool) -> Any:
        make = adapter.blocking_backend if self.blocking else adapter.backend
        return self.timed(make(self.url, self.settings(here)))


class MemoryPairedHarness(_Memory):
    paired = True

    def make_port(self, here: bool) -> Any:
        pair = BlockingPaired if self.blocking else Paired
        return pair(self.make_broker(here), self.make_store(here))


@attrs.define(eq=False)
class _Plan:
    """How a port is made: with a cable in front, since there is no network to cut."""

    make: Callable[[], Any]
    cable: Cable = attrs.field(factory=Cable)
    owners: list[Any] = attrs.field(factory=list)

    def __call__(self) -> Any:
        return self.cable(self.make())


class _InRealTime(Driving):
    tick = 50
    virtual = False
    new_clock = MovableClock

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.plans: list[_Plan] = []

    async def plan(self, *, here: bool, doomed: bool) -> _Plan:
        self.plans.append(_Plan(lambda: self.make_port(here)))  # type: ignore[attr-defined]
        return self.plans[-1]

    async def crash(self, client: Any) -> None:
        for plan in self.plans:
            plan.cable.is_cut |= client in plan.owners


class MemoryWorkflowHarness(_InRealTime, MemoryBackendHarness):
    pass


class MemoryPairedWorkflowHarness(_InRealTime, MemoryPairedHarness):
    pass
