"""Services: a set of tasks that share one queue."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, final, overload

from pwf_core.context import Context
from pwf_core.directives import Returned
from pwf_core.errors import DefinitionError
from pwf_core.names import address_of, check_name
from pwf_core.retries import Retry
from pwf_core.tasks import Task

__all__ = ["Service", "TaskDecorator"]

P = ParamSpec("P")
RT = TypeVar("RT", bound=Returned)


@final
class _Payload:
    """Accepted by nothing but Any and object.

    The first overloads below catch handlers whose first parameter is typed so; the next ones would
    take that parameter for a Context and strip it.
    """


class TaskDecorator(Protocol):
    """What `@service.task(...)` with options returns."""

    @overload
    def __call__(
        self,
        fn: Callable[Concatenate[_Payload, P], RT],
        /,
    ) -> Task[Concatenate[Any, P], Concatenate[Any, P], RT]: ...
    @overload
    def __call__(
        self,
        fn: Callable[Concatenate[Context, P], RT],
        /,
    ) -> Task[P, Concatenate[Context, P], RT]: ...
    @overload
    def __call__(self, fn: Callable[P, RT], /) -> Task[P, P, RT]: ...


class Service:
    """A set of tasks that share one queue; any worker that is given it does their work.

    Args:
        name: Shared by all programs that serve or address it; without a dot.

    Raises:
        DefinitionError: If no service can have that name.

    Example:
        >>> users = Service("users")
        >>> @users.task
        ... def greet(name: str) -> Next:
        ...     return result(f"hello {name}")
    """

    def __init__(self, name: str) -> None:
        self.name = check_name(name, "service")
        self.tasks: dict[str, Task[..., Any, Any]] = {}

    @overload
    def task(
        self,
        fn: Callable[Concatenate[_Payload, P], RT],
        /,
    ) -> Task[Concatenate[Any, P], Concatenate[Any, P], RT]: ...
    @overload
    def task(
        self,
        fn: Callable[Concatenate[Context, P], RT],
        /,
    ) -> Task[P, Concatenate[Context, P], RT]: ...
    @overload
    def task(self, fn: Callable[P, RT], /) -> Task[P, P, RT]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
    ) -> TaskDecorator: ...
    def task(
        self,
        fn: Any = None,
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
    ) -> Any:
        """Register a handler: sync (run in a thread) or async, returning or yielding directives.

        Args:
            fn: The handler, where the decorator is used without options.
            name: The task's name; the function's own by default.
            retry: When a failed attempt is run again; `Retry()` by default.
            timeout: How long one attempt may take. An async handler is cancelled then, a sync one
                loses its lease; both count as a failed attempt.

        Raises:
            DefinitionError: If the name cannot be one, or is taken; if *fn* is no function, or
                takes `*args` or `**kwargs`; if an option cannot be.
        """

        def register(fn: Callable[..., Any]) -> Task[..., Any, Any]:
            own = _name_of(fn)
            address = self._address(own if name is None else name)
            policy = Retry() if retry is None else retry
            task: Task[..., Any, Any] = Task(address, fn, retry=policy, timeout=timeout)
            self.tasks[address] = task
            return task

        return register if fn is None else register(fn)

    def declare(self, fn: Callable[P, None], /) -> Task[P, P, None]:
        """Give a typed address to a task whose handler lives in another code base.

        Raises:
            DefinitionError: If the name cannot be one, or is taken.
        """
        return Task(self._address(_name_of(fn)), fn, retry=Retry(), declared=True)

    def _address(self, name: str) -> str:
        address = address_of(self.name, check_name(name, "task"))
        if address in self.tasks:
            raise DefinitionError(
                f"Service {self.name!r} has a task {name!r} already; give one of them another "
                "name, @service.task(name=...).",
            )
        return address

    def __repr__(self) -> str:
        return f"Service({self.name!r})"


def _name_of(fn: Callable[..., Any]) -> str:
    if not inspect.isroutine(inspect.unwrap(fn)):  # only they have annotations of parameters
        raise DefinitionError(
            f"A task is made of a function or method, not of {fn!r} ({type(fn).__name__}). Options "
            "of a task are given by name: @service.task(name=..., retry=..., timeout=...).",
        )
    name: str = getattr(fn, "__name__", type(fn).__name__)
    return name
