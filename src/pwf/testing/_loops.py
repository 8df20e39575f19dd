"""Run async code from sync code, also where an event loop runs already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["run_anywhere"]


def run_anywhere(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run *main* in an event loop of its own, and return when it is done."""
    if _loop_is_running():
        _in_a_thread(lambda: asyncio.run(main()))
    else:
        asyncio.run(main())


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_a_thread(fn: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            fn()
        except BaseException as error:  # noqa: BLE001 -- raised again in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=run, name="pwf-simulation")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
