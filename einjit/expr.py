"""Element expressions: what is reduced at every point of the iteration space, as a tree of frozen nodes.

An expression means what NumPy makes of it: `min` and `max` keep NaN, constants take the operands' dtype.
"""
from __future__ import annotations

import cmath
import math
from dataclasses import dataclass
from typing import Callable, Sequence

import numpy as np


class Expr:
    """Base of the nodes; `text(names)` prints Python source in which operand i is called names[i]."""

    def text(self, names: Sequence[str]) -> str:
        return _text(self, names)[0]

    def __str__(self) -> str:
        last = max(operands(self), default=-1)
        return self.text([chr(ord("a") + i) if i < 8 else f"x{i}" for i in range(last + 1)])


@dataclass(frozen=True)
class Operand(Expr):
    """The element of operand `index`."""

    index: int


@dataclass(frozen=True, eq=False, repr=False)
class Const(Expr):
    """A Python number. 1, 1.0 and True are three constants, 0.0 and -0.0 are two, and NaN equals itself:
    nodes are keys of what is compiled from them."""

    value: bool | int | float | complex

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash(repr(self.value))

    def __repr__(self) -> str:
        return f"Const({_number(self.value)})"


def _number(value: bool | int | float | complex) -> str:
    """Source of a number: infinities and NaN have no literals."""
    if isinstance(value, complex):
        finite = cmath.isfinite(value)
        return repr(value) if finite else f"complex({_number(value.real)}, {_number(value.imag)})"
    return repr(value) if math.isfinite(value) else f"float('{value}')"


@dataclass(frozen=True)
class Unary(Expr):
    """`op`: neg, abs, sqrt, exp, log, sin, cos or tanh."""

    op: str
    x: Expr


@dataclass(frozen=True)
class Binary(Expr):
    """`op`: add, sub, mul, div, min, max, or a comparison: lt, le, gt, ge, eq, ne."""

    op: str
    x: Expr
    y: Expr


@dataclass(frozen=True)
class Select(Expr):
    """`x` where `cond` is true (not zero), else `y`."""

    cond: Expr
    x: Expr
    y: Expr


def product(count: int) -> Expr:
    """a * b * c ..., from the left; `count` is at least 1."""
    expr: Expr = Operand(0)
    for i in range(1, count):
        expr = Binary("mul", expr, Operand(i))
    return expr


def parts(expr: Expr) -> tuple[Expr, ...]:
    """The expressions that an operation applies to; none for an operand or a constant."""
    return tuple(value for value in vars(expr).values() if isinstance(value, Expr))


def operands(expr: Expr) -> frozenset[int]:
    """Indices of the operands that an expression reads."""
    if isinstance(expr, Operand):
        return frozenset({expr.index})
    return frozenset().union(*map(operands, parts(expr)))


def evaluate(expr: Expr, values: Sequence):
    """The expression's value on NumPy scalars or arrays."""
    match expr:
        case Operand(index):
            return values[index]
        case Const(value):
            return value
    return _function(expr)(*(evaluate(part, values) for part in parts(expr)))


def is_complex_arithmetic(expr: Expr) -> bool:
    """Whether every operation is defined for complex numbers: the four of arithmetic, and a change of sign."""
    named = {"Operand": True, "Const": True, "Select": False}
    own = named.get(type(expr).__name__, getattr(expr, "op", "") in ("add", "sub", "mul", "div", "neg"))
    return own and all(map(is_complex_arithmetic, parts(expr)))


def working_dtype(expr: Expr, dtypes: Sequence[np.dtype | str]) -> np.dtype:
    """The dtype that every operation can be done in, for operands of these dtypes.

    It may be wider than the result's: `a < 0.5` compares an integer `a` as a float.
    """
    ones = [np.ones((), dtype)[()] for dtype in dtypes]
    found = [ones[i].dtype for i in operands(expr)]

    def visit(node: Expr):
        if not parts(node):
            return evaluate(node, ones)
        values = [visit(part) for part in parts(node)]
        result = _function(node)(*values)
        found.append(np.result_type(result, *values))
        return result

    visit(expr)
    return np.result_type(*found)


_UFUNCS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "min": np.minimum,
    "max": np.maximum, "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": np.log,
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}


def _function(operation: Expr) -> Callable:
    return np.where if isinstance(operation, Select) else _UFUNCS[operation.op]


# How tightly each kind of source binds, loosest first.
_SELECT, _COMPARISON, _SUM, _TERM, _SIGN, _ATOM = range(1, 7)

_INFIX = {
    "add": ("+", _SUM), "sub": ("-", _SUM), "mul": ("*", _TERM), "div": ("/", _TERM),
    "lt": ("<", _COMPARISON), "le": ("<=", _COMPARISON), "gt": (">", _COMPARISON), "ge": (">=", _COMPARISON),
    "eq": ("==", _COMPARISON), "ne": ("!=", _COMPARISON),
}


def _text(expr: Expr, names: Sequence[str]) -> tuple[str, int]:
    """Source and how tightly its outermost operator binds."""
    match expr:
        case Operand(index):
            return names[index], _ATOM
        case Const(value):
            return _number(value), _ATOM
        case Unary("neg", x):
            return "-" + _inside(x, names, _SIGN), _SIGN
        case Unary(op, x):
            return f"{op}({_text(x, names)[0]})", _ATOM
        case Binary(op, x, y) if op in _INFIX:
            sign, level = _INFIX[op]
            # `a < b < c` is a chain in Python, not (a < b) < c.
            left = level + 1 if level == _COMPARISON else level
            return f"{_inside(x, names, left)} {sign} {_inside(y, names, level + 1)}", level
        case Binary(op, x, y):
            return f"{op}({_text(x, names)[0]}, {_text(y, names)[0]})", _ATOM
        case Select(cond, x, y):
            yes, condition = _inside(x, names, _SELECT + 1), _inside(cond, names, _SELECT + 1)
            return f"{yes} if {condition} else {_inside(y, names, _SELECT)}", _SELECT
    raise TypeError(f"not an expression node: {expr!r}")


def _inside(expr: Expr, names: Sequence[str], level: int) -> str:
    text, own = _text(expr, names)
    return text if own >= level else f"({text})"
