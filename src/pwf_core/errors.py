"""Every error that pwf raises on purpose, split by what the caller would do about it.

Classes take facts, keep them as attributes and build the message themselves: what was asked, what
was found, what to do. What is expected in a distributed system (a stale copy, a lost lease, a
repeated commit) is a reply of the store and never an exception.
"""

from __future__ import annotations

__all__ = [
    "BrokerUnavailableError",
    "CodecError",
    "ConfigurationError",
    "DefinitionError",
    "DirectiveError",
    "KeyConflictError",
    "PayloadTooLargeError",
    "PwfError",
    "RunCancelledError",
    "RunFailedError",
    "RunNotFoundError",
    "RunStalledError",
    "StoreClosedError",
    "StoreFullError",
    "StoreUnavailableError",
    "UnavailableError",
    "UnsupportedError",
]


class PwfError(Exception):
    """Base of everything that pwf raises on purpose."""


class ConfigurationError(PwfError):
    """A URL, an option or an installation cannot work; fix it and start again."""


class UnsupportedError(PwfError):
    """The adapter in use cannot do what was asked, and says so instead of pretending."""


class DefinitionError(PwfError, ValueError):
    """A service, task, event or retry policy is defined in a way that can never work."""


class DirectiveError(PwfError, TypeError):
    """A handler returned something that is not a directive, or directives that contradict."""


class CodecError(PwfError, ValueError):
    """A value cannot be encoded, or bytes are not a value of the type asked for.

    Attributes:
        what: What was being encoded or decoded, such as "argument of users.register".
        reason: The codec's own words, with the path of the offending value (`$.email`).
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


class PayloadTooLargeError(CodecError):
    """A payload is over the limit; nothing was sent.

    Attributes:
        size: Bytes of the encoded payload.
        limit: Bytes allowed.
    """

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            what,
            f"the encoded value has {size} bytes, and {limit} are allowed. "
            "Store large data elsewhere and pass a reference to it.",
        )
        self.size = size
        self.limit = limit


class KeyConflictError(PwfError):
    """The key already names a run that was started with another task or other arguments.

    Attributes:
        key: The key that was given.
        run_id: The run that has it.
    """

    def __init__(self, key: str, run_id: str) -> None:
        super().__init__(
            f"Key {key!r} already names run {run_id}, which was started with another task or other "
            "arguments. Use another key, or repeat the start with what it was first started with.",
        )
        self.key = key
        self.run_id = run_id


class RunNotFoundError(PwfError, LookupError):
    """No such run: it was never started here, or it was deleted after its retention.

    Attributes:
        run_id: The run that was asked for.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"Run {run_id} is not known: it was never started in this namespace, or it has ended "
            "and its retention is over. `connect(..., retention=)` says how long ended runs stay.",
        )
        self.run_id = run_id


class RunCancelledError(PwfError):
    """Somebody has cancelled the run.

    Attributes:
        run_id: The run.
        reason: What they said.
    """

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"Run {run_id} was {reason}")
        self.run_id = run_id
        self.reason = reason


class RunFailedError(PwfError):
    """The run ended without being able to finish.

    Attributes:
        run_id: The run.
        reason: Which call failed, and its last error.
    """

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"Run {run_id} failed: {reason}")
        self.run_id = run_id
        self.reason = reason


class RunStalledError(PwfError):
    """Nothing is left in the run that could fire its joins.

    Attributes:
        run_id: The run.
        reason: Which join waits for which event, and which call ended last.
    """

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(
            f"Run {run_id} is stalled: {reason} If the event comes from outside, declare it with "
            "Event(..., external=True); to go on now, emit it with backend.emit(run_id, event, ...).",
        )
        self.run_id = run_id
        self.reason = reason


class UnavailableError(PwfError, ConnectionError):
    """A server cannot be reached now, or did not answer in time; the same call may work later."""


class BrokerUnavailableError(UnavailableError):
    """The message broker cannot be reached, or did not confirm in time."""


class StoreUnavailableError(UnavailableError):
    """The state store cannot be reached, or did not answer in time."""


class StoreClosedError(StoreUnavailableError):
    """The connection to the store was closed by its owner: asking again does not help."""


class StoreFullError(UnavailableError):
    """The store refuses to take more (memory or disk is full); what it holds is safe."""
