"""A decorated Python function -> the element expression that a nest reduces.

Taken: assignments to local names, one `return`, + - * /, unary minus, ** with a small whole number,
comparisons, `and`, `or`, `not`, `x if c else y`, the functions in `_FUNCTIONS`, and numbers, also those that
names of the function's closure, its module or other modules stand for. All means what it means in NumPy.
"""
from __future__ import annotations

import ast
import builtins
import dis
import inspect
import math
import operator
import textwrap
from collections import ChainMap
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Mapping, NoReturn

import numpy as np

from .errors import BodyError
from .expr import Binary, Const, Expr, Operand, Select, Unary, operands, parts

MAX_POWER = 64
MAX_NODES = 1000        # of an expression written out: local names are put in wherever they are used
MAX_DEPTH = 100         # of operations inside one another: Python's parser and our own recursion have limits

_BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}
_COMPARE = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}
_PYTHON = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv}
_PYTHON |= {op: getattr(operator, op) for op in _COMPARE.values()}

_FUNCTIONS: dict[Callable, str] = {abs: "abs", min: "min", max: "max"}
_FUNCTIONS |= {getattr(math, op): op for op in ("sqrt", "exp", "log", "sin", "cos", "tanh")}
_FUNCTIONS |= {getattr(np, op): op for op in ("abs", "sqrt", "exp", "log", "sin", "cos", "tanh")}
_FUNCTIONS |= {math.fabs: "abs", np.fabs: "abs", np.minimum: "min", np.maximum: "max", np.where: "where"}
_NAMES = "abs, min, max, sqrt, exp, log, sin, cos, tanh, minimum, maximum and where"


def body_of(function: Callable, terms: int) -> Expr | None:
    """The expression of a function of one element of each of `terms` operands.

    None where the body does nothing (`...`, `pass`, a docstring): the product of the operands is meant.
    Raises `BodyError` where the parameters are not one for each operand, where the source cannot be read,
    and for what cannot be compiled.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        raise BodyError(f"{function!r} is not a Python function", fix="decorate a `def`")
    parameters = code.co_varnames[:code.co_argcount]
    varying = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
    if len(parameters) != terms or code.co_kwonlyargcount or code.co_flags & varying:
        raise BodyError(f"{function.__name__}{inspect.signature(function)} does not take {terms} "
                        f"operand{'s' * (terms != 1)}", fix="give it one plain parameter for each operand")
    if _does_nothing(function):
        return None
    reader = _Reader(_Source.of(function), _outside(function), code.co_varnames)
    reader.locals.update((name, Operand(i)) for i, name in enumerate(parameters))
    return reader.function()


def _does_nothing(function: Callable) -> bool:
    """Seen in the byte code, so that it needs no source: all the function does is return None."""
    silent = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE", "COPY_FREE_VARS"}
    steps = list(dis.get_instructions(function))
    loaded = [s.argval for s in steps if s.opname in ("LOAD_CONST", "RETURN_CONST")]
    return loaded == [None] and all(s.opname in silent for s in steps)


def _outside(function: Callable) -> Mapping[str, Any]:
    """What names that the function does not define stand for."""
    closed_over = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            closed_over[name] = cell.cell_contents
        except ValueError:      # not assigned yet
            pass
    return ChainMap(closed_over, function.__globals__, vars(builtins))


@dataclass(frozen=True)
class _Source:
    """A function's text, its tree, and how errors name the places in it."""

    name: str
    file: str
    first: int
    lines: list[str]
    tree: ast.FunctionDef | ast.Lambda

    @classmethod
    def of(cls, function: Callable) -> _Source:
        try:
            lines, first = inspect.getsourcelines(function)
        except (OSError, TypeError):
            raise BodyError(f"the source of {function.__name__} cannot be read",
                            fix="define it in a file, or make its body `...`") from None
        lines = textwrap.dedent("".join(lines)).splitlines()
        try:
            nodes = ast.walk(ast.parse("\n".join(lines)))
            kind = ast.Lambda if function.__name__ == "<lambda>" else ast.FunctionDef
            found = [node for node in nodes if isinstance(node, kind)]
        except SyntaxError:
            found = []
        if not found or isinstance(found[0], ast.Lambda) and len(found) > 1:
            raise BodyError(f"{function.__name__} is not found in its source", text=lines[0],
                            fix="write it as a `def`")
        return cls(function.__name__, Path(function.__code__.co_filename).name, first, lines, found[0])

    def error(self, node: ast.AST, reason: str, fix: str | None = None) -> BodyError:
        line = self.lines[node.lineno - 1]
        stop = node.end_col_offset if node.end_lineno == node.lineno else len(line.encode())
        # The tree counts bytes.
        start, stop = (len(line.encode()[:offset].decode()) for offset in (node.col_offset, stop))
        text = line.lstrip()
        shift = len(line) - len(text)
        place = f"{self.file}, line {self.first + node.lineno - 1}, in {self.name}"
        return BodyError(f"{reason} ({place})", text=text, at=(start - shift, stop - shift), fix=fix)


