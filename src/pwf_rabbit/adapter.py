"""The adapter behind `amqp://` and `amqps://`: a broker, which needs a store beside it."""

from __future__ import annotations

from typing import NoReturn

import attrs

from pwf_core.adapters import Settings, Url
from pwf_core.errors import UnsupportedError
from pwf_core.ports import Backend, BlockingBackend, BlockingStateStore, StateStore
from pwf_rabbit.aio import AioPikaBroker
from pwf_rabbit.blocking import PikaBroker
from pwf_rabbit.options import Options

__all__ = ["adapter"]


@attrs.frozen
class _RabbitAdapter:
    def backend(self, url: Url, settings: Settings) -> Backend:
        _refuse(url)

    def broker(self, url: Url, settings: Settings) -> AioPikaBroker:
        return AioPikaBroker(Options.read(url, settings))

    def store(self, url: Url, settings: Settings) -> StateStore:
        _refuse(url)

    def blocking_backend(self, url: Url, settings: Settings) -> BlockingBackend:
        _refuse(url)

    def blocking_broker(self, url: Url, settings: Settings) -> PikaBroker:
        return PikaBroker(Options.read(url, settings))

    def blocking_store(self, url: Url, settings: Settings) -> BlockingStateStore:
        _refuse(url)


def _refuse(url: Url) -> NoReturn:
    raise UnsupportedError(
        "RabbitMQ carries messages and keeps no state, so it needs a store beside it. Add one to the "
        f"URL: {url}?store=redis://localhost:6379/0",
    )


adapter = _RabbitAdapter()
