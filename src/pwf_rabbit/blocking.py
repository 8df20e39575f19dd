"""The blocking flavour, over pika, from an I/O thread of its own.

That thread runs an event loop with the same broker in it that the async flavour has; callers hand
it what they want and wait. So heartbeats go on however long a handler takes, and any number of
threads may share a broker.

After a fork, the child starts afresh. What it inherited is a copy of the parent's connection and the
ghost of its thread: neither is touched, nor ever collected, since collecting could write to the
parent's socket.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar
from weakref import WeakSet

from pwf_core.capabilities import Capabilities
from pwf_core.commands import Message
from pwf_core.errors import BrokerUnavailableError
from pwf_core.ports import Delivery
from pwf_rabbit.broker import CAPABILITIES, RabbitBroker
from pwf_rabbit.drivers import connector
from pwf_rabbit.link import Connect
from pwf_rabbit.options import Driver, Options

__all__ = ["PikaBroker"]

T = TypeVar("T")

_GOODBYE = 1.0  # seconds that calls of other threads have to end once the broker is closed


class PikaBroker:
    """A `BlockingBroker` that speaks through pika, or through the driver that the options name.

    It opens at first use, and again after a fork.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._connect = connector(options.driver or Driver.PIKA)
        self._lock = threading.Lock()
        self._thread: _Thread | None = None
        self._is_closed = False
        _brokers.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._options.where}>"

    @property
    def capabilities(self) -> Capabilities:
        """Durable and shared."""
        return CAPABILITIES

    def health(self) -> str:
        """See `RabbitBroker.health`."""
        return self._call(lambda broker: broker.health())

    def open(self) -> None:
        """See `Broker.open`."""
        self._is_closed = False
        self._call(lambda broker: broker.open())

    def close(self) -> None:
        """See `Broker.close`."""
        with self._lock:
            self._is_closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        """See `Broker.publish`."""
        return self._call(lambda broker: broker.publish(messages))

    def receive(self, services: Sequence[str], limit: int) -> list[Delivery]:
        """See `Broker.receive`."""
        return self._call(lambda broker: broker.receive(services, limit))

    def idle(self, services: Sequence[str], timeout: float) -> None:
        """See `Broker.idle`."""
        self._call(lambda broker: broker.idle(services, timeout))

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.ack`."""
        self._call(lambda broker: broker.ack(deliveries))

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.reject`."""
        self._call(lambda broker: broker.reject(deliveries))

    def drain(self, service: str, limit: int) -> list[Delivery]:
        """See `Broker.drain`."""
        return self._call(lambda broker: broker.drain(service, limit))

    def _call(self, make: Callable[[RabbitBroker], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            if self._is_closed:
                raise BrokerUnavailableError("This broker is closed.")
            if self._thread is None:
                self._thread = _Thread(self._options, self._connect)
            future = self._thread.submit(make)
        try:
            return future.result()
        except CancelledError as error:
            raise BrokerUnavailableError("This broker was closed.") from error
        except BaseException:
            future.cancel()  # the caller is interrupted; in all other cases it has ended already
            raise

    def _leave_parent(self) -> None:
        _ghosts.append(self._thread)
        self._thread = None
        self._lock = threading.Lock()  # another thread may have held it when we were forked


_brokers: WeakSet[PikaBroker] = WeakSet()
_ghosts: list[object] = []  # what forked children inherited


def _leave_parents() -> None:
    for broker in _brokers:
        broker._leave_parent()  # noqa: SLF001 -- the other half of the class


if hasattr(os, "register_at_fork"):  # where there is fork
    os.register_at_fork(after_in_child=_leave_parents)


class _Thread:
    """An event loop in a thread, with a broker in it."""

    def __init__(self, options: Options, connect: Connect) -> None:
        self._broker = RabbitBroker(options, connect)
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        # A daemon: a program that forgets to close must still be able to end.
        self._thread = threading.Thread(target=self._run, name="pwf_rabbit", daemon=True)
        self._thread.start()

    def submit(self, make: Callable[[RabbitBroker], Coroutine[Any, Any, T]]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(make(self._broker), self._loop)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await self._end.wait()
        await self._broker.close()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        if calls:
            await asyncio.wait(calls, timeout=_GOODBYE)
