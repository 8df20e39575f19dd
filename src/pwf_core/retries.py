"""When a failed attempt is run again, and how long to wait before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeAlias

import attrs

from pwf_core.errors import CodecError, DefinitionError, DirectiveError
from pwf_core.ids import fraction

__all__ = ["Retry", "backoff_ms", "milliseconds"]

# A value or name that cannot be is a bug: the next attempt makes it again.
_BUGS = (DirectiveError, CodecError, DefinitionError)
_Errors: TypeAlias = tuple[type[BaseException], ...] | type[BaseException]


def milliseconds(duration: timedelta | float) -> int:
    """Return *duration* (a timedelta, or seconds) in whole milliseconds, rounded up."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    return -int(-seconds * 1000 // 1)


def _positive(_: object, attribute: attrs.Attribute[timedelta], value: timedelta) -> None:
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise DefinitionError(f"Retry({attribute.name}=) is a positive timedelta, not {value!r}.")


def _at_least_once(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DefinitionError(f"Retry({attribute.name}=) counts from 1, not {value!r}.")


def _exceptions(_: Any, attribute: Any, value: Any) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise DefinitionError(
                f"Retry({attribute.name}=) takes an exception type or a tuple of them, not {value!r}.",
            )


@attrs.frozen(kw_only=True)
class Retry:
    """How often a failing handler is run, and how long the waits between are.

    Waits grow exponentially, with full jitter: the n-th is drawn from [0, base * 2^(n-1)], at most
    cap. After the last attempt the call becomes a dead letter.

    Attributes:
        attempts: How often the handler may fail before its call is dead-lettered; 5 spans about
            half a minute with the default waits, long enough for a restart of a dependency.
        base: Upper bound of the first wait; not above *cap*.
        cap: Upper bound of any wait.
        on: Exceptions worth another attempt; any other gives up at once.
        give_up_on: Exceptions that give up at once, even if they are in *on*.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    attempts: int = attrs.field(default=5, validator=_at_least_once)
    base: timedelta = attrs.field(default=timedelta(seconds=2), validator=_positive)
    cap: timedelta = attrs.field(default=timedelta(minutes=5), validator=_positive)
    on: _Errors = attrs.field(default=Exception, validator=_exceptions)
    give_up_on: _Errors = attrs.field(default=(), validator=_exceptions)

    def __attrs_post_init__(self) -> None:
        if self.base > self.cap:
            raise DefinitionError(
                f"Retry(): base={self.base} is more than cap={self.cap}, the longest wait. Raise cap, "
                "or lower base.",
            )

    def wants(self, error: BaseException, failures: int) -> bool:
        """Say whether a call that has failed *failures* times, last with *error*, runs again."""
        if failures >= self.attempts or isinstance(error, _BUGS):
            return False
        return isinstance(error, self.on) and not isinstance(error, self.give_up_on)


def backoff_ms(policy: Retry, call_id: str, failures: int) -> int:
    """Return the wait before the next attempt, in milliseconds.

    Args:
        policy: Whose base and cap to use.
        call_id: Jitter is drawn from the call, so that calls which fail together spread out.
        failures: How often the call has failed; 1 after the first time.
    """
    exponent = min(failures - 1, 60)  # 2^60 is past any cap, and a float still holds it
    bound = min(policy.cap.total_seconds(), policy.base.total_seconds() * 2.0**exponent)
    return int(1000 * bound * fraction(call_id, str(failures)))
