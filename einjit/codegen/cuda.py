"""Nest spread over a GPU -> Numba-CUDA source, which a person can read.

Each family of nests has an emitter: one element of the output a thread (`cudaelement.py`), sums that threads share
(`cudasums.py`), maps by way of squares in shared memory (`cudaturned.py`), products by way of panels there
(`cudatiled.py`), and on tensor cores (`cudatensor.py`). Addresses are 64-bit integers, positions 32-bit ones. All that
does not change code (extents, strides) is an argument, so that one kernel serves every shape which needs the same code.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..contraction import Contraction
from ..errors import ScheduleError
from ..ir import Kind, LoopNest
from .cudaelement import ElementEmitter
from .cudaemitter import Access
from .cudasums import SumsEmitter, shared_sum
from .cudatensor import PAIR, TensorEmitter
from .cudatiled import TiledEmitter, fragment_of, refuse_other_forms
from .cudaturned import TurnedEmitter
from .source import Source

COPY = 16                   # bytes that a tensor core's kernel copies at once
WIDE = 1 << 31              # positions from which on they take 64 bits


def access(nest: LoopNest, c: Contraction) -> Access:
    """What holds for a contraction. Pointers are expected to be aligned as fragments are; a launch checks that."""
    wide = any(label.extent >= WIDE for label in nest.labels)
    if not nest.shares or not nest.label(nest.shares[0].serial).summed:
        return Access(wide=wide)
    if any(loop.kind is Kind.TENSOR for loop in nest.loops):
        if not all(_in_vectors(c, nest, i, COPY // np.dtype(t.dtype).itemsize) for i, t in enumerate(nest.inputs, 1)):
            raise ScheduleError("tensor cores take operands whose runs along rows, columns or the sum are whole "
                                f"vectors of {COPY} bytes")
        return Access((*(t.name for t in nest.inputs), *(["out"] if _in_vectors(c, nest, 0, PAIR) else [])), wide)
    refuse_other_forms(nest)
    fragment = fragment_of(nest)
    return Access(tuple(t.name for i, t in enumerate(nest.tensors) if _in_vectors(c, nest, i, fragment)), wide)


def boundaries(nest: LoopNest, taken: Access) -> tuple[int, ...]:
    """For the output and each input, what its pointer must be a multiple of: an element's size, that of a fragment, or
    on tensor cores of a copy to shared memory."""
    tensor = any(loop.kind is Kind.TENSOR for loop in nest.loops)
    fragment = PAIR if tensor else fragment_of(nest) if taken.vectors else 1
    sizes = [np.dtype(t.dtype).itemsize * (fragment if t.name in taken.vectors else 1) for t in nest.tensors]
    return (sizes[0], *(COPY if tensor else size for size in sizes[1:]))


def unaligned(nest: LoopNest, taken: Access) -> Access:
    """What is left where pointers are multiples of an element's size alone. Raises `ScheduleError` for tensor cores,
    which cannot do without."""
    if any(loop.kind is Kind.TENSOR for loop in nest.loops):
        raise ScheduleError(f"the schedule is for tensor cores, which need operands on multiples of {COPY} bytes")
    return replace(taken, vectors=())


def _in_vectors(c: Contraction, nest: LoopNest, tensor: int, fragment: int) -> bool:
    """Whether each fragment lies together, and begins where a vector may. Fragments are along the labels of a tensor's
    panel, and of the output along the columns; a batch may be contiguous instead."""
    t, itemsize = nest.tensors[tensor], np.dtype(c.dtypes[tensor]).itemsize
    along = {label for s in nest.shares for label in (s.panel, s.serial) if s.tensor == (t.name if tensor else "b")}
    unit = c.unit(tensor)
    if t.unit not in along or not unit or c.dimension(unit).extent % fragment:
        return False
    others = [d.strides[tensor] for d in c.members(tensor) if d.name != unit]
    return all(stride % (fragment * itemsize) == 0 for stride in others)


def emit(nest: LoopNest, taken: Access) -> Source:
    """Generate the kernel of a verified nest. Raises `ScheduleError` for a nest of another form."""
    if any(loop.kind is Kind.TENSOR for loop in nest.loops):
        return TensorEmitter(nest, taken).source()
    if nest.shares:
        summed = nest.label(nest.shares[0].serial).summed
        return (TiledEmitter if summed else TurnedEmitter)(nest, taken).source()
    return (SumsEmitter if shared_sum(nest) else ElementEmitter)(nest, taken).source()
