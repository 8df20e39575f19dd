"""What was delivered on a channel and is not acked yet, and how to ack with the fewest frames."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

__all__ = ["Ack", "Ledger"]


@attrs.frozen
class Ack:
    """An acknowledgement to send.

    Attributes:
        number: The delivery's number on its channel.
        multiple: Whether it stands for all unacked deliveries before, too.
    """

    number: int
    multiple: bool


@attrs.define
class Ledger:
    """The open deliveries of one channel.

    A channel numbers its deliveries upwards. Each may be settled in parts, because the calls in it
    are handed out apart; it is acked with its last part. Nothing is ever acked twice: a server
    answers that by closing the channel.
    """

    _open: dict[int, int] = attrs.field(factory=dict, init=False)  # number -> parts to go, in order

    def add(self, number: int, parts: int) -> None:
        """Note a delivery of so many parts."""
        self._open[number] = parts

    def settle(self, parts: Iterable[tuple[int, int]]) -> list[Ack]:
        """Return what to send now that so many parts of those deliveries are done."""
        done: list[int] = []
        for number, count in parts:
            left = self._open.get(number, 0)
            if left > count:
                self._open[number] = left - count
            elif left:
                del self._open[number]
                done.append(number)
        if not done:
            return []
        done.sort()
        first_open = next(iter(self._open), done[-1] + 1)
        prefix = [number for number in done if number < first_open]
        acks = [Ack(prefix[-1], multiple=len(prefix) > 1)] if prefix else []
        return acks + [Ack(number, multiple=False) for number in done[len(prefix) :]]

    def __len__(self) -> int:
        return len(self._open)
