"""The ports. Workers and clients know `Backend` only; `Paired` makes one of a broker and a store.

All ports are batch-first: a sequence in, as many answers out, in order. Items of a batch are judged
one after the other, each seeing what earlier ones wrote; each is atomic on its own, and a bad one
never fails its neighbours. An adapter tries once and reports: `UnavailableError` means that some,
all or none of the batch was applied, and that the caller may send the same batch again, because
every command is safe to repeat. Any method may be called while another one waits; what is returned
belongs to the caller. Once closed, a port raises `UnavailableError` until it is opened again, and
whoever waits at it is let go.

Every port has a blocking twin with the same method names, whose methods may be called from any
thread. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from msgspec import Struct

from pwf_core.capabilities import Capabilities
from pwf_core.commands import Command, Granted, Message, Renew, Reply
from pwf_core.ids import ClaimId, RunId
from pwf_core.views import DeadLetter, Outcome, RunView

__all__ = [
    "Applied",
    "Backend",
    "BlockingBackend",
    "BlockingBroker",
    "BlockingStateStore",
    "BlockingWatch",
    "Broker",
    "Clock",
    "Delivery",
    "Exchanged",
    "Leases",
    "StateStore",
    "Take",
    "Watch",
]


class Clock(Protocol):
    """A store's clock, where the store is this process."""

    def now_ms(self) -> int:
        """Return the time in milliseconds since the epoch."""
        ...


class Take(Struct, frozen=True):
    """What a worker has room for.

    Attributes:
        services: Whose calls to take; served in turn, so that none starves the others.
        limit: How many calls at the most; 0 takes none.
        claim_id: The claim of all that is granted. The same one again, after an exchange that failed,
            gets what that one was granted.
        lease_ms: How long each grant holds unless renewed.
        suspects: Whether one call that was lost with its workers before may be among them.
    """

    services: tuple[str, ...]
    limit: int
    claim_id: ClaimId
    lease_ms: int
    suspects: bool = True


class Exchanged(Struct, frozen=True):
    """What an exchange came to.

    Attributes:
        replies: One per command, in order; `AWAY` where only some of the servers were reached.
        grants: Calls to run now, at most as many as asked for.
        next_due_ms: How long until the earliest known timer is due; None without one.
        problem: What did not work, for people: a broker is away, so that nothing new comes, or goes,
            through it; or one of several servers. "" if all worked.
    """

    replies: list[Reply]
    grants: list[Granted]
    next_due_ms: int | None
    problem: str = ""


class Applied(Struct, frozen=True):
    """What a batch of commands came to in a store.

    Attributes:
        replies: One per command, in order.
        enqueued: Copies of calls that are now in the outbox and want to be published.
        next_due_ms: How long until the earliest known timer is due; None without one.
        problem: Which of several servers was not reached, and why, for people; "" if all worked.
    """

    replies: list[Reply]
    enqueued: list[Message]
    next_due_ms: int | None
    problem: str = ""


class Delivery(Struct, frozen=True):
    """What a broker handed over; to be acked or rejected once.

    Attributes:
        service: Whose queue it came from.
        messages: The calls that it names; empty if it is not one of ours.
        tag: The adapter's own handle; opaque to everybody else.
        problem: Why it could not be decoded; "" if it could.
    """

    service: str
    messages: tuple[Message, ...]
    tag: object
    problem: str = ""


class Watch(Protocol):
    """Ears on one run, from the moment they are given out."""

    async def wait(self, timeout: float) -> Outcome | None:
        """Return how the run ended, or None after *timeout* seconds.

        A notification can get lost with a connection: after None, look at the run.
        """
        ...


class Leases(Protocol):
    """Renews leases from any thread, whatever the port that it comes from is doing meanwhile.

    It opens itself, and shares no connection with that port.
    """

    def renew(self, renewals: Sequence[Renew]) -> list[Reply]:
        """Apply *renewals*; `AWAY` for those whose server, of several, cannot be reached.

        Raises:
            UnavailableError: For the whole batch; send it again.
        """
        ...

    def close(self) -> None:
        """Let go of what was opened, also while another thread renews; again is fine."""
        ...


