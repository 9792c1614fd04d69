"""Policy for packed contractions: blocks of b, and of a where it is read often, are packed into panels, on which
one register tile runs.

Groups of dimensions are fused into labels M N K B (batch).
"""
from __future__ import annotations

from typing import Sequence

import numpy as np

from ..contraction import Contraction, Dimension, Role
from ..machine import Cpu
from .choice import OUTER_BLOCK, Choice, by_stride, extent, names, output_can_be_repeated, summed
from .opts import Ahead, Fuse, Opt, Pack, Parallel, Reorder, Split, Unroll, Vectorize
from .tiling import Tiling, components_and_bits, rows_to_try, tiling

MANY_PRODUCTS = 8           # of a batch, to share them out evenly among a few threads
SHORT_ROW = 1024            # bytes of the output that lie together, for b to be read in another order
ROW_USES = 16               # of a row of a, up to which it is read where it lies
SHORT_SUM = 256             # steps of a tile, up to which writing whole rows counts more than reading more of b
MUCH_OUTPUT = 4             # times as many elements of the output as of a, for its order of rows to count more
LONG_SUM = 8                # times as many summed as rows or columns, for threads to share the sum
PACKED_WORK = 48 ** 3       # below, packing costs more than it saves


def packing_pays(c: Contraction) -> bool:
    if len(c.operands) != 2:
        return False
    m, n, k = extent(c.group(Role.M)), extent(c.group(Role.N)), extent(c.group(Role.K))
    return min(m, n) >= 4 and k >= 4 and m * n * k >= PACKED_WORK


def packed(c: Contraction, cpu: Cpu) -> Choice:
    n = _column_order(c)
    m, k = _row_order(c, n), _serial_order(c, cpu, n)
    batch = by_stride(c, tuple(d for d in c.dimensions if c.role(d) in (Role.BATCH, Role.KEPT)), 0)
    t = tiling(cpu, c.accumulator, extent(m), extent(n), extent(k), _run(c, n), _rows(c, cpu, m, n),
               _spread(c, n, cpu.l1.line))
    groups = (("B", batch), ("M", m), ("N", n), ("K", k))
    opts: list[Opt] = [Fuse(names(group), name) for name, group in groups if group]
    order = [f"B/{OUTER_BLOCK}", "B"] if batch else []
    if batch:
        opts.append(Split("B", OUTER_BLOCK))
    jc, pc, ic, jr, ir = (f"{label}/{step}" for label, step in (
        ("N", t.nc), ("K", t.kc), ("M", t.mc), ("N", t.tile.nr), ("M", t.tile.mr)))
    tiles = (ir, jr) if _rows_first(c, m, n, t, cpu) else (jr, ir)
    opts += [Split("N", t.nc), Split("N", t.tile.nr), Split("K", t.kc), Split("M", t.mc), Split("M", t.tile.mr),
             Reorder((*order, jc, pc, ic, *tiles, "K", "M", "N")), Unroll("M"), Vectorize("N", t.tile.lanes),
             Pack("b", pc, "N", "K", _abreast(cpu)), *_rows_of_a(c, cpu, n, t, ic, ir),
             Parallel(_shared(c, extent(batch), extent(m), extent(n), extent(k)))]
    why = (f"M {extent(m)} x N {extent(n)} x K {extent(k)} is enough work to pay for packing; "
           f"N holds the output's contiguous dimension; blocks fit {cpu.name}'s caches")
    return Choice(tuple(opts), "packed contraction", str(t), why)


def _rows_of_a(c: Contraction, cpu: Cpu, n: Sequence[Dimension], t: Tiling, block: str, tile: str) -> list[Opt]:
    """Pack them, or read them where they lie and, if that is not in L2, ask for those of the next tile early: their
    runs may be too short for the machine to foresee. Measured on Zen 4, float32: rows of 360 elements and 16
    columns 5.7 and 4.2 ms, `ijk,irk->jr` of 200 and 32 columns 7.6 and 5.8; where a lay in L2, 0.94 and 1.03."""
    if _reuses_rows(c, n, t.tile.nr):
        return [Pack("a", block, "M", "K", _abreast(cpu))]
    return [Ahead(tile)] if _from_memory(c, cpu) else []


def _abreast(cpu: Cpu) -> int:
    """Panels to fill at a time from rows along them, which often lie on pages of their own: as many as have a line
    each in one set of L1, for panels tend to be a power of two apart. Measured on Zen 4, one panel at a time, 4 and 8,
    in GF/s for `ji,jk->ik`: float64 512 52.5, 54.7 and 54.7, 1000 52.6, 54.3 and 54.3, 2048 51.7, 53.8 and 53.7;
    float32 1000 107, 109 and 110."""
    return cpu.l1.ways


def _from_memory(c: Contraction, cpu: Cpu) -> bool:
    """Whether a is larger than L2."""
    return extent(c.members(1)) * np.dtype(c.dtypes[1]).itemsize > cpu.l2.size


def _reuses_rows(c: Contraction, n: Sequence[Dimension], nr: int) -> bool:
    """Whether a is read often enough to pay for packing it: its elements are broadcast one by one, which needs
    no order. What must be converted, or taken apart, is packed in any case. Measured on Zen 4, with and without,
    in GF/s of float32: 1000 x 64 x 1000 104 and 115, 256 x 256 x 256 107 and 109, 1024 x 1024 x 1024 105 and 69."""
    return extent(n) > ROW_USES * nr or c.dtypes[1] != c.accumulator or np.dtype(c.accumulator).kind == "c"


