"""Tasks: a handler with an address. The handler is opaque here; nothing in the core calls it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, get_type_hints

from pwf_core.arguments import Parameters, check_named
from pwf_core.context import Context
from pwf_core.errors import DefinitionError
from pwf_core.retries import Retry

__all__ = ["Task"]

P = ParamSpec("P")
H = ParamSpec("H")
R_co = TypeVar("R_co", covariant=True)


class Task(Generic[P, H, R_co]):
    """A handler that can be published to; made by `@service.task` or `@service.declare`.

    It stays callable with the handler's own signature, so a unit test calls it and compares what it
    returns.

    Attributes:
        address: `service.task`.
        fn: The handler as written; None for a declared task, which lives in another code base.
        retry: When a failed attempt is run again.
        timeout: How long one attempt may take; None for as long as it needs.
    """

    def __init__(
        self,
        address: str,
        fn: Callable[H, R_co],
        *,
        retry: Retry,
        timeout: timedelta | None = None,
        declared: bool = False,
    ) -> None:
        if timeout is not None and not (isinstance(timeout, timedelta) and timeout > timedelta(0)):
            raise DefinitionError(
                f"Task {address!r} has timeout={timeout!r}; it is a positive timedelta, or None.",
            )
        if not isinstance(retry, Retry):
            raise DefinitionError(f"Task {address!r} has retry={retry!r}; it is a Retry(...).")
        check_named(address, fn)
        self.address = address
        self.retry = retry
        self.timeout = timeout
        self.declared = declared
        self.fn = fn
        update_wrapper(self, fn)

    def __call__(self, *args: H.args, **kwargs: H.kwargs) -> R_co:
        """Call the handler, as a plain function."""
        if self.declared:
            raise DefinitionError(
                f"Task {self.address!r} is only declared here; its handler lives in another code "
                "base. Publish it instead: publish(task, ...).",
            )
        return self.fn(*args, **kwargs)

    @cached_property
    def takes_context(self) -> bool:
        """Whether the handler's first parameter is a Context."""
        names = list(inspect.signature(self.fn).parameters)
        if not names or self.declared:
            return False
        try:
            hint = get_type_hints(self.fn).get(names[0])
        except NameError:
            return False  # `Parameters` raises the clear error
        return isinstance(hint, type) and issubclass(hint, Context)

    @cached_property
    def _parameters(self) -> Parameters:
        # Resolved at first use: annotations may name what is defined later in the module.
        return Parameters(self.address, self.fn, skip=int(self.takes_context))

    def prepare(self) -> None:
        """Resolve the annotations now.

        Raises:
            DefinitionError: If one is unknown, or has no msgpack form.
        """
        _ = self._parameters

    def encode(self, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
        """Return the body of a call with these arguments; raises as `publish` does."""
        return self._parameters.encode(args, kwargs)

    def decode(self, body: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and keyword arguments that *body* holds, without the Context.

        Raises:
            CodecError: If they are not arguments of this task.
        """
        return self._parameters.decode(body)

    def __repr__(self) -> str:
        return f"Task({self.address!r})"
