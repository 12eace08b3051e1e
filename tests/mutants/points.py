"""The places of a Python module at which a mutant can be made: one operator, boundary, branch, constant or statement.

A point is told by its text, not by its line, so that what was said of it stays true when lines move:
`Class.method: change in statement`. Texts of errors and of log lines are left alone.
"""

from __future__ import annotations

import ast
import copy
import re
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Statements = Callable[[str], Iterator[tuple[str, str]]]
    """What to change in the text of a statement of another language: pairs of a description and the new text."""

WIDTH = 160
LOGGERS = frozenset({"log"})
OTHER_FUNCTION = {"max": "min", "min": "max", "any": "all", "all": "any"}
OPTIONAL_KEYWORDS = frozenset({"retry_after", "no_cache", "timeout", "strict", "delay", "final"})
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
DROPPED = (ast.Expr, ast.AugAssign, ast.Raise, ast.Delete, ast.Continue, ast.Break)
NOT_CODE = frozenset({"annotation", "returns", "decorator_list", "type_params", "bases", "keywords"})


class Point(NamedTuple):
    """A change that can be made to a tree, once."""

    line: int
    text: str
    apply: Callable[[], None]


def points(source: str, statements: Statements | None = None) -> list[Point]:
    """All points of a module, in the order of the source."""
    return _Walk(ast.parse(source), statements).points


def mutant(source: str, index: int, statements: Statements | None = None) -> ast.Module:
    """The module with the change of `points(source)[index]`."""
    tree = ast.parse(source)
    _Walk(tree, statements).points[index].apply()
    return ast.fix_missing_locations(tree)


def _text(node: ast.AST) -> str:
    return ast.unparse(node).split("\n")[0][:WIDTH]


def _changed(node: ast.AST, change: Callable[[ast.AST], None]) -> str:
    """What a node's text becomes by a change."""
    other = copy.deepcopy(node)
    change(other)
    return _text(other)


