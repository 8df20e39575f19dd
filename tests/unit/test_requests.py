"""What a client is asked: refused before anything is sent if it cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from pwf import (
    BlockingWorker,
    ConfigurationError,
    DirectiveError,
    Next,
    PwfError,
    Service,
    Status,
    Worker,
    connect,
    connect_blocking,
    publish,
    result,
)
from pwf._requests import MAX_KEY
from pwf.testing import simulate

service = Service("s")

Ask = Callable[[Any], Any]


@service.task
def answer() -> Next:
    return result(42)


def on_asyncio(ask: Ask) -> Any:
    async def main() -> Any:
        async with connect("memory://") as backend:
            return await ask(backend)

    return asyncio.run(main())


def in_threads(ask: Ask) -> Any:
    with connect_blocking("memory://") as backend:
        return ask(backend)


@pytest.fixture(params=[on_asyncio, in_threads], ids=["asyncio", "threads"], name="asked")
def asked_either(request: pytest.FixtureRequest) -> Callable[[Ask], Any]:
    asked: Callable[[Ask], Any] = request.param
    return asked


@pytest.mark.parametrize(
    "timeout",
    ["5", -1, float("nan"), float("inf"), True, 10**400, [], timedelta(seconds=-1)],
    ids=ascii,
)
def test_timeouts_that_cannot_be_are_refused(asked: Callable[[Ask], Any], timeout: Any) -> None:
    """A time-out is a number of seconds from 0, a timedelta, or None."""
    for method in ("wait", "result"):
        with pytest.raises(ConfigurationError, match="timeout= takes a number of seconds"):
            asked(lambda backend, name=method: getattr(backend.run("r"), name)(timeout=timeout))


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda backend: backend.requeue(5), r"requeue\(\) takes a dead letter, .* not 5"),
        (lambda backend: backend.discard("id"), r"discard\(\) takes a dead letter, .* not 'id'"),
        (lambda backend: backend.dead_letters(limit="x"), "a whole number above 0, not 'x'"),
        (lambda backend: backend.dead_letters("s", limit=0), "a whole number above 0, not 0"),
        (lambda backend: backend.dead_letters("a.b"), "dot"),
        (lambda backend: backend.run("r").cancel(reason=5), "is a string, not 5"),
    ],
)
def test_what_cannot_be_is_refused(asked: Callable[[Ask], Any], ask: Ask, says: str) -> None:
    """Dead letters, limits and reasons are what they are said to be."""
    with pytest.raises(PwfError, match=says):
        asked(ask)


@pytest.mark.parametrize("timeout", [0, 0.01, timedelta(milliseconds=10), timedelta.max])
def test_timeouts_come_in_both_units(timeout: float | timedelta) -> None:
    """Seconds and timedeltas mean the same."""
    with connect_blocking("memory://") as backend, BlockingWorker(backend, service):
        run = backend.start(publish(answer))
        run.wait(timeout=10)

        assert run.wait(timeout=timeout) is Status.FINISHED


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (5, r"not 5 \(int\)"),
        (b"x", r"not b'x' \(bytes\)"),
        ("", "not empty"),
        ("a\ud800", r"no lone surrogates, but 'a\\ud800' has one"),
        ("x" * 100_000, r"at most 1,024 bytes .* has 100,000"),
        ("é" * (MAX_KEY // 2 + 1), r"has 1,026"),
    ],
    ids=["int", "bytes", "empty", "surrogate", "long", "wide"],
)
def test_odd_keys_and_run_ids_are_refused(
    asked: Callable[[Ask], Any],
    text: Any,
    says: str,
) -> None:
    """One error for all, and for both; a long text is not repeated in full."""
    asks: list[tuple[str, Ask]] = [
        ("A key", lambda backend: backend.start(publish(answer), key=text)),
        ("A key", lambda backend: backend.start_many([publish(answer)], keys=[text])),
        ("A run id", lambda backend: backend.run(text).status()),
        ("A run id", lambda backend: backend.emit(text, "paid")),
    ]
    for what, ask in asks:
        with pytest.raises(DirectiveError, match=f"{what} .*{says}") as caught:
            asked(ask)

        assert len(str(caught.value)) < 300


def test_ordinary_keys_are_fine() -> None:
    """Any text up to the limit, control characters and all."""
    for key in ("x" * MAX_KEY, "é" * (MAX_KEY // 2), "a b\n\0*{}:🎉"):
        with connect_blocking("memory://") as backend:
            first = backend.start(publish(answer), key=key)

            assert backend.start(publish(answer), key=key).id == first.id


@pytest.mark.parametrize(
    ("firsts", "keys"),
    [(5, None), (publish(answer), None), ([publish(answer)], 5), ([publish(answer)], "k")],
)
def test_start_many_takes_lists(asked: Callable[[Ask], Any], firsts: Any, keys: Any) -> None:
    """One call is no list of calls, and a key is no list of keys."""
    with pytest.raises(DirectiveError, match=r"start_many\(\) takes a list"):
        asked(lambda backend: backend.start_many(firsts, keys=keys))


@contextmanager
def pool() -> Any:
    yield 1


@pytest.mark.parametrize("resources", [[5], 5, None, "x", {"pool": pool}, pool, [pool, pool()]])
def test_resources_are_made_by_callables(resources: Any) -> None:
    """What was made already, or makes nothing, is refused with the worker."""
    makers: list[Callable[[], Any]] = [
        lambda: Worker(connect("memory://"), service, resources=resources),
        lambda: BlockingWorker(connect_blocking("memory://"), service, resources=resources),
        lambda: simulate(publish(answer), service, resources=resources),
    ]
    for make in makers:
        with pytest.raises(ConfigurationError, match=r"such as \[make_pool\]"):
            make()


def test_resource_is_a_context_manager() -> None:
    """A callable that makes something else is named when the worker starts."""
    with (
        pytest.raises(ConfigurationError, match=r"has made 0, which is no context manager"),
        connect_blocking("memory://") as backend,
        BlockingWorker(backend, service, resources=[int]),
    ):
        pass
    with pytest.raises(ConfigurationError, match=r"has made 0, which is no context manager"):
        simulate(publish(answer), service, resources=[int])
