"""Calls in envelopes: which messages share an AMQP message, and what a delivered body holds.

A confirm, a delivery and an ack cost the server the same however many calls an AMQP message names,
so the calls of one batch to one service travel together; as many in one as there are envelopes, so
that a few slow calls are spread over the workers. Each is claimed and settled on its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from pwf_core.commands import Message
from pwf_core.errors import CodecError
from pwf_core.names import service_of
from pwf_core.signing import Signer
from pwf_core.wire import decode_messages, encode_messages

__all__ = ["CALLS", "Envelope", "pack", "unpack"]

# The most in one envelope. A worker whose handlers are slow may take one call of it at a time and give the
# rest back, and RabbitMQ 4 sets a message aside that was given back more than 20 times.
# See https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling.
CALLS = 16


@attrs.frozen
class Envelope:
    """One AMQP message to be published.

    Attributes:
        service: Whose queue it goes to.
        items: Which messages of the batch are in it, by their place there.
        body: What is sent.
    """

    service: str
    items: tuple[int, ...]
    body: bytes


def pack(messages: Sequence[Message], signer: Signer | None = None) -> list[Envelope]:
    """Return *messages* in envelopes, signed if there is a *signer*; a service's keep their order."""
    by_service: dict[str, list[int]] = {}
    for item, message in enumerate(messages):
        by_service.setdefault(service_of(message.address), []).append(item)
    return [
        Envelope(service, chunk, encode_messages([messages[item] for item in chunk], signer))
        for service, items in by_service.items()
        for chunk in _chunks(items)
    ]


def unpack(
    body: bytes,
    signer: Signer | None = None,
    service: str = "",
) -> tuple[tuple[Message, ...], str]:
    """Return the messages in *body*, and what is wrong with it ("" if nothing is).

    See `decode_messages` for the arguments.
    """
    try:
        return tuple(decode_messages(body, signer, service)), ""
    except CodecError as error:
        return (), str(error)


def _chunks(items: Sequence[int]) -> list[tuple[int, ...]]:
    size = min(math.isqrt(len(items)), CALLS)
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]
