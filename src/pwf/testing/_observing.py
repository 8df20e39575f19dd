"""What is noted of a simulated run: its effects in words, its commits, and the marked side effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from msgspec import Struct

from pwf_core.commands import Answer, Command, Commit, Granted, Reply
from pwf_core.context import Context
from pwf_core.decisions import Decision
from pwf_core.ids import CallId, ClaimId
from pwf_core.paired import Ack, Apply, Publish, Receive, Reject
from pwf_core.ports import Take
from pwf_core.state import Rules
from pwf_memory.clock import VirtualClock
from pwf_memory.tables import Tables

__all__ = ["NotingContext", "Recording", "Trip", "commits", "describe"]


class Trip(Struct, frozen=True):
    """Effect: a whole round trip of the fused protocol."""

    commands: Sequence[Command]
    take: Take


class Recording(Tables):
    """Keeps which commits were accepted, and how many refused: late ones, and repeated ones.

    And how many executions of each call have ended with their lease.

    Whether a commit may be accepted is judged here once more, by what was granted before, so that
    explorations find it out if the fence in the core does not hold.
    """

    def __init__(self, rules: Rules, clock: VirtualClock) -> None:
        super().__init__(rules, clock)
        self.committed: list[tuple[CallId, str, Decision]] = []
        self.refused = 0
        self.overtaken: list[CallId] = []
        self.lost: dict[CallId, int] = {}
        self._holders: dict[CallId, ClaimId] = {}

    def _do(self, command: Command, now: int) -> Reply:
        if type(command) is Commit:
            return self._commit(command, now)
        reply = super()._do(command, now)
        if type(reply) is Granted:
            self._holders[reply.call_id] = reply.claim_id
            self.lost[reply.call_id] = reply.attempt - 1 - reply.failures
        return reply

    def _commit(self, command: Commit, now: int) -> Reply:
        run = self.runs.get(command.run_id)
        call = run.calls.get(command.call_id) if run is not None else None
        reply = super()._do(command, now)
        if reply is not Answer.DONE or call is None:
            self.refused += 1
            return reply
        self.committed.append((command.call_id, call.address, command.decision))
        if self._holders[command.call_id] != command.claim_id:
            self.overtaken.append(command.call_id)
        return reply


@attrs.define(kw_only=True)
class NotingContext(Context):
    """A context that notes which side effects are asked for."""

    _note: Callable[[str], None] = attrs.field(alias="note", repr=False)

    @classmethod
    def of(cls, context: Context, note: Callable[[str], None]) -> NotingContext:
        """Return the same context, noting."""
        known = {str(one.alias): getattr(context, one.name) for one in attrs.fields(Context)}
        return cls(**known, note=note)

    def effect(self, name: str, /) -> str:
        self._note(name)
        return super().effect(name)


def commits(effect: object) -> bool:
    commands = effect.commands if isinstance(effect, (Trip, Apply)) else ()
    return any(isinstance(command, Commit) for command in commands)


def describe(effect: object) -> str:
    match effect:
        case Trip(commands, take):
            return f"exchanges {_kinds(commands)}, takes up to {take.limit}"
        case Apply(commands, sweep):
            return f"applies {_kinds(commands)}" + (", fires what is due" if sweep else "")
        case Publish(messages):
            return f"publishes {', '.join(message.address for message in messages)}"
        case Receive():
            return "receives"
        case Ack(deliveries) | Reject(deliveries):
            return f"acks {len(deliveries)}"
    return repr(effect)


def _kinds(commands: Sequence[Command]) -> str:
    return ", ".join(type(command).__name__.lower() for command in commands) or "nothing"