class StateStore(Protocol):
    """Holds the state of runs, by the rules of `transition`.

    What `apply` acknowledged survives a crash of this process, and of the store as far as its
    `capabilities` and settings say.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this store can do."""
        ...

    async def open(self) -> None:
        """Connect, and check that the server can carry the promises.

        Raises:
            StoreUnavailableError: If it cannot be reached.
            ConfigurationError: If it is set up so that work would be lost.
        """
        ...

    async def close(self) -> None:
        """Let go of everything that was opened; again is fine, and so is while others wait."""
        ...

    async def apply(
        self, commands: Sequence[Command], *, sweep: int = 0, partly: bool = False
    ) -> Applied:
        """Fire up to *sweep* due timers, then apply *commands*.

        A sweep ends with the first rest of a call that it moves on: that is work enough for one step.

        Args:
            commands: What to apply.
            sweep: How many timers.
            partly: Whether to go on if only some of several servers can be reached: commands for the
                others are answered by `AWAY`, and `Applied.problem` says why.

        Raises:
            StoreUnavailableError: For the whole batch; send it again.
            StoreFullError: Nothing that needs room was applied.
        """
        ...

    async def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """Return the runs as they stand; None for one that is not known."""
        ...

    def watch(self, run_id: RunId) -> AbstractAsyncContextManager[Watch]:
        """Listen for the end of a run. To miss nothing: watch first, then read, then wait."""
        ...

    def leases(self) -> Leases:
        """Return what renews leases from another thread."""
        ...

    async def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """Return dead letters of *service* (None: of all), oldest first."""
        ...

    async def purge(self, service: str) -> int:
        """Drop the calls of *service* that nobody runs and that are not dead; return how many.

        In the order in which they are due. Copies that a broker still has of them run nothing. What
        follows from it (a gather that has its last member now) is enqueued by a later sweep.
        """
        ...


class Broker(Protocol):
    """Carries messages to the workers of a service: at least once, in no promised order."""

    @property
    def capabilities(self) -> Capabilities:
        """What this broker can do."""
        ...

    async def open(self) -> None:
        """Connect.

        Raises:
            BrokerUnavailableError: If the server cannot be reached.
            ConfigurationError: If a queue exists with other arguments.
        """
        ...

    async def close(self) -> None:
        """Hand back what is not acked, and let go of everything; again is fine."""
        ...

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """Put each message into the queue of its service, making the queue where there is none.

        Returns:
            For each, whether the broker has confirmed that it has it; False is to be tried again.

        Raises:
            BrokerUnavailableError: If nothing is known about any of them.
        """
        ...

    async def receive(self, services: Sequence[str], limit: int) -> list[Delivery]:
        """Return what has been delivered for *services*, without waiting.

        At most *limit* messages, or one delivery if that names more. What a consumer received and
        did not ack before its `close` or its crash is delivered again, to it or to another.

        Raises:
            BrokerUnavailableError: If the server cannot be reached.
        """
        ...

    async def idle(self, services: Sequence[str], timeout: float) -> None:
        """Wait until `receive` may have something, or *timeout* seconds are over."""
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these. A delivery of a connection that is gone is silently left to come again."""
        ...

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Set these aside where people can find them, bounded in number; they do not come again."""
        ...

    async def drain(self, service: str, limit: int) -> list[Delivery]:
        """Return up to *limit* waiting deliveries straight from the queue; empty if it is empty.

        What is on its way to a consumer just then is not among them.
        """
        ...


