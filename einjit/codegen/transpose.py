"""Squares of elements transposed in registers.

Where one tensor is contiguous along the rows of a block and another along its columns, whole vectors are
read along the one and written along the other, and turned in between: lines of memory are used whole on
both sides, and no element is moved alone.
"""
from __future__ import annotations

from llvmlite import ir

from . import elements as el
from .elements import Element, Lanes
from .vectors import I32, I64, shuffle

PIECE = 128                 # bits that the load of a part of a vector moves


def loaded_transposed(builder, element: Element, addresses: list[ir.Value]) -> list[Lanes]:
    """The square whose rows begin at these addresses, turned: n lines of n lanes, n a power of two.

    Pieces of rows are loaded straight into their places in vectors, so that squares of a piece's side are all
    that is left to turn. Few pieces cross a line of the cache, where most whole rows would.
    """
    n = len(addresses)
    side = min(n, max(2, PIECE // element.bits))
    lines = []
    for first in range(0, n, side):
        offset = I64(first * element.itemsize)
        pieces = [el.load(builder, element, builder.add(row, offset), side).parts[0] for row in addresses]
        lines += _turned(builder, [_side_by_side(builder, pieces[i::side]) for i in range(side)], side)
    return [Lanes((line,), n) for line in lines]


def _side_by_side(builder, pieces: list[ir.Value]) -> ir.Value:
    """Vectors one behind the other: put in one at a time, which machines do as they load them."""
    side, n = pieces[0].type.count, pieces[0].type.count * len(pieces)
    joined = shuffle(builder, pieces[0], pieces[0], [i % side for i in range(n)])
    for k, piece in enumerate(pieces[1:], 1):
        wide = shuffle(builder, piece, piece, [i % side for i in range(n)])
        joined = shuffle(builder, joined, wide, [i + n * (i // side == k) for i in range(n)])
    return joined


def _turned(builder, rows: list[ir.Value], side: int) -> list[ir.Value]:
    """`side` vectors of squares side by side, each square transposed: rounds of interleaving the first half of
    the rows with the second, within the squares."""
    n, half = rows[0].type.count, side // 2
    lower = [square + i // 2 + n * (i % 2) for square in range(0, n, side) for i in range(side)]
    upper = [i + half for i in lower]
    for _ in range(side.bit_length() - 1):
        rows = [shuffle(builder, rows[i], rows[i + half], order) for i in range(half) for order in (lower, upper)]
    return rows


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
