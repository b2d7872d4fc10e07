"""Single faults of a source file, made on its syntax tree."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Add, ast.Pow: ast.Mult, ast.MatMult: ast.Add,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_CALLED = {
    "min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "reversed": "list",
    "ceil": "floor", "floor": "ceil",
}  # fmt: skip
_WORDS = (ast.Raise, ast.JoinedStr, ast.arg, ast.AnnAssign)
"""Within them only values are changed: messages and types tell nothing."""


@dataclass(frozen=True)
class Fault:
    """A file with one thing changed."""

    line: int
    what: str
    """Before and after."""
    function: str
    """Dotted name of what it lies in; empty: run when the module is imported."""
    tree: ast.Module


def faults(path: Path) -> list[Fault]:
    """All single faults of a file, in the order of its lines."""
    tree = ast.parse(path.read_text())
    found = []
    for number, (node, function) in enumerate(_nodes(tree, "")):
        for change in _changes(node):
            mutant = copy.deepcopy(tree)
            twin = next(t for n, (t, _) in enumerate(_nodes(mutant, "")) if n == number)
            before = ast.unparse(node)
            change(twin)
            after = ast.unparse(twin)
            what = (
                f"{before[:60]} → {after[:60]}"
                if before[:60] != after[:60]
                else (f"…{before[-60:]} → …{after[-60:]}")
            )
            found.append(Fault(node.lineno, what.replace("\n", "; "), function, mutant))
    return sorted(found, key=lambda fault: fault.line)


def _nodes(node: ast.AST, function: str) -> Iterator[tuple[ast.AST, str]]:
    """Everything that can be changed, and the function around it."""
    if hasattr(node, "lineno") and not isinstance(node, ast.arg):
        yield node, function
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        inner = function
        if isinstance(node, ast.FunctionDef) and name == "body":
            inner = function or f"{node.name}:{node.lineno}"
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, (ast.Raise, ast.JoinedStr)):
                yield from _nodes(child, inner)


def _changes(node: ast.AST) -> list[Callable[[ast.AST], None]]:
    """What can be done to a copy of a node."""
    match node:
        case ast.Compare():
            return [
                lambda twin, i=i, new=new: twin.ops.__setitem__(i, new())
                for i, op in enumerate(node.ops)
                if (new := _COMPARED.get(type(op)))
            ]
        case ast.BinOp() | ast.AugAssign() if new := _COMPUTED.get(type(node.op)):
            return [lambda twin: setattr(twin, "op", new())]
        case ast.BoolOp():
            other = ast.And if isinstance(node.op, ast.Or) else ast.Or
            return [lambda twin: setattr(twin, "op", other())]
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            return [
                lambda twin: (
                    setattr(twin, "op", ast.UAdd())
                    if isinstance(twin.op, (ast.USub, ast.Invert))
                    else _replace(twin, twin.operand)
                )
            ]
        case ast.Constant(value=bool()):
            return [lambda twin: setattr(twin, "value", not twin.value)]
        case ast.Constant(value=int()):
            return [lambda twin: setattr(twin, "value", twin.value + 1)]
        case ast.Constant(value=float()):
            return [lambda twin: setattr(twin, "value", twin.value * 1.5 if twin.value else 0.5)]
        case ast.Call(func=ast.Name(id=name)) if name in _CALLED:
            return [lambda twin: _called(twin, name)]
        case ast.If() | ast.IfExp() | ast.While() if not isinstance(node.test, ast.Compare):
            return [lambda twin: setattr(twin, "test", ast.UnaryOp(ast.Not(), twin.test))]
        case ast.Expr(value=ast.Call()):
            return [lambda twin: setattr(twin, "value", ast.Constant(None))]
        case ast.Continue() | ast.Break():
            return [lambda twin: _replace(twin, None)]
    return []


def _called(twin: ast.AST, name: str) -> None:
    twin.func.id = _CALLED[name]
    if _CALLED[name] == "list":
        twin.keywords = []


def _replace(twin: ast.AST, other: ast.AST | None) -> None:
    """Turns a node into another in its place."""
    if other is None:
        twin.__class__ = ast.Break if isinstance(twin, ast.Continue) else ast.Continue
        return
    twin.__class__, twin.__dict__ = other.__class__, dict(other.__dict__)
