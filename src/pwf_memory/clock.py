"""Clocks of the memory adapter: the machine's, and one that tests move by hand."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs

__all__ = ["SystemClock", "VirtualClock"]


@attrs.define
class SystemClock:
    """The wall clock as it stood when this was made, and the monotonic one since: never jumps."""

    _offset_ns: int = attrs.field(factory=lambda: time.time_ns() - time.monotonic_ns(), init=False)

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return (time.monotonic_ns() + self._offset_ns) // 1_000_000


@attrs.define
class VirtualClock:
    """Stands still until it is moved.

    Attributes:
        time_ms: Where it stands; starts at 2001-09-09, so that no time is near zero.
    """

    time_ms: int = 1_000_000_000_000
    _listeners: list[Callable[[], None]] = attrs.field(factory=list, init=False)

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return self.time_ms

    def advance(self, ms: int) -> None:
        """Move *ms* milliseconds on, and tell those who wait for time to pass."""
        self.time_ms += ms
        for listener in tuple(self._listeners):
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have *listener* called whenever the clock has moved."""
        self._listeners.append(listener)
