"""What a handler may know about the call that it is running."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

import attrs

from pwf_core import values
from pwf_core.errors import ConfigurationError
from pwf_core.events import Event
from pwf_core.failures import encode as encode_failure
from pwf_core.failures import reason_in
from pwf_core.ids import CallId, RunId

__all__ = ["Context", "Events"]

T = TypeVar("T")


class Events:
    """The payloads that a join has collected, by event; decoded when they are looked at."""

    __slots__ = ("_payloads",)

    def __init__(self, payloads: Mapping[str, bytes]) -> None:
        self._payloads = payloads

    @overload
    def __getitem__(self, event: Event[T], /) -> T: ...
    @overload
    def __getitem__(self, event: str, /) -> Any: ...
    def __getitem__(self, event: Event[Any] | str, /) -> Any:
        """Return the payload of *event*: of its type, or builtins for a name.

        Raises:
            KeyError: If the join that made this call did not name the event.
            CodecError: If the payload is not of the event's type.
        """
        name = event.name if isinstance(event, Event) else event
        if name not in self._payloads:
            names = ", ".join(map(repr, self._payloads)) or "none"
            raise KeyError(
                f"event {name!r} is not among those that this call was joined on: {names}"
            )
        data = self._payloads[name]
        if isinstance(event, Event):
            return event.decode(data)
        return values.decode(data, Any, f"Payload of event {name!r}")

    def __contains__(self, event: object, /) -> bool:
        return (event.name if isinstance(event, Event) else event) in self._payloads

    def __iter__(self) -> Iterator[str]:
        return iter(self._payloads)

    def __len__(self) -> int:
        return len(self._payloads)


def _no_resource(type_: type[Any]) -> Any:
    raise ConfigurationError(
        f"No resource of type {type_.__name__} is open here. Pass what makes it to the worker, "
        "Worker(..., resources=[...]), or to Context.for_test(resources=[...]) in a test.",
    )


@attrs.define(kw_only=True)
class Context:
    """The call at hand; a handler gets it by taking a first parameter of this type.

    Attributes:
        run_id: The run.
        call_id: The call; stays the same over all attempts, so it makes an idempotency key.
        attempt: 1 for the first execution.
        events: Payload by event, for a call that a join made.
        cancelled: True once this attempt's work is not wanted any more: its lease is lost, its
            time-out is over, or the worker stops. A long sync handler does well to look at it.
    """

    run_id: RunId
    call_id: CallId
    attempt: int = 1
    events: Events = attrs.field(factory=lambda: Events({}))
    cancelled: bool = False
    _results: Sequence[bytes | None] = attrs.field(default=(), alias="results")
    _find: Callable[[type[Any]], Any] = attrs.field(default=_no_resource, alias="find", repr=False)

    @property
    def results(self) -> list[Any]:
        """The results of the gather's members as builtins, in order; None where one gave none."""
        return self._decode_results(Any)

    @property
    def failures(self) -> dict[int, str]:
        """Why members failed that the gather tolerates, by their number; their results are None."""
        reasons = {number: reason_in(data) for number, data in enumerate(self._results)}
        return {number: reason for number, reason in reasons.items() if reason is not None}

    def results_as(self, type_: type[T], /) -> list[T]:
        """Return the results of the gather's members, each decoded to *type_*, in order.

        Raises:
            CodecError: If one is not of that type; a member that gave no result counts as None.
        """
        return self._decode_results(type_)

    def resource(self, type_: type[T], /) -> T:
        """Return the worker's resource of that type.

        Raises:
            ConfigurationError: If the worker has none.
        """
        found: T = self._find(type_)
        return found

    def effect(self, name: str, /) -> str:
        """Return the idempotency key of this call's side effect *name*: the same in any attempt."""
        return f"{self.call_id}:{name}"

    @classmethod
    def for_test(
        cls,
        *,
        events: Mapping[Event[Any] | str, object] | None = None,
        results: Sequence[object] = (),
        failures: Mapping[int, str] | None = None,
        resources: Sequence[object] = (),
        attempt: int = 1,
        run_id: str = "test-run",
        call_id: str = "test-call",
    ) -> Context:
        """Return a context for calling a handler in a unit test.

        Args:
            events: Payload by event, as the join would have collected them.
            results: One per member, as the gather would have collected them.
            failures: Why members failed, by their number; whatever *results* has there.
            resources: What `resource(Type)` finds, by type.
            attempt: 1 for the first execution.
            run_id: Any text.
            call_id: Any text.
        """
        payloads = {}
        for event, payload in (events or {}).items():
            if isinstance(event, Event):
                payloads[event.name] = event.encode(payload)
            else:
                payloads[event] = values.encode(payload, f"Payload of event {event!r}")

        def find(type_: type[Any]) -> Any:
            for resource in resources:
                if isinstance(resource, type_):
                    return resource
            return _no_resource(type_)

        return cls(
            run_id=RunId(run_id),
            call_id=CallId(call_id),
            attempt=attempt,
            events=Events(payloads),
            results=[
                encode_failure(failures[number])
                if failures and number in failures
                else values.encode(value, "Result")
                for number, value in enumerate(results)
            ],
            find=find,
        )

    def _decode_results(self, type_: Any) -> list[Any]:
        return [
            values.decode(
                values.NONE if data is None or reason_in(data) is not None else data,
                type_,
                f"Result of member {number}",
            )
            for number, data in enumerate(self._results)
        ]
