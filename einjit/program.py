"""Programs: a planned and compiled problem, bound to the layouts of its operands and ready to call.

A program is what a call finds in the dictionary. For one step it is one launcher; for several, launchers
that pass intermediate results on. Operands must have exactly the layouts it was made for; the launchers
check that, and answer NotImplemented otherwise.
"""
from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import Callable, Sequence

import numpy as np

from . import parallel
from .compiler import CompiledStep
from .contraction import Layout
from .ir import Kind, Label, LoopNest
from .launch import STACK_WORKSPACE, byte_bounds, launcher, record
from .params import parameters, tile_width

GIL_WORK = 20_000           # points of the iteration space from which on the GIL is released
THREAD_WORK = 3_000_000     # and from which on threads share the work: some 50 us of it at the least
OWN_OUTPUT = 1 << 20        # bytes of an output, at most, that threads have each for themselves


class BoundStep:
    """A compiled step for given layouts: `run(out, inputs)`; `run` is the launcher itself where it can be."""

    def __init__(self, step: CompiledStep, out: Layout, inputs: Sequence[Layout], threads: int):
        self.step, self.out = step, out
        layouts = (out, *inputs)
        slots = (0, *(1 + step.contraction.operands.index(i) for i in range(len(inputs))))
        work = step.contraction.work
        ranges = _shares(step, out, threads) if work >= THREAD_WORK and threads > 1 else [{}]
        blocks = [parameters(step.nest, step.contraction, step.source.words, r) for r in ranges]
        self.workspace = max(b.workspace for b in blocks)
        if self.workspace <= STACK_WORKSPACE:
            self.workspace = 0
        self.launchers = [
            launcher(record(step.code.address, b.words, layouts, slots, work >= GIL_WORK, self.workspace > 0),
                     keep=(b, step.code)) for b in blocks]
        # With threads, the arrays are checked once, before any thread starts.
        self.check = launcher(record(0, blocks[0].words, layouts, slots, False, False), keep=blocks[0])
        if len(blocks) > 1:
            self.run = self._run_sums if _shared_loop(step.nest).summed else self._run_threads
        elif self.workspace:
            self.run = self._run_with_workspace
        else:
            self.run = self.launchers[0]

    @property
    def threads(self) -> int:
        return len(self.launchers)

    def _run_with_workspace(self, *arrays):
        return self.launchers[0](*arrays, scratch(self.workspace))

    def _run_threads(self, *arrays):
        if self.check(*arrays) is NotImplemented:
            return NotImplemented
        parallel.run([partial(self._share, launch, arrays) for launch in self.launchers])
        return None

    def _run_sums(self, out, *inputs):
        """Each thread but the first adds up its share of the sums in an output of its own."""
        if self.check(out, *inputs) is NotImplemented:
            return NotImplemented
        outs = [out, *(_like(self.out) for _ in self.launchers[1:])]
        parallel.run([partial(self._share, launch, (o, *inputs)) for launch, o in zip(self.launchers, outs)])
        for other in outs[1:]:
            np.add(out, other, out=out)
        return None

    def _share(self, launch, arrays) -> None:
        if self.workspace:
            arrays = (*arrays, scratch(self.workspace))
        launch(*arrays)


def _shared_loop(nest: LoopNest) -> Label | None:
    """The label whose outermost loop threads share."""
    return next((nest.label(loop.label) for loop in nest.loops if loop.kind is Kind.PARALLEL), None)


def _shares(step: CompiledStep, out: Layout, threads: int) -> list[dict[str, tuple[int, int]]]:
    """Ranges of the parallel label, one a thread, in whole register tiles."""
    label = _shared_loop(step.nest)
    if label is None or (label.summed and not _can_be_repeated(step, out)):
        return [{}]
    width = tile_width(step.nest, label.name)
    tiles = -(-label.extent // width)
    count = min(threads, tiles)
    ends = [min(label.extent, tiles * (i + 1) // count * width) for i in range(count)]
    return [{label.name: (start, end)} for start, end in zip([0, *ends], ends)]


def _can_be_repeated(step: CompiledStep, out: Layout) -> bool:
    """Whether every thread may have an output of its own: a small one, of sums that are not rounded yet."""
    low, high = byte_bounds(out)
    return high - low <= OWN_OUTPUT and step.contraction.accumulator == out.dtype


def _like(layout: Layout) -> np.ndarray:
    """A new array with this layout's strides, whatever they are."""
    low, high = byte_bounds(layout)
    return np.ndarray(layout.shape, layout.dtype, np.empty(high - low, np.uint8), -low, layout.strides)


_scratch = threading.local()


def scratch(size: int) -> np.ndarray:
    """This thread's workspace of at least `size` bytes, on a cache line's boundary, kept for the next call."""
    array = getattr(_scratch, "array", None)
    if array is None or array.nbytes < size:
        raw = np.empty(size + 64, np.uint8)
        array = _scratch.array = raw[-raw.ctypes.data % 64:][:size]
    return array


@dataclass(frozen=True)
class ProgramStep:
    """`operands`: positions in the list of arrays at hand, which are removed from it (opt_einsum's way).
    `empty` makes an array for the result."""

    operands: tuple[int, ...]
    bound: BoundStep
    empty: Callable[[], np.ndarray]


class Program:
    """All steps of one problem. `run(out, *operands)` writes to `out`; `__call__(operands, out)` returns the
    result. Both answer NotImplemented where an operand or `out` has another layout than planned, or where
    `out` shares memory with an operand of the last step."""

    def __init__(self, steps: Sequence[ProgramStep]):
        self.steps = tuple(steps)
        last = self.steps[-1]
        self.shape, self.dtype = last.bound.out.shape, np.dtype(last.bound.out.dtype)
        self.empty = last.empty
        self.run = last.bound.run if len(self.steps) == 1 else self._chain

    def __call__(self, operands: Sequence[np.ndarray], out: np.ndarray | None = None):
        if out is None:
            out = self.empty()
        return NotImplemented if self.run(out, *operands) is NotImplemented else out

    def _chain(self, out: np.ndarray, *operands: np.ndarray):
        arrays = list(operands)
        for step in self.steps:
            inputs = [arrays[i] for i in step.operands]
            for i in sorted(step.operands, reverse=True):
                del arrays[i]
            last = step is self.steps[-1]
            result = out if last else step.empty()
            if step.bound.run(result, *inputs) is NotImplemented:
                return NotImplemented
            arrays.append(result)
        return None
