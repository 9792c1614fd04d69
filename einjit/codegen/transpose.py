"""Squares of elements transposed in registers.

Where one tensor is contiguous along the rows of a block and another along its columns, whole vectors are
read along the one and written along the other, and turned in between: lines of memory are used whole on
both sides, and no element is moved alone.
"""
from __future__ import annotations

from llvmlite import ir

from . import elements as el
from .elements import Lanes


def transposed(builder, lines: list[Lanes]) -> list[Lanes]:
    """An n x n square of n lines of n lanes, transposed in log2(n) rounds of two-input shuffles."""
    n = len(lines)
    parts = []
    for c in range(len(lines[0].parts)):
        rows = [line.parts[c] for line in lines]
        stride = n // 2
        while stride:
            rows = _exchange(builder, rows, stride)
            stride //= 2
        parts.append(rows)
    return [Lanes(tuple(rows[i] for rows in parts), n) for i in range(n)]


def _exchange(builder, rows: list[ir.Value], stride: int) -> list[ir.Value]:
    """Swap the off-diagonal stride x stride blocks of every 2 stride x 2 stride square."""
    n = len(rows)
    low = [j if not j & stride else n + (j - stride) for j in range(n)]
    high = [j + stride if not j & stride else n + j for j in range(n)]
    out = list(rows)
    for i in range(n):
        if not i & stride:
            out[i] = el.shuffle(builder, rows[i], rows[i + stride], low)
            out[i + stride] = el.shuffle(builder, rows[i], rows[i + stride], high)
    return out
