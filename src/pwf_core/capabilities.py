"""What an adapter can do beyond the base: data that the driving side and the tests read."""

from __future__ import annotations

import attrs

__all__ = ["Capabilities"]


@attrs.frozen(kw_only=True)
class Capabilities:
    """What holds for a backend, broker or store.

    Attributes:
        technology: Its name, for people ("redis", "rabbitmq + redis").
        durable: Whether what it acknowledged survives the end of this process.
        shared: Whether other processes can join in the work.
        fused: Whether commit, publish and ack are one atomic step.
        ordered: Whether one service's calls are delivered in the order of their commits, as long
            as one worker takes them and nothing is redelivered.
    """

    technology: str
    durable: bool = False
    shared: bool = False
    fused: bool = False
    ordered: bool = True
