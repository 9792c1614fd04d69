"""Element expressions: what is reduced at every point of the iteration space, as a tree of frozen nodes."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np


class Expr:
    """Base of the nodes; `text(names)` prints Python source in which operand i is called names[i]."""

    def text(self, names: Sequence[str]) -> str:
        return _text(self, names)[0]

    def __str__(self) -> str:
        return self.text([f"{chr(97 + i)}" if i < 8 else f"x{i}" for i in range(max(operands(self), default=-1) + 1)])


@dataclass(frozen=True)
class Operand(Expr):
    index: int


@dataclass(frozen=True)
class Const(Expr):
    value: complex


@dataclass(frozen=True)
class Unary(Expr):
    op: str
    x: Expr


@dataclass(frozen=True)
class Binary(Expr):
    op: str
    x: Expr
    y: Expr


@dataclass(frozen=True)
class Select(Expr):
    cond: Expr
    x: Expr
    y: Expr


def product(count: int) -> Expr:
    """x0 * x1 * ..., from the left."""
    expr: Expr = Operand(0)
    for i in range(1, count):
        expr = Binary("mul", expr, Operand(i))
    return expr


def operands(expr: Expr) -> frozenset[int]:
    """Indices of the operands that an expression reads."""
    match expr:
        case Operand(index):
            return frozenset({index})
        case Unary(_, x):
            return operands(x)
        case Binary(_, x, y):
            return operands(x) | operands(y)
        case Select(cond, x, y):
            return operands(cond) | operands(x) | operands(y)
    return frozenset()


_UFUNCS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "min": np.minimum,
    "max": np.maximum, "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": np.log,
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}


def evaluate(expr: Expr, values: Sequence):
    """The expression's value on NumPy scalars or arrays."""
    match expr:
        case Operand(index):
            return values[index]
        case Const(value):
            return value
        case Unary(op, x):
            return _UFUNCS[op](evaluate(x, values))
        case Binary(op, x, y):
            return _UFUNCS[op](evaluate(x, values), evaluate(y, values))
        case Select(cond, x, y):
            return np.where(evaluate(cond, values), evaluate(x, values), evaluate(y, values))
    raise TypeError(f"not an expression node: {expr!r}")


_INFIX = {"add": ("+", 4), "sub": ("-", 4), "mul": ("*", 5), "div": ("/", 5), "lt": ("<", 3), "le": ("<=", 3),
          "gt": (">", 3), "ge": (">=", 3), "eq": ("==", 3), "ne": ("!=", 3)}
_ATOM = 9


def _text(expr: Expr, names: Sequence[str]) -> tuple[str, int]:
    """Source and how tightly its outermost operator binds."""
    match expr:
        case Operand(index):
            return names[index], _ATOM
        case Const(value):
            return repr(value), _ATOM
        case Unary("neg", x):
            return "-" + _inside(x, names, 6), 6
        case Unary(op, x):
            return f"{op}({_text(x, names)[0]})", _ATOM
        case Binary(op, x, y) if op in _INFIX:
            sign, level = _INFIX[op]
            return f"{_inside(x, names, level)} {sign} {_inside(y, names, level + 1)}", level
        case Binary(op, x, y):
            return f"{op}({_text(x, names)[0]}, {_text(y, names)[0]})", _ATOM
        case Select(cond, x, y):
            return f"{_inside(x, names, 2)} if {_inside(cond, names, 2)} else {_inside(y, names, 1)}", 1
    raise TypeError(f"not an expression node: {expr!r}")


def _inside(expr: Expr, names: Sequence[str], level: int) -> str:
    text, own = _text(expr, names)
    return text if own >= level else f"({text})"
