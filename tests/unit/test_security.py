"""What the code never does, and what decoders make of anything at all."""

from __future__ import annotations

import ast
import itertools
import re
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
# Redis commands that take the text of a script or name one, and the methods of redis-py for them.
SCRIPTING = {"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"}
SCRIPTING_METHODS = {*map(str.lower, SCRIPTING), "script_load", "register_script", "function_load"}
# What makes code of text, in Lua.
LUA_LOADS = re.compile(r"\b(loadstring|load|loadfile|dofile|setfenv|require)\b")


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


def _scripting(path: str, module: ast.Module) -> Iterator[str]:
    """Yield where a script could be made of what comes from outside.

    Scripts run by `("EVAL…", script.text(…), …)` only, or by `("FCALL", script.function, …)` with a library
    that is a `script.library`, in one place; and a `Script` is made of literals, which name files of the
    package.
    """
    fine: set[ast.AST] = set()
    for node in ast.walk(module):
        match node:
            case ast.Assign(targets=[ast.Name("NEEDED" | "USED_IF_ALLOWED")]) if (
                path == "pwf_redis/checks.py"
            ):
                fine.update(ast.walk(node))  # for an operator to allow
            case ast.Tuple(
                [ast.Constant("EVAL" | "EVALSHA"), ast.Call(ast.Attribute(ast.Name("script"))), *_],
            ) if path == "pwf_redis/rounds.py":
                fine.add(node.elts[0])
            case ast.Tuple(
                [ast.Constant("FCALL"), ast.Attribute(ast.Name("script"), "function"), *_]
                | [
                    ast.Constant("FUNCTION"),
                    ast.Constant("LOAD"),
                    ast.Constant("REPLACE"),
                    ast.Attribute(ast.Name("script"), "library"),
                ],
            ) if path == "pwf_redis/rounds.py":
                fine.add(node.elts[0])
            case ast.Call(ast.Name("Script")) if path != "pwf_redis/scripts.py":
                yield f"{path}:{node.lineno}: a script of its own"
            case ast.Call(ast.Name("Script"), args, keywords):
                try:
                    ast.literal_eval(ast.Tuple([*args, *(one.value for one in keywords)]))
                except ValueError:
                    yield f"{path}:{node.lineno}: a script of more than literals"
            case ast.Attribute(attr=name) if name in SCRIPTING_METHODS:
                yield f"{path}:{node.lineno}: {name}()"
    for node in ast.walk(module):
        match node:
            case ast.Constant(str(text)) if node not in fine:
                pass
            case ast.BinOp(ast.Constant(str(left)), ast.Add(), ast.Constant(str(right))):
                text = left + right
            case _:
                continue
        first = text.upper().partition(" ")[0]  # redis-py takes "SCRIPT LOAD" for two words
        if (
            first in SCRIPTING
            or text in {"script", "function"}
            or text.startswith(("SCRIPT", "FUNCTION"))
        ):
            yield f"{path}:{node.lineno}: {text}"


def test_scripts_are_constant() -> None:
    """One place runs scripts; all of them are named by literals, and are files of the package."""
    found = [problem for path, module in _parsed() for problem in _scripting(str(path), module)]

    assert found == []


ROUNDS = (SOURCE / "pwf_redis" / "rounds.py").read_text(encoding="utf-8")
SCRIPTS = (SOURCE / "pwf_redis" / "scripts.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "source", "old", "new"),
    [
        ("rounds.py", ROUNDS, "script.text(flagged=flagged)", 'f"return {arguments[0]}"'),
        ("rounds.py", ROUNDS, "script.text(flagged=flagged)", 'b"return " + arguments[0]'),
        ("rounds.py", ROUNDS, "script.text(flagged=flagged)", '"return %s" % arguments[0]'),
        ("rounds.py", ROUNDS, "script.text(flagged=flagged)", '"return {}".format(arguments[0])'),
        ("rounds.py", ROUNDS, "script.text(flagged=flagged)", "script.text(flagged=flagged) + b''"),
        ("rounds.py", ROUNDS, "script.text(flagged=flagged)", "arguments[0]"),
        ("rounds.py", ROUNDS, "script.sha(flagged=flagged)", "arguments[0]"),
        ("rounds.py", ROUNDS, "script.function", "arguments[0]"),
        ("rounds.py", ROUNDS, "script.library)", "arguments[0])"),
        ("rounds.py", ROUNDS, "script.library)", "script.library + arguments[0])"),
        ("rounds.py", ROUNDS, '("FUNCTION",', '("function",'),
        ("rounds.py", ROUNDS, '("EVAL",', '("eval",'),
        ("rounds.py", ROUNDS, '("EVAL",', '("EV" + "AL",'),
        ("rounds.py", ROUNDS, '("EVAL",', '(f"EVAL{arguments}",'),
        ("scripts.py", SCRIPTS, '("read",)', '(f"{__name__}",)'),
        ("scripts.py", SCRIPTS, '("read",)', '("re" + "ad",)'),
        ("scripts.py", SCRIPTS, '("read",), "no-writes"', '("read",), flags=FLAGS'),
        ("store.py", "", "", 'ask("EVAL", script.text(flagged=True))'),
        ("store.py", "", "", 'Round([("EVALSHA", name, 0)])'),
        ("store.py", "", "", 'client.eval(f"return {name}", 0)'),
        ("store.py", "", "", "client.register_script(text)"),
        ("store.py", "", "", 'client.execute_command("SCRIPT LOAD", text)'),
        ("store.py", "", "", 'ask("SCRIPT", "LOAD", text)'),
        ("store.py", "", "", 'getattr(client, "eval")(text)'),
        ("store.py", "", "", 'Script(("read",))'),
        ("checks.py", "", "", 'ask("eval", text)'),
    ],
)
def test_scripts_of_strings_are_found(path: str, source: str, old: str, new: str) -> None:
    """The test above sees what it is there for, put into a copy of our own code."""
    assert old in source
    mutant = ast.parse(source.replace(old, new) if old else new)

    assert [*_scripting(f"pwf_redis/{path}", mutant)]


def test_lua_makes_no_code_of_text() -> None:
    """Nor does a script, once it runs; and what commands it gives is written there."""
    scripts = sorted(SOURCE.glob("pwf_redis/lua/*.lua"))
    assert len(scripts) > 5
    for script in scripts:
        code = re.sub(r"--.*", "", script.read_text(encoding="utf-8"))
        assert not LUA_LOADS.search(code), script.name


@pytest.mark.parametrize("seed", range(4))
def test_decoders_take_anything(seed: int) -> None:
    """Any bytes are a value or `CodecError`, never anything else, never slow."""
    found = attempt(itertools.islice(bodies(seed), 10_000))

    assert found.wrong == []
    assert found.slowest < SLOW
    assert min(found.values, found.refused) > 1_000
