"""What services, tasks and events may be called, and how an address is put together.

The dot separates service and task in an address and is reserved for that. Names end up in queue
names, keys and log lines, so control characters are refused where the name is defined.
"""

from __future__ import annotations

from pwf_core.errors import DefinitionError

__all__ = ["MAX_NAME", "address_of", "check_address", "check_event", "check_name", "service_of"]

MAX_NAME = 100  # bytes; an AMQP queue name has 255, and holds namespace, service and a suffix


def check_name(name: object, what: str) -> str:
    """Return *name* if a service or task may be called so.

    Raises:
        DefinitionError: If it is not a string, empty, too long, or has a dot, a slash-free control
            character or a lone surrogate.
    """
    text = _check_text(name, what)
    if "." in text:
        raise DefinitionError(
            f"The {what} name {text!r} contains a dot. The dot separates service and task in an "
            "address; use '_' or '-' instead.",
        )
    return text


def check_event(name: object) -> str:
    """Return *name* if an event may be called so; dots are fine in events.

    Raises:
        DefinitionError: If it is not a string, empty, too long, or has control characters.
    """
    return _check_text(name, "event")


def check_address(address: object) -> str:
    """Return *address* if it reads `service.task`.

    Raises:
        DefinitionError: If it does not.
    """
    if not isinstance(address, str):
        raise DefinitionError(
            f"A task is addressed by a Task or by 'service.task', not by {address!r} "
            f"({type(address).__name__}).",
        )
    service, dot, task = address.partition(".")
    if not dot:
        raise DefinitionError(f"The address {address!r} has no dot; write it as 'service.task'.")
    check_name(service, "service")
    check_name(task, "task")
    return address


def address_of(service: str, task: str) -> str:
    """Return the address of *task* in *service*."""
    return f"{service}.{task}"


def service_of(address: str) -> str:
    """Return the service part of *address*."""
    return address.partition(".")[0]


def _check_text(name: object, what: str) -> str:
    if not isinstance(name, str):
        raise DefinitionError(
            f"The {what} name is a string, not {name!r} ({type(name).__name__}).",
        )
    if not name:
        raise DefinitionError(f"The {what} name is empty.")
    if not name.isprintable():  # control characters, line separators, lone surrogates
        raise DefinitionError(f"The {what} name {name!r} contains a control character.")
    size = len(name.encode())
    if size > MAX_NAME:
        raise DefinitionError(f"The {what} name {name!r} has {size} bytes; {MAX_NAME} are allowed.")
    return name
