"""What the harnesses of adapters with a server have in common: names, wires, connections."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import attrs

from pwf_core.adapters import Settings
from pwf_core.commands import Message
from pwf_core.names import service_of
from pwf_core.state import Rules
from pwf_core.testing.shims import unblocked
from pwf_core.wire import encode_messages

from .wire import Wire

__all__ = ["Served"]


@attrs.define(eq=False)
class Plan:
    """How a port is made, over which wires; and who has it."""

    make: Callable[[], Any]
    wires: list[Wire]
    owners: list[Any] = attrs.field(factory=list)

    def __call__(self) -> Any:
        return self.make()

    def cut(self) -> None:
        for wire in self.wires:
            wire.cut()


class Served:
    """Ports over wires, under names of their own; a harness says how to `make` one."""

    tick = 60  # longer than a busy machine takes between two lines
    virtual = False
    paired = False

    def __init__(
        self, *, blocking: bool, signing_keys: tuple[bytes, ...] = (), **urls: str
    ) -> None:
        self.blocking = blocking
        self.signing_keys = signing_keys
        self.urls = urls

    async def open(self, rules: Rules) -> None:
        self.names = (f"t{secrets.token_hex(6)}", f"u{secrets.token_hex(6)}")
        self.ports: list[Any] = []
        self.plans: list[Plan] = []
        self.rules = attrs.evolve(rules, paired=self.paired)

    async def close(self) -> None:
        for port in self.ports:
            await port.close()
        for plan in self.plans:
            for wire in plan.wires:
                await wire.close()

    async def connect(self, *, doomed: bool = False) -> Any:
        return await self.opened(here=True, doomed=doomed)

    async def elsewhere(self) -> Any:
        return await self.opened(here=False)

    async def opened(self, *, here: bool, doomed: bool = False) -> Any:
        make = await self.plan(here=here, doomed=doomed)
        port = unblocked(make()) if self.blocking else make()
        make.owners.append(port)
        self.ports.append(port)
        await port.open()
        return port

    async def plan(self, *, here: bool, doomed: bool) -> Plan:
        """Return what makes ports; over wires of their own if they are to be cut."""
        wires = {name: await Wire(url).open() for name, url in self.urls.items() if doomed}
        urls = self.urls | {name: wire.url for name, wire in wires.items()}
        plan = Plan(lambda: self.make(self.settings(here), **urls), [*wires.values()])
        self.plans.append(plan)
        return plan

    async def crash(self, port: Any) -> None:
        for plan in self.plans:
            if port in plan.owners:
                plan.cut()

    async def elapse(self, ms: int) -> None:
        await asyncio.sleep((ms + 5) / 1000)

    async def inject(self, service: str, body: bytes) -> None:
        raise NotImplementedError

    async def redeliver(self, message: Message) -> None:
        await self.inject(service_of(message.address), encode_messages([message]))

    def settings(self, here: bool) -> Settings:
        return Settings(
            namespace=self.names[not here],
            rules=self.rules,
            signing_keys=self.signing_keys,
        )

    def make(self, settings: Settings, **urls: str) -> Any:
        raise NotImplementedError
