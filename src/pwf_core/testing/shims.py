"""Blocking ports in async clothes, so that one suite runs on both flavours: a thread per call."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["unblocked", "unblocked_client", "unblocked_worker"]


def unblocked(port: Any) -> Any:
    """Return the async face of a blocking broker, store or backend."""
    return _Unblocked(port)


def unblocked_client(client: Any) -> Any:
    """Return the async face of a blocking client."""
    return _Client(client)


@asynccontextmanager
async def unblocked_worker(worker: Any) -> AsyncIterator[Any]:
    """Enter a blocking worker, give out its async face, and leave it."""
    await _in_thread(worker.__enter__)()
    try:
        yield _Unblocked(worker)
    finally:
        await _in_thread(worker.__exit__)(None, None, None)


class _Unblocked:
    def __init__(self, port: Any) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return _in_thread(found) if callable(found) else found

    def __repr__(self) -> str:
        return f"unblocked({self._port!r})"

    def leases(self) -> Any:
        return self._port.leases()

    @asynccontextmanager
    async def watch(self, *args: Any) -> AsyncIterator[_Unblocked]:
        manager = self._port.watch(*args)
        watch = await _in_thread(manager.__enter__)()
        try:
            yield _Unblocked(watch)
        finally:
            await _in_thread(manager.__exit__)(None, None, None)


class _Client(_Unblocked):
    async def start(self, *args: Any, **kwargs: Any) -> Any:
        return _Unblocked(await _in_thread(self._port.start)(*args, **kwargs))

    async def start_many(self, *args: Any, **kwargs: Any) -> Any:
        runs = await _in_thread(self._port.start_many)(*args, **kwargs)
        return [_Unblocked(run) for run in runs]

    def run(self, run_id: str) -> Any:
        return _Unblocked(self._port.run(run_id))


def _in_thread(fn: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        context = contextvars.copy_context()
        bound = functools.partial(context.run, fn, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(None, bound)

    return call
