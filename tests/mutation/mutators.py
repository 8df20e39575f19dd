"""Mutants of a module: everywhere that code could be slightly wrong, and how.

The operators are those of the well-known tools together (the values, operators, arguments and
branches of mutmut, the loops and exceptions of cosmic-ray, the conditions and calls of PIT), applied
to functions, class bodies and module level alike. Not mutated: annotations and type aliases, imports,
docstrings, `__all__` and `__slots__`, which do nothing at run time that a test should see.

Where a change could only crash (an argument of `len` that becomes None, a positional argument less)
there is none: it would be killed by anything, and prove nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import TypeAlias, TypeVar

import attrs

__all__ = ["Mutant", "control", "mutants"]

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_CALLS = {"max": "min", "min": "max", "any": "all", "all": "any"}
_INSPECTED = {"len", "isinstance", "type"}  # with None they only crash
_UNSEEN = {"__all__", "__slots__"}
_TRUE, _FALSE, _NONE = ast.Constant(value=True), ast.Constant(value=False), ast.Constant(value=None)
_REMOVED = ast.Pass()  # from the list that it is in
_NOTHING = ast.Tuple(elts=[], ctx=ast.Load())


@attrs.frozen(eq=False)
class Mutant:
    """One change to a module.

    Attributes:
        module: Name of the module, dotted.
        place: The function or class that it is in; empty at module level.
        line: Where it is now.
        before, after: The code that is changed, as the parser sees it.
    """

    module: str
    place: str
    line: int
    before: str
    after: str
    _tree: ast.Module
    _change: Callable[[], None]

    @property
    def name(self) -> str:
        """What it is called where lines do not count: twins of one function share it."""
        return f"{self.place}: {self.before} -> {self.after}"

    def compile(self, path: str) -> CodeType:
        """Return the mutated module; changes the tree that its siblings share: once per process."""
        self._change()
        return compile(ast.fix_missing_locations(self._tree), path, "exec")


def mutants(module: str, source: Path) -> list[Mutant]:
    """Return all mutants of *module*, in the order of its code."""
    tree = ast.parse(source.read_bytes())
    return [
        Mutant(module, place, line, before, after, tree, change)
        for place, line, before, after, change in _walk(tree, "", 0)
    ]


def control(module: str, source: Path) -> Mutant:
    """Return *module* as it is, to be judged as a mutant: no test may notice it."""
    return Mutant(module, "", 0, "as it is", "", ast.parse(source.read_bytes()), lambda: None)


def _text(node: ast.AST, parent: ast.AST) -> str:
    """Return *node* as code, with the name of what is called if it is an argument."""
    if node is _REMOVED or isinstance(node, ast.Pass):
        return "(removed)"
    text = ast.unparse(node).strip()
    first, *more = text.splitlines()
    if isinstance(parent, ast.Call):
        return f"{ast.unparse(parent.func)}({text})"
    return f"{first} ..." if more else first


_Found: TypeAlias = tuple[str, int, str, str, Callable[[], None]]
_Item = TypeVar("_Item")
_Node = TypeVar("_Node", bound=ast.AST)


def _walk(node: ast.AST, place: str, line: int) -> Iterator[_Found]:
    """Yield place, line, old and new code, and what puts it there, for all below *node*."""
    for field, value in ast.iter_fields(node):
        if field in _skipped(node):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _is_unseen(child):
                continue
            here = getattr(child, "lineno", line)
            inside = bool(place) and not isinstance(node, ast.ClassDef)
            for new in (*_places(node, field, child), *_changes(child, inside=inside)):
                put = _putting(node, field, index, value, new)
                yield place, here, _text(child, node), _text(new, node), put
            yield from _walk(child, _place(child, place, inside=inside), here)


def _putting(
    node: ast.AST, field: str, index: int, value: object, new: ast.AST
) -> Callable[[], None]:
    def put() -> None:
        if not isinstance(value, list):
            setattr(node, field, new)
        elif new is _REMOVED:
            del value[index]
        else:
            value[index] = new

    return put


def _place(node: ast.AST, place: str, *, inside: bool) -> str:
    """Return the place of what is in *node*: a class, a function, or a name given to a value."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            name = node.name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            if inside:
                return place
        case _:
            return place
    return f"{place}.{name}" if place else name


def _skipped(node: ast.AST) -> set[str]:
    """Return the fields of *node* that are no code, or that are changed along with it."""
    match node:
        case ast.arg() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return {"annotation", "returns"}
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
            return {"target", "annotation", "value"}
        case ast.AnnAssign():
            return {"target", "annotation"}
        case _:
            return set()


def _is_unseen(node: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant(value=str())):
            return True  # a docstring
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name in _UNSEEN
        case _:
            return False


# -- operators -------------------------------------------------------------------------------------


