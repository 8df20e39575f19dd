"""What the demo makes of its two sources: the journal (executed) and the report (committed)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs

from pwf.cli._index import Report, count_file
from pwf.cli._journal import Line
from pwf.cli._source import Counts, add_up

__all__ = ["Audit", "Witness", "audit", "differences"]


@attrs.define
class Witness:
    """What the journal has told so far.

    Attributes:
        executions: How many times a handler was started.
        counted: Calls whose file was counted to the end, at least once.
        at_work: Processes that have started a handler.
        attempts: The highest attempt of each call.
        callers: For each file, the calls that were made for it.
    """

    executions: int = 0
    counted: set[str] = attrs.field(factory=set)
    at_work: set[int] = attrs.field(factory=set)
    attempts: dict[str, int] = attrs.field(factory=dict)
    callers: dict[str, set[str]] = attrs.field(factory=dict)

    def hear(self, lines: Iterable[Line]) -> None:
        """Take note of what was written."""
        for line in lines:
            of_a_file = line.task == count_file.address
            if line.word == "end":
                if of_a_file:
                    self.counted.add(line.call_id)
                continue
            self.executions += 1
            self.at_work.add(line.pid)
            self.attempts[line.call_id] = max(line.attempt, self.attempts.get(line.call_id, 0))
            if of_a_file:
                self.callers.setdefault(line.what, set()).add(line.call_id)


@attrs.frozen
class Audit:
    """How executions and commits compare.

    Attributes:
        calls: Calls that were executed.
        executions: How often, all together.
        redelivered: Calls that were handed out more than once (a later attempt than the first).
        doubled: Files that are in the report more than once, or by a call that was not the only one
            made for them.
        lost: Files that should be in the report, and are not.
    """

    calls: int
    executions: int
    redelivered: int
    doubled: int
    lost: int


def audit(expected: Mapping[str, Sequence[str]], report: Report, witness: Witness) -> Audit:
    """Compare.

    Args:
        expected: The files by folder, listed apart from the workflow.
        report: What was committed.
        witness: What was executed.
    """
    committed = Counter(path for folder in report.folders for path, _ in folder.calls)
    wanted = [path for files in expected.values() for path in files]
    return Audit(
        calls=len(witness.attempts),
        executions=witness.executions,
        redelivered=sum(attempt > 1 for attempt in witness.attempts.values()),
        doubled=sum(
            committed[path] > 1 or len(witness.callers.get(path, ())) > 1 for path in wanted
        ),
        lost=sum(path not in committed for path in wanted),
    )


def differences(report: Report, plain: Mapping[str, Counts]) -> list[str]:
    """Return in what the report differs from the plain computation; empty if in nothing."""
    found = {folder.folder: folder.counts for folder in report.folders}
    lines = [
        f"{folder}: {found.get(folder)} by the workflow, {plain.get(folder)} plainly"
        for folder in sorted(found.keys() | plain.keys())
        if found.get(folder) != plain.get(folder)
    ]
    if len(found) != len(report.folders):
        lines.append("a folder is in the report more than once")
    if report.counts != add_up(plain.values()):
        lines.append(f"total: {report.counts} by the workflow, {add_up(plain.values())} plainly")
    return lines