class Backend(Protocol):
    """All that workers and clients need."""

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do."""
        ...

    async def open(self) -> None:
        """Connect, and check that the servers can carry the promises.

        Raises:
            UnavailableError: If one cannot be reached.
            ConfigurationError: If one is set up so that work would be lost.
        """
        ...

    async def close(self) -> None:
        """Let go of everything that was opened; again is fine, and so is while others wait."""
        ...

    async def apply(self, commands: Sequence[Command]) -> list[Reply]:
        """Apply *commands*, and deliver what follows from them.

        Raises:
            UnavailableError: For the whole batch; send it again.
            StoreFullError: Nothing that needs room was applied.
        """
        ...

    async def exchange(self, commands: Sequence[Command], take: Take) -> Exchanged:
        """Apply *commands*, move on what is due, and take calls to run: a worker's round trip.

        Args:
            commands: Any but those that start runs, which no worker does.
            take: What there is room for.

        Raises:
            UnavailableError: For the whole exchange; send it again with the same claim id.
        """
        ...

    async def idle(self, take: Take, timeout: float) -> Exchanged | None:
        """Wait until there may be calls to take, for *timeout* seconds at the most.

        Whoever is cancelled, or hears of an error, may have been granted calls, or may be yet: an
        exchange with the same claim id and a limit of 0 tells which, and has no more granted.

        Returns:
            What an exchange of *take* has come to, where waiting and taking are one round trip; None
            where somebody has to go and see.

        Raises:
            UnavailableError: If nobody can tell.
        """
        ...

    async def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]:
        """Return the runs as they stand; None for one that is not known."""
        ...

    def watch(self, run_id: RunId) -> AbstractAsyncContextManager[Watch]:
        """Listen for the end of a run. To miss nothing: watch first, then read, then wait."""
        ...

    def leases(self) -> Leases:
        """Return what renews leases from another thread."""
        ...

    async def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]:
        """Return dead letters of *service* (None: of all), oldest first."""
        ...

    async def purge(self, service: str) -> int:
        """Drop the calls of *service* that are queued, timed or parked, and return how many.

        Their runs go on without them and end as failed, except where a gather bears the loss: what
        follows from that was not waiting when the purge began, and is left.
        """
        ...


class BlockingWatch(Protocol):
    """Blocking twin of `Watch`."""

    def wait(self, timeout: float) -> Outcome | None:
        """See `Watch.wait`."""
        ...


class BlockingStateStore(Protocol):
    """Blocking twin of `StateStore`."""

    @property
    def capabilities(self) -> Capabilities: ...  # noqa: D102 -- see the twin, here and below
    def open(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102
    def apply(  # noqa: D102
        self, commands: Sequence[Command], *, sweep: int = 0, partly: bool = False
    ) -> Applied: ...
    def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]: ...  # noqa: D102
    def watch(self, run_id: RunId) -> AbstractContextManager[BlockingWatch]: ...  # noqa: D102
    def leases(self) -> Leases: ...  # noqa: D102
    def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]: ...  # noqa: D102
    def purge(self, service: str) -> int: ...  # noqa: D102


class BlockingBroker(Protocol):
    """Blocking twin of `Broker`."""

    @property
    def capabilities(self) -> Capabilities: ...  # noqa: D102
    def open(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102
    def publish(self, messages: Sequence[Message]) -> list[bool]: ...  # noqa: D102
    def receive(self, services: Sequence[str], limit: int) -> list[Delivery]: ...  # noqa: D102
    def idle(self, services: Sequence[str], timeout: float) -> None: ...  # noqa: D102
    def ack(self, deliveries: Sequence[Delivery]) -> None: ...  # noqa: D102
    def reject(self, deliveries: Sequence[Delivery]) -> None: ...  # noqa: D102
    def drain(self, service: str, limit: int) -> list[Delivery]: ...  # noqa: D102


class BlockingBackend(Protocol):
    """Blocking twin of `Backend`."""

    @property
    def capabilities(self) -> Capabilities: ...  # noqa: D102
    def open(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102
    def apply(self, commands: Sequence[Command]) -> list[Reply]: ...  # noqa: D102
    def exchange(self, commands: Sequence[Command], take: Take) -> Exchanged: ...  # noqa: D102
    def idle(self, take: Take, timeout: float) -> Exchanged | None: ...  # noqa: D102
    def read(self, run_ids: Sequence[RunId]) -> list[RunView | None]: ...  # noqa: D102
    def watch(self, run_id: RunId) -> AbstractContextManager[BlockingWatch]: ...  # noqa: D102
    def leases(self) -> Leases: ...  # noqa: D102
    def dead_letters(self, service: str | None, limit: int) -> list[DeadLetter]: ...  # noqa: D102
    def purge(self, service: str) -> int: ...  # noqa: D102