def _rows(c: Contraction, cpu: Cpu, m: Sequence[Dimension], n: Sequence[Dimension]) -> tuple[int, ...]:
    """The mr to try. Of an a that is read where it lies, from memory and a few rows a step, more rows are more of
    what lies together. Measured on Zen 4 in float64, 8 rows and 12: 200 x 32 x 40000 18.7 and 13.7 ms, 2000 x 64 x
    2000 12.9 and 11.2."""
    few_together = _from_memory(c, cpu) and c.unit(1) in names(m) and not _reuses_rows(c, n, _common_width(c, cpu))
    usual = rows_to_try(cpu)
    return tuple(sorted(usual, reverse=True)) if few_together else usual


def _common_width(c: Contraction, cpu: Cpu) -> int:
    """Columns of the common tile."""
    return 2 * cpu.lanes(components_and_bits(c.accumulator)[1])


def _rows_first(c: Contraction, m: Sequence[Dimension], n: Sequence[Dimension], t: Tiling, cpu: Cpu) -> bool:
    """Whether to walk all columns for a few rows, rather than all rows for a few columns (Goto's order). The
    output is then written row by row, which counts where sums are short and the next columns lie nearer than the
    next rows; but b is read again for each mr rows, so its block must be found near. Measured on Zen 4 for
    2000 x 2000 x 64: 102 and 91 GF/s in float32; for 1000 x 1000 x 4, 36.6 and 34.8 in float64; of TCCG's
    contractions with sums of 24, 33 47 and 39, and 35 38 and 42, whose columns lie in runs of 288 and 24."""
    block = t.kc * t.nc * np.dtype(c.accumulator).itemsize
    return t.kc <= SHORT_SUM and block <= 2 * cpu.l2.size and _columns_are_near(c, m, n, t.tile.nr)


def _columns_are_near(c: Contraction, m: Sequence[Dimension], n: Sequence[Dimension], width: int) -> bool:
    """Whether the columns next to a tile's lie nearer in the output than the rows next to them."""
    if _run(c, n) > width or len(n) == 1:
        return True
    return abs(n[-2].strides[0]) < abs(m[-1].strides[0])


def _shared(c: Contraction, batch: int, m: int, n: int, k: int) -> str:
    """The label that threads share: whole products of a batch if there are enough, or parts of a long sum, which
    pack nothing twice and are of even size. Measured on Zen 4, one thread's time over two's, with N or M shared and
    K: float32 160 x 168 x 28224 1.84 and 1.94, 200 x 200 x 2000 1.84 and 1.97, 128 x 128 x 8000 1.80 and 2.04;
    float64 144 x 128 x 20736 1.78 and 1.97. But with K twice M and N 2.00 and 1.95."""
    if batch >= MANY_PRODUCTS:
        return "B"
    if k >= LONG_SUM * max(m, n) and output_can_be_repeated(c):
        return "K"
    return "N" if n >= m else "M"


def _row_order(c: Contraction, columns: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """What is contiguous in a comes last, for packing to read it so. But where columns lie together in short runs
    only, and there is far more of the output than of a, rows that continue those runs do, for lines and pages to be
    written whole. Measured on Zen 4 for TCCG's contraction 38, sums of 24: 65 and 87 GF/s in float32."""
    short = _run(c, columns) * np.dtype(c.dtypes[0]).itemsize <= SHORT_ROW
    much = extent(columns) >= MUCH_OUTPUT * extent(c.group(Role.K))
    return by_stride(c, c.group(Role.M), 0, None if short and much else 1)


def _column_order(c: Contraction) -> tuple[Dimension, ...]:
    """As the output lies; but where its rows are short, what is contiguous in b comes next to last, so that the
    lines which packing reads are used again at once. Measured on Zen 4 for two of TCCG's contractions (06, 08) into
    row-major outputs: 27 and 34 GF/s instead of 14 and 13."""
    columns = by_stride(c, c.group(Role.N), 0)
    unit = [d for d in columns[:-1] if d.name == c.unit(2)]
    if not unit or columns[-1].extent * np.dtype(c.dtypes[0]).itemsize > SHORT_ROW:
        return columns
    return (*(d for d in columns[:-1] if d not in unit), *unit, columns[-1])


def _run(c: Contraction, columns: Sequence[Dimension]) -> int:
    """Columns of the output that lie together. Where none do, no tile is better than another: all of them."""
    if columns[-1].name != c.unit(0):
        return extent(columns)
    run, itemsize = 1, np.dtype(c.dtypes[0]).itemsize
    for d in reversed(columns):
        if d.strides[0] != run * itemsize:
            break
        run *= d.extent
    return run


def _spread(c: Contraction, columns: Sequence[Dimension], line: int) -> int:
    """Columns among which those of a pair of cache lines of b are, which machines fetch together; 1 where they are
    neighbours, or b has no such."""
    apart = 1
    for d in reversed(columns):
        if d.name == c.unit(2):
            return 1 if apart == 1 else apart * min(d.extent, 2 * line // np.dtype(c.dtypes[2]).itemsize)
        apart *= d.extent
    return 1


def _serial_order(c: Contraction, cpu: Cpu, columns: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """Summed dimensions, slowest first, so that the last is contiguous in a or else in b if any is. Of an a that is
    read in L2, as it lies, no order is better than another: b comes first. Measured on Zen 4 in float64 for 57 x 50
    results whose sum is 2 x 25, the 2 contiguous in a and the 25 in b: 9.9 and 8.9 us."""
    group = summed(c)
    in_l2 = not _reuses_rows(c, columns, _common_width(c, cpu)) and not _from_memory(c, cpu)
    units = [t for t in ((2, 1) if in_l2 else (1, 2)) if c.unit(t) in names(group)]
    return by_stride(c, group, units[0] if units else 1)