@dataclass
class _Reader:
    """Statements and expressions of a body -> `Expr`, with the local names put in."""

    source: _Source
    outside: Mapping[str, Any]
    local_names: tuple[str, ...]
    locals: dict[str, Expr] = field(default_factory=dict)

    def fail(self, node: ast.AST, reason: str, fix: str | None = None) -> NoReturn:
        raise self.source.error(node, reason, fix)

    # -- statements --------------------------------------------------------------------------------------

    def function(self) -> Expr:
        tree = self.source.tree
        if isinstance(tree, ast.Lambda):
            return self.result(tree.body)
        for statement in tree.body:
            match statement:
                case ast.Return(value) if value is not None:
                    return self.result(value)
                case ast.Assign([ast.Name(name)], value):
                    self.locals[name] = self.whole(value)
                case ast.AnnAssign(ast.Name(name), _, value) if value is not None:
                    self.locals[name] = self.whole(value)
                case ast.AugAssign(ast.Name(name) as target, op, value):
                    read = ast.copy_location(ast.Name(name, ast.Load()), target)
                    self.locals[name] = self.whole(ast.copy_location(ast.BinOp(read, op, value), statement))
                case ast.Expr(ast.Constant()) | ast.Pass():
                    pass
                case _:
                    self.fail(statement, f"{_called(statement)} cannot be compiled in a body",
                              "use assignments to names and one return; choose by `x if c else y`")
        self.fail(tree.body[-1], "the body returns nothing", "return what is to be summed")

    def result(self, node: ast.expr) -> Expr:
        expr = self.whole(node)
        if not operands(expr):
            self.fail(node, "what is returned does not depend on any operand")
        return expr

    def whole(self, node: ast.expr) -> Expr:
        """An expression that is not so large that compiling it would take for ever."""
        try:
            expr = self.expr(node)
            size, depth = _size(expr, {}), _depth(expr, {})
        except RecursionError:
            size, depth = 0, MAX_DEPTH + 1
        if size > MAX_NODES:
            self.fail(node, f"with its local names put in, this has more than {MAX_NODES} operations")
        if depth > MAX_DEPTH:
            self.fail(node, f"with its local names put in, this has operations more than {MAX_DEPTH} deep in one "
                            "another",
                      "put parentheses into long sums: (a + b) + (c + d) is less deep than a + b + c + d")
        return expr

    # -- expressions -------------------------------------------------------------------------------------

    def expr(self, node: ast.expr) -> Expr:
        match node:
            case ast.Name(name) if name in self.locals:
                return self.locals[name]
            case ast.Name(name) if name in self.local_names:
                self.fail(node, f"{name} is used before it is assigned")
            case ast.Name() | ast.Attribute():
                return self.constant(node, self.found(node))
            case ast.Constant(value):
                return self.constant(node, value)
            case ast.UnaryOp(ast.UAdd(), x):
                return self.expr(x)
            case ast.UnaryOp(ast.USub(), x):
                return self.apply(node, "neg", operator.neg, self.expr(x))
            case ast.UnaryOp(ast.Not(), x):
                return Select(self.expr(x), Const(False), Const(True))
            case ast.BinOp(x, ast.Pow(), y):
                return self.power(node, self.expr(x), self.expr(y))
            case ast.BinOp(x, op, y) if type(op) in _BINARY:
                name = _BINARY[type(op)]
                return self.apply(node, name, _PYTHON[name], self.expr(x), self.expr(y))
            case ast.Compare(first, ops, others):
                return self.comparison(node, [first, *others], ops)
            case ast.BoolOp(op, terms):
                return self.logic(isinstance(op, ast.And), [self.expr(x) for x in terms])
            case ast.IfExp(test, x, y):
                return Select(self.expr(test), self.expr(x), self.expr(y))
            case ast.Call(function, arguments, []):
                return self.call(node, function, arguments)
        self.fail(node, f"{_called(node)} cannot be compiled in a body",
                  f"use + - * / **, comparisons, and, or, not, x if c else y, {_NAMES}")

    def constant(self, node: ast.expr, value: Any) -> Const:
        if isinstance(value, np.generic) and value.dtype.kind in "biufc":
            value = value.item()
        # Exactly these: a subclass (an IntEnum, say) prints as something else.
        for kind in (bool, int, float, complex):
            if isinstance(value, kind):
                return Const(kind(value))
        self.fail(node, f"{ast.unparse(node)} is neither an operand nor a number")

    def found(self, node: ast.expr) -> Any:
        """The object that a global, closed-over or built-in name, or a name in a module, stands for."""
        if isinstance(node, ast.Attribute):
            owner = self.found(node.value)
            if isinstance(owner, ModuleType) and hasattr(owner, node.attr):
                return getattr(owner, node.attr)
        elif isinstance(node, ast.Name) and node.id in self.local_names:
            self.fail(node, f"{node.id} is a number here: it has no attributes and cannot be called")
        elif isinstance(node, ast.Name) and node.id in self.outside:
            return self.outside[node.id]
        self.fail(node, f"{ast.unparse(node)} is not defined")

    def apply(self, node: ast.expr, op: str, python: Callable, *arguments: Expr) -> Expr:
        """An operation; on constants alone, Python's own result."""
        if all(isinstance(x, Const) for x in arguments):
            try:
                return self.constant(node, python(*(x.value for x in arguments)))
            except (ArithmeticError, ValueError, TypeError) as error:
                self.fail(node, f"{ast.unparse(node)}: {error}")
        return Unary(op, *arguments) if len(arguments) == 1 else Binary(op, *arguments)

    def comparison(self, node: ast.Compare, terms: list[ast.expr], ops: list[ast.cmpop]) -> Expr:
        if not all(type(op) in _COMPARE for op in ops):
            self.fail(node, f"{_called(node)} cannot be compiled in a body", "compare by < <= > >= == !=")
        values = [self.expr(x) for x in terms]
        pairs = []
        for op, x, y in zip(ops, values, values[1:]):
            name = _COMPARE[type(op)]
            pairs.append(self.apply(node, name, _PYTHON[name], x, y))
        return self.logic(True, pairs)

    def logic(self, every: bool, terms: list[Expr]) -> Expr:
        """`and` or `or` of all terms, by Python's rule: one of the terms is the result."""
        *before, result = terms
        for term in reversed(before):
            result = Select(term, result, term) if every else Select(term, term, result)
        return result

    def call(self, node: ast.Call, function: ast.expr, arguments: list[ast.expr]) -> Expr:
        called = self.found(function)
        try:
            op = _FUNCTIONS[called]
        except (KeyError, TypeError):
            self.fail(node, f"{ast.unparse(function)} is no function that can be compiled", f"use {_NAMES}")
        values = [self.expr(x) for x in arguments]
        least, most = {"where": (3, 3), "min": (2, 8), "max": (2, 8)}.get(op, (1, 1))
        if not least <= len(values) <= most:
            count = f"{len(values)} argument{'s' * (len(values) != 1)}"
            self.fail(node, f"{ast.unparse(function)} is called with {count}")
        if op == "where":
            return Select(*values)
        result = values[0] if most > 1 else self.apply(node, op, called, values[0])
        for value in values[1:]:
            result = self.apply(node, op, called, result, value)
        return result

    def power(self, node: ast.BinOp, x: Expr, exponent: Expr) -> Expr:
        if isinstance(x, Const) and isinstance(exponent, Const):
            return self.apply(node, "pow", operator.pow, x, exponent)
        n = exponent.value if isinstance(exponent, Const) else None
        if n == 0.5:
            # Times 1.0, since a float: the square root of an int8 alone would be a float16.
            return Unary("sqrt", Binary("mul", x, Const(1.0)))
        if type(n) is not int or not 1 <= abs(n) <= MAX_POWER:
            self.fail(node, f"an exponent that is neither a whole number up to {MAX_POWER} nor 0.5",
                      "write exp(y * log(x))")
        return _power(x, n) if n > 0 else Binary("div", Const(1), _power(x, -n))


