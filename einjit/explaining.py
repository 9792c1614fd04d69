"""`explain`: every stage of a compilation as text, in the order in which they happen."""
from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from .compiler import CompiledStep
from .contraction import Contraction
from .fallback import is_compiled_dtype
from .machine import Gpu
from .occupancy import Roofline, occupancy, roofline

if TYPE_CHECKING:
    from .gpukernel import GpuStep


def explain(equation: str, *operands, optimize: object = None, schedule=None, dtype=None, target: str = "cpu",
            cc: tuple[int, int] | None = None) -> str:
    """What einjit makes of an equation for these operands (arrays or shapes), stage by stage.

    With `target="cuda"` for GPUs of compute capability `cc`: no GPU is needed, and without Numba-CUDA only what is
    known of machine code is left out.
    """
    from .kernel import compile

    other = [x.dtype for x in operands if isinstance(x, np.ndarray) and not is_compiled_dtype(x.dtype)]
    if other and target == "cpu":
        return f"{equation}\n\ndtype {other[0]} has no kernels: numpy.einsum answers such calls"
    given = {"optimize": optimize, "schedule": schedule, "dtype": dtype, "target": target, "cc": cc}
    if target == "cpu":
        return explain_kernel(compile(equation, *operands, **given))
    from .gpucode import code_not_needed

    with code_not_needed():
        return explain_kernel(compile(equation, *operands, **given))


def explain_kernel(kernel) -> str:
    """Every stage of a compiled kernel, for a CPU or a GPU."""
    operands = ", ".join(f"{shape} {dtype}" for shape, dtype in zip(kernel.shapes, kernel.dtypes))
    parts = [f"{kernel.equation}   for {operands}"]
    if kernel.plan is None:
        return "\n\n".join([*parts, "some size is 0: nothing to compute"])
    parts.append(_section("plan", str(kernel.plan)))
    for number, step in enumerate(kernel.steps, 1):
        title = f"step {number} of {len(kernel.steps)}: " if len(kernel.steps) > 1 else ""
        parts += _stages(step, title)
        if kernel.device is not None:
            parts += _on_gpu(step, kernel.device)
    return "\n\n".join(parts)


def _stages(step: CompiledStep | GpuStep, title: str) -> list[str]:
    return [
        _section(f"{title}contraction: roles, folded dimensions, strides", str(step.contraction)),
        _section("loop nest as lowered", str(step.naive)),
        _section(f"schedule: {step.choice.family}, {step.choice.tiling}",
                 "\n".join([f"because {step.choice.why}", *map(str, step.choice.schedule)])),
        _section("loop nest as scheduled", str(step.nest)),
        _section("cost", _cost(step.contraction)),
        _section("source", step.source.text.rstrip()),
    ]


def _on_gpu(step: GpuStep, device: Gpu) -> list[str]:
    found, blocks, threads = step.code.resources, step.launch.grid, step.launch.block
    launch = _section("launch", f"{blocks} block{'s' * (blocks != 1)} of {threads} threads")
    least = _section("roofline", str(_roofline(step.contraction, device)))
    if found is None:
        return [launch, least, _section("resources", "what the machine code takes needs pip install 'einjit[cuda]'")]
    held = occupancy(device, threads, found.registers, found.shared)
    return [launch, least, _section("resources", str(found)), _section("occupancy", str(held))]


def _section(title: str, body: str) -> str:
    return f"-- {title}\n{body}"


def _cost(c: Contraction) -> str:
    operations = c.work * max(1, len(c.operands) - 1 + _sums(c))
    return (f"{operations:.4g} operations, {_moved(c):.4g} bytes that must move: "
            f"{operations / _moved(c):.3g} operations a byte")


def _roofline(c: Contraction, device: Gpu) -> Roofline:
    return roofline(device, c.accumulator, c.work * (len(c.operands) - 1), c.work * _sums(c), _moved(c))


def _sums(c: Contraction) -> bool:
    return any(d.summed for d in c.dimensions)


def _moved(c: Contraction) -> int:
    """Bytes of all operands and of the output, each once."""
    return sum(np.dtype(dtype).itemsize * prod(d.extent for d in c.members(t)) for t, dtype in enumerate(c.dtypes))
