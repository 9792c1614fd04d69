"""Policy for packed contractions: blocks of b, and of a where it is read often, are packed into panels, on which
one register tile runs.

Groups of dimensions are fused into labels M N K B (batch).
"""
from __future__ import annotations

from typing import Sequence

import numpy as np

from ..contraction import Contraction, Dimension, Role
from ..machine import Cpu
from .choice import OUTER_BLOCK, Choice, by_stride, extent, names, summed
from .opts import Fuse, Opt, Pack, Parallel, Reorder, Split, Unroll, Vectorize
from .tiling import Tiling, components_and_bits, rows_to_try, tiling

MANY_PRODUCTS = 8           # of a batch, to share them out evenly among a few threads
SHORT_ROW = 1024            # bytes of the output that lie together, for b to be read in another order
ROW_USES = 16               # of a row of a, up to which it is read where it lies
SHORT_SUMS = range(48, 257)  # steps of a tile that make up for reading more of b than of a
PACKED_WORK = 48 ** 3       # below, packing costs more than it saves


def packing_pays(c: Contraction) -> bool:
    if len(c.operands) != 2:
        return False
    m, n, k = extent(c.group(Role.M)), extent(c.group(Role.N)), extent(c.group(Role.K))
    return min(m, n) >= 4 and k >= 4 and m * n * k >= PACKED_WORK


def packed(c: Contraction, cpu: Cpu) -> Choice:
    m, n, k = by_stride(c, c.group(Role.M), 0, 1), _column_order(c), _serial_order(c)
    batch = by_stride(c, tuple(d for d in c.dimensions if c.role(d) in (Role.BATCH, Role.KEPT)), 0)
    t = tiling(cpu, c.accumulator, extent(m), extent(n), extent(k), _rows(c, cpu, m, n))
    groups = (("B", batch), ("M", m), ("N", n), ("K", k))
    opts: list[Opt] = [Fuse(names(group), name) for name, group in groups if group]
    order = [f"B/{OUTER_BLOCK}", "B"] if batch else []
    if batch:
        opts.append(Split("B", OUTER_BLOCK))
    jc, pc, ic, jr, ir = (f"{label}/{step}" for label, step in (
        ("N", t.nc), ("K", t.kc), ("M", t.mc), ("N", t.tile.nr), ("M", t.tile.mr)))
    tiles = (ir, jr) if _rows_first(c, n, t, cpu) else (jr, ir)
    opts += [Split("N", t.nc), Split("N", t.tile.nr), Split("K", t.kc), Split("M", t.mc), Split("M", t.tile.mr),
             Reorder((*order, jc, pc, ic, *tiles, "K", "M", "N")), Unroll("M"), Vectorize("N", t.tile.lanes),
             Pack("b", pc, "N", "K"), *([Pack("a", ic, "M", "K")] if _reuses_rows(c, n, t.tile.nr) else []),
             Parallel(_shared_when_packed(extent(batch), extent(m), extent(n)))]
    why = (f"M {extent(m)} x N {extent(n)} x K {extent(k)} is enough work to pay for packing; "
           f"N holds the output's contiguous dimension; blocks fit {cpu.name}'s caches")
    return Choice(tuple(opts), "packed contraction", str(t), why)


def _reuses_rows(c: Contraction, n: Sequence[Dimension], nr: int) -> bool:
    """Whether a is read often enough to pay for packing it: its elements are broadcast one by one, which needs
    no order. What must be converted, or taken apart, is packed in any case. Measured on Zen 4, with and without,
    in GF/s of float32: 1000 x 64 x 1000 104 and 115, 256 x 256 x 256 107 and 109, 1024 x 1024 x 1024 105 and 69."""
    return extent(n) > ROW_USES * nr or c.dtypes[1] != c.accumulator or np.dtype(c.accumulator).kind == "c"


def _rows(c: Contraction, cpu: Cpu, m: Sequence[Dimension], n: Sequence[Dimension]) -> tuple[int, ...]:
    """The mr to try. Of an a that is read where it lies, from memory and a few rows a step, more rows are more of
    what lies together. Measured on Zen 4 in float64, 8 rows and 12: 200 x 32 x 40000 18.7 and 13.7 ms, 2000 x 64 x
    2000 12.9 and 11.2."""
    nr = 2 * cpu.lanes(components_and_bits(c.accumulator)[1])
    from_memory = extent(c.members(1)) * np.dtype(c.dtypes[1]).itemsize > cpu.l2.size
    few_together = from_memory and c.unit(1) in names(m) and not _reuses_rows(c, n, nr)
    usual = rows_to_try(cpu)
    return tuple(sorted(usual, reverse=True)) if few_together else usual


def _rows_first(c: Contraction, n: Sequence[Dimension], t: Tiling, cpu: Cpu) -> bool:
    """Whether to walk all columns for a few rows, rather than all rows for a few columns (Goto's order). The
    output is then written row by row, which counts where sums are short; but b is read again for each mr
    rows, so its block must be found near. Measured on Zen 4 for 2000 x 2000 x 64: 102 and 91 GF/s in float32. The
    shortest sums, where writing is most of the work, need rows that lie together: 36.6 and 34.8 for 1000 x 1000 x 4
    in float64, but 67 and 76 for one of TCCG's contractions (31), which writes runs of 24 elements in float32."""
    itemsize = np.dtype(c.accumulator).itemsize
    long_rows = n[-1].extent * n[-1].strides[0] > SHORT_ROW and c.unit(0) == n[-1].name
    short_sum = t.kc in SHORT_SUMS or (t.kc < min(SHORT_SUMS) and long_rows)
    return short_sum and t.kc * t.nc * itemsize <= 2 * cpu.l2.size


def _shared_when_packed(batch: int, m: int, n: int) -> str:
    """The label that threads share: whole products of a batch if there are enough, which pack nothing twice."""
    if batch >= MANY_PRODUCTS:
        return "B"
    return "N" if n >= m else "M"


def _column_order(c: Contraction) -> tuple[Dimension, ...]:
    """As the output lies; but where its rows are short, what is contiguous in b comes next to last, so that the
    lines which packing reads are used again at once. Measured on Zen 4 for two of TCCG's contractions (06, 08) into
    row-major outputs: 27 and 34 GF/s instead of 14 and 13."""
    columns = by_stride(c, c.group(Role.N), 0)
    unit = [d for d in columns[:-1] if d.name == c.unit(2)]
    if not unit or columns[-1].extent * np.dtype(c.dtypes[0]).itemsize > SHORT_ROW:
        return columns
    return (*(d for d in columns[:-1] if d not in unit), *unit, columns[-1])


def _serial_order(c: Contraction) -> tuple[Dimension, ...]:
    """Summed dimensions, slowest first, so that the last is contiguous in a or else in b if any is."""
    group = summed(c)
    units = [t for t in (1, 2) if c.unit(t) in [d.name for d in group]]
    return by_stride(c, group, units[0] if units else 1)
