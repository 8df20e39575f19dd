"""The demo's workflow: index a tree of Python source, in one call per file.

    index ──▶ index_folder, one per folder ──▶ count_file, one per file
                                    └─ once its files are done ──▶ add_up_folder
          └─ once all folders are done ──▶ write_report

Two gathers, one inside the other: the result of a folder is what its `add_up_folder` gives, and the
last task sees one of them per folder, in order. A worker may die anywhere in this.

Beyond what a workflow needs, every handler notes in a `Journal` that it runs, so that the demo can
tell what was executed from what was committed.
"""

from __future__ import annotations

from dataclasses import dataclass

from pwf import Context, Next, Service, gather, publish, result
from pwf.cli._journal import Journal
from pwf.cli._source import Counts, add_up, count, list_files

__all__ = ["File", "Folder", "Report", "index", "library"]

library = Service("library")


@dataclass(frozen=True)
class File:
    """What one file comes to, and the call that counted it."""

    path: str
    call_id: str
    counts: Counts


@dataclass(frozen=True)
class Folder:
    """What the files of a folder come to.

    Attributes:
        calls: For each file that is in the counts, its path and the call that counted it.
    """

    folder: str
    counts: Counts
    calls: list[tuple[str, str]]


@dataclass(frozen=True)
class Report:
    """What it all comes to."""

    counts: Counts
    folders: list[Folder]


@library.task
def index(ctx: Context, root: str, limit: int | None) -> Next:
    """List the files and have each folder indexed."""
    with ctx.resource(Journal).execution(ctx, "."):
        return gather(
            [
                publish(index_folder, root, folder, files)
                for folder, files in list_files(root, limit).items()
            ],
            then=publish(write_report),
        )


@library.task
def index_folder(ctx: Context, root: str, folder: str, files: list[str]) -> Next:
    """Have each file counted, and then all of them added up."""
    with ctx.resource(Journal).execution(ctx, folder):
        return gather(
            [publish(count_file, root, path) for path in files],
            then=publish(add_up_folder, folder),
        )


@library.task
def count_file(ctx: Context, root: str, path: str) -> Next:
    """Count what is in one file."""
    with ctx.resource(Journal).execution(ctx, path):
        return result(File(path, ctx.call_id, count(root, path)))


@library.task
def add_up_folder(ctx: Context, folder: str) -> Next:
    """Add up what the files of a folder came to."""
    with ctx.resource(Journal).execution(ctx, folder):
        files = ctx.results_as(File)
        counts = add_up(file.counts for file in files)
        return result(Folder(folder, counts, [(file.path, file.call_id) for file in files]))


@library.task
def write_report(ctx: Context) -> Next:
    """Put the folders together."""
    with ctx.resource(Journal).execution(ctx, "."):
        folders = ctx.results_as(Folder)
        return result(Report(add_up(folder.counts for folder in folders), folders))
