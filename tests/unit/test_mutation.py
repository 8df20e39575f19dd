"""The judge of the tests: what it changes, and that it tells who notices."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.mutation.__main__ import MODULES
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.judging import source_of
from tests.mutation.mutators import mutants


def found_in(tmp_path, source):
    path = tmp_path / "module.py"
    path.write_text(source)
    return mutants("module", path)


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("a < b", ["a < b -> a <= b"]),
        ("a is not None", ["a is not None -> a is None"]),
        ("a and b", ["a and b -> a or b", "a and b -> b", "a and b -> a"]),
        ("not a", ["not a -> a"]),
        ("a + 2", ["a + 2 -> a - 2", "2 -> 3", "2 -> 1"]),
        ("True", ["True -> False"]),
        ("'a'", ["'a' -> 'XXaXX'"]),
        ("f'{a}: '", ["': ' -> 'XX: XX'"]),
        ("max(a, b)", ["max(a, b) -> min(a, b)", "max(a) -> max(None)", "max(b) -> max(None)"]),
        ("f(k=a)", ["f(k=a) -> (removed)", "f(k=a) -> f(k=None)"]),
        ("len(a)", []),
        ("a if c else b", ["a if c else b -> a", "a if c else b -> b", None]),
        ("lambda: a", ["lambda: a -> lambda: None"]),
        ("{a, b}", ["a -> (removed)", "b -> (removed)"]),
        ("{1: a}", ["{1: a} -> {}", "1 -> 2", "1 -> 0"]),
        ("[a for a in b if c]", ["for a in b if c -> for a in () if c", None, "c -> (removed)"]),
    ],
)
def test_expression_is_changed(tmp_path, line, changes):
    """Each operator changes one thing; None stands for a condition that is turned."""
    names = [one.name for one in found_in(tmp_path, f"x = {line}\n")]

    turned = [name for name in names if "not c" in name]
    assert len(turned) == changes.count(None)
    assert [f"x: {one}" for one in changes if one] == [one for one in names if one not in turned]


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("f()", ["f() -> (removed)"]),
        ("a.b = c", ["a.b = c -> (removed)"]),
        ("a = c", ["a = c -> a = None"]),
        ("a += c", ["a += c -> (removed)", "a += c -> a -= c", "a += c -> a = c"]),
        ("del a", ["del a -> (removed)"]),
        ("return", ["return -> (removed)"]),
        ("return a", ["return a -> return None"]),
        ("if c: a", [f"if c: ... -> if {one}: ..." for one in ("not c", "True", "False")]),
        ("for a in b: a", ["for a in b: ... -> for a in (): ..."]),
        ("while c: break", [None, "while c: ... -> while True: ...", "while c: ... -> (removed)"]),
    ],
)
def test_statement_is_changed(tmp_path, line, changes):
    """In a function they can be left out as well."""
    names = [one.name for one in found_in(tmp_path, f"def f():\n    {line}\n")]

    for change in changes:
        assert change is None or f"f: {change}" in names


def test_what_tests_cannot_see_is_left_alone(tmp_path):
    """Imports, docstrings, annotations, aliases, and what is exported."""
    source = '"""Doc."""\nimport a\n__all__ = ["b"]\nA: TypeAlias = b | c\nd: dict["e", 1]\n'

    assert [] == found_in(tmp_path, f'{source}def f(x: 1 = y) -> 2:\n    """Doc."""\n')


def test_mutant_is_one_change(tmp_path):
    """Of two, each leaves the other's place as it is."""
    results = []
    for number in range(2):
        scope: dict[str, object] = {}
        exec(found_in(tmp_path, "a = True\nb = True\n")[number].compile("module.py"), scope)  # noqa: S102
        results.append((scope["a"], scope["b"]))

    assert [(False, True), (True, False)] == results


@pytest.mark.parametrize("module", MODULES)
def test_equivalents_are_mutants(module):
    """What is listed has not gone with the code."""
    names = {one.name for one in mutants(f"pwf_core.{module}", source_of(f"pwf_core.{module}"))}

    assert set(EQUIVALENT.get(module, {})) <= names


def test_sample_is_killed():
    """The first tests kill some mutants of the joins, each in its own process."""
    command = [sys.executable, "-m", "tests.mutation", "joins", "--stages", "1"]
    ended = subprocess.run(
        [*command, "--sample", "4", "--seed", "1", "--verbose"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (ended.returncode, ended.stderr)
    assert "killed: pwf_core.joins:" in ended.stdout
    assert "[tests/unit/test_" in ended.stdout
