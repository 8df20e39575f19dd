"""What the demo counts in Python source: plain functions, which know nothing of workflows."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Counts", "Function", "add_up", "count", "count_by_folder", "list_files"]

# Tests are as much text again and prove nothing new; installed packages are not the library.
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class Function:
    """A function, and how long it is.

    Attributes:
        name: Its own, without that of its class.
        path: The file that it stands in, relative to the root.
        line: Where it begins.
        lines: How many it has, decorators not counted.
    """

    name: str
    path: str
    line: int
    lines: int


@dataclass(frozen=True)
class Counts:
    """What is in one file, or in many.

    Attributes:
        unreadable: Files that are not Python of this version; only their lines are counted.
    """

    files: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    imports: int = 0
    unreadable: int = 0
    longest: Function | None = None


def list_files(root: str, limit: int | None = None) -> dict[str, list[str]]:
    """Return the paths of the Python files below *root*, by folder, both relative to it and sorted.

    Args:
        root: A folder.
        limit: At most so many files; None for all.
    """
    found: dict[str, list[str]] = {}
    left = limit
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name for name in folders if name not in _LEFT_OUT and not name.startswith(".")
        )
        relative = Path(folder).relative_to(root)
        files = [
            (relative / name).as_posix()
            for name in sorted(names)
            if name.endswith(".py") and _is_plain(Path(folder, name))
        ][:left]
        if files:
            found[relative.as_posix()] = files
        if left is not None:
            left -= len(files)
    return found


def count(root: str, path: str) -> Counts:
    """Return what is in one file."""
    try:
        source = Path(root, path).read_bytes()
        lines = len(source.splitlines())
    except OSError:
        return Counts(files=1, unreadable=1)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what the parser gives up with
        return Counts(files=1, lines=lines, unreadable=1)
    functions: list[Function] = []
    classes = imports = 0
    for statement in _statements(tree):
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                length = (statement.end_lineno or statement.lineno) - statement.lineno + 1
                functions.append(Function(statement.name, path, statement.lineno, length))
            case ast.ClassDef():
                classes += 1
            case ast.Import() | ast.ImportFrom():
                imports += 1
    return Counts(1, lines, len(functions), classes, imports, 0, _longest(functions))


def add_up(parts: Iterable[Counts]) -> Counts:
    """Return the counts of all *parts* together."""
    known = list(parts)
    return Counts(
        files=sum(part.files for part in known),
        lines=sum(part.lines for part in known),
        functions=sum(part.functions for part in known),
        classes=sum(part.classes for part in known),
        imports=sum(part.imports for part in known),
        unreadable=sum(part.unreadable for part in known),
        longest=_longest(part.longest for part in known if part.longest is not None),
    )


def count_by_folder(root: str, limit: int | None = None) -> dict[str, Counts]:
    """Return the counts of every folder, one file after the other: what the workflow has to match."""
    return {
        folder: add_up(count(root, path) for path in files)
        for folder, files in list_files(root, limit).items()
    }


def _longest(functions: Iterable[Function]) -> Function | None:
    return max(functions, key=lambda found: (found.lines, found.path, found.line), default=None)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield every statement at any depth; expressions, most of the tree, are left alone."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            pending.extend(getattr(node, block, ()))


def _is_plain(path: Path) -> bool:
    """Whether it is a regular file whose name is text: payloads hold nothing else."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return path.is_file()
