"""Programs: a planned and compiled problem, bound to the layouts of its operands and ready to call.

A program is what a call finds in the dictionary. For one step it is one launcher; for several, launchers
that pass intermediate results on. Operands must have exactly the layouts it was made for; the launchers
check that, and answer NotImplemented otherwise.
"""
from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Callable, Sequence

import numpy as np

from . import parallel
from .compiler import CompiledStep
from .contraction import Contraction, Layout
from .ir import Kind, Label, LoopNest
from .launch import (MAX_SHARES, STACK_WORKSPACE, Share, byte_bounds, launcher, record, shared_record,
                     tables_bytes)
from .params import Parameters, parameters, tile_width
from .schedule.choice import output_can_be_repeated

GIL_WORK = 20_000           # points of the iteration space from which on the GIL is released
SHARE_SECONDS = 5e-6        # of work, at the least, for which another thread is worth it, by an estimate:
POINT_BYTES = 2e11          # bytes of the accumulator's dtype that a core multiplies and adds in a second,
MOVED_BYTES = 6e10          # and bytes that it moves; of a fast core with its data in the caches
PAGE = 4096


@dataclass(frozen=True)
class Scratch:
    """A thread's workspace, on a cache line's boundary: as bytes and as int64 words."""

    bytes: np.ndarray
    words: np.ndarray


_scratch = threading.local()


def scratch(size: int) -> Scratch:
    """This thread's workspace of at least `size` bytes, kept for the next call."""
    memory = getattr(_scratch, "memory", None)
    if memory is None or memory.bytes.nbytes < size:
        size = -(-size // 64) * 64
        raw = np.empty(size + 64, np.uint8)
        whole = raw[-raw.ctypes.data % 64:][:size]
        memory = _scratch.memory = Scratch(whole, whole.view(np.int64))
    return memory


class BoundStep:
    """A compiled step for given layouts: `run(out, inputs)`; `run` is the launcher itself where it can be."""

    def __init__(self, step: CompiledStep, out: Layout, inputs: Sequence[Layout], threads: int):
        self.step, self.out, self.inputs = step, out, inputs
        layouts = (out, *inputs)
        slots = (0, *(1 + step.contraction.operands.index(i) for i in range(len(inputs))))
        self.seconds = _seconds(step.contraction, layouts)
        ranges = _shares(step, min(threads, int(self.seconds / SHARE_SECONDS), MAX_SHARES))
        blocks = [parameters(step.nest, step.contraction, step.source.words, r) for r in ranges]
        self.threads = len(blocks)
        if self.threads > 1:
            self._bind_shares(blocks, layouts, slots)
        else:
            self._bind_one(blocks[0], layouts, slots)

    def _bind_one(self, block: Parameters, layouts, slots) -> None:
        work = self.step.contraction.work
        self.workspace = block.workspace if block.workspace > STACK_WORKSPACE else 0
        words = record(self.step.code.address, block.words, layouts, slots, work >= GIL_WORK, self.workspace > 0)
        self.launch = launcher(words, keep=(block, self.step.code))
        self.run = self._run_with_workspace if self.workspace else self.launch

    def _bind_shares(self, blocks: Sequence[Parameters], layouts, slots) -> None:
        """Memory of a launch: the tables, the outputs of all threads but one where sums are shared, workspaces."""
        summed = _shared_loop(self.step.nest).summed
        low, high = byte_bounds(self.out)
        self.workspace = _whole(tables_bytes(len(blocks), len(layouts)))
        self.outs: list[int] = []
        shares = []
        for i, block in enumerate(blocks):
            own = 0
            if summed and i:
                own = self.workspace - low
                self.outs.append(own)
                self.workspace += _whole(high - low)
            shares.append(Share(block.words, own, self.workspace))
            self.workspace += _whole(block.workspace)
        words = shared_record(self.step.code.address, shares, layouts, slots)
        self.launch = launcher(words, keep=(blocks, self.step.code))
        self.run = self._run_sums if summed else self._run_shared

    def _run_with_workspace(self, *arrays):
        return self.launch(*arrays, scratch(self.workspace).bytes)

    def _run_shared(self, *arrays):
        helpers = parallel.invite(self.threads - 1, self.seconds)
        return self._launch_shares(scratch(self.workspace), helpers, arrays) if helpers else self._alone.run(*arrays)

    def _run_sums(self, *arrays):
        """Each share but the first is added up in an output of its own, also where nobody helps: the order of
        additions must not depend on that."""
        helpers = parallel.invite(self.threads - 1, self.seconds)
        memory = scratch(self.workspace)
        _scratch.memory = None      # a finalizer that runs before the end, and calls einsum, must have another
        if self._launch_shares(memory, helpers, arrays) is NotImplemented:
            return NotImplemented
        out = arrays[0]
        with np.errstate(all="ignore"):     # as in the kernels
            for at in self.outs:
                np.add(out, np.ndarray(out.shape, out.dtype, memory.bytes, at, out.strides), out=out)
        _scratch.memory = memory
        return None

    def _launch_shares(self, memory: Scratch, helpers: int, arrays):
        memory.words[0] = helpers
        return self.launch(*arrays, memory.bytes)

    @cached_property
    def _alone(self) -> BoundStep:
        """The same for one thread: where nobody helps, each share would pack what all of them need."""
        return BoundStep(self.step, self.out, self.inputs, 1)


def _seconds(c: Contraction, layouts: Sequence[Layout]) -> float:
    """What one thread will take at the least, roughly."""
    moved = sum(prod(x.shape) * np.dtype(x.dtype).itemsize for x in layouts)
    return max(c.work * np.dtype(c.accumulator).itemsize / POINT_BYTES, moved / MOVED_BYTES)


def _whole(size: int) -> int:
    """In whole pages, so that no two threads write to one."""
    return -(-size // PAGE) * PAGE


def _shared_loop(nest: LoopNest) -> Label | None:
    """The label whose outermost loop threads share."""
    return next((nest.label(loop.label) for loop in nest.loops if loop.kind is Kind.PARALLEL), None)


def _shares(step: CompiledStep, threads: int) -> list[dict[str, tuple[int, int]]]:
    """Ranges of the parallel label, one a thread, in whole register tiles."""
    label = _shared_loop(step.nest)
    if threads < 2 or label is None or (label.summed and not output_can_be_repeated(step.contraction)):
        return [{}]
    width = tile_width(step.nest, label.name)
    tiles = -(-label.extent // width)
    count = min(threads, tiles)
    ends = [min(label.extent, tiles * (i + 1) // count * width) for i in range(count)]
    return [{label.name: (start, end)} for start, end in zip([0, *ends], ends)]


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
