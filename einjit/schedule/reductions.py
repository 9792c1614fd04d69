"""Direct sums: of rows, whose lanes are partial sums, and of columns, which are sums of whole rows."""
from __future__ import annotations

from typing import Sequence

from ..contraction import Dimension
from .choice import summed
from .draft import NEAR_ROW, Draft, ahead_of_rows, in_blocks, in_tile, unrolled, walked, whole_or_in_blocks
from .problem import Problem, vectors_along

STREAMS = 8                 # rows that are read side by side: more than these no prefetcher follows


# -- sums along the lanes

def dot(p: Problem, vector: Dimension) -> Draft:
    reusing = p.reusing(vector)[:2] or p.reusing_in_sum(vector)[:1]
    lanes = p.lanes_from_memory(vector)
    widths, wanted = _sums_at_once(p, vector, lanes, reusing)
    vectors = vectors_along(vector, lanes, wanted)
    rows = unrolled(p, reusing, widths)
    along = whole_or_in_blocks(p, "V", vector, lanes * vectors)
    tiling = f"{' x '.join(map(str, widths))} sums of {vectors} x {lanes} lanes".lstrip()
    ahead = ahead_of_rows(p, rows) if len(widths) == 1 and widths[0] > 1 else ""
    return Draft("reduction", tiling, rows + along, (*rows.loops, *along.loops, *in_tile(widths), "V"), lanes,
                 in_memory_order=True, ahead=ahead, prefetch=0 if in_tile(widths) else p.prefetch_distance(vector))


def _sums_at_once(p: Problem, vector: Dimension, lanes: int, reusing: Sequence[Dimension]) -> tuple[list[int], int]:
    """Rows along each reusing dimension, and the vectors of each sum.

    Long rows run side by side, so that what they share is loaded once. Short ones run in the order of
    memory, in which prefetchers follow: products of 128 x 128 from memory took 5 ms so, and 13 with 8 side
    by side (Zen 4, float32).
    """
    most = STREAMS // p.components
    if not reusing:
        return [], most
    if len(reusing) > 1:
        # One register a sum and component; as many again are needed to load what they are made of.
        room = p.cpu.registers // p.components
        pair = [4, 4] if room >= 32 else [2, 4] if room >= 16 else [2, 2]
        return [min(width, d.extent) for width, d in zip(pair, reusing)], 1
    (row,) = reusing
    vectors = vectors_along(vector, lanes, most)
    rows = most // vectors
    if not p.in_turn(vector, p.cpu.l2.size):
        rows, vectors = most, 2 if row.summed else 1    # the sums of all rows are one: two chains of additions
    return [min(rows, row.extent) if rows < STREAMS else _rows_side_by_side(p, row)], vectors


def _rows_side_by_side(p: Problem, row: Dimension) -> int:
    """8 rows at once, or 4 where fewer of those lie past the edge; all of a short dimension."""
    most = 16 if p.cpu.registers >= 32 and p.pays_whole(row) else STREAMS
    if row.extent <= most:
        return row.extent
    return min((8, 4), key=lambda rows: -(-row.extent // rows) * rows)


def dot_of_transposed(p: Problem, vector: Dimension, across: Dimension) -> Draft:
    """Sums of products of one operand with another that lies the other way round, square by square."""
    side, vectors = p.square(vector, across)
    rows = unrolled(p, [across], [side])
    along = in_blocks("V", vector, NEAR_ROW, side * vectors)
    *near, blocks = along.loops
    return Draft("reduction", f"{side} x {side} squares", rows + along, (*near, *rows.loops, blocks, "U", "V"), side,
                 ahead=ahead_of_rows(p, rows))


# -- sums of columns

def column_sums(p: Problem, vector: Dimension) -> Draft:
    """Sums of a whole row of the output at once, in the order of memory: in registers where they hold it,
    else in L1."""
    vectors = -(-vector.extent // p.lanes(vector))
    in_registers = vectors <= p.cpu.registers // 2 // p.components
    return _sums_in_registers(p, vector) if in_registers else _sums_in_cache(p, vector)


def _sums_in_registers(p: Problem, vector: Dimension) -> Draft:
    lanes = p.lanes(vector)
    vectors = 1 << (-(-vector.extent // lanes) - 1).bit_length()
    along, sums = whole_or_in_blocks(p, "V", vector, lanes * vectors), walked("S", _rows_of(p))
    return Draft("column sums", f"{vectors} x {lanes} lanes", along + sums, (*along.loops, "S", "V"), lanes,
                 in_memory_order=True)


def _sums_in_cache(p: Problem, vector: Dimension) -> Draft:
    row = _rows_of(p)
    if p.in_turn(vector, p.cpu.l3.size // 2):
        # Of 128 MB eight vectors and a prefetch came at 31 to 33 GB/s, four without at 29 to 31 (Zen 4).
        side_by_side, lanes, vectors = 1, p.lanes_from_memory(vector), 8 // p.components
    else:
        side_by_side, lanes, vectors = _streams(p, vector), p.lanes(vector), 2 // p.components
    width, block = min(side_by_side, row.extent), lanes * vectors
    rows = unrolled(p, [row], [width])
    near = max(block, p.cpu.l1.size // 2 // p.itemsize(0) // block * block)
    along = in_blocks("V", vector, near, block)
    *outermost, blocks = along.loops
    return Draft("column sums", f"{width} rows x {vectors} x {lanes} lanes", rows + along,
                 (*rows.loops, blocks, *in_tile([width]), "V"), lanes, tuple(outermost), in_memory_order=True,
                 ahead=ahead_of_rows(p, rows) if width > 1 else "",
                 prefetch=p.prefetch_distance(vector) if width == 1 else 0)


def _rows_of(p: Problem) -> Dimension:
    """The summed dimension that moves slowest but for the shortest steps: what follows a row in memory."""
    sums, largest = summed(p.c), p.largest
    long = [d for d in sums if d.extent >= STREAMS] or sums
    return min(long, key=lambda d: abs(d.strides[largest]))


def _streams(p: Problem, vector: Dimension) -> int:
    """Rows that are added side by side before the sums go back to L1, of all inputs together STREAMS.

    That saves loads and stores of the sums. But short rows lie on one page, where prefetchers take them for one
    stream in disorder: from memory (Zen 4, float32, rows of 1 to 3 KB) 8 side by side came at 14 to 19 GB/s, one
    after the other at 29 to 32; rows of 16 KB at 31 side by side, 20 to 25 in turn.
    """
    moving = sum(p.c.has(vector, t) for t in p.inputs)
    return max(2, STREAMS // max(1, moving))
