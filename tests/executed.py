"""GPU kernels run by the PTX executor: what a `GpuKernel` gives for operands in host memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import numpy as np

from einjit.codegen import gpubuild
from einjit.contraction import Layout
from einjit.gpukernel import GpuKernel, GpuStep
from einjit.launch import byte_bounds
from tests.ptx import Kernel, Placed, Report, launch, parse


def executed(kernel: GpuKernel, operands: Sequence[np.ndarray]) -> tuple[np.ndarray, list[Report]]:
    """The result, and a report of each step."""
    arrays, reports = list(operands), []
    for step in kernel.steps:
        inputs = [arrays[i] for i in step.operands]
        arrays = [x for i, x in enumerate(arrays) if i not in step.operands]
        result, report = run_step(step, inputs)
        arrays.append(result)
        reports.append(report)
    return arrays[-1], reports


def run_step(step: GpuStep, inputs: Sequence[np.ndarray], kernel: Kernel | None = None) -> tuple[np.ndarray, Report]:
    """One kernel on arrays of the layouts it was compiled for; `kernel` in place of its own, if one is given."""
    low, high = byte_bounds(step.out)
    memory = np.full(high - low, 0x5A, np.uint8)        # what nobody writes shows
    tensors = [Placed(memory, inside=-low), *(_placed(inputs[i]) for i in step.contraction.operands)]
    words = [np.array(value % (1 << 64), np.uint64).astype(_word_dtype(step, i))
             for i, value in enumerate(step.launch.words)]
    report = launch(kernel or _parsed(step), step.launch.grid, step.launch.block, [*tensors, *(w[()] for w in words)])
    out = np.ndarray(step.out.shape, step.out.dtype, memory, -low, step.out.strides)
    return out, report


def _word_dtype(step: GpuStep, i: int) -> str:
    return "uint64" if step.source.words[i].what in ("stride", "part") else step.signature.integer


def _placed(array: np.ndarray) -> Placed:
    """The memory that an array reaches, and where in it its first element lies."""
    low, high = byte_bounds(Layout.of(array))
    memory = (ctypes.c_char * (high - low)).from_address(array.ctypes.data + low)
    return Placed(np.frombuffer(bytes(memory), np.uint8), inside=-low)


def _parsed(step: GpuStep) -> Kernel:
    return _parse(step.source.text, step.source, step.signature)


@cache
def _parse(text: str, source, signature) -> Kernel:
    return parse(gpubuild.ptx_of(source, signature))
