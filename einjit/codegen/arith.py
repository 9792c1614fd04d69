"""Arithmetic on lanes: the element expression of a loop nest and its reduction, as LLVM instructions."""
from __future__ import annotations

from typing import Sequence

from llvmlite import ir

from ..expr import Binary, Const, Expr, Operand, Select, Unary
from . import elements as el
from . import gpumath, vectors
from .elements import Element, Lanes
from .vectors import I32, shuffle, splat_constant

# 'nnan' and 'ninf' are absent on purpose: NaN and infinity follow IEEE.
FAST = ("contract", "reassoc", "nsz")


def evaluate(builder, element: Element, expr: Expr, operands: Sequence[Lanes]) -> Lanes:
    """The value of `expr` where operand i holds `operands[i]`, all of one element type and width."""
    lanes = operands[0].lanes

    def value(node: Expr) -> Lanes:
        match node:
            case Operand(index):
                return operands[index]
            case Const(number):
                return el.constant(element, number, lanes)
            case Unary(op, x):
                return _unary(builder, element, op, value(x))
            case Binary(op, x, y) if op in _COMPARISONS:
                return _from_truth(builder, element, compare(op, x, y), lanes)
            case Binary(op, x, y):
                return binary(builder, element, op, value(x), value(y))
            case Select(cond, x, y):
                return el.select(builder, truth(cond), value(x), value(y))
        raise TypeError(f"no code for expression node {node!r}")

    def compare(op: str, x: Expr, y: Expr) -> ir.Value:
        left, right = value(x).parts, value(y).parts
        if element.kind == "f":
            emit = builder.fcmp_unordered if op == "ne" else builder.fcmp_ordered
        else:
            emit = builder.icmp_signed if element.kind == "i" else builder.icmp_unsigned
        return emit(_COMPARISONS[op], left[0], right[0])

    def truth(node: Expr) -> ir.Value:
        if isinstance(node, Binary) and node.op in _COMPARISONS:
            return compare(node.op, node.x, node.y)
        return compare("ne", node, Const(0))

    return value(expr)


_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


def _from_truth(builder, element: Element, truth: ir.Value, lanes: int) -> Lanes:
    return el.select(builder, truth, el.constant(element, 1, lanes), el.constant(element, 0, lanes))


def accumulate(builder, element: Element, reduce: str, total: Lanes, expr: Expr, operands: Sequence[Lanes]) -> Lanes:
    """`total` reduced with `expr`: one fused multiply-add a component where the expression ends in a product."""
    if reduce == "add" and element.is_float and isinstance(expr, Binary) and expr.op == "mul":
        x = evaluate(builder, element, expr.x, operands)
        y = evaluate(builder, element, expr.y, operands)
        return _multiply_add(builder, element, x, y, total)
    return combine(builder, element, reduce, total, evaluate(builder, element, expr, operands))


def combine(builder, element: Element, reduce: str, x: Lanes, y: Lanes) -> Lanes:
    """Two partial results as one. Their order is free; that of the operations in an expression is not."""
    return binary(builder, element, reduce, x, y, FAST)


def identity(element: Element, reduce: str, lanes: int) -> Lanes:
    """What a reduction starts from."""
    if reduce == "add":
        return el.constant(element, 0, lanes)
    raise TypeError(f"no identity known for the reduction {reduce!r}")


def horizontal(builder, element: Element, reduce: str, value: Lanes) -> Lanes:
    """All lanes reduced to one, by halves (pairwise, so the error grows with log2 of the lanes)."""
    while value.lanes > 1:
        half = value.lanes // 2
        low, high = (
            Lanes(tuple(_slice(builder, p, start, half) for p in value.parts), half) for start in (0, half))
        value = combine(builder, element, reduce, low, high)
    return value


def horizontals(builder, element: Element, reduce: str, values: Sequence[Lanes]) -> list[Lanes]:
    """The lanes of each value reduced to one. Values are folded into each other, so that one register holds
    partial results of several: n values of n lanes take n - 1 additions, not n log2 n."""
    lanes = values[0].lanes
    count = 1 << (min(len(values), lanes).bit_length() - 1)
    if count == 1:
        return [horizontal(builder, element, reduce, value) for value in values]
    rest, values, group = values[count:], values[:count], lanes
    while len(values) > 1:
        values = [_folded(builder, element, reduce, x, y, group) for x, y in zip(values[::2], values[1::2])]
        group //= 2
    (value,) = values
    while group > 1:
        value = _folded(builder, element, reduce, value, None, group)
        group //= 2
    results = [Lanes(tuple(_slice(builder, p, i, 1) for p in value.parts), 1) for i in range(count)]
    return results + (horizontals(builder, element, reduce, rest) if rest else [])


