"""What the code never does, and what decoders make of anything at all."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fuzz.bytes import bodies
from tests.fuzz.trying import SLOW, attempt

SOURCE = Path(__file__).parents[2] / "src"
MODULES = sorted(SOURCE.rglob("*.py"))

# They run code, or build objects, that come from outside.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "compile"}
# Redis commands, and methods of redis-py, that take the text of a script.
SCRIPTING = {"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "SCRIPT"}
SCRIPTING_METHODS = {"eval", "evalsha", "script_load", "register_script", "fcall"}


def _parsed() -> Iterator[tuple[Path, ast.Module]]:
    assert len(MODULES) > 100
    for path in MODULES:
        yield path.relative_to(SOURCE), ast.parse(path.read_bytes())


def _imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names):
            return [one.name for one in names]
        case ast.ImportFrom(module=str(module)):
            return [module]
    return []


def test_nothing_that_runs_code_from_outside() -> None:
    """No pickle, no yaml, no eval."""
    found = [
        f"{path}:{node.lineno}"
        for path, module in _parsed()
        for node in ast.walk(module)
        if any(name.partition(".")[0] in FORBIDDEN_MODULES for name in _imported(node))
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in FORBIDDEN_CALLS
        )
    ]

    assert found == []


def test_scripts_are_constant() -> None:
    """One place runs scripts; all of them are named by literals, and are files of the package."""
    callers, scripts = set(), []
    for path, module in _parsed():
        for node in ast.walk(module):
            match node:
                case ast.Constant(str(text)) if text in SCRIPTING:
                    callers.add(str(path))
                case ast.Attribute(attr=name) if name in SCRIPTING_METHODS:
                    callers.add(str(path))
                case ast.Call(ast.Name("Script")):
                    scripts.append(path.name)
                    ast.literal_eval(ast.Tuple(node.args))  # raises ValueError for all else
                    assert node.keywords == []

    assert callers == {"pwf_redis/rounds.py"}
    assert len(scripts) > 5
    assert set(scripts) == {"scripts.py"}


@pytest.mark.parametrize("seed", range(4))
def test_decoders_take_anything(seed: int) -> None:
    """Any bytes are a value or `CodecError`, never anything else, never slow."""
    found = attempt(itertools.islice(bodies(seed), 10_000))

    assert found.wrong == []
    assert found.slowest < SLOW
    assert min(found.values, found.refused) > 1_000
