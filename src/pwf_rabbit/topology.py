"""Which queues there are, with which arguments, and why. Nothing here talks to a server.

There is one durable queue per service, and one per namespace for messages that were set aside.
Arguments of a queue can never change, so they are few and the same for every server version; what
operators may want to tune (limits, placement) they set by policy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum

import attrs

__all__ = ["Queue", "QueueKind", "Topology"]

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_ODD = re.compile(r"[^A-Za-z0-9_-]")

# Rejected messages are for people to look at; a flood of garbage must not fill the disk.
_REJECTED_MESSAGES = 10_000
_REJECTED_BYTES = 64 * 1024 * 1024


class QueueKind(StrEnum):
    """How a queue is stored."""

    QUORUM = "quorum"  # fsynced, and replicated where the server is a cluster
    CLASSIC = "classic"  # survives the death of the server's process, not a power cut


@attrs.frozen
class Queue:
    """A durable queue, as it is declared."""

    name: str
    arguments: Mapping[str, str | int] = attrs.field(factory=dict)


@attrs.frozen
class Topology:
    """The queues of one namespace."""

    namespace: str
    kind: QueueKind = QueueKind.QUORUM

    def queue(self, service: str) -> Queue:
        """Return the queue of *service*; a service's name has no dot, so no two share a name."""
        return Queue(
            f"pwf.{self.namespace}.{_spell(service)}",
            {
                "x-queue-type": self.kind.value,
                # The last net. From RabbitMQ 4.0 on, a quorum queue drops a message that came back
                # 20 times, unless there is somewhere to put it.
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": self.rejected.name,
            },
        )

    @property
    def rejected(self) -> Queue:
        """The queue of messages that were set aside; it is nobody's service."""
        return Queue(
            f"pwf.{self.namespace}.rejected.messages",
            {
                "x-queue-type": self.kind.value,
                "x-max-length": _REJECTED_MESSAGES,
                "x-max-length-bytes": _REJECTED_BYTES,
                "x-overflow": "drop-head",  # the oldest go; refusing new ones would block consumers
            },
        )


def _spell(service: str) -> str:
    """Return *service* in characters that every client library lets a queue's name have.

    pamqp refuses most but letters and digits, although AMQP does not. Such a name keeps what can be
    kept, for people, and a digest tells it from others; "#" stands in no name that needs none.
    """
    if _PLAIN.fullmatch(service):
        return service
    digest = hashlib.blake2b(service.encode(), digest_size=16).hexdigest()
    return f"{_ODD.sub('_', service)}#{digest}"
