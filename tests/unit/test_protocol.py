"""The worker's protocol, and what a crash at any of its steps comes to."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from pwf_core.commands import (
    Answer,
    Bury,
    Claim,
    Commit,
    Fire,
    Granted,
    Message,
    Postpone,
    Postponement,
    Settle,
    Start,
)
from pwf_core.context import Context
from pwf_core.decide import new_call
from pwf_core.decisions import Decision
from pwf_core.directives import Next, emit, gather, join, publish, result
from pwf_core.errors import CodecError, DirectiveError, StoreUnavailableError
from pwf_core.events import Event
from pwf_core.ids import CallId, ClaimId, RunId, derive_call_id, root_call_id
from pwf_core.paired import Apply, Publish
from pwf_core.protocol import Conclude, HandBackError, Invoke, Outcome, process
from pwf_core.retries import Retry, backoff_ms
from pwf_core.service import Service
from pwf_core.state import Rules
from pwf_core.steps import drive
from pwf_core.views import Status
from pwf_memory.clock import VirtualClock
from pwf_memory.tables import Tables

work = Service("work")
ready = Event("ready", int)


@work.task(retry=Retry(attempts=2))
def task(ctx: Context, number: int) -> Next:
    return result(number)


def grant(**more: Any) -> Granted:
    fields: dict[str, Any] = {
        "run_id": RunId("r" * 32),
        "call_id": CallId("c" * 32),
        "claim_id": ClaimId("s:1"),
        "generation": 0,
        "address": "work.task",
        "body": task.encode((7,), {}),
        "attempt": 3,
        "failures": 0,
        "suspect": False,
        "events": {"ready": b"\x07"},
        "results": [b"\x01", None],
    }
    return Granted(**fields | more)


def steps(**more: Any) -> Any:
    return process(grant(**more), work.tasks, lambda type_: type_())


def test_handler_gets_what_was_granted():
    """Arguments are decoded, and the context has the run, the call, the attempt and what was joined."""
    invoke = next(steps())

    assert isinstance(invoke, Invoke)
    assert (task, [7], {}) == (invoke.task, invoke.args, invoke.kwargs)
    context = invoke.context
    assert ("r" * 32, "c" * 32, 3) == (context.run_id, context.call_id, context.attempt)
    assert 7 == context.events[ready]
    assert [1, None] == context.results
    assert {} == context.resource(dict)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer.DONE, Outcome.COMMITTED),
        (Answer.ENDED, Outcome.ENDED),
        (Answer.LOST, Outcome.LEASE_LOST),
    ],
)
def test_return_value_becomes_a_commit(answer, outcome):
    """What a handler returns is committed under its claim; the answer says how the attempt ended."""
    one = steps()
    next(one)
    conclude = one.send([result(1), publish("work.next")])

    assert isinstance(conclude, Conclude)
    assert isinstance(conclude.command, Commit)
    assert "s:1" == conclude.command.claim_id
    assert 1 == len(conclude.command.decision.calls)
    with pytest.raises(StopIteration) as stop:
        one.send(answer)
    assert (outcome, "") == stop.value.value


@pytest.mark.parametrize(
    ("failures", "error", "kind"),
    [(0, ValueError("no"), Postpone), (1, ValueError("no"), Bury), (0, TimeoutError(), Postpone)],
)
def test_error_becomes_a_retry_or_a_dead_letter(failures, error, kind):
    """The policy decides, by how often the handler has failed; lost attempts do not count."""
    one = steps(failures=failures, attempt=9)
    next(one)
    conclude = one.throw(error)

    assert isinstance(conclude.command, kind)
    assert type(error).__name__ in conclude.command.reason


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (ValueError("closed"), "ValueError: closed"),
        (ValueError("a\nERROR shop: all lost\x1b[31m\u202e"), r"ValueError: a\nERROR shop: all lost\x1b[31m\u202e"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 288 + "…"),
        (KeyError(), "KeyError"),
        (StoreUnavailableError("Redis is away"), "pwf_core.errors.StoreUnavailableError: Redis is away"),
        (CodecError("Argument 'x' of a.b", "Invalid enum value '4111'"), "CodecError: Argument 'x' of a.b"),
        (DirectiveError("Task 'a.b' returned '4111'"), "DirectiveError"),
    ],
)  # fmt: skip
def test_what_is_logged_of_an_error_is_one_line_without_payloads(error, logged):
    """A handler's words are shown as they are; ours may quote a value."""
    one = steps()
    next(one)
    one.throw(error)
    with pytest.raises(StopIteration) as stop:
        one.send(Answer.DONE)

    assert stop.value.value[1] == logged