def _folded(builder, element: Element, reduce: str, x: Lanes, y: Lanes | None, group: int) -> Lanes:
    """The halves of each group of lanes combined: first those of x, then those of y."""
    starts = range(0, (1 if y is None else 2) * x.lanes, group)
    halves = []
    for half in (0, group // 2):
        indices = [start + half + i for start in starts for i in range(group // 2)]
        second = (y or x).parts
        halves.append(Lanes(tuple(shuffle(builder, a, b, indices) for a, b in zip(x.parts, second)), len(indices)))
    return combine(builder, element, reduce, *halves)


def _slice(builder, part, start: int, count: int):
    if count == 1:
        return builder.extract_element(part, I32(start))
    return shuffle(builder, part, part, list(range(start, start + count)))


def binary(builder, element: Element, op: str, x: Lanes, y: Lanes, flags: Sequence[str] = ()) -> Lanes:
    if element.kind == "c":
        return Lanes(_COMPLEX[op](builder, x.parts, y.parts, flags), x.lanes)
    return Lanes((_real_binary(builder, element, op, x.parts[0], y.parts[0], flags),), x.lanes)


def _real_binary(builder, element: Element, op: str, x, y, flags: Sequence[str]):
    if element.kind == "f":
        if op in ("min", "max"):
            return _call(builder, f"llvm.{op}imum", [x, y])
        return {"add": builder.fadd, "sub": builder.fsub, "mul": builder.fmul, "div": builder.fdiv}[op](
            x, y, flags=flags)
    if element.kind == "b":
        return {"add": builder.or_, "mul": builder.and_, "max": builder.or_, "min": builder.and_}[op](x, y)
    if op in ("min", "max"):
        less = (builder.icmp_signed if element.kind == "i" else builder.icmp_unsigned)("<", x, y)
        return builder.select(less, x, y) if op == "min" else builder.select(less, y, x)
    return {"add": builder.add, "sub": builder.sub, "mul": builder.mul}[op](x, y)


def _multiply_add(builder, element: Element, x: Lanes, y: Lanes, z: Lanes) -> Lanes:
    def fma(a, b, c):
        return _call(builder, "llvm.fmuladd", [a, b, c], FAST)

    if element.kind != "c":
        return Lanes((fma(x.parts[0], y.parts[0], z.parts[0]),), z.lanes)
    (xr, xi), (yr, yi), (zr, zi) = x.parts, y.parts, z.parts
    real = fma(xr, yr, zr)
    imag = fma(xr, yi, zi)
    minus_xi = negated(builder, xi)
    return Lanes((fma(minus_xi, yi, real), fma(xi, yr, imag)), z.lanes)


def negated(builder, part):
    """-x, spelled for NVIDIA's compiler too, whose LLVM is older than the instruction `fneg`."""
    return builder.fsub(splat_constant(part.type, -0.0), part)


def _complex_mul(builder, x, y, flags):
    (a, b), (c, d) = x, y
    fused = ("contract",)       # two of the four products, as NumPy's own loops do
    real = builder.fsub(builder.fmul(a, c, flags=fused), builder.fmul(b, d, flags=fused), flags=fused)
    imag = builder.fadd(builder.fmul(a, d, flags=fused), builder.fmul(b, c, flags=fused), flags=fused)
    return real, imag


def _complex_div(builder, x, y, flags):
    # Smith's method (CACM 1962), as in NumPy: c * c + d * d would overflow, or vanish, long before c and d do.
    (a, b), (c, d) = x, y
    zero = ir.Constant(c.type, None)
    swapped = builder.fcmp_unordered(">", _call(builder, "llvm.fabs", [d]), _call(builder, "llvm.fabs", [c]))
    large, small = builder.select(swapped, d, c), builder.select(swapped, c, d)
    p, q = builder.select(swapped, b, a), builder.select(swapped, a, b)
    by_zero = builder.fcmp_ordered("==", large, zero)
    ratio = builder.select(by_zero, zero, builder.fdiv(small, large))
    scale = builder.fadd(large, builder.fmul(small, ratio))
    real = builder.fdiv(builder.fadd(p, builder.fmul(q, ratio)), scale)
    imag = builder.fdiv(builder.fsub(q, builder.fmul(p, ratio)), scale)
    return real, builder.select(swapped, negated(builder, imag), imag)


_COMPLEX = {
    "add": lambda b, x, y, flags: tuple(b.fadd(p, q, flags=flags) for p, q in zip(x, y)),
    "sub": lambda b, x, y, flags: tuple(b.fsub(p, q, flags=flags) for p, q in zip(x, y)),
    "mul": _complex_mul,
    "div": _complex_div,
}


def _unary(builder, element: Element, op: str, x: Lanes) -> Lanes:
    if op == "neg":
        return Lanes(tuple(negated(builder, p) if element.is_float else builder.neg(p) for p in x.parts), x.lanes)
    (part,) = x.parts
    if op == "abs" and not element.is_float:
        zero = el.constant(element, 0, x.lanes).parts[0]
        negative = builder.icmp_signed("<", part, zero)
        return Lanes((builder.select(negative, builder.neg(part), part) if element.kind == "i" else part,), x.lanes)
    return Lanes((_call(builder, "llvm.fabs" if op == "abs" else f"llvm.{op}", [part]),), x.lanes)


def _call(builder, name: str, arguments, flags=()):
    if "nvptx" in builder.module.triple:
        return gpumath.call(builder, name, arguments, flags)
    return vectors.call(builder, name, arguments, flags)
