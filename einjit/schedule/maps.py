"""Direct nests without a sum: elements combined in the order of memory, and transpositions."""
from __future__ import annotations

from ..contraction import Dimension
from .draft import NEAR_ROW, Draft, in_blocks, unrolled
from .problem import Problem, vectors_along


def in_order(p: Problem, vector: Dimension) -> Draft:
    lanes = p.lanes(vector)
    vectors = vectors_along(vector, lanes, 4 // p.components)
    along = in_blocks("V", vector, lanes * vectors)
    return Draft("map", f"{vectors} x {lanes} lanes", along, (*along.loops, "V"), lanes,
                 past_caches=_streams_rows(p, vector))


def transposed(p: Problem, vector: Dimension, across: Dimension) -> Draft:
    """Squares read along one dimension, turned in registers, and written along the other."""
    side, vectors = p.square(vector, across)
    past_caches = _streams_squares(p, vector)
    rows = unrolled(p, [across], [side])
    if past_caches and not any(p.c.unit(t) == vector.name for t in p.inputs):
        along = in_blocks("V", vector, side * vectors)
        loops = (*along.loops, *rows.loops)
    else:
        # Lines at the ends of rows are shared with the next squares: these follow soon.
        along = in_blocks("V", vector, NEAR_ROW, side * vectors)
        *near, blocks = along.loops
        loops = (*near, *rows.loops, blocks)
    return Draft("transposition", f"{side} x {side} squares", rows + along, (*loops, "U", "V"), side,
                 near=tuple(range(len(p.c.dtypes))), past_caches=past_caches)


def _streams_rows(p: Problem, vector: Dimension) -> bool:
    """Whether to write rows past the caches. Results this large mostly lie in memory that has been used before; new
    pages, which clearing has put in the caches, would have taken 6.7 ms where they take 8.3 (64 MB, Zen 4)."""
    return _fills_lines(p, vector) and vector.extent * p.itemsize(0) >= 64 * p.cpu.l1.line


def _streams_squares(p: Problem, vector: Dimension) -> bool:
    """Whether to write squares past the caches: their lines must begin at the same place in each row."""
    line = p.cpu.l1.line
    rows = [d.strides[0] for d in p.c.members(0) if d is not vector]
    return (_fills_lines(p, vector) and vector.extent * p.itemsize(0) >= 16 * line
            and not any(stride % line for stride in rows))


def _fills_lines(p: Problem, vector: Dimension) -> bool:
    """Whether the output is larger than the caches and written in whole lines: it can go past them."""
    return p.c.unit(0) == vector.name and p.size(0) > p.cpu.l3.size and p.cpu.l1.line % p.itemsize(0) == 0
