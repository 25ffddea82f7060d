"""Small wrong changes of a module, one at a time: what a typing slip or a badly chosen number would look like.

A module's mutants are numbered in the order of its syntax tree. Nothing that only makes text is changed (f-strings),
no annotation, no decorator, no bound of a settings field, and no guard against a division by zero (below 1e-6).
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

THRESHOLD, COMPARISON, BOUNDARY, BRANCH, BOOLEAN, CONSTANT = (
    "threshold", "comparison", "boundary", "branch", "boolean", "constant"
)  # fmt: skip
STEP = 1.3
"""Factor by which a number grows or shrinks; whole numbers below 10 move by one."""
TINY = 1e-6
QUIET_KEYWORDS = (
    "strict",
    "seed",
    "frozen",
    "use_attribute_docstrings",
    "ge",
    "gt",
    "le",
    "lt",
    "min_length",
    "max_length",
    "pattern",
    "alias",
    "ndigits",
)
"""Keyword arguments that decide nothing: what checks lengths, seeds, bounds of settings and how classes are made."""

_OPPOSITE = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_EDGE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_SIGNS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is",
    ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """number: its place in the module. text: what became what. lines: first and last line of the statement that holds
    it (of a compound one its head alone); (0, 0) where it is executed when the module is imported."""

    number: int
    line: int
    kind: str
    text: str
    lines: tuple[int, int] = (0, 0)


def mutations(source: str) -> list[Mutation]:
    """Every mutation of a module's source."""
    walk = _Walk(None)
    walk.visit(ast.parse(source))
    return walk.found


def mutated(source: str, number: int) -> ast.Module:
    """The syntax tree with mutation `number` made; lines stay where they are."""
    walk = _Walk(number)
    tree = walk.visit(ast.parse(source))
    assert isinstance(tree, ast.Module)
    return ast.fix_missing_locations(tree)


class _Walk(ast.NodeTransformer):
    """Counts the places where something can be changed, and changes the wanted one."""

    def __init__(self, wanted: int | None) -> None:
        self.wanted = wanted
        self.found: list[Mutation] = []
        self._steers = False
        self._top = True
        self._lines = (0, 0)

    def visit(self, node: ast.AST) -> ast.AST:
        outer = self._lines
        if isinstance(node, ast.stmt) and not self._top:
            self._lines = _lines(node)
        found: ast.AST = super().visit(node)
        self._lines = outer
        return found

    def _here(self, node: ast.AST, kind: str, text: str) -> bool:
        number = len(self.found)
        self.found.append(Mutation(number, getattr(node, "lineno", 0), kind, text, self._lines))
        return number == self.wanted

    # What is left alone ------------------------------------------------------------------------------------------

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        if node.arg not in QUIET_KEYWORDS:
            node.value = self.visit(node.value)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self._threshold(node.value)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        top, self._top = self._top, False
        node.args.defaults = [self._threshold(value) for value in node.args.defaults]
        node.args.kw_defaults = [value and self._threshold(value) for value in node.args.kw_defaults]
        node.body = [self.visit(statement) for statement in node.body]
        self._top = top
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [self.visit(statement) for statement in node.body]
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return node

    # Branches and conditions -------------------------------------------------------------------------------------

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node
        node.test = self._branch(node.test)
        node.body = [self.visit(statement) for statement in node.body]
        node.orelse = [self.visit(statement) for statement in node.orelse]
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        node.test = self._branch(node.test)
        node.body, node.orelse = self.visit(node.body), self.visit(node.orelse)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        node.iter = self.visit(node.iter)
        node.ifs = [self._branch(test) for test in node.ifs]
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        text = "and -> or" if isinstance(node.op, ast.And) else "or -> and"
        if self._here(node, BOOLEAN, text):
            node.op = other
        node.values = [self.visit(value) for value in node.values]
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.Not) and self._here(node, BOOLEAN, f"{ast.unparse(node)} without not"):
            return node.operand
        node.operand = self.visit(node.operand)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        return self._compare(node, opposite=True)

    def _branch(self, test: ast.expr) -> ast.expr:
        """The negated condition; a single comparison is not turned round a second time."""
        single = isinstance(test, ast.Compare) and len(test.ops) == 1
        if self._here(test, BRANCH, f"not ({ast.unparse(test)})"):
            return ast.copy_location(ast.UnaryOp(ast.Not(), test), test)
        if single:
            assert isinstance(test, ast.Compare)
            return self._compare(test, opposite=False)
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test.operand = self.visit(test.operand)
            return test
        found = self.visit(test)
        assert isinstance(found, ast.expr)
        return found

    def _compare(self, node: ast.Compare, *, opposite: bool) -> ast.Compare:
        for k, op in enumerate(node.ops):
            tables = ((COMPARISON, _OPPOSITE), (BOUNDARY, _EDGE)) if opposite else ((BOUNDARY, _EDGE),)
            for kind, table in tables:
                other = table.get(type(op))
                if other is not None and self._here(node, kind, f"{_SIGNS[type(op)]} -> {_SIGNS[other]}"):
                    node.ops[k] = other()
        node.left = self._threshold(node.left)
        node.comparators = [self._threshold(value) for value in node.comparators]
        return node

    # Numbers -----------------------------------------------------------------------------------------------------

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        node.value = self._threshold(node.value) if self._top else self.visit(node.value)
        return node

    def _threshold(self, node: ast.expr) -> ast.expr:
        """A number here steers a decision: it is moved both ways."""
        steers, self._steers = self._steers, True
        found = self.visit(node)
        self._steers = steers
        assert isinstance(found, ast.expr)
        return found

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        value = node.value
        if isinstance(value, bool):
            if self._here(node, CONSTANT, f"{value} -> {not value}"):
                return ast.copy_location(ast.Constant(not value), node)
        elif isinstance(value, int | float) and (value == 0 or abs(value) >= TINY):
            moved = [_up(value), _down(value)] if self._steers and value else [_up(value)]
            for other in moved:
                kind = THRESHOLD if self._steers else CONSTANT
                if self._here(node, kind, f"{value:g} -> {other:g}"):
                    return ast.copy_location(ast.Constant(other), node)
        return node


def _lines(node: ast.stmt) -> tuple[int, int]:
    body = getattr(node, "body", None)
    return node.lineno, max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno


def _up(value: int | float) -> int | float:
    if isinstance(value, int):
        return value + 1 if abs(value) < 10 else round(value * STEP)
    return value * STEP if value else 1.0


def _down(value: int | float) -> int | float:
    if isinstance(value, int):
        return value - 1 if abs(value) < 10 else round(value / STEP)
    return value / STEP
