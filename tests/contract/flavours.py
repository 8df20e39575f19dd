"""The driving side for harnesses of workflows: pwf's own clients and workers, of either flavour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pwf import BlockingClient, BlockingWorker, Client, Worker
from pwf_core.service import Service
from pwf_core.testing.shims import unblocked_client, unblocked_worker

__all__ = ["Driving"]


class Driving:
    """Mixin: clients and workers on the ports of a harness.

    The harness has `blocking`, and `plan(here=, doomed=)`, which returns what makes a port.
    """

    blocking: bool

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.clients: list[Any] = []

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        await super().close()  # type: ignore[misc]

    async def client(
        self,
        wrap: Callable[[Any], Any] = lambda port: port,
        *,
        doomed: bool = False,
    ) -> Any:
        return await self._opened(wrap, here=True, doomed=doomed)

    async def stranger(self) -> Any:
        return await self._opened(lambda port: port, here=False)

    def worker(self, client: Any, *services: Service, **options: Any) -> Any:
        if not self.blocking:
            return Worker(client, *services, **options)
        if "concurrency" in options:
            options["threads"] = options.pop("concurrency")
        return unblocked_worker(BlockingWorker(client._port, *services, **options))

    async def _opened(self, wrap: Callable[[Any], Any], *, here: bool, doomed: bool = False) -> Any:
        make = await self.plan(here=here, doomed=doomed)  # type: ignore[attr-defined]
        if self.blocking:
            client = unblocked_client(BlockingClient(lambda: wrap(make())))
            await client.__enter__()
        else:
            client = Client(wrap(make()))
            await client.__aenter__()
        make.owners.append(client)
        self.clients.append(client)
        return client
