"""Squares of elements transposed in registers.

Where one tensor is contiguous along the rows of a block and another along its columns, whole vectors are
read along the one and written along the other, and turned in between: lines of memory are used whole on
both sides, and no element is moved alone.
"""
from __future__ import annotations

from llvmlite import ir

from .elements import Lanes
from .vectors import I32, shuffle


def transposed(builder, lines: list[Lanes]) -> list[Lanes]:
    """g lines of n lanes as n lines of g lanes, g a power of two that divides n: n / g squares side by side.

    log2(g) rounds of two-input shuffles turn them all at once.
    """
    g, n = len(lines), lines[0].lanes
    parts = []
    for c in range(len(lines[0].parts)):
        rows = [line.parts[c] for line in lines]
        stride = g // 2
        while stride:
            rows = _exchange(builder, rows, stride, n)
            stride //= 2
        parts.append([_square(builder, rows[i % g], i // g, g) for i in range(n)])
    return [Lanes(tuple(rows[i] for rows in parts), g) for i in range(n)]


def _exchange(builder, rows: list[ir.Value], stride: int, n: int) -> list[ir.Value]:
    """Swap the off-diagonal stride x stride blocks of every 2 stride x 2 stride square."""
    low = [j if not j & stride else n + (j - stride) for j in range(n)]
    high = [j + stride if not j & stride else n + j for j in range(n)]
    out = list(rows)
    for i in range(len(rows)):
        if not i & stride:
            out[i] = shuffle(builder, rows[i], rows[i + stride], low)
            out[i + stride] = shuffle(builder, rows[i], rows[i + stride], high)
    return out


def _square(builder, row: ir.Value, index: int, g: int) -> ir.Value:
    """What a line holds of one square."""
    if not isinstance(row.type, ir.VectorType) or g == row.type.count:
        return row
    if g == 1:
        return builder.extract_element(row, I32(index))
    return shuffle(builder, row, row, list(range(index * g, (index + 1) * g)))