def _is_left_alone(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return True
    if isinstance(statement, ast.If):
        return _text(statement.test) == "TYPE_CHECKING"
    if not isinstance(statement, ast.Expr):
        return False
    value = statement.value
    if isinstance(value, ast.Await):
        value = value.value
    return isinstance(value, ast.Constant) or (isinstance(value, ast.Call) and _text(value).split(".")[0] in LOGGERS)


class _Walk:
    """Goes through a tree, and notes its points."""

    def __init__(self, tree: ast.Module, statements: Statements | None) -> None:
        self.points: list[Point] = []
        self._statements = statements
        self._names: list[str] = []
        self._statement = ""
        self._block(tree.body)

    def _add(self, node: ast.expr | ast.stmt, change: str, apply: Callable[[], None]) -> None:
        where = ".".join(self._names) or "module"
        # Of a statement in another language the change itself has the line.
        statement = re.split("[\"']", self._statement)[0].strip() if self._statements else self._statement
        within = f" in `{statement}`" if statement and f"`{self._statement}`" not in change else ""
        self.points.append(Point(node.lineno, f"{where}: {change}{within}", apply))

    def _block(self, body: list[ast.stmt]) -> None:
        for number, statement in enumerate(body):
            if not _is_left_alone(statement):
                self._one(body, number, statement)

    def _one(self, body: list[ast.stmt], number: int, statement: ast.stmt) -> None:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            self._named(statement)
            return
        self._statement = _text(statement)
        self._whole(body, number, statement)
        is_raise = isinstance(statement, ast.Raise)
        for name, field in ast.iter_fields(statement):
            for child in field if isinstance(field, list) else [field]:
                if isinstance(child, ast.expr) and name not in NOT_CODE:
                    self._expression(child, text=not is_raise)
                elif isinstance(child, ast.withitem):
                    self._expression(child.context_expr)
        for block in _blocks(statement):
            self._block(block)

    def _named(self, definition: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._names.append(definition.name)
        if not isinstance(definition, ast.ClassDef):
            self._statement = f"def {definition.name}"
            for default in (*definition.args.defaults, *definition.args.kw_defaults):
                if default is not None:
                    self._expression(default)
        self._block(definition.body)
        self._names.pop()

    def _whole(self, body: list[ast.stmt], number: int, statement: ast.stmt) -> None:
        """Changes to a statement as a whole."""
        sets = isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute | ast.Subscript)
        if sets or isinstance(statement, DROPPED):

            def drop() -> None:
                body[number] = ast.copy_location(ast.Pass(), statement)

            self._add(statement, f"drop `{self._statement}`", drop)
        elif isinstance(statement, ast.Return) and statement.value and _text(statement.value) != "None":

            def return_none() -> None:
                statement.value = ast.copy_location(ast.Constant(None), statement)

            self._add(statement, f"return None, not `{_text(statement.value)}`", return_none)
        elif isinstance(statement, ast.If | ast.While) and not isinstance(statement.test, ast.Constant):

            def negate() -> None:
                statement.test = ast.copy_location(ast.UnaryOp(ast.Not(), statement.test), statement.test)

            self._add(statement, f"negate `{_text(statement.test)}`", negate)

    def _expression(self, node: ast.AST, *, text: bool = True) -> None:
        """Changes within an expression; `text`: of its strings too."""
        if isinstance(node, ast.Constant):
            self._constant(node, text=text)
        elif isinstance(node, ast.expr) and not (self._statements and not self._names):  # scripts put together
            for change, apply in _changes(node):
                self._add(node, change, apply)
        is_text = isinstance(node, ast.JoinedStr) and not self._statements
        for child in ast.iter_child_nodes(node):
            if not is_text or isinstance(child, ast.FormattedValue):
                self._expression(child, text=text)
        if isinstance(node, ast.comprehension):
            self._filters(node)

    def _filters(self, node: ast.comprehension) -> None:
        for number, condition in enumerate(node.ifs):

            def negate(number: int = number, condition: ast.expr = condition) -> None:
                node.ifs[number] = ast.copy_location(ast.UnaryOp(ast.Not(), condition), condition)

            self._add(condition, f"negate filter `{_text(condition)}`", negate)

    def _constant(self, node: ast.Constant, *, text: bool) -> None:
        for change, value in self._values(node.value, text=text):

            def apply(value: object = value) -> None:
                node.value = value  # type: ignore[assignment]  # a value of the constant's own type

            self._add(node, change, apply)

    def _values(self, value: object, *, text: bool) -> Iterator[tuple[str, object]]:
        if isinstance(value, str) and self._statements:
            yield from self._statements(value)
        else:
            for other in _other_values(value, text=text):
                yield f"{value!r} -> {other!r}", other


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        if block := getattr(statement, name, None):
            yield block
    for name in ("handlers", "cases"):
        for each in getattr(statement, name, ()):
            yield each.body


def _other_values(value: object, *, text: bool) -> Iterator[object]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        if value > 0:
            yield value - 1
    elif isinstance(value, float):
        yield value * 3 or 1.0
        yield value / 3 or -1.0
    elif isinstance(value, str) and value and " " not in value and text:
        yield value + "X"
    elif isinstance(value, bytes) and value:
        yield value + b"X"


def _changes(node: ast.expr) -> Iterator[tuple[str, Callable[[], None]]]:
    """The changes to an expression's own operator, operands or function."""
    for change in _changers(node):
        new = _changed(node, change)
        if new != _text(node):
            yield f"`{_text(node)}` -> `{new}`", lambda change=change: change(node)  # type: ignore[misc]


def _changers(node: ast.expr) -> Iterator[Callable[[ast.AST], None]]:
    """Functions that change a node like this one in place."""
    if isinstance(node, ast.Compare):
        for number, operator in enumerate(node.ops):
            for new in COMPARISONS[type(operator)]:
                yield lambda node, number=number, new=new: node.ops.__setitem__(number, new())  # type: ignore[misc]
    elif isinstance(node, ast.BoolOp):
        yield lambda node: setattr(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())  # type: ignore[attr-defined]
        yield from (partial(_without, number=number) for number in range(len(node.values)))
    elif isinstance(node, ast.UnaryOp | ast.BinOp | ast.IfExp):
        yield from _of_operation(node)
    elif isinstance(node, ast.Call):
        yield from _of_call(node)


def _of_operation(node: ast.UnaryOp | ast.BinOp | ast.IfExp) -> Iterator[Callable[[ast.AST], None]]:
    if isinstance(node, ast.IfExp):
        yield _swap
    elif isinstance(node.op, ast.Not):
        yield lambda node: setattr(node, "operand", ast.UnaryOp(ast.Not(), node.operand))  # type: ignore[attr-defined]
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS and not _is_string(node.left):
        yield lambda node: setattr(node, "op", OPERATORS[type(node.op)]())  # type: ignore[attr-defined]


def _of_call(node: ast.Call) -> Iterator[Callable[[ast.AST], None]]:
    if isinstance(node.func, ast.Name) and node.func.id in OTHER_FUNCTION:
        yield lambda node: setattr(node.func, "id", OTHER_FUNCTION[node.func.id])  # type: ignore[attr-defined]
    for number, keyword in enumerate(node.keywords):
        if keyword.arg in OPTIONAL_KEYWORDS:
            yield lambda node, number=number: node.keywords.pop(number)  # type: ignore[misc]


def _is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _without(node: ast.AST, number: int) -> None:
    """Take an operand out of `and` or `or`; a single one that is left stands twice."""
    assert isinstance(node, ast.BoolOp)
    left = node.values[:number] + node.values[number + 1 :]
    node.values = left if len(left) > 1 else left * 2


def _swap(node: ast.AST) -> None:
    assert isinstance(node, ast.IfExp)
    node.body, node.orelse = node.orelse, node.body
