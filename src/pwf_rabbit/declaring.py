"""Making queues, or finding them as they should be."""

from __future__ import annotations

from contextlib import suppress

from pwf_core.errors import ConfigurationError, PwfError
from pwf_rabbit.errors import AccessRefusedError, QueueMissingError
from pwf_rabbit.link import Link
from pwf_rabbit.topology import Queue

__all__ = ["declare"]


async def declare(link: Link, queue: Queue) -> None:
    """Make sure that *queue* is there, with the arguments that it should have.

    The server compares arguments only when a queue is declared actively, which needs the right to
    configure it. Without that right the queue is taken as its operator made it. Whatever fails
    closes its channel, so each attempt has its own.

    Raises:
        ConfigurationError: If it has other arguments, or is missing and may not be made.
    """
    try:
        await _attempt(link, queue, passive=False)
    except AccessRefusedError as refused:
        try:
            await _attempt(link, queue, passive=True)
        except QueueMissingError:
            raise ConfigurationError(
                f"Queue {queue.name!r} does not exist, and this user may not make it. Let an "
                f"operator declare it as durable, with {dict(queue.arguments)}.",
            ) from refused


async def _attempt(link: Link, queue: Queue, *, passive: bool) -> None:
    channel = await link.channel()
    try:
        await channel.declare(queue, passive=passive)
    finally:
        with suppress(PwfError):
            await channel.close()
