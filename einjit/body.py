"""A decorated Python function -> the element expression that a nest reduces.

Taken: assignments to local names, one `return`, `+ - * /`, unary minus, `**` with a small whole number,
`abs`, `min` and `max` of two, comparisons, `x if c else y`, the functions of `math` and NumPy in `_CALLS`,
and numbers, also those that names of the function's closure or module stand for.
"""
from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass
from typing import Any, Callable, Mapping

from .errors import EquationError, OperandError
from .expr import Binary, Const, Expr, Operand, Select, Unary, operands

_BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}
_COMPARE = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}
_CALLS = {name: name for name in ("abs", "min", "max", "sqrt", "exp", "log", "sin", "cos", "tanh")}
_CALLS |= {"fabs": "abs", "absolute": "abs", "minimum": "min", "maximum": "max"}
_TWO = ("min", "max")
MAX_POWER = 64


def body_of(function: Callable, terms: int) -> Expr | None:
    """The expression of a function of `terms` operands; None where its body is `...` or `pass`.

    Raises `OperandError` where the number of parameters differs, `EquationError` for what cannot be compiled.
    """
    tree, lines = _tree(function)
    parameters = [a.arg for a in (*tree.args.posonlyargs, *tree.args.args)]
    if len(parameters) != terms or tree.args.vararg or tree.args.kwonlyargs or tree.args.kwarg:
        raise OperandError(f"{function.__name__} has {len(parameters)} parameters and its equation {terms} terms",
                           text=lines[tree.lineno - 1], fix="give the function one plain parameter for each operand")
    statements = [s for s in tree.body if not _is_remark(s)]
    if not statements:
        return None
    reader = _Reader(lines, {name: Operand(i) for i, name in enumerate(parameters)}, _outside(function))
    return reader.body(statements, terms)


def _tree(function: Callable) -> tuple[ast.FunctionDef, list[str]]:
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise EquationError(f"the source of {function!r} cannot be read, so its body cannot be compiled",
                            fix="define it in a file, or use `...` as its body") from None
    try:
        node = ast.parse(text).body[0]
    except SyntaxError:
        node = None
    if not isinstance(node, ast.FunctionDef):
        raise EquationError("the body of a decorated function is read from a `def`", text=text.splitlines()[0])
    return node, text.splitlines()


def _is_remark(s: ast.stmt) -> bool:
    return isinstance(s, ast.Pass) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)
                                       and (s.value.value is Ellipsis or isinstance(s.value.value, str)))


def _outside(function: Callable) -> Mapping[str, Any]:
    """What names that the function does not define stand for."""
    found = inspect.getclosurevars(function)
    return {**found.builtins, **found.globals, **found.nonlocals}


@dataclass
class _Reader:
    lines: list[str]
    names: dict[str, Expr]
    outside: Mapping[str, Any]

    def refuse(self, node: ast.AST, reason: str, fix: str | None = None):
        line = self.lines[node.lineno - 1]
        stop = node.end_col_offset if node.end_lineno == node.lineno else len(line)
        raise EquationError(reason, text=line, at=(node.col_offset, stop), fix=fix)

    def body(self, statements: list[ast.stmt], terms: int) -> Expr:
        for s in statements[:-1]:
            if not (isinstance(s, ast.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ast.Name)):
                self.refuse(s, "a body is assignments to names and one return at its end")
            self.names[s.targets[0].id] = self.expr(s.value)
        last = statements[-1]
        if not isinstance(last, ast.Return) or last.value is None:
            self.refuse(last, "a body ends by returning a value")
        expr = self.expr(last.value)
        if not operands(expr):
            self.refuse(last, "the returned value uses none of the operands")
        return expr

    def expr(self, node: ast.expr) -> Expr:
        match node:
            case ast.Name(id):
                return self.names[id] if id in self.names else self.constant(node, self.outside.get(id))
            case ast.Constant(value):
                return self.constant(node, value)
            case ast.UnaryOp(ast.USub(), x):
                return Unary("neg", self.expr(x))
            case ast.BinOp(x, ast.Pow(), n):
                return self.power(node, x, n)
            case ast.BinOp(x, op, y) if type(op) in _BINARY:
                return Binary(_BINARY[type(op)], self.expr(x), self.expr(y))
            case ast.Compare(x, [op], [y]) if type(op) in _COMPARE:
                return Binary(_COMPARE[type(op)], self.expr(x), self.expr(y))
            case ast.IfExp(test, yes, no):
                return Select(self.expr(test), self.expr(yes), self.expr(no))
            case ast.Call(function, args, []):
                return self.call(node, function, args)
            case ast.Attribute():
                return self.constant(node, self.attribute(node))
        self.refuse(node, "this cannot be compiled in a scalar body",
                    "use + - * / **, comparisons, x if c else y, " + ", ".join(sorted(_CALLS)))

    def constant(self, node: ast.expr, value: Any) -> Expr:
        if isinstance(value, (int, float, complex)):
            return Const(value)
        self.refuse(node, f"{ast.unparse(node)} is neither an operand nor a number")

    def attribute(self, node: ast.Attribute) -> Any:
        """What `module.name` stands for."""
        owner = node.value
        found = self.outside.get(owner.id) if isinstance(owner, ast.Name) else None
        return getattr(found, node.attr, None)

    def call(self, node: ast.Call, function: ast.expr, args: list[ast.expr]) -> Expr:
        name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
        op = _CALLS.get(name)
        if op is None or len(args) != (2 if op in _TWO else 1):
            self.refuse(node, f"{ast.unparse(function)} of {len(args)} arguments cannot be compiled in a scalar body",
                        "known functions: " + ", ".join(sorted(_CALLS)))
        values = [self.expr(x) for x in args]
        return Binary(op, *values) if op in _TWO else Unary(op, *values)

    def power(self, node: ast.BinOp, x: ast.expr, n: ast.expr) -> Expr:
        exponent = self.expr(n)
        if not isinstance(exponent, Const) or not isinstance(exponent.value, int) or not 0 < exponent.value <= MAX_POWER:
            self.refuse(node, f"an exponent must be a whole number from 1 to {MAX_POWER}",
                        "use sqrt, or exp and log")
        return _power(self.expr(x), exponent.value)


def _power(x: Expr, n: int) -> Expr:
    """x ** n by repeated squaring."""
    if n == 1:
        return x
    half = _power(x, n // 2)
    squared = Binary("mul", half, half)
    return Binary("mul", squared, x) if n % 2 else squared
