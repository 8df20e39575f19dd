"""Services, tasks and events: what cannot work is refused where it is defined."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import attrs
import pytest

from pwf import CodecError, Context, DefinitionError, Event, Next, Service, publish
from pwf_core.retries import Retry


class Handler:
    def __call__(self, one: int) -> Next:
        return None

    def method(self, one: int) -> Next:
        return None


def named(one: int) -> Next:
    return None


@pytest.mark.parametrize("fn", [5, "s", [named], int, Handler, Handler(), partial(named, 1)])
def test_task_is_made_of_a_function(fn: Any) -> None:
    """A value in its place is most likely an option, so the error says how to give those."""
    service = Service("s")
    for decorate in (service.task, service.task(name="given"), service.declare):
        with pytest.raises(DefinitionError, match=r"made of a function.*@service\.task\(name="):
            decorate(fn)

    assert service.tasks == {}


@pytest.mark.parametrize("fn", [named, lru_cache(named), Handler().method])
def test_task_may_be_a_method_or_wrapped(fn: Any) -> None:
    """The parameters of all of them are known, with their annotations."""
    task = Service("s").task(name="handle")(fn)

    assert task.decode(publish(task, 1).body) == ([1], {})
    with pytest.raises(CodecError):
        publish(task, "x")


def test_unnamed_parameters_are_refused_at_once() -> None:
    """The decorator says so, and not the first publish."""

    def star(*args: int) -> Next: ...

    def stars(ctx: Context, **kwargs: int) -> Next: ...

    def context_star(*ctx: Context) -> Next: ...

    for fn in (star, stars, context_star):
        service = Service("s")
        for decorate in (service.task, service.declare):
            with pytest.raises(DefinitionError, match="take one list or dict"):
                decorate(fn)  # type: ignore[operator]

        assert service.tasks == {}


def test_function_without_a_signature_is_refused() -> None:
    """What Python itself does not know, no message can be checked against."""
    with pytest.raises(DefinitionError, match="Write a function around it"):
        Service("s").task(max)  # type: ignore[call-overload]


def test_retry_is_a_policy() -> None:
    """A number that happens to be zero does not mean the default."""
    with pytest.raises(DefinitionError, match="retry=0"):
        Service("s").task(retry=0)(named)  # type: ignore[call-overload]

    assert Service("s").task(retry=None)(named).retry == Retry()


@pytest.mark.parametrize("type_", [object(), 5, "str", [int], named])
def test_event_needs_a_type_that_can_be_decoded(type_: Any) -> None:
    """What is no type at all is refused with the definition."""
    with pytest.raises(DefinitionError, match="cannot be a payload type"):
        Event("x", type_)


def test_event_type_may_name_what_comes_later() -> None:
    """Its fields are looked up with the first payload."""

    @attrs.frozen
    class Early:
        late: Late

    assert Event("x", Early).type_ is Early


@attrs.frozen
class Late:
    number: int
