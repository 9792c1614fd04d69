"""Contraction -> the naive loop nest: one loop a dimension, kept ones outside, nothing scheduled yet."""
from __future__ import annotations

from .contraction import Contraction
from .ir import Label, Loop, LoopNest, Tensor


def lower(c: Contraction) -> LoopNest:
    labels = tuple(Label(d.name, d.extent, d.summed, (d.name,)) for d in c.dimensions)
    out, *inputs = (
        Tensor(name, dtype, tuple(d.name for d in c.members(t)), c.unit(t))
        for t, (name, dtype) in enumerate(zip(c.tensor_names, c.dtypes)))
    order = sorted(labels, key=lambda label: label.summed)
    loops = tuple(Loop(lb.name, 1) for lb in order)
    return LoopNest(c.equation, labels, out, tuple(inputs), c.body, c.reduce, c.accumulator, loops)
