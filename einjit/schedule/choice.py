"""What the policies share: the choice they return, and questions about groups of dimensions."""
from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Sequence

import numpy as np

from ..contraction import Contraction, Dimension
from .opts import Schedule

OUTER_BLOCK = 64            # positions of a fused outer label whose offsets are tabled at once
OWN_OUTPUT = 1 << 20        # bytes of an output, at most, that threads have each for themselves


@dataclass(frozen=True)
class Choice:
    """A schedule, the family and tile it makes, and the reason in words."""

    schedule: Schedule
    family: str
    tiling: str
    why: str


def extent(dimensions: Sequence[Dimension]) -> int:
    return prod(d.extent for d in dimensions)


def summed(c: Contraction) -> tuple[Dimension, ...]:
    return tuple(d for d in c.dimensions if d.summed)


def by_stride(c: Contraction, group: Sequence[Dimension], tensor: int,
              unit_of: int | None = None) -> tuple[Dimension, ...]:
    """Slowest first by the strides of one tensor; the dimension contiguous in `unit_of` is put last."""
    itemsize = np.dtype(c.dtypes[unit_of]).itemsize if unit_of is not None else 0
    return tuple(sorted(group, key=lambda d: (
        unit_of is not None and d.strides[unit_of] == itemsize, -abs(d.strides[tensor]))))


def by_either_stride(group: Sequence[Dimension], tensors: Sequence[int]) -> tuple[Dimension, ...]:
    """Slowest first by the smallest stride in any of the tensors: neighbours in each are walked soon after
    one another, so that the lines and pages of all serve while the caches hold them. One that moves in none of
    them (the caller's output may repeat elements) comes last."""
    return tuple(sorted(group, key=lambda d: -min((abs(d.strides[t]) for t in tensors if d.strides[t]), default=0)))


def names(group: Sequence[Dimension]) -> tuple[str, ...]:
    return tuple(d.name for d in group)


def output_can_be_repeated(c: Contraction) -> bool:
    """Whether every thread may have an output of its own: a small one, of sums that are not rounded yet."""
    reach = sum((d.extent - 1) * abs(d.strides[0]) for d in c.dimensions if not d.summed)
    return reach + np.dtype(c.dtypes[0]).itemsize <= OWN_OUTPUT and c.accumulator == c.dtypes[0]
