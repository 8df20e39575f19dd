"""What type checkers say about programs that use pwf: both accept the uses, both reject the misuses.

They look at pwf as it is installed, as a user's would: in CI that is the wheel, not the checkout.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

HERE = Path(__file__).parent
ACCEPTED = ["use.py", "conformance.py"]
MARK = re.compile(r"  # type: ignore$", re.MULTILINE)

Errors: TypeAlias = dict[str, dict[int, str]]
"""File name -> line -> what a checker has against it."""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a checker where it finds no settings, and nothing of pwf but what is installed."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr  # from 2 on, it did not check
    return done.stdout


def mypy(paths: list[Path]) -> Errors:
    """Return what mypy --strict says."""
    lines = run("mypy", "--strict", "--output=json", *paths, cwd=paths[0].parent).splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return by_file(found, lambda one: (one["file"], one["line"]))


def pyright(paths: list[Path]) -> Errors:
    """Return what pyright says."""
    options = ("--outputjson", "--pythonpath", sys.executable)
    report = json.loads(run("pyright", *options, *paths, cwd=paths[0].parent))

    assert report["summary"]["filesAnalyzed"] == len(paths)
    return by_file(
        report["generalDiagnostics"],
        lambda one: (one["file"], one["range"]["start"]["line"] + 1),
    )


def by_file(found: list[Any], where: Callable[[Any], tuple[str, int]]) -> Errors:
    errors: Errors = {}
    for one in found:
        if one["severity"] == "error":
            file, line = where(one)
            errors.setdefault(Path(file).name, {})[line] = one["message"]
    return errors


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"], name="errors")
def check(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Errors:
    """What one checker says about all files, and about the misuses without their marks."""
    folder = tmp_path_factory.mktemp("typing")
    texts = {name: (HERE / name).read_text() for name in [*ACCEPTED, "misuse.py"]}
    texts["unmarked.py"] = MARK.sub("", texts["misuse.py"])
    for name, text in texts.items():
        (folder / name).write_text(text)
    checker: Callable[[list[Path]], Errors] = request.param
    return checker([folder / name for name in texts])


@pytest.mark.parametrize("name", ACCEPTED)
def test_uses_are_accepted(errors: Errors, name: str) -> None:
    """Neither checker has anything against what users are told to write."""
    assert errors.get(name, {}) == {}


def test_misuses_are_rejected(errors: Errors) -> None:
    """Each checker rejects every marked line once its mark is gone, and no other line."""
    lines = (HERE / "misuse.py").read_text().splitlines()
    wanted = {number for number, line in enumerate(lines, 1) if MARK.search(line)}
    found = errors["unmarked.py"]

    assert len(wanted) >= 15
    assert {n: lines[n - 1] for n in wanted - found.keys()} == {}, "accepted, should be rejected"
    assert {n: found[n] for n in found.keys() - wanted} == {}, "rejected, has no mark"


def test_no_mark_is_in_vain(errors: Errors) -> None:
    """With the marks there is nothing left to say, so `nox -s typing` checks misuse.py as well."""
    assert errors.get("misuse.py", {}) == {}