def test_reason_is_bounded():
    """Of an endless message the end is kept."""
    one = steps()
    next(one)
    conclude = one.throw(ValueError("x" * 100_000 + "end"))

    assert len(conclude.command.reason) <= 16 * 1024
    assert conclude.command.reason.endswith("end\n")


def test_wrong_return_value_is_buried_at_once():
    """Another attempt would return the same."""
    one = steps()
    next(one)
    conclude = one.send(42)

    assert isinstance(conclude.command, Bury)
    assert "Task 'work.task' returned 42" in conclude.command.reason
    assert "result(value)" in conclude.command.reason


def test_second_result_is_buried_at_once():
    """A call gives one value; which task gave two is said."""
    one = steps()
    next(one)
    conclude = one.send([result(1), result(2)])

    assert isinstance(conclude.command, Bury)
    assert "Task 'work.task' returned two results" in conclude.command.reason


def test_effects_are_themselves():
    """Two invocations are never the same, however alike; what was concluded does not change."""
    one = steps()
    invoke = next(one)

    assert 2 == len({invoke, next(steps())})
    with pytest.raises(AttributeError):
        one.send(None).command = None


def test_outcomes_have_words():
    """For logs and metrics, where they are compared with yesterday's."""
    assert [
        "committed", "retried", "buried", "parked", "handed back", "ended", "lease lost",
    ] == [one.value for one in Outcome]  # fmt: skip


@pytest.mark.parametrize(
    "more", [{"address": "work.new"}, {"body": b"\x91\xa1x"}, {"body": b"\xc1"}]
)
def test_what_cannot_run_here_is_parked(more):
    """An unknown task, or arguments that are not its own, run nothing."""
    conclude = next(steps(**more))

    assert isinstance(conclude, Conclude)
    assert isinstance(conclude.command, Postpone)
    assert Postponement.PARK is conclude.command.kind


def test_leaving_worker_hands_back():
    """A handler that is stopped because its worker leaves has not failed."""
    one = steps()
    next(one)
    conclude = one.throw(HandBackError("leaving"))

    assert (Postponement.HAND_BACK, 0) == (conclude.command.kind, conclude.command.delay_ms)


# -- what is asked of the store, and said of the attempt ---------------------------------------------

NAMES = (RunId("r" * 32), CallId("c" * 32), ClaimId("s:1"))


@work.task
def vague(number: NoSuchType) -> Next:  # type: ignore[name-defined]  # noqa: F821
    return None


def attempt(perform: Any, **more: Any) -> tuple[Any, tuple[Outcome, str]]:
    """Run one attempt with a handler, and return what was concluded, and how it ended."""
    concluded = []

    def do(effect: Any) -> Any:
        if isinstance(effect, Invoke):
            return perform(effect)
        concluded.append(effect.command)
        return Answer.DONE

    ended = drive(steps(**more), do)
    (command,) = concluded
    return command, ended


def raising(error: Exception) -> Any:
    def perform(effect: Invoke) -> Any:
        raise error

    return perform


def test_commit_names_its_claim():
    """The decision is that of the call and its address, and nothing is said of a success."""
    command, ended = attempt(lambda _: [result(1), publish("work.next")])

    (child,) = command.decision.calls
    derived = derive_call_id(CallId("c" * 32), "publish", "work.next", 0)
    assert Commit(*NAMES, Decision(calls=(child,), result=b"\x01")) == command
    assert derived == child.call_id
    assert (Outcome.COMMITTED, "") == ended


def test_call_that_nobody_knows_is_parked_for_two_seconds():
    """The reason is for people, in the outcome as with the call."""
    reason = "no worker here knows this task"
    command, ended = attempt(None, address="work.new")

    assert Postpone(*NAMES, Postponement.PARK, 2000, reason) == command
    assert (Outcome.PARKED, reason) == ended


