"""Direct contractions: some rows by some vectors of the output in registers, for as long as the sum runs."""
from __future__ import annotations

from math import prod
from typing import Sequence

from ..contraction import Dimension
from .choice import extent, summed
from .draft import Draft, Placed, held_whole, in_tile, unrolled, walked, whole_or_in_blocks
from .problem import WHOLE, WHOLE_UPDATES, Problem
from .tiling import register_tile

NEAR_TILES = 16             # along the lanes for each block of rows: pages are used for longer than a vector


def small_contraction(p: Problem, vector: Dimension) -> Draft:
    reusing = p.reusing(vector)
    widths, lanes, vectors = _tile(p, vector, reusing)
    width = lanes * vectors
    two_rows = len(widths) > 1
    rows = unrolled(p, reusing, widths)
    collides = two_rows and _is_read_again(reusing, widths) and p.collides(vector)
    near = _copied_row(p, vector, width) if collides else NEAR_TILES * width
    along = whole_or_in_blocks(p, "V", vector, *([near] if two_rows else []), width)
    outermost, blocks = along.loops[:-1], along.loops[-1:]
    copied = p.c.tensor_names[1:] if collides and outermost else ()
    rows_first = two_rows or _in_cache(p, vector)
    outer = (*rows.loops, *blocks) if rows_first else (*blocks, *rows.loops)
    tiling = f"{' x '.join(map(str, [*widths, width]))} tile ({vectors} x {lanes} lanes)"
    # Short pieces of many rows: no prefetcher follows them. Measured on Zen 4, without and with it, in ms of float64:
    # 4 x 2000 x 2000 2.44 and 1.54, 32 x 32 x 32768 2.72 and 2.27, 64 x 1000 x 1000 2.31 and 2.23.
    ahead = blocks[-1] if blocks and not rows_first else ""
    return Draft("direct contraction", tiling, rows + along + _serial(p, prod(widths) * vectors),
                 (*outer, "S", *in_tile(widths), "V"), lanes, outermost, ahead=ahead, copied=copied)


def _is_read_again(reusing: Sequence[Dimension], widths: Sequence[int]) -> bool:
    return all(d.extent > width for d, width in zip(reusing, widths))


def _copied_row(p: Problem, vector: Dimension, width: int) -> int:
    """Elements of the rows that are copied for being read again: those of all inputs fill a quarter of L2, and a line
    each is the least that is worth it. Measured on Zen 4 for 1024 products of 16 x 16 x 16, the batch last, where rows
    are 8 KB apart: 11 GF/s in float64 as they lie, 22 copied, and 32 for 1000 products, whose rows do not collide."""
    rows = sum(p.size(t) for t in p.inputs) // vector.extent
    return max(1, p.cpu.l2.size // 4 // rows // width) * width


def _tile(p: Problem, vector: Dimension, reusing: Sequence[Dimension]) -> tuple[list[int], int, int]:
    """(rows along the first of the reusing dimensions, lanes, vectors): along two dimensions where each input has
    vectors to use again."""
    if len(reusing) > 1 and all(p.c.has(vector, t) for t in p.inputs):
        widths = (4, 4) if p.cpu.registers // p.components >= 32 else (2, 4)
        return [min(width, d.extent) for d, width in zip(reusing, widths)], p.lanes(vector), 1
    row = reusing[0]
    rows = _rows_to_try(p, row)
    if row.extent < max(rows) and p.pays_whole(row):
        rows += (row.extent,)
    tile = register_tile(p.cpu, p.c.accumulator, row.extent, vector.extent, rows)
    lanes = min(tile.lanes, p.lanes(vector))
    return [tile.mr], lanes, max(1, min(tile.vectors, -(-vector.extent // lanes)))


def _rows_to_try(p: Problem, row: Dimension) -> tuple[int, ...]:
    """8 rows before 12, as on packed panels, unless the two vectors that a step takes are so many in all that
    every block of rows reads them from L2 again. Measured on Zen 4, 12 rows and 8, in GF/s of float64:
    256 x 256 x 256 56.5 and 58.3, 1000 x 1000 x 4 37.8 and 47.2, 1000 x 64 x 1000 56.8 and 53.6."""
    if p.cpu.registers < 32:
        return 6, 4, 3, 2, 1
    read_again = extent(summed(p.c)) * 2 * p.cpu.vector_bits // 8 > p.cpu.l1.size
    exact = row.extent % 8 == 0 and row.extent <= 2 * WHOLE     # 32 rows are 3 tiles of 12 with a rest, or 4 of 8
    return (8, 12, 4, 3, 2, 1) if exact or not read_again else (12, 8, 4, 3, 2, 1)


def _serial(p: Problem, sums: int) -> Placed:
    """The sum in registers, along the longest dimension: a loop, or written out where it is short."""
    longest = max(summed(p.c), key=lambda d: d.extent)
    written_out = longest.extent * sums <= WHOLE_UPDATES and p.pays_whole(longest)
    return held_whole("S", longest) if written_out else walked("S", longest)


def _in_cache(p: Problem, vector: Dimension) -> bool:
    """Whether what lies along the lanes stays in L2. Rows of the output are then written one after another,
    each whole; otherwise few columns are read by all rows before the next."""
    return sum(p.size(t) for t in p.inputs if p.c.has(vector, t)) <= p.cpu.l2.size // 2


def without_lanes(p: Problem) -> Draft:
    """All short dimensions written out as scalars: along the long ones each lane would be picked up alone."""
    placed = Placed()
    for i, d in enumerate(p.short):
        placed += held_whole(f"U{i}" if i else "U", d)
    return Draft("written out", " x ".join(str(d.extent) for d in p.short), placed, placed.whole, lanes=0)
