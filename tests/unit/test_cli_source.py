"""What the demo counts, and in which files."""

import pytest

from pwf.cli._source import Counts, Function, add_up, count, count_by_folder, list_files

SOURCE = """
import os
from sys import path

class A:
    import re
    def short(self): return lambda: 1

    @property
    def long(self):
        if self:
            async def inner():
                pass
        return 1

match path:
    case []:
        def in_a_case(): ...
try:
    class B: ...
except OSError:
    def in_a_handler(): ...
"""


@pytest.fixture
def tree(tmp_path):
    for path in ["a.py", "b/c.py", "b/no.txt", "b/test/d.py", ".git/e.py", "site-packages/f.py"]:
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(SOURCE)
    return tmp_path


def test_counts_statements_at_any_depth(tree):
    counts = count(str(tree), "a.py")

    assert counts == Counts(
        files=1,
        lines=22,
        functions=5,
        classes=2,
        imports=3,
        longest=Function("long", "a.py", 10, 5),
    )


@pytest.mark.parametrize("source", [b"def (", b"\0", b"# coding: nonsense\n", b"(" * 5000, b"\xff"])
def test_a_file_that_is_no_python_is_unreadable(tmp_path, source):
    (tmp_path / "x.py").write_bytes(source)

    assert count(str(tmp_path), "x.py") == Counts(files=1, lines=1, unreadable=1)


def test_a_file_that_has_gone_is_unreadable(tmp_path):
    assert count(str(tmp_path), "x.py") == Counts(files=1, unreadable=1)


def test_lists_files_by_folder_without_tests_and_packages(tree):
    assert list_files(str(tree)) == {".": ["a.py"], "b": ["b/c.py"]}


def test_limit_holds_over_all_folders(tree):
    assert list_files(str(tree), 1) == {".": ["a.py"]}


def test_names_that_are_no_text_are_left_out(tmp_path):
    (tmp_path / "\udcff.py").write_text("")

    assert list_files(str(tmp_path)) == {}


def test_longest_is_the_same_whatever_the_order():
    parts = [
        Counts(files=1, lines=1, longest=Function(name, path, 1, lines))
        for name, path, lines in [("f", "a.py", 3), ("g", "b.py", 3), ("h", "c.py", 2)]
    ]

    assert (
        add_up(parts) == add_up(reversed(parts)) == add_up([add_up(parts[:1]), add_up(parts[1:])])
    )


def test_folders_add_up(tree):
    total = add_up(count_by_folder(str(tree)).values())

    assert (total.files, total.lines, total.functions) == (2, 44, 10)