@pytest.mark.parametrize(
    ("more", "says", "logged"),
    [
        ({"body": b"\xc1"}, "work.task", "CodecError: Arguments of work.task"),
        ({"address": "work.vague"}, "NoSuchType", "DefinitionError"),
    ],
)
def test_call_that_cannot_be_read_here_is_parked_for_two_seconds(more, says, logged):
    """Bytes that are no arguments, and annotations that mean nothing here: another worker may know."""
    command, ended = attempt(None, **more)

    assert says in command.reason
    assert Postpone(*NAMES, Postponement.PARK, 2000, command.reason) == command
    assert (Outcome.PARKED, logged) == ended


def test_failed_attempt_is_retried_with_its_own_jitter():
    """After the backoff that the policy gives this call for that many failures."""
    command, ended = attempt(raising(ValueError("no")), failures=0)

    assert backoff_ms(task.retry, "c" * 32, 1) == command.delay_ms > 0
    assert Postpone(*NAMES, Postponement.RETRY, command.delay_ms, command.reason) == command
    assert (Outcome.RETRIED, "ValueError: no") == ended


def test_last_attempt_is_buried():
    """The reason stands in the dead letter and in the outcome."""
    command, ended = attempt(raising(ValueError("no")), failures=1)

    assert Bury(*NAMES, command.reason) == command
    assert command.reason.endswith("ValueError: no\n")
    assert (Outcome.BURIED, "ValueError: no") == ended


def test_handing_back_says_why():
    """At once, and elsewhere."""
    command, ended = attempt(raising(HandBackError("leaving")))

    assert Postpone(*NAMES, Postponement.HAND_BACK, 0, "leaving") == command
    assert (Outcome.HANDED_BACK, "leaving") == ended


@pytest.mark.parametrize(
    ("answer", "outcome"), [(Answer.ENDED, Outcome.ENDED), (Answer.LOST, Outcome.LEASE_LOST)]
)
def test_failure_that_was_not_stored_is_not_told(answer, outcome):
    """It is another worker's call by now."""
    one = steps()
    next(one)
    one.throw(ValueError("no"))
    with pytest.raises(StopIteration) as stop:
        one.send(answer)

    assert (outcome, "") == stop.value.value


def test_reason_is_a_traceback_of_the_handler():
    """It begins in the handler's frame: those that called it are ours, and tell nobody anything."""

    def fail() -> None:
        raise ValueError("deep")

    @Service("deep").task
    def handler() -> Next:
        fail()

    def perform(effect: Invoke) -> Any:
        return effect.task.fn()

    one = process(grant(address="deep.handler", body=b"\x90"), {"deep.handler": handler}, None)
    invoke = next(one)
    with pytest.raises(ValueError, match="deep") as caught:
        perform(invoke)
    frames = caught.tb.tb_next.tb_next  # after this one and that of `perform`
    expected = "".join(traceback.format_exception(ValueError, caught.value, frames))
    assert expected == one.throw(caught.value).command.reason
    assert "in handler\n" in expected.splitlines(keepends=True)[1]


def test_reason_without_a_frame_of_the_handler_is_whole():
    """A time-out was raised by whoever ran it."""
    command, _ = attempt(raising(TimeoutError("too long")))

    assert "in perform" in command.reason
    assert command.reason.endswith("TimeoutError: too long\n")


def test_longest_reason():
    """Exactly its end, 16 Ki characters of it."""
    command, _ = attempt(raising(ValueError("x" * 100_000)))

    assert "x" * (16 * 1024 - 1) + "\n" == command.reason


def test_handler_without_results_sees_none():
    """There are none in a call that no gather made."""
    assert [] == next(steps(results=None)).context.results


# -- crashes ---------------------------------------------------------------------------------------
# A world of one store and one broker's queue, in which a worker dies after every possible step.


class CrashError(Exception):
    """The worker is gone."""


