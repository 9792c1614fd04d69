"""Direct nests without a sum: elements combined in the order of memory, and transpositions."""
from __future__ import annotations

from dataclasses import replace
from typing import Sequence

from ..contraction import Dimension
from .choice import extent
from .draft import AROUND, NEAR_ROW, Draft, Placed, ahead_of_rows, fused_in_blocks, in_blocks, unrolled, walked
from .problem import Problem, vectors_along

LONG_RUN = 64               # lines of a run of the output, whose first and last are written in part
STAGED = 8 << 10            # bytes of a block of the output that is staged, at the least: its ends are lines in part


def in_order(p: Problem, vector: Dimension) -> Draft:
    block = [] if _streams_rows(p, vector) else _staged_rows(p, vector)
    if block:
        return _staged_copy(p, block)
    lanes = p.lanes(vector)
    vectors = vectors_along(vector, lanes, 4 // p.components)
    along = in_blocks("V", vector, lanes * vectors)
    return Draft("map", f"{vectors} x {lanes} lanes", along, (*along.loops, "V"), lanes,
                 past_caches=_streams_rows(p, vector), prefetch=p.prefetch_distance(vector))


def transposed(p: Problem, vector: Dimension, across: Dimension) -> Draft:
    """Squares read along one dimension, turned in registers, and written along the other."""
    mixed = any(p.is_unit(vector, t) and p.size(t) > p.cpu.l2.size for t in p.inputs)
    run = [vector] if mixed else _run(p, vector, across)
    if _streams_squares(p, run):
        return _squares(p, vector, across, past_caches=True) if mixed else _streamed_squares(p, run, across)
    block = _staged_block(p, vector, across)
    return _staged_squares(p, block, across) if block else _squares(p, vector, across)


def _squares(p: Problem, vector: Dimension, across: Dimension, past_caches: bool = False) -> Draft:
    """Squares in blocks of rows, from inputs that lie either way: runs are long in each.
    ij,ji->ij of 4000 a side took 7.1 ms so, and 13.7 in the order of `_streamed_squares` (Zen 4, float32)."""
    side, vectors = p.square(vector, across)
    rows = unrolled(p, [across], [side])
    # Lines at the ends of rows are shared with the next squares: these follow soon.
    along = in_blocks("V", vector, NEAR_ROW, side * vectors)
    *near, blocks = along.loops
    ahead = ahead_of_rows(p, rows) if across.extent >= 4 * side else ""     # else too often of what is not next
    return Draft("transposition", f"{side} x {side} squares", rows + along, (*near, *rows.loops, blocks, "U", "V"),
                 side, near=tuple(range(len(p.c.dtypes))), past_caches=past_caches, ahead=ahead)


def _streamed_squares(p: Problem, run: Sequence[Dimension], across: Dimension) -> Draft:
    """Whole lines can be written past the caches in any order, at the speed of lines one after the other. So the
    order is the input's: a square's rows are read side by side, all along, and prefetchers follow up to 16 of them
    (Zen 4: 16 such streams came at 40 GB/s, 18 at 25 and 28 at 13)."""
    side, vectors = p.square(replace(run[-1], extent=extent(run)), across)
    rows, along = unrolled(p, [across], [side]), fused_in_blocks("V", run, side * vectors)
    return Draft("transposition", f"{side} x {side} squares", rows + along, (*rows.loops, "U", "V"), side,
                 near=tuple(p.inputs), around=along.loops, past_caches=True, ahead=AROUND)


def _streams_rows(p: Problem, vector: Dimension) -> bool:
    """Whether to write rows past the caches. Results this large mostly lie in memory that has been used before; new
    pages, which clearing has put in the caches, would have taken 6.7 ms where they take 8.3 (64 MB, Zen 4)."""
    return _fills_lines(p, vector) and vector.extent * p.itemsize(0) >= 64 * p.cpu.l1.line


def _staged_squares(p: Problem, block: Sequence[Dimension], across: Dimension) -> Draft:
    """Squares of blocks that lie together in the output, each block written at once, in the order of the input."""
    vector = block[-1]
    side, vectors = p.square(vector, across)
    whole = extent(block) * p.itemsize(0) <= p.cpu.l2.size // 4
    # Of longer ones four lines at a time: one would share both its lines with the next, which L2 must keep so long.
    rows = in_blocks("U", across, *([] if whole else [4 * side]), side)
    along = in_blocks("V", vector, side * vectors)
    others = [walked(name, d) for name, d in zip("WXYZ", (d for d in block if d not in (vector, across)))]
    parts = [(across, rows), (vector, along), *((placed.dimensions[0], placed) for placed in others)]
    parts.sort(key=lambda part: -min(abs(part[0].strides[t]) for t in p.inputs if part[0].strides[t]))
    outermost = () if whole else rows.loops[:-1]
    inner = [loop for _, placed in parts for loop in placed.loops if loop not in outermost]
    placed = sum((placed for _, placed in parts), Placed())
    names = {d.name: name for name, d in placed.labels}
    return Draft("transposition", f"{side} x {side} squares", placed, (*inner, "U", "V"), side, near=tuple(p.inputs),
                 outermost=outermost, block=tuple(names[d.name] for d in block), ahead=AROUND)


def _staged_block(p: Problem, vector: Dimension, across: Dimension) -> list[Dimension]:
    """Dimensions that lie together in the output, the slowest first, from the vectorised one on until the other of
    the squares is among them; empty where staging them does not pay."""
    block = [vector]
    while across not in block or extent(block) * p.itemsize(0) < STAGED:
        slower = _next_slower(p, block)
        if slower is None:
            return []
        block.insert(0, slower)
    side, _ = p.square(vector, across)
    least = extent(block) * p.itemsize(0)
    if block[0] is across:
        least = least // across.extent * 4 * side
    return block if _fills_lines(p, vector) and least <= p.cpu.l2.size // 4 else []


def _staged_rows(p: Problem, vector: Dimension) -> list[Dimension]:
    """Dimensions that lie together in the output from rows shorter than a staged block on, the slowest first."""
    block = [vector]
    while extent(block) * p.itemsize(0) < STAGED:
        slower = _next_slower(p, block)
        if slower is None:
            return []
        block.insert(0, slower)
    return block if len(block) > 1 and _fills_lines(p, vector) else []


def _staged_copy(p: Problem, block: Sequence[Dimension]) -> Draft:
    """Rows that are short, in blocks that lie together in the output: written at once, in the order of the input."""
    slowest, *faster, vector = block
    lanes = p.lanes(vector)
    vectors = vectors_along(vector, lanes, 4 // p.components)
    along = in_blocks("V", vector, lanes * vectors)
    rows = -(-2 * STAGED // (p.itemsize(0) * extent([*faster, vector])))
    names = "WXYZ"[:len(block) - 1]
    few = in_blocks("W", slowest, rows) if 1 < rows < slowest.extent else walked("W", slowest)
    placed = sum((walked(name, d) for name, d in zip(names[1:], faster)), few + along)
    around = few.loops if few.loops != ("W",) else ()
    return Draft("map", f"{vectors} x {lanes} lanes", placed, (*names, *along.loops, "V"), lanes, near=tuple(p.inputs),
                 around=around, block=(*names, "V"), ahead=AROUND)


def _next_slower(p: Problem, block: Sequence[Dimension]) -> Dimension | None:
    """The dimension along which such blocks lie one behind the other in the output."""
    end = block[0].strides[0] * block[0].extent
    return next((d for d in p.c.members(0) if d.strides[0] == end), None)


def _run(p: Problem, vector: Dimension, across: Dimension) -> list[Dimension]:
    """Dimensions that lie together in the output from the vectorised one on, the slowest first, until their run
    has so many lines that its ends, which are lines in part, cost little."""
    run = [vector]
    while extent(run) * p.itemsize(0) < LONG_RUN * p.cpu.l1.line:
        slower = _next_slower(p, run)
        if slower is None or slower is across:
            break
        run.insert(0, slower)
    return run


def _streams_squares(p: Problem, run: Sequence[Dimension]) -> bool:
    """Whether to write squares past the caches: lines must begin at the same place in each run of the output."""
    rows = [d.strides[0] for d in p.c.members(0) if d not in run]
    long = extent(run) * p.itemsize(0) >= 8 * p.cpu.l1.line
    return long and _fills_lines(p, run[-1]) and not any(stride % p.cpu.l1.line for stride in rows)


def _fills_lines(p: Problem, vector: Dimension) -> bool:
    """Whether the output is written in whole lines and can go past the caches: it is larger than the part of L3 that
    counts, or than what the inputs leave of it. Zen 4, float32, outputs of 25 MB: ij,ij->ij took 1.6 ms so and 2.2 by
    way of the caches, ij->ji 1.0 and 2.1, ij,i->ij 1.28 and 1.16."""
    half = p.cpu.l3.size // 2
    large = p.size(0) > half and p.size(0) + p.read > 2 * half
    return p.c.unit(0) == vector.name and large and p.cpu.l1.line % p.itemsize(0) == 0