def _places(node: ast.AST, field: str, child: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand for *child* because of where it is, in that field of *node*."""
    match node, field, child:
        case ast.Call(func=ast.Name(id=name)), _, _ if name in _INSPECTED:
            return
        case ast.Call(), "args", ast.expr() if not _is_none(child):
            if not isinstance(child, ast.Starred):
                yield _NONE
        case ast.Call(), "keywords", ast.keyword(arg=str()):
            yield _REMOVED
            if not _is_none(child.value):
                yield _but(child, value=_NONE)
        case (ast.Set(), "elts", _) | (ast.comprehension(), "ifs", _):
            yield _REMOVED
        case ast.Match(), "cases", _ if len(node.cases) > 1:
            yield _REMOVED


def _changes(node: ast.AST, *, inside: bool) -> Iterator[ast.AST]:
    """Yield what may stand instead of *node*; *inside* a function statements can be removed."""
    match node:
        case ast.stmt():
            yield from _statements(node, inside=inside)
        case ast.expr():
            yield from _expressions(node)
        case ast.ExceptHandler(type=ast.Tuple(elts=types)):
            for types_left in _without_one(types):
                yield _but(node, type=ast.Tuple(elts=types_left, ctx=ast.Load()))
        case ast.ExceptHandler():
            yield _but(node, type=_NOTHING)
        case ast.comprehension():
            yield _but(node, iter=_NOTHING)
            for number, test in enumerate(node.ifs):
                for new in _conditions(test, forced=False):
                    yield _but(node, ifs=[*node.ifs[:number], new, *node.ifs[number + 1 :]])


def _statements(node: ast.stmt, *, inside: bool) -> Iterator[ast.AST]:
    removed = ast.copy_location(ast.Pass(), node)
    match node:
        case ast.If():
            for test in _conditions(node.test):
                yield _but(node, test=test)
            yield _but(node, test=_FALSE)
        case ast.While():
            for test in _conditions(node.test):
                yield _but(node, test=test)
            yield removed
        case ast.For() | ast.AsyncFor():
            yield _but(node, iter=_NOTHING)
        case ast.Break():
            yield ast.copy_location(ast.Continue(), node)
        case ast.Continue():
            yield ast.copy_location(ast.Break(), node)
            yield removed
        case ast.Return(value=None | ast.Constant(value=None)):
            yield removed
        case ast.Return():
            yield _but(node, value=_NONE)
        case ast.AugAssign():
            yield removed
            yield _but(node, op=_ARITHMETIC[type(node.op)]())
            yield ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)
        case ast.Assign(targets=[ast.Name()]) | ast.AnnAssign(target=ast.Name()) if inside:
            if isinstance(node.value, ast.Constant) and node.value.value is None:
                yield _but(node, value=ast.Constant(value=""))
            elif node.value is not None:
                yield _but(node, value=_NONE)
        case ast.Expr() | ast.Assign() | ast.Delete() | ast.Raise() | ast.Assert() if inside:
            yield removed


def _expressions(node: ast.expr) -> Iterator[ast.AST]:
    match node:
        case ast.Constant():
            yield from (ast.copy_location(ast.Constant(value=new), node) for new in _values(node))
        case ast.Compare():
            for number, op in enumerate(node.ops):
                new = _COMPARISONS[type(op)]()
                yield _but(node, ops=[*node.ops[:number], new, *node.ops[number + 1 :]])
        case ast.BoolOp():
            yield _but(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
            for values in _without_one(node.values):
                yield _but(node, values=values) if len(values) > 1 else values[0]
        case ast.UnaryOp():
            yield node.operand  # no `not`, or the other sign
        case ast.BinOp():
            yield _but(node, op=_ARITHMETIC[type(node.op)]())
        case ast.IfExp():
            yield node.body
            yield node.orelse
            for test in _conditions(node.test, forced=False):
                yield _but(node, test=test)
        case ast.Lambda():
            yield _but(node, body=_NONE)
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS:
            yield _but(node, func=ast.Name(id=_CALLS[name], ctx=ast.Load()))
        case ast.Dict():
            for number in range(len(node.keys)):
                keys, values = list(node.keys), list(node.values)
                del keys[number], values[number]
                yield _but(node, keys=keys, values=values)


def _conditions(test: ast.expr, *, forced: bool = True) -> Iterator[ast.expr]:
    """Yield the opposite of a condition, unless another operator makes it, and what always holds."""
    opposite_is_made = (
        isinstance(test, ast.UnaryOp)
        if not isinstance(test, ast.Compare)
        else len(test.ops) == 1 and not isinstance(test.ops[0], _ORDERS)
    )
    if not opposite_is_made:
        yield ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=test), test)
    if forced:
        yield _TRUE


def _values(node: ast.Constant) -> Iterator[object]:
    match node.value:
        case bool(value):
            yield not value
        case int(value) | float(value):
            yield value + 1
            yield value - 1
        case str(value):
            yield f"XX{value}XX"
        case bytes(value):
            yield b"XX" + value + b"XX"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _without_one(items: list[_Item]) -> Iterator[list[_Item]]:
    for number in range(len(items)):
        yield [*items[:number], *items[number + 1 :]]


def _but(node: _Node, **fields: object) -> _Node:
    """Return *node* with other *fields*; its children are shared."""
    return ast.copy_location(type(node)(**dict(ast.iter_fields(node)) | fields), node)
