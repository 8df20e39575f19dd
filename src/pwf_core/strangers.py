"""Telling people of messages that were set aside, so that a flood of them does not fill the disk."""

from __future__ import annotations

import logging

import attrs

from pwf_core.texts import printable

__all__ = ["Strangers"]


@attrs.define
class Strangers:
    """Tells of the first one, and again whenever there are twice as many.

    Attributes:
        logger: Whom to tell.
        place: Where they can be found.
    """

    logger: logging.Logger
    place: str
    _count: int = attrs.field(default=0, init=False)
    _next: int = attrs.field(default=1, init=False)

    def note(self, count: int, services: str, problem: str) -> None:
        """Note that *count* more have been set aside.

        Args:
            count: How many.
            services: To which services they went, for people.
            problem: What is wrong with the first of them.
        """
        self._count += count
        if self._count >= self._next:
            self._next = 2 * self._count
            self.logger.warning(
                "set aside %d messages so far, the latest to %s: %s; they are in %s",
                self._count,
                services,
                printable(problem),
                self.place,
            )
