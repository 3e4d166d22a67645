"""Mutants of a source file: the one small mistake each, that a test should notice.

What is not mutated: texts, messages, annotations, and the constants of a module, which are sizes and speeds for the most part.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
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
    ast.And: ast.Or,
    ast.Or: ast.And,
}
PAIRS = (
    *(("min", "max"), ("any", "all"), ("minimum", "maximum"), ("sum", "mean"), ("argmin", "argmax"), ("floor", "ceil")),
    *(("zeros", "ones"), ("zeros_like", "ones_like"), ("amin", "amax"), ("first", "last"), ("square", "abs")),
)
NAMES = {one: other for pair in PAIRS for one, other in (pair, pair[::-1])}
LEFT_AWAY = ("detach", "abs", "exp", "log", "sqrt", "square", "strip", "contiguous", "clone", "neg")
"""Methods that a mutant does not call."""
SAID = ("log", "warnings", "_say", "print", "RunError", "InputError")
"""Calls whose arguments are messages, by the name that they begin with."""
NO_MATTER = {"strict", "stacklevel", "encoding", "device", "dtype", "level", "category"}
"""Keywords that change no result, or are checks of what cannot be."""


Change = Callable[[Any], ast.AST]
"""A node, which it may change, → what stands in its place."""


@dataclass(frozen=True)
class Mutant:
    line: int
    number: int
    """Among those of its file."""
    what: str
    """`a + b → a - b`, as Python writes it."""
    source: str
    route: Route
    change: Change

    def tree(self) -> ast.Module:
        whole = ast.parse(self.source)
        holder, field, place = _at(whole, self.route)
        if place is None:
            setattr(holder, field, self.change(getattr(holder, field)))
        else:
            getattr(holder, field)[place] = self.change(getattr(holder, field)[place])
        return ast.fix_missing_locations(whole)


def mutants(source: str) -> Iterator[Mutant]:
    """In the order of the file."""
    whole = ast.parse(source)
    for number, (route, change) in enumerate(_sites(whole)):
        holder, field, place = _at(whole, route)
        before = getattr(holder, field) if place is None else getattr(holder, field)[place]
        after = change(copy.deepcopy(before))
        yield Mutant(before.lineno, number, f"{_short(before)} → {_short(after)}", source, route, change)


Route = tuple[tuple[str, int | None], ...]
"""Fields, and places in those that are lists, from the module down."""


def _at(tree: ast.AST, path: Route) -> tuple[Any, str, int | None]:
    node: Any = tree
    for field, place in path[:-1]:
        node = getattr(node, field) if place is None else getattr(node, field)[place]
    return node, *path[-1]


def _sites(node: ast.AST, path: Route = (), *, inside: bool = False) -> Iterator[tuple[Route, Change]]:
    """Where something is changed, and how: a function of the node there. `inside` a function."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        children = value if isinstance(value, list) else [value]
        for place, child in enumerate(children):
            if not isinstance(child, ast.AST) or _is_said(child):
                continue
            here: Route = (*path, (field, place if isinstance(value, list) else None))
            if inside:
                yield from ((here, change) for change in _changes(child, node))
            within = inside or isinstance(child, (ast.FunctionDef, ast.Lambda))
            yield from _sites(child, here, inside=within)


def _is_said(node: ast.AST) -> bool:
    """A message, or what is only there for it: raise, a warning, a line of a log, an f-string, a docstring."""
    if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Assert)):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or _is_said(node.value)
    if isinstance(node, ast.keyword):
        return node.arg in NO_MATTER
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] in SAID


def _changes(node: ast.AST, parent: ast.AST) -> Iterator[Change]:
    if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in OPERATORS and not _is_text(node):
        yield lambda old: _with(old, op=OPERATORS[type(old.op)]())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        yield lambda old: _with(old, ops=[OPERATORS[type(old.ops[0])](), *old.ops[1:]])
    if isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield lambda old: old.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda old: _with(old, value=not old.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield lambda old: _with(old, value=old.value + 1 if isinstance(old.value, int) else old.value * 2 + 0.5)
    if isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield lambda old: _with(old, test=ast.UnaryOp(ast.Not(), old.test))
    if isinstance(node, ast.Name) and node.id in NAMES and isinstance(parent, ast.Call) and node is parent.func:
        yield lambda old: _with(old, id=NAMES[old.id])
    if isinstance(node, ast.Attribute) and node.attr in NAMES and isinstance(parent, ast.Call) and node is parent.func:
        yield lambda old: _with(old, attr=NAMES[old.attr])
    if isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield lambda old: ast.copy_location(ast.Pass(), old)
    if isinstance(node, (ast.Break, ast.Continue)):
        yield lambda old: ast.copy_location(ast.Continue() if isinstance(old, ast.Break) else ast.Break(), old)
    bare = isinstance(node, ast.Call) and not node.args and not node.keywords
    if bare and isinstance(node.func, ast.Attribute) and node.func.attr in LEFT_AWAY:
        yield lambda old: old.func.value


def _is_text(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in ast.walk(node))


def _with(node: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def _short(node: ast.AST) -> str:
    """Its first line; of what is long, enough to find it."""
    text = ast.unparse(node).splitlines()[0]
    return text if len(text) <= 100 else text[:97] + "..."
