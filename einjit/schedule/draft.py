"""From what a direct family decides, a `Draft`, to a whole schedule.

A family names the dimensions that its tile works on, and the loops over the tile's blocks; `finished` fuses
all others into outer loops. Labels: V (vector) U W (unrolled) S (serial sum) O (outer) R (outer sum) I (kept,
inside R).
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

from ..contraction import Dimension
from .choice import OUTER_BLOCK, by_either_stride, by_stride, extent, names
from .opts import Ahead, Copy, Fuse, Opt, Parallel, Prefetch, Reorder, Schedule, Split, Stage, Stream, Unroll, Vectorize
from .problem import Problem

AROUND = "around"           # stands for the loop around those of a draft
NEAR_ROW = 512              # elements of a row walked before the rows next to it: lines of both stay in L2


@dataclass(frozen=True)
class Placed:
    """Dimensions as labels of the tile: the transformations that make them so, the loops over their blocks from
    the outside in, and the labels that the tile holds whole, which need no such loops."""

    labels: tuple[tuple[str, Dimension], ...] = ()
    opts: tuple[Opt, ...] = ()
    loops: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    def __add__(self, other: Placed) -> Placed:
        return Placed(self.labels + other.labels, self.opts + other.opts, self.loops + other.loops,
                      self.whole + other.whole)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        return tuple(d for _, d in self.labels)


def walked(name: str, d: Dimension) -> Placed:
    """A dimension in steps of 1."""
    return Placed(((name, d),), (Fuse((d.name,), name),), (name,))


def fused_in_blocks(name: str, group: Sequence[Dimension], step: int) -> Placed:
    """Dimensions as one label, the slowest first, in blocks."""
    return Placed(tuple((name, d) for d in group), (Fuse(names(group), name), Split(name, step)), (f"{name}/{step}",))


def held_whole(name: str, d: Dimension) -> Placed:
    return Placed(((name, d),), (Fuse((d.name,), name),), whole=(name,))


def in_blocks(name: str, d: Dimension, *steps: int) -> Placed:
    """A dimension in blocks of blocks, the tile's the last; of the others those that are shorter than it."""
    steps = (*(step for step in steps[:-1] if step < d.extent), steps[-1])
    return Placed(((name, d),), (Fuse((d.name,), name), *(Split(name, step) for step in steps)),
                  tuple(f"{name}/{step}" for step in steps))


def whole_or_in_blocks(p: Problem, name: str, d: Dimension, *steps: int) -> Placed:
    """A dimension whole in the tile, if that has its extent and it pays; else in blocks."""
    return held_whole(name, d) if d.extent == steps[-1] and p.pays_whole(d) else in_blocks(name, d, *steps)


def unrolled(p: Problem, group: Sequence[Dimension], widths: Sequence[int]) -> Placed:
    """Dimensions in the tile as U and W, those that it has one position of outside of it."""
    placed = Placed()
    for name, d, width in zip("UW", group, widths):
        placed += whole_or_in_blocks(p, name, d, width) if width > 1 else walked(name, d)
    return placed


def in_tile(widths: Sequence[int]) -> tuple[str, ...]:
    """The unrolled labels as loops of the tile."""
    return tuple(name for name, width in zip("UW", widths) if width > 1)


def ahead_of_rows(p: Problem, rows: Placed) -> str:
    """The loop over rows side by side, where these come from memory: they are too many for prefetchers, or too
    short, to follow all. Zen 4, float32: sums of 3000 columns took 0.63 ms so and 0.93 without, of 4000 2.02 and
    2.19; i,ij,j-> 1.65 and 2.08; ij,ji-> 5.9 and 9.2, of 1500 a side 0.39 and 0.48; ij->ji of 1500 a side 0.37 and
    0.62, but of 1000, from L3, 0.140 and 0.131; and sums of 1000 columns 0.057 and 0.053."""
    return rows.loops[-1] if p.from_memory and rows.loops else ""


