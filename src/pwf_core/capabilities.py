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
        ordered: Whether one service's calls are delivered in the order of their commits, and timers
            moved on in that of their due times, as long as one worker does and nothing is redelivered.
        partitions: Among how many places runs are spread; known once it is open. The id of a run
            says which: `pwf_core.ids.placed`, and `home_of` for a run with a key.
    """

    technology: str
    durable: bool = False
    shared: bool = False
    fused: bool = False
    ordered: bool = True
    partitions: int = 1
