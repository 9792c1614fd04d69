"""Direct nests without a sum: elements combined in the order of memory, and transpositions."""
from __future__ import annotations

from dataclasses import replace
from typing import Sequence

from ..contraction import Dimension
from .choice import extent
from .draft import NEAR_ROW, Draft, fused_in_blocks, in_blocks, unrolled
from .problem import Problem, vectors_along

LONG_RUN = 64               # lines of a run of the output, whose first and last are written in part


def in_order(p: Problem, vector: Dimension) -> Draft:
    lanes = p.lanes(vector)
    vectors = vectors_along(vector, lanes, 4 // p.components)
    along = in_blocks("V", vector, lanes * vectors)
    return Draft("map", f"{vectors} x {lanes} lanes", along, (*along.loops, "V"), lanes,
                 past_caches=_streams_rows(p, vector))


def transposed(p: Problem, vector: Dimension, across: Dimension) -> Draft:
    """Squares read along one dimension, turned in registers, and written along the other."""
    run = _run(p, vector, across)
    return _streamed_squares(p, run, across) if _streams_squares(p, run) else _squares(p, vector, across)


def _squares(p: Problem, vector: Dimension, across: Dimension) -> Draft:
    side, vectors = p.square(vector, across)
    rows = unrolled(p, [across], [side])
    # Lines at the ends of rows are shared with the next squares: these follow soon.
    along = in_blocks("V", vector, NEAR_ROW, side * vectors)
    *near, blocks = along.loops
    return Draft("transposition", f"{side} x {side} squares", rows + along, (*near, *rows.loops, blocks, "U", "V"),
                 side, near=tuple(range(len(p.c.dtypes))))


def _streamed_squares(p: Problem, run: Sequence[Dimension], across: Dimension) -> Draft:
    """Whole lines can be written past the caches in any order, at the speed of lines one after the other. So the
    order is the input's: a square's rows are read side by side, all along, and prefetchers follow up to 16 of them
    (Zen 4: 16 such streams came at 40 GB/s, 18 at 25 and 28 at 13)."""
    side, vectors = p.square(replace(run[-1], extent=extent(run)), across)
    rows, along = unrolled(p, [across], [side]), fused_in_blocks("V", run, side * vectors)
    return Draft("transposition", f"{side} x {side} squares", rows + along, (*rows.loops, "U", "V"), side,
                 near=tuple(p.inputs), around=along.loops, past_caches=True)


def _streams_rows(p: Problem, vector: Dimension) -> bool:
    """Whether to write rows past the caches. New pages are in them already, cleared: on Zen 4, 64 MB took 6.7 ms
    through the caches and 8.3 past them."""
    return not p.c.fresh and _fills_lines(p, vector) and vector.extent * p.itemsize(0) >= 64 * p.cpu.l1.line


def _run(p: Problem, vector: Dimension, across: Dimension) -> list[Dimension]:
    """Dimensions that lie together in the output from the vectorised one on, the slowest first, until their run
    has so many lines that its ends, which are lines in part, cost little."""
    run = [vector]
    while run[0].strides[0] * run[0].extent < LONG_RUN * p.cpu.l1.line:
        end = run[0].strides[0] * run[0].extent
        slower = next((d for d in p.c.members(0) if d.strides[0] == end and d is not across), None)
        if slower is None:
            break
        run.insert(0, slower)
    return run


def _streams_squares(p: Problem, run: Sequence[Dimension]) -> bool:
    """Whether to write squares past the caches: lines must begin at the same place in each run of the output."""
    rows = [d.strides[0] for d in p.c.members(0) if d not in run]
    long = extent(run) * p.itemsize(0) >= 8 * p.cpu.l1.line
    return long and _fills_lines(p, run[-1]) and not any(stride % p.cpu.l1.line for stride in rows)


def _fills_lines(p: Problem, vector: Dimension) -> bool:
    """Whether the output is larger than the caches and written in whole lines: it can go past them."""
    return p.c.unit(0) == vector.name and p.size(0) > p.cpu.l3.size and p.cpu.l1.line % p.itemsize(0) == 0