@dataclass(frozen=True)
class Draft:
    """A family's schedule, but for the outer loops.

    `loops`: those of the tile and over its blocks, from the outside in. `lanes`: of V; 0 where nothing is
    vectorised. `outermost`: loops over large blocks, which stand right inside O. `in_memory_order`: the sums R
    run outside the kept dimensions I that move faster. `near`: tensors whose neighbours the loops of O visit soon
    after one another. `around`: loops that stand outside of O. `past_caches`: whether the output is written past
    them. `block`: the labels of a block of the output that is staged in each iteration of the loop around the draft's
    own, the slowest first. `ahead`: the loop whose next iteration's inputs are asked for, if any; `prefetch`:
    how many bytes behind what is read they are asked for instead. `copied`: tensors of which blocks are copied, inside
    the last of `outermost`, into rows along V.
    """

    family: str
    tiling: str
    placed: Placed
    loops: tuple[str, ...]
    lanes: int
    outermost: tuple[str, ...] = ()
    in_memory_order: bool = False
    near: tuple[int, ...] = (0,)
    around: tuple[str, ...] = ()
    past_caches: bool = False
    block: tuple[str, ...] = ()
    ahead: str = ""
    prefetch: int = 0
    copied: tuple[str, ...] = ()


def finished(p: Problem, draft: Draft) -> Schedule:
    """The draft with what is left fused into outer loops, and the order of all fixed."""
    outer = _outer_groups(p, draft)
    opts, order = list(draft.placed.opts), list(draft.around)
    for name, group in outer.items():
        fusing, loops = _fused(name, group)
        opts += fusing
        order += [*loops, *(draft.outermost if name == "O" else ())]
    order += draft.loops
    opts.append(Reorder(tuple(order)))
    opts += [Unroll(name) for name in draft.loops if _is_unrolled(name, draft)]
    if draft.lanes:
        opts.append(Vectorize("V", draft.lanes))
    if draft.past_caches:
        opts.append(Stream())
    around = order[len(order) - len(draft.loops) - 1] if len(order) > len(draft.loops) else ""
    if around and draft.block:
        opts.append(Stage(around, draft.block))
    ahead = around if draft.ahead == AROUND else draft.ahead
    if ahead:
        opts.append(Ahead(ahead))
    if draft.prefetch:
        opts.append(Prefetch(draft.prefetch))
    opts += [Copy(tensor, draft.outermost[-1], "V") for tensor in draft.copied]
    shared = _shared_sum(p, draft, outer, order) or _shared(draft, outer)
    return (*opts, Parallel(shared)) if shared else tuple(opts)


def _outer_groups(p: Problem, draft: Draft) -> dict[str, Sequence[Dimension]]:
    """The dimensions that the family left, by the outer label they belong to, each group the slowest first."""
    left = [d for d in p.c.dimensions if d not in draft.placed.dimensions]
    kept, sums = [d for d in left if not d.summed], [d for d in left if d.summed]
    largest = p.largest
    slowest = max((abs(d.strides[largest]) for d in sums), default=0)
    inner = [d for d in kept if draft.in_memory_order and abs(d.strides[largest]) < slowest]
    outer = [d for d in kept if d not in inner]
    return {"O": by_either_stride(outer, draft.near), "R": by_stride(p.c, sums, largest),
            "I": by_stride(p.c, inner, largest)}


def _fused(name: str, group: Sequence[Dimension]) -> tuple[list[Opt], list[str]]:
    """The opts that fuse a group, slowest first, into one label, and the loops that walk it."""
    if not group:
        return [], []
    fuse = Fuse(names(group), name)
    if len(group) == 1:
        return [fuse], [name]
    return [fuse, Split(name, OUTER_BLOCK)], [f"{name}/{OUTER_BLOCK}", name]


def _is_unrolled(name: str, draft: Draft) -> bool:
    blocked = any(loop.startswith(f"{name}/") for loop in draft.loops)
    return name != "V" and (blocked or name in draft.placed.whole)


def _shared_sum(p: Problem, draft: Draft, outer: Mapping[str, Sequence[Dimension]], order: Sequence[str]) -> str:
    """The label of the outermost loop that is one, if it is summed and the output so small that every thread
    can have its own: each reads one part of the inputs in the order of memory, where columns would be parts
    of every row."""
    if p.size(0) > 2 * p.cpu.l1.size:
        return ""
    groups = {**outer, **{name: (d,) for name, d in draft.placed.labels}}
    for loop in order:
        label, _, step = loop.partition("/")
        if extent(groups[label]) > int(step or 1):
            return label if groups[label][0].summed and label not in draft.placed.whole else ""
    return ""


def _shared(draft: Draft, outer: Mapping[str, Sequence[Dimension]]) -> str:
    """The label that threads share: the kept one with the most positions."""
    extents = {name: d.extent for name, d in draft.placed.labels if name not in draft.placed.whole and not d.summed}
    # Whole outer iterations are the better share.
    extents |= {name: 4 * extent(outer[name]) for name in ("O", "I") if outer[name]}
    return max(extents, key=extents.__getitem__, default="")
