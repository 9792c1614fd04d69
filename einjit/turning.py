"""Steps that turn an operand around first: in a plan, a step of its own in front of the one that needs it.

    ij,jk->ik   ->   jk->kj   ij,kj->ik

Which operands are worth it is the schedule's business (`schedule/unpacked.py`); here they become steps.
"""
from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Mapping, Sequence

from . import machine
from .contraction import Layout, contraction
from .einsum import Einsum
from .path import Plan, Step
from .schedule.unpacked import Turning, turning


def with_turned_operands(planned: Plan, operands: Sequence[Layout], out: Layout, compute: str) -> Plan:
    """The plan, with operands turned that had better be. `out`: what its last step writes; `compute`: the dtype
    of what the others write."""
    layouts, sizes, steps, largest = list(operands), dict(planned.sizes), [], planned.largest
    for step in planned.steps:
        taken = [layouts[i] for i in step.operands]
        kept = [t for i, t in enumerate(layouts) if i not in step.operands]
        shape = [sizes[x] for x in step.einsum.output]
        result = out if step is planned.steps[-1] else Layout.contiguous(shape, compute)
        found = _term(step.einsum, sizes, result, taken, compute)
        if found:
            which, term = found
            largest = max(largest, prod(sizes[x] for x in term))
            steps += _turned(step, which, term, len(layouts))
        else:
            steps.append(step)
        layouts = [*kept, result]
    return replace(planned, steps=tuple(steps), largest=largest)


def _term(einsum: Einsum, sizes: Mapping[str, int], out: Layout, operands: Sequence[Layout],
          compute: str) -> tuple[int, tuple[str, ...]] | None:
    """(which of the step's operands is to be turned, its labels then, slowest first), or None."""
    if len(operands) != 2:
        return None
    c = contraction(einsum, {x: sizes[x] for x in einsum.labels}, out, operands, accumulator=compute)
    found: Turning | None = turning(c, machine.detect())
    if found is None:
        return None
    which = c.operands[found.tensor - 1]
    moving = tuple(x for d in found.order for x in d.labels)
    still = tuple(x for x in dict.fromkeys(einsum.inputs[which]) if x not in moving)
    # Where the operand's size is 1 and the label's is not, a step on it alone would repeat what it sums.
    return None if any(sizes[x] != 1 for x in still) else (which, still + moving)


def _turned(step: Step, which: int, term: tuple[str, ...], count: int) -> list[Step]:
    """The step that turns one of the operands, and the step itself, with that operand now the last of `count`."""
    place = step.operands[which]
    turn = Step((place,), Einsum((step.einsum.inputs[which],), term))
    moved = tuple(count - 1 if i == place else i - (i > place) for i in step.operands)
    inputs = tuple(term if i == which else labels for i, labels in enumerate(step.einsum.inputs))
    return [turn, Step(moved, Einsum(inputs, step.einsum.output))]
