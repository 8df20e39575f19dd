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
    """

    makers: Sequence[Callable[[], Any]]
    _open: list[Any] = attrs.field(factory=list, init=False)

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
        """Open all, and have *stack* close them."""
        for make in self.makers:
            manager = make()
            if hasattr(manager, "__aenter__"):
                self._open.append(await stack.enter_async_context(manager))
            else:
                self._open.append(stack.enter_context(manager))

    def open(self, stack: ExitStack) -> None:
        """Open all, and have *stack* close them; async ones are refused.

        Raises:
            ConfigurationError: If one is async.
        """
        for make in self.makers:
            manager = make()
            if not hasattr(manager, "__enter__"):
                raise ConfigurationError(
                    f"{type(manager).__name__} is an async context manager; a blocking worker "
                    "takes sync ones.",
                )
            self._open.append(stack.enter_context(manager))
