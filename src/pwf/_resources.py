"""A worker's resources: opened once, found by type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import attrs

from pwf_core.errors import ConfigurationError

__all__ = ["Resources"]


@attrs.define
class Resources:
    """What `ctx.resource(Type)` finds.

    Attributes:
        makers: Each is called once and returns a context manager, sync or async.

    Raises:
        ConfigurationError: If they are something else.
    """

    makers: Sequence[Callable[[], Any]]
    _open: list[Any] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.makers, Sequence):
            raise _not_makers(self.makers)
        for make in self.makers:
            is_made = _is_manager(make) and not isinstance(make, type)
            if is_made or not callable(make):
                raise _not_makers(make)

    def find(self, type_: type[Any]) -> Any:
        """Return the resource of that type.

        Raises:
            ConfigurationError: If there is none.
        """
        for resource in self._open:
            if isinstance(resource, type_):
                return resource
        names = ", ".join(type(one).__name__ for one in self._open) or "none"
        raise ConfigurationError(
            f"No resource of type {type_.__name__} is open; open are: {names}. "
            "Pass what makes it to the worker: Worker(..., resources=[...]).",
        )

    async def open_async(self, stack: AsyncExitStack) -> None:
        """Open all, and have *stack* close them.

        Raises:
            ConfigurationError: If one is no context manager.
        """
        for make in self.makers:
            manager = _made_by(make)
            if hasattr(manager, "__aenter__"):
                self._open.append(await stack.enter_async_context(manager))
            else:
                self._open.append(stack.enter_context(manager))

    def open(self, stack: ExitStack) -> None:
        """Open all, and have *stack* close them; async ones are refused.

        Raises:
            ConfigurationError: If one is async, or no context manager.
        """
        for make in self.makers:
            manager = _made_by(make)
            if not hasattr(manager, "__enter__"):
                raise ConfigurationError(
                    f"{type(manager).__name__} is an async context manager; a blocking worker "
                    "takes sync ones.",
                )
            self._open.append(stack.enter_context(manager))


def _made_by(make: Callable[[], Any]) -> Any:
    manager = make()
    if not _is_manager(manager):
        raise ConfigurationError(
            f"{make!r} in resources=[...] has made {manager!r}, which is no context manager. A "
            "function that yields it once, with @contextmanager or @asynccontextmanager, makes one.",
        )
    return manager


def _is_manager(value: object) -> bool:
    return hasattr(value, "__enter__") or hasattr(value, "__aenter__")


def _not_makers(found: object) -> ConfigurationError:
    return ConfigurationError(
        "resources= takes a list of callables that return a context manager each, such as "
        f"[make_pool] (not [make_pool()]); {found!r} ({type(found).__name__}) is none.",
    )