class World:
    """A paired store, a queue, and how many steps the next worker lives."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.tables = Tables(Rules(paired=True), self.clock)
        self.queue: list[Message] = []
        self.lives = 10**9
        self.workers = 0
        self.ran: list[str] = []

    def step(self) -> None:
        self.lives -= 1
        if self.lives < 0:
            raise CrashError

    def apply(self, commands: list[Any], sweep: int = 0) -> Any:
        """Apply, publish, settle: the steps of Paired, with a crash possible between any two."""
        self.step()
        applied = self.tables.apply(Apply(commands, sweep).commands, sweep=sweep)
        self.step()
        for message in Publish(applied.enqueued).messages:
            self.queue.append(message)
            self.step()
            self.tables.apply([Settle(message.run_id, message.call_id, message.generation)])
            self.step()
        return applied.replies

    def work(self, tasks: Any) -> None:
        """Be a worker until nothing is left to do now."""
        self.workers += 1
        number = 0
        self.apply([], sweep=1000)
        while self.queue:
            number += 1
            message = self.queue[0]
            claim = Claim(
                message.run_id,
                message.call_id,
                message.generation,
                ClaimId(f"w{self.workers}:{number}"),
                1000,
            )
            (reply,) = self.apply([claim])
            if isinstance(reply, Granted):
                drive(process(reply, tasks, lambda _: None), self.perform)
            self.queue.remove(message)  # acked: a crash before delivers it again
            self.step()

    def perform(self, effect: Any) -> Any:
        self.step()
        if isinstance(effect, Invoke):
            task = effect.task
            self.ran.append(effect.context.call_id)
            args = [effect.context, *effect.args] if task.takes_context else effect.args
            return task.fn(*args, **effect.kwargs)
        (reply,) = self.apply([effect.command])
        return reply


flow = Service("flow")


@flow.task
def begin() -> Next:
    return (
        join("a", "b", then=publish(joined)),
        gather([publish(emitter, "a"), publish(emitter, "b")], then=publish(gathered)),
    )


@flow.task
def emitter(name: str) -> Next:
    return emit(name, name), result(name)


@flow.task
def joined(ctx: Context) -> Next:
    return emit("joined", sorted(ctx.events))


@flow.task
def gathered(ctx: Context) -> Next:
    return join("joined", then=publish(end, ctx.results))


@flow.task
def end(ctx: Context, results: list[str]) -> Next:
    return result([results, ctx.events["joined"]])


def run_with_crashes(*lives: int) -> World:
    """Run the flow; the n-th worker dies after as many steps as said, the last one lives."""
    world = World()
    run_id = RunId("f" * 32)
    first = new_call(root_call_id(run_id, "flow.begin"), publish(begin))
    world.apply([Start(run_id, first)])
    for life in (*lives, 10**9, 10**9, 10**9):
        world.lives = life
        try:
            world.work(flow.tasks)
        except CrashError:
            world.clock.advance(10_000)  # leases and the outbox become due
        world.clock.advance(100_000)  # and so does what nobody claimed
    (view,) = world.tables.read([run_id])
    assert view is not None

    assert Status.FINISHED is view.outcome.status
    assert b"\x92\x92\xa1a\xa1b\x92\xa1a\xa1b" == view.outcome.result
    assert ((), ()) == (view.calls, view.joins)
    return world


def steps_of_a_whole_run() -> int:
    world = World()
    run_id = RunId("f" * 32)
    world.apply([Start(run_id, new_call(root_call_id(run_id, "flow.begin"), publish(begin)))])
    world.lives = 10**9
    world.work(flow.tasks)
    return 10**9 - world.lives


STEPS = steps_of_a_whole_run()


def test_without_a_crash_everything_runs_once():
    """Six calls, six executions."""
    assert 6 == len(run_with_crashes().ran)


@pytest.mark.parametrize("life", range(STEPS + 1))
def test_crash_at_any_step(life):
    """Wherever a worker dies, the next ones finish the same run: nothing lost, committed once."""
    world = run_with_crashes(life)

    calls = set(world.ran)
    assert 6 == len(calls)
    assert len(world.ran) <= 7  # the handler that was running, or not yet committed, runs again


def test_crashes_in_a_row():
    """Two workers may die, one after the other, at any pair of steps."""
    for first in range(0, STEPS, 3):
        for second in range(0, STEPS, 5):
            world = run_with_crashes(first, second)

            assert 6 == len(set(world.ran))


def test_fired_twice_is_nothing_new():
    """A timer that is fired again after its crash enqueues no second copy."""
    world = World()
    run_id = RunId("f" * 32)
    first = new_call(root_call_id(run_id, "flow.begin"), publish(begin))
    world.tables.apply([Start(run_id, first)])
    world.clock.advance(10_000)
    fire = Fire(run_id, first.call_id)

    replies = world.tables.apply([fire, fire]).replies
    assert [Answer.DONE, Answer.STALE] == replies
