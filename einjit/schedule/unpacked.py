"""Which products of two matrices need no packing, and which dimension is then on the vector lanes.

Packing copies both operands, to read them in order and from few pages. Where a matrix is small enough to be
found in L2 again, or is used a few times only, the copy costs more than it saves. Measured on Zen 4, packed
and not, in GF/s of float32: 64 x 64 x 64 74 and 89, 256 x 256 x 256 107 and 112, 1000 x 64 x 1000 104 and 116,
64 x 1000 x 1000 80 and 90, 256 x 1000 x 1000 101 and 88.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contraction import Contraction, Dimension, Role
from ..machine import Cpu

FEW_ROWS = 64               # of a, so that b is used a few times only
FEW_COLUMNS = 3             # of b, that fill no vector of any length
LONG_SUM = 16               # vectors of dot products with so many rows that make up for adding their lanes
TURNED_WORK = 200_000       # multiply-adds from which on a step that turns an operand pays: 10 us of them


def lanes_unpacked(c: Contraction, cpu: Cpu) -> Dimension | None:
    """The dimension for the lanes of a product that is best left unpacked; None for any other contraction.

    Each of M, N and K must be one dimension (a batch is free), and nothing need be converted that is used again:
    that is better done once, while packing.
    """
    matrices = _matrices(c)
    if matrices is None:
        return None
    m, n, k = matrices
    # Bytes are multiplied in 16 bits: b would be converted again for every few rows.
    if set(c.dtypes) == {c.accumulator} and c.unit(0) == c.unit(2) == n.name and _row_by_row(c, cpu, m, n, k):
        return n
    if c.unit(1) == c.unit(2) == k.name and _dot_by_dot(c, cpu, m, n, k):
        return k
    return None


@dataclass(frozen=True)
class Turning:
    """An input that a step of its own should copy beforehand, its dimensions then in this order, slowest first."""

    tensor: int
    order: tuple[Dimension, ...]


def turning(c: Contraction, cpu: Cpu) -> Turning | None:
    """The input of a product whose columns are too few for the lanes, while the other input is contiguous along
    the sum: once it is so too, the sum goes on the lanes.

    Measured on Zen 4, as it lies and turned, in GF/s of float32: 1000 x 4 x 1000 50 and 105, 2000 x 4 x 200 48 and
    87, 64 x 2 x 1000 35 and 64; 2000 x 6 x 200 64 and 68, 2000 x 8 x 200 92 and 90. In float64 with 2 columns 24 and
    32, with 3 30 and 45, with 4 44 and 52 at best.
    """
    matrices = _matrices(c)
    if matrices is None or c.group(Role.BATCH) or c.work < TURNED_WORK:
        return None
    m, n, k = matrices
    itemsize = np.dtype(c.accumulator).itemsize
    lanes = cpu.lanes(itemsize * 8)
    for rows, columns, a, b in ((m, n, 1, 2), (n, m, 2, 1)):
        few = columns.extent <= max(lanes // 4, FEW_COLUMNS) and rows.extent >= FEW_ROWS
        # What is turned stays in a cache, as blocks that are packed do.
        few = few and columns.extent * k.extent * itemsize <= cpu.l2.size
        if few and c.unit(a) == k.name != c.unit(b) and _dot_by_dot(c, cpu, rows, columns, k):
            return Turning(b, (columns, k))
    return None


def _matrices(c: Contraction) -> tuple[Dimension, Dimension, Dimension] | None:
    """M, N and K of a product of two matrices, or of a batch of them, that packing need not convert."""
    groups = [c.group(role) for role in (Role.M, Role.N, Role.K)]
    if len(c.operands) != 2 or any(len(group) != 1 for group in groups):
        return None
    accumulator = np.dtype(c.accumulator)
    if accumulator.kind == "c":
        return None         # packing takes real and imaginary parts apart
    if any(np.dtype(d) != accumulator and not _is_loaded_wider(np.dtype(d), accumulator) for d in c.dtypes):
        return None
    (m,), (n,), (k,) = groups
    return m, n, k


def _is_loaded_wider(dtype: np.dtype, accumulator: np.dtype) -> bool:
    """Whether one instruction loads elements as twice as wide integers: bytes, which are multiplied in 16 bits."""
    return dtype.kind in "iu" and accumulator.kind in "iu" and dtype.itemsize == 1 and accumulator.itemsize == 2


def _row_by_row(c: Contraction, cpu: Cpu, m: Dimension, n: Dimension, k: Dimension) -> bool:
    """b is found in L2 for every register tile of rows, or there are few of them."""
    in_cache = k.extent * n.extent * np.dtype(c.accumulator).itemsize <= cpu.l2.size // 2
    return n.extent >= 4 and (in_cache or m.extent <= FEW_ROWS)


def _dot_by_dot(c: Contraction, cpu: Cpu, m: Dimension, n: Dimension, k: Dimension) -> bool:
    """There are few rows of a, and the fewer the shorter they may be; or too few of b to fill a vector with."""
    lanes = cpu.lanes(np.dtype(c.accumulator).itemsize * 8)
    few = m.extent if n.extent > lanes // 2 else min(m.extent, n.extent)
    return few <= FEW_ROWS and k.extent * FEW_ROWS >= LONG_SUM * lanes * few
