"""Running a `GpuKernel`: its steps one after the other in one stream, without a wait anywhere."""
from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from .contraction import Layout
from .errors import OperandError
from .gpuarrays import DeviceArray, read
from .gpudriver import Driver
from .gpukernel import GpuKernel, GpuStep
from .gpulibraries import Library
from .launch import byte_bounds

MOST_BLOCKS = (1 << 31) - 1     # of a grid, along its first axis

# By context and kernel, for good: to unload a module while a device is at work in it is not allowed, and nobody knows
# when it has ended without waiting. There is one for each different code, not for each shape.
_loaded: dict[tuple, object] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Place:
    """Where a call runs: its device, its stream, and the library that makes its arrays; `current`: the stream is that
    library's current one."""

    driver: Driver
    library: Library
    device: int
    stream: int
    current: bool

    def new(self, layout: Layout) -> DeviceArray:
        """An array of a layout that leaves no gaps, its elements undefined."""
        array = self.library.empty(layout, self.device, self.stream)
        made = read(array, "the result", self.stream)
        return DeviceArray(made.pointer, layout, None, False, array)


def run(kernel: GpuKernel, operands: Sequence[DeviceArray], out: DeviceArray, place: Place) -> None:
    """Put a kernel's work into the stream. `out` overlaps neither an operand nor itself."""
    with place.driver.on(place.device) as context:
        for array in (*operands, out):
            _wait_for(array, place)
        if not kernel.steps:
            _clear(out, place)
            return
        if not _suits(kernel, operands, out):
            kernel = kernel.unaligned
        arrays = list(operands)
        for step in kernel.steps:
            inputs = [arrays[i] for i in step.operands]
            arrays = [x for i, x in enumerate(arrays) if i not in step.operands]
            result = out if step is kernel.steps[-1] else place.new(step.out)
            _launch(step, [result, *(inputs[i] for i in step.contraction.operands)], context, place)
            arrays.append(result)


def _suits(kernel: GpuKernel, operands: Sequence[DeviceArray], out: DeviceArray) -> bool:
    """Whether pointers are aligned as the code wants them to be; those of arrays made here are."""
    pointers = [array.pointer for array in operands]
    for step in kernel.steps:
        inputs = [pointers[i] for i in step.operands]
        pointers = [x for i, x in enumerate(pointers) if i not in step.operands]
        result = out.pointer if step is kernel.steps[-1] else 0
        given = (result, *(inputs[i] for i in step.contraction.operands))
        if any(p % boundary for p, boundary in zip(given, step.boundaries)):
            return False
        pointers.append(result)
    return True


def _wait_for(array: DeviceArray, place: Place) -> None:
    if array.producer is not None and array.producer != place.stream:
        place.driver.wait(place.stream, array.producer)


def _clear(out: DeviceArray, place: Place) -> None:
    size = prod(out.shape) * out.dtype.itemsize
    if size:
        low, _ = byte_bounds(out.layout)
        place.driver.clear(place.stream, out.pointer + low, size)


def _launch(step: GpuStep, tensors: Sequence[DeviceArray], context: int, place: Place) -> None:
    pointers = [t.pointer for t in tensors]
    grid, block = step.launch.grid, step.launch.block
    if grid > MOST_BLOCKS:
        raise OperandError(f"the result takes {grid} blocks of threads, and a launch has at most {MOST_BLOCKS}",
                           fix="contract a part of the operands at a time")
    arguments = [*map(np.uint64, pointers), *step.words]
    place.driver.launch(place.stream, _kernel(step, context, place.driver), grid, block, arguments)


def _kernel(step: GpuStep, context: int, driver: Driver):
    key = context, step.source.entry, step.signature
    found = _loaded.get(key)
    if found is None:
        with _lock:
            found = _loaded.get(key)
            if found is None:
                found = _loaded[key] = driver.load(step.code.cubin, step.code.symbol)
    return found


# -- overlaps --------------------------------------------------------------------------------------------

def overlap(one: DeviceArray, other: DeviceArray) -> bool:
    """Whether two arrays may share memory: whether the bytes from their first to their last do."""
    (low, high), (other_low, other_high) = byte_bounds(one.layout), byte_bounds(other.layout)
    return one.pointer + low < other.pointer + other_high and other.pointer + other_low < one.pointer + high


def overlaps_itself(layout: Layout) -> bool:
    """Whether some elements may share memory."""
    reach = np.dtype(layout.dtype).itemsize
    for stride, extent in sorted((abs(s), n) for s, n in zip(layout.strides, layout.shape) if n > 1):
        if stride < reach:
            return True
        reach = stride * (extent - 1) + reach
    return False


def is_dense(layout: Layout) -> bool:
    """Whether its elements leave no gaps."""
    low, high = byte_bounds(layout)
    return high - low == prod(layout.shape) * np.dtype(layout.dtype).itemsize
