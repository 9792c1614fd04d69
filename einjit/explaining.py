"""`explain`: every stage of a compilation as text, in the order in which they happen."""
from __future__ import annotations

import numpy as np

from .compiler import CompiledStep
from .fallback import is_compiled_dtype


def explain(equation: str, *operands, optimize: object = None, schedule=None, dtype=None) -> str:
    """What einjit makes of an equation for these operands (arrays or shapes), stage by stage."""
    from .kernel import compile

    other = [x.dtype for x in operands if isinstance(x, np.ndarray) and not is_compiled_dtype(x.dtype)]
    if other:
        return f"{equation}\n\ndtype {other[0]} has no kernels: numpy.einsum answers such calls"
    return explain_kernel(compile(equation, *operands, optimize=optimize, schedule=schedule, dtype=dtype))


def explain_kernel(kernel) -> str:
    """Every stage of a compiled kernel."""
    operands = ", ".join(f"{shape} {dtype}" for shape, dtype in zip(kernel.shapes, kernel.dtypes))
    parts = [f"{kernel.equation}   for {operands}"]
    if kernel.plan is None:
        return "\n\n".join([*parts, "some size is 0: nothing to compute"])
    parts.append(_section("plan", str(kernel.plan)))
    for number, step in enumerate(kernel.steps, 1):
        title = f"step {number} of {len(kernel.steps)}: " if len(kernel.steps) > 1 else ""
        parts += _stages(step, title)
    return "\n\n".join(parts)


def _stages(step: CompiledStep, title: str) -> list[str]:
    return [
        _section(f"{title}contraction: roles, folded dimensions, strides", str(step.contraction)),
        _section("loop nest as lowered", str(step.naive)),
        _section(f"schedule: {step.choice.family}, {step.choice.tiling}",
                 "\n".join([f"because {step.choice.why}", *map(str, step.choice.schedule)])),
        _section("loop nest as scheduled", str(step.nest)),
        _section("cost", _cost(step)),
        _section("source", step.source.text.rstrip()),
    ]


def _section(title: str, body: str) -> str:
    return f"-- {title}\n{body}"


def _cost(step: CompiledStep) -> str:
    c = step.contraction
    moved = sum(np.dtype(d).itemsize * _points(c, t) for t, d in enumerate(c.dtypes))
    operations = c.work * max(1, len(c.operands) - 1 + any(d.summed for d in c.dimensions))
    return (f"{operations:.4g} operations, {moved:.4g} bytes that must move: "
            f"{operations / moved:.3g} operations a byte")


def _points(c, tensor: int) -> int:
    total = 1
    for d in c.members(tensor):
        total *= d.extent
    return total