def _power(x: Expr, n: int) -> Expr:
    """x ** n by repeated squaring."""
    if n == 1:
        return x
    half = _power(x, n // 2)
    squared = Binary("mul", half, half)
    return Binary("mul", squared, x) if n % 2 else squared


def _size(expr: Expr, sizes: dict[int, int]) -> int:
    """Operations of an expression written out as a tree; shared parts are visited once."""
    if id(expr) not in sizes:
        sizes[id(expr)] = 1 + sum(_size(part, sizes) for part in parts(expr))
    return sizes[id(expr)]


def _depth(expr: Expr, depths: dict[int, int]) -> int:
    """How many operations lie inside one another; shared parts are visited once."""
    if id(expr) not in depths:
        depths[id(expr)] = 1 + max((_depth(part, depths) for part in parts(expr)), default=-1)
    return depths[id(expr)]


def _called(node: ast.AST) -> str:
    """What to call a piece of syntax in a message."""
    names = {
        ast.If: "an if statement", ast.For: "a loop", ast.While: "a loop", ast.Subscript: "indexing",
        ast.FunctionDef: "a function", ast.Lambda: "a lambda", ast.Call: "a call with keyword arguments",
    }
    if type(node) in names:
        return names[type(node)]
    text = ast.unparse(node).partition("\n")[0]
    return f"`{text}`" if len(text) <= 60 else "this"
