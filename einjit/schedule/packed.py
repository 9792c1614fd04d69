"""Policy for packed contractions: blocks of both operands are packed, one register tile runs on the panels.

Groups of dimensions are fused into labels M N K B (batch).
"""
from __future__ import annotations

from ..contraction import Contraction, Dimension, Role
from ..machine import Cpu
from .choice import OUTER_BLOCK, Choice, by_stride, extent, names, summed
from .opts import Fuse, Opt, Pack, Parallel, Reorder, Split, Unroll, Vectorize
from .tiling import tiling

MANY_PRODUCTS = 8           # of a batch, to share them out evenly among a few threads
PACKED_WORK = 48 ** 3       # below, packing costs more than it saves


def packing_pays(c: Contraction) -> bool:
    if len(c.operands) != 2:
        return False
    m, n, k = extent(c.group(Role.M)), extent(c.group(Role.N)), extent(c.group(Role.K))
    return min(m, n) >= 4 and k >= 4 and m * n * k >= PACKED_WORK


def packed(c: Contraction, cpu: Cpu) -> Choice:
    m, n, k = by_stride(c, c.group(Role.M), 0, 1), by_stride(c, c.group(Role.N), 0), _serial_order(c)
    batch = by_stride(c, tuple(d for d in c.dimensions if c.role(d) in (Role.BATCH, Role.KEPT)), 0)
    t = tiling(cpu, c.accumulator, extent(m), extent(n), extent(k))
    groups = (("B", batch), ("M", m), ("N", n), ("K", k))
    opts: list[Opt] = [Fuse(names(group), name) for name, group in groups if group]
    order = [f"B/{OUTER_BLOCK}", "B"] if batch else []
    if batch:
        opts.append(Split("B", OUTER_BLOCK))
    jc, pc, ic, jr, ir = (f"{label}/{step}" for label, step in (
        ("N", t.nc), ("K", t.kc), ("M", t.mc), ("N", t.tile.nr), ("M", t.tile.mr)))
    opts += [Split("N", t.nc), Split("N", t.tile.nr), Split("K", t.kc), Split("M", t.mc), Split("M", t.tile.mr),
             Reorder((*order, jc, pc, ic, jr, ir, "K", "M", "N")), Unroll("M"), Vectorize("N", t.tile.lanes),
             Pack("b", pc, "N", "K"), Pack("a", ic, "M", "K"),
             Parallel(_shared_when_packed(extent(batch), extent(m), extent(n)))]
    why = (f"M {extent(m)} x N {extent(n)} x K {extent(k)} is enough work to pay for packing; "
           f"N holds the output's contiguous dimension; blocks fit {cpu.name}'s caches")
    return Choice(tuple(opts), "packed contraction", str(t), why)


def _shared_when_packed(batch: int, m: int, n: int) -> str:
    """The label that threads share: whole products of a batch if there are enough, which pack nothing twice."""
    if batch >= MANY_PRODUCTS:
        return "B"
    return "N" if n >= m else "M"


def _serial_order(c: Contraction) -> tuple[Dimension, ...]:
    """Summed dimensions, slowest first, so that the last is contiguous in a or else in b if any is."""
    group = summed(c)
    units = [t for t in (1, 2) if c.unit(t) in [d.name for d in group]]
    return by_stride(c, group, units[0] if units else 1)
