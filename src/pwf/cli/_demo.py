"""`pwf demo`: run the workflow of `_index`, compare what it comes to, and say so."""

from __future__ import annotations

import asyncio
import sysconfig
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

from pwf.cli._audit import audit, differences
from pwf.cli._demo_run import Outcome, Plan, perform
from pwf.cli._options import AtLeastOne, Flag
from pwf.cli._output import say
from pwf.cli._problems import FAILED, UsageError
from pwf.cli._source import Counts, count_by_folder, list_files
from pwf.cli._tables import make_console
from pwf.cli._verdict import print_audit, print_counts
from pwf.client import Client
from pwf.connect import connect
from pwf_core.adapters import Url
from pwf_core.texts import printable

__all__ = ["demo"]

MEMORY = "memory://"

# The report names every file and its call, and has to fit into one payload (1 MiB).
MAX_FILES = 10_000

_KEEP = "1h"  # for a look at the run afterwards
_DIFFERENCES = 3  # that are shown


def demo(
    *,
    url: str | None = None,
    workers: AtLeastOne | None = None,
    kill: Flag = False,
    path: Path | None = None,
    limit: AtLeastOne | None = None,
    namespace: str | None = None,
) -> int:
    """Index Python's own standard library with a workflow, and check the result.

    Every file is a call of its own, every folder gathers its files, and
    a last task writes the report. It must equal what a plain loop over the
    files comes to; the exit code is 1 if it does not.

    Args:
        url: URL of the backend; memory:// by default, whatever $PWF_URL says.
        workers: Worker processes, where the backend can be shared; 2 by default.
        kill: Kill workers with SIGKILL at random; on a temporary embedded:// by default.
        path: Index the Python files of this folder instead.
        limit: Index so many files at most.
        namespace: Keeps the demo apart from what else is on the server; demo-redis for redis://.
    """
    root = path if path is not None else Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder.")
    expected = list_files(str(root.resolve()), limit)
    total = sum(map(len, expected.values()))
    if not total:
        raise UsageError(f"there is no Python file in {root}.")
    if total > MAX_FILES:
        raise UsageError(
            f"{root} has {total} Python files; the demo takes {MAX_FILES}: use --limit."
        )
    warnings.simplefilter("ignore")  # the parser's, about the source that it reads
    with TemporaryDirectory(prefix="pwf-demo-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        if url is None:
            url = f"embedded://{folder / 'store'}" if kill else MEMORY
        if "retention=" not in url:
            url += f"{'&' if '?' in url else '?'}retention={_KEEP}"
        # One name per technology: two of them cannot share a namespace of one Redis.
        where = Url.parse(url)
        technology = where.scheme.replace("+", "-")
        namespace = namespace or where.query.get("namespace") or f"demo-{technology}"
        client = connect(url, namespace=namespace)
        plan = Plan(
            root=str(root.resolve()),
            limit=limit,
            expected=expected,
            url=url,
            namespace=namespace,
            workers=_processes(client, workers, kill=kill),
            kill=kill,
            folder=folder,
        )
        print(
            f"indexing {total} files in {len(expected)} folders of {printable(str(root))}, "
            f"on {client.capabilities.technology}, {where}",
            flush=True,
        )
        try:
            outcome = asyncio.run(perform(client, plan))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    print("comparing with a plain loop over the files", flush=True)
    started = time.monotonic()
    plain = count_by_folder(plan.root, limit)
    return _conclude(plan, outcome, plain, time.monotonic() - started)


def _processes(client: Client, workers: int | None, *, kill: bool) -> int:
    """Return how many worker processes there are to be; 0 for a worker in this one."""
    technology = client.capabilities.technology
    if not client.capabilities.shared:
        if kill or (workers or 1) > 1:
            raise UsageError(
                f"{technology} lives in this process: there can be no other workers on it"
                f"{', and killing this one would end it all' if kill else ''}. "
                "Use --url embedded:///folder, redis://... or amqp://...",
            )
        return 0
    if kill and workers == 1:
        raise UsageError("--kill takes at least 2 workers, so that one is always alive.")
    return workers or 2


def _conclude(plan: Plan, outcome: Outcome, plain: dict[str, Counts], seconds: float) -> int:
    """Print what it came to, and return the exit code."""
    found = audit(plan.expected, outcome.report, outcome.witness)
    different = differences(outcome.report, plain)
    console = make_console()
    print_counts(console, outcome.report.counts, outcome.seconds, seconds)
    if plan.kill:
        print_audit(console, found, outcome.killed)
    if different:
        say(f"the report differs from the plain loop: {'; '.join(different[:_DIFFERENCES])}")
    else:
        print("The report equals that of the plain loop.")
    if found.doubled or found.lost:
        say("calls were doubled or lost: this is a bug in pwf")
    return FAILED if different or found.doubled or found.lost else 0
