"""Policy for everything that is not packed: the register tile straight on the operands as they lie.

One dimension goes on vector lanes, one or two are unrolled, one is summed in registers; the others are fused
into outer loops. Which goes on the lanes is chosen here; it decides on the family, which does the rest.
"""
from __future__ import annotations

from ..contraction import Contraction, Dimension
from ..machine import Cpu
from .choice import Choice, extent, summed
from .contractions import small_contraction, without_lanes
from .draft import Draft, finished
from .maps import in_order, transposed
from .problem import Problem
from .reductions import column_sums, dot, dot_of_transposed


def direct(c: Contraction, cpu: Cpu, lanes: Dimension | None = None) -> Choice:
    """`lanes`: the dimension to vectorise, if it is known."""
    if not c.dimensions:
        return Choice((), "scalar", "one element", "every size is 1")
    p = Problem(c, cpu)
    vector = lanes or _vector_dimension(p)
    if vector is None:
        draft, why = without_lanes(p), "what would be on the lanes lies apart"
    else:
        draft, why = _draft(p, vector), f"{vector.name} is on the lanes: {_lane_reason(p, vector)}"
    return Choice(finished(p, draft), draft.family, draft.tiling, why)


def _draft(p: Problem, vector: Dimension) -> Draft:
    across = p.across(vector)
    if vector.summed:
        turned = across is not None and across.summed and not p.reusing(vector)
        return dot_of_transposed(p, vector, across) if turned else dot(p, vector)
    if p.reusing(vector):
        return small_contraction(p, vector)
    if summed(p.c):
        return column_sums(p, vector)
    turned = across is not None and p.c.unit(0) == vector.name
    return transposed(p, vector, across) if turned else in_order(p, vector)


def _vector_dimension(p: Problem) -> Dimension | None:
    """The dimension whose lanes move most; None where its elements lie apart and all others are few."""
    def score(d: Dimension) -> tuple:
        return _moved_whole(p, d), not d.summed, d.extent

    short = p.short
    long = [d for d in p.c.dimensions if d not in short] or short
    best = max(long, key=score)
    if best in short or _moved_whole(p, best) > 0:
        return best
    if not (short and summed(p.c) and p.pays_whole(*short)):
        return best
    kept = [d for d in short if not d.summed and _moved_whole(p, d) > 0]
    return max(kept, key=score) if kept else None


def _moved_whole(p: Problem, d: Dimension) -> float:
    """Elements moved in whole vectors, less those picked up one by one (stores count more)."""
    saved = 0.0
    for t in range(len(p.c.dtypes)):
        if p.c.has(d, t):
            size = extent(p.c.members(t))
            saved += size if p.is_unit(d, t) else -size * (1.5 if t == 0 else 1)
    return saved


def _lane_reason(p: Problem, d: Dimension) -> str:
    tensors = [name for t, name in enumerate(p.c.tensor_names) if p.is_unit(d, t)]
    return f"contiguous in {', '.join(tensors)}" if tensors else "nothing is contiguous"
