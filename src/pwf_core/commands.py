"""What can be asked of a run's state, and the answers: the vocabulary of `transition` and the ports.

Each command names one run and is atomic on its own. All of them are safe to send again: asked
twice, the second answer says that there was nothing left to do, and nothing has changed.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from pwf_core.decisions import Decision, NewCall, StagedCall
from pwf_core.ids import CallId, ClaimId, RunId

__all__ = [
    "DEFER_MS",
    "Answer",
    "Bury",
    "Cancel",
    "Claim",
    "Collect",
    "Command",
    "Commit",
    "Drop",
    "Emit",
    "Fire",
    "Granted",
    "Message",
    "Page",
    "Postpone",
    "Postponement",
    "Renew",
    "Reply",
    "Requeue",
    "Settle",
    "Stage",
    "Start",
    "Started",
]


# Until a suspect comes again that met a worker with a suspect of its own: 64 innocent calls that
# were lost with a guilty one get through one by one, each after a few of these.
DEFER_MS = 100


class Answer(Enum):
    """How a command ended, where there is no more to say."""

    DONE = "done"  # it changed the state
    ENDED = "ended"  # the call (or its run) is not open any more: decided and done, or never was
    LOST = "lost"  # the call is open, but this claim on it is not the valid one: nothing changed
    BUSY = "busy"  # another claim holds the call
    STALE = "stale"  # an older copy of the call, or one that is not to run now
    DEFERRED = "deferred"  # it was lost with its workers before: it will come again, alone
    REFUSED = "refused"  # the state does not allow it (an event that has happened, say)
    AWAY = "away"  # where its run is cannot be reached: nothing is known, and it may be asked again


class Start(Struct, frozen=True):
    """Begin a run with its first call.

    Attributes:
        run_id: Drawn by the client; the same one again starts nothing.
        call: The root call.
        key: The user's key, or "".
        fingerprint: Tells starts with the same key and other arguments apart.
    """

    run_id: RunId
    call: NewCall
    key: str = ""
    fingerprint: str = ""


class Started(Struct, frozen=True):
    """Answer to `Start`.

    Attributes:
        run_id: The run that has the key; the one asked for where there was no key.
        created: Whether this start made it.
        conflict: Whether the key belongs to a start with other arguments.
    """

    run_id: RunId
    created: bool
    conflict: bool = False


class Claim(Struct, frozen=True):
    """Ask for the right to run a call, as a message names it.

    Attributes:
        generation: That of the message.
        claim_id: Drawn by the driver; the same one again gets the same answer and counts once.
        lease_ms: How long the claim holds unless renewed.
        suspects: Whether a call that was lost with its workers before may be granted.
    """

    run_id: RunId
    call_id: CallId
    generation: int
    claim_id: ClaimId
    lease_ms: int
    suspects: bool = True


class Granted(Struct, frozen=True):
    """The right to run a call now, and what the handler needs.

    Attributes:
        attempt: 1 for the first execution.
        failures: How often its handler has failed so far.
        suspect: Whether it was lost with its workers before, so that it counts as the one
            suspect that a process runs at a time.
        events: Payload by name, for a call that a join made.
        results: One per member and in order, None where a member gave none, for a call that a
            gather made; None otherwise, and where there are too many to be brought along.
        uncollected: How many those are; `Collect` brings them.
    """

    run_id: RunId
    call_id: CallId
    claim_id: ClaimId
    generation: int
    address: str
    body: bytes
    attempt: int
    failures: int
    suspect: bool
    events: dict[str, bytes]
    results: list[bytes | None] | None
    uncollected: int = 0


class Renew(Struct, frozen=True):
    """Hold on to a claim: DONE, LOST or ENDED."""

    run_id: RunId
    call_id: CallId
    claim_id: ClaimId
    lease_ms: int


class Commit(Struct, frozen=True):
    """Store the decision of a claimed call and all that follows from it: DONE, LOST or ENDED."""

    run_id: RunId
    call_id: CallId
    claim_id: ClaimId
    decision: Decision


class Stage(Struct, frozen=True):
    """Put down a part of a claimed call's decision that is too large for one step.

    DONE, LOST or ENDED. Nothing comes of it before the commit that says how many parts there are.

    Attributes:
        number: Which part, from 0; they come in order. One that was put down already stays.
    """

    run_id: RunId
    call_id: CallId
    claim_id: ClaimId
    number: int
    calls: tuple[StagedCall, ...]


class Collect(Struct, frozen=True):
    """Ask for the results that a claimed call was not given with its grant: a `Page`, LOST or ENDED.

    Attributes:
        first: The member whose result comes first.
    """

    run_id: RunId
    call_id: CallId
    claim_id: ClaimId
    first: int


class Page(Struct, frozen=True):
    """Some of a gather's results, in order; at least one, unless there are no more."""

    results: list[bytes | None]


class Postponement(Enum):
    """Why a claimed call runs later."""

    RETRY = "retry"  # its handler failed: the attempt counts
    PARK = "park"  # nobody here can run it yet: the attempt does not count
    HAND_BACK = "hand_back"  # the worker is leaving: the attempt does not count


class Postpone(Struct, frozen=True):
    """Give a claim up and have the call delivered again later: DONE, LOST or ENDED.

    Attributes:
        delay_ms: How much later; 0 for at once.
        reason: The error or the reason, for people; kept with the call.
    """

    run_id: RunId
    call_id: CallId
    claim_id: ClaimId
    kind: Postponement
    delay_ms: int
    reason: str


class Bury(Struct, frozen=True):
    """Make a claimed call a dead letter: DONE, LOST or ENDED."""

    run_id: RunId
    call_id: CallId
    claim_id: ClaimId
    reason: str


class Emit(Struct, frozen=True):
    """Emit an event from outside: DONE, REFUSED if it had happened, ENDED if the run is over."""

    run_id: RunId
    event: str
    payload: bytes


class Settle(Struct, frozen=True):
    """Say that the broker has this copy of the call: DONE, or STALE if it is not in the outbox."""

    run_id: RunId
    call_id: CallId
    generation: int


class Fire(Struct, frozen=True):
    """Move on what is due: a call, a join, what is left to do of a call; or the run itself ("")."""

    run_id: RunId
    call_id: CallId


class Requeue(Struct, frozen=True):
    """Run a dead letter again, its attempts counted from zero: DONE, STALE or ENDED."""

    run_id: RunId
    call_id: CallId


class Drop(Struct, frozen=True):
    """Take a call out of its run for good; the run will end as failed.

    Attributes:
        dead: True drops only a dead letter, False only a call that waits in a queue or for its
            time: DONE, STALE if the call is in another state, ENDED.
        reason: Becomes the run's failure.
    """

    run_id: RunId
    call_id: CallId
    dead: bool
    reason: str


class Cancel(Struct, frozen=True):
    """End a run as cancelled, with all that is open in it: DONE, or ENDED if it is over.

    Attributes:
        reason: For people.
    """

    run_id: RunId
    reason: str


class Message(Struct, frozen=True):
    """What travels through a broker: the name of a call's valid copy; the store has the rest."""

    run_id: RunId
    call_id: CallId
    generation: int
    address: str


Command: TypeAlias = (
    Start
    | Claim
    | Renew
    | Commit
    | Postpone
    | Bury
    | Emit
    | Settle
    | Fire
    | Requeue
    | Drop
    | Cancel
    | Stage
    | Collect
)
Reply: TypeAlias = Answer | Started | Granted | Page
