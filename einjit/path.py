"""The plan: in which order operands are contracted. opt_einsum finds orders; here they become steps."""
from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Mapping, Sequence

from .einsum import Einsum
from .errors import OperandError, PathError

MAX_NEST_OPERANDS = 16      # a nest over more operands would keep too many addresses in registers
LARGE_INTERMEDIATE = 64     # times the largest operand or result


@dataclass(frozen=True)
class Step:
    """One contraction. `operands` are positions in the list at hand: they are removed, the result appended."""

    operands: tuple[int, ...]
    einsum: Einsum


@dataclass(frozen=True)
class Plan:
    """`flops` counts multiplications and additions; `largest` the elements of the largest intermediate."""

    einsum: Einsum
    sizes: tuple[tuple[str, int], ...]
    steps: tuple[Step, ...]
    flops: int
    largest: int

    def __str__(self) -> str:
        rows = [f"{self.einsum}: {len(self.steps)} step{'s' * (len(self.steps) != 1)}, "
                f"{self.flops:.3g} flops, largest intermediate {self.largest} elements"]
        rows += [f"  {' x '.join(map(str, s.operands))}: {s.einsum}" for s in self.steps]
        return "\n".join(rows)


def plan(einsum: Einsum, sizes: Mapping[str, int], optimize: object = None) -> Plan:
    """Plan the contraction. `optimize`: as NumPy takes it, or the name of an opt_einsum strategy.

    False: one nest over all operands. None and True: opt_einsum's 'auto', or one nest where that does no more
    work.
    """
    count = len(einsum.inputs)
    single = (Step(tuple(range(count)), einsum),)
    if count <= 2 or (optimize is False and count <= MAX_NEST_OPERANDS):
        return _plan(einsum, sizes, single)
    pairwise = _plan(einsum, sizes, _steps(einsum, _path(einsum, sizes, optimize)))
    if optimize not in (None, True) or count > MAX_NEST_OPERANDS:
        return pairwise
    nest = _plan(einsum, sizes, single)
    bound = LARGE_INTERMEDIATE * max(prod(sizes[x] for x in term) for term in (*einsum.inputs, einsum.output))
    dwarfs = pairwise.largest > bound and nest.flops <= LARGE_INTERMEDIATE * pairwise.flops
    return nest if nest.flops <= pairwise.flops or dwarfs else pairwise


def _plan(einsum: Einsum, sizes: Mapping[str, int], steps: tuple[Step, ...]) -> Plan:
    flops = sum(prod(sizes[x] for x in s.einsum.labels) * _operations(s.einsum) for s in steps)
    largest = max((prod(sizes[x] for x in s.einsum.output) for s in steps[:-1]), default=0)
    return Plan(einsum, tuple((x, sizes[x]) for x in einsum.labels), steps, flops, largest)


def _operations(einsum: Einsum) -> int:
    """Of one point: the multiplications, and an addition where something is summed."""
    return max(1, len(einsum.inputs) - 1 + bool(einsum.summed))


def _path(einsum: Einsum, sizes: Mapping[str, int], optimize: object) -> list[tuple[int, ...]]:
    import opt_einsum

    strategy, memory_limit = _strategy(optimize)
    if isinstance(strategy, list):
        return strategy
    shapes = [tuple(sizes[x] for x in term) for term in einsum.inputs]
    canonical = einsum.canonical()
    try:
        path, _ = opt_einsum.contract_path(str(canonical), *shapes, shapes=True, optimize=strategy, memory_limit=memory_limit)
    except KeyError:
        raise OperandError(f"optimize={optimize!r} is not a strategy", text=str(einsum),
                           fix="pass True, False, 'greedy', 'optimal', another strategy of opt_einsum's, or a path") from None
    return [tuple(p) for p in path]


def _strategy(optimize: object) -> tuple[object, object]:
    """(strategy name or explicit path, memory limit) of what the caller passed."""
    if optimize is True or optimize is False or optimize is None:
        return "auto", None
    if isinstance(optimize, str):
        return optimize, None
    parts = list(optimize) if isinstance(optimize, Sequence) else []
    if parts and parts[0] == "einsum_path":
        return [tuple(p) for p in parts[1:]], None
    if len(parts) == 2 and isinstance(parts[0], str):
        return parts[0], None if parts[1] is None else int(parts[1])
    if parts and all(isinstance(p, Sequence) and not isinstance(p, str) for p in parts):
        return [tuple(p) for p in parts], None
    raise OperandError(f"optimize={optimize!r} is neither a strategy nor a path",
                       fix="pass True, False, 'greedy', 'optimal', or ['einsum_path', (0, 1), ...]")


def _steps(einsum: Einsum, path: Sequence[tuple[int, ...]]) -> tuple[Step, ...]:
    terms, steps = list(einsum.inputs), []
    remaining: dict[str, int] = {}
    for term in (*terms, einsum.output):
        for x in set(term):
            remaining[x] = remaining.get(x, 0) + 1
    for number, operands in enumerate(path):
        if not operands or len(set(operands)) != len(operands) or not all(0 <= i < len(terms) for i in operands):
            raise PathError(f"step {operands} of the path does not fit {len(terms)} operands", text=str(einsum))
        taken = [terms[i] for i in operands]
        for i in sorted(operands, reverse=True):
            del terms[i]
        for term in taken:
            for x in set(term):
                remaining[x] -= 1
        last = number == len(path) - 1
        kept = einsum.output if last else tuple(dict.fromkeys(x for term in taken for x in term if remaining[x]))
        for x in kept:
            remaining[x] += 1
        steps.append(Step(tuple(operands), Einsum(tuple(taken), kept)))
        terms.append(kept)
    if len(terms) != 1:
        raise PathError(f"the path leaves {len(terms)} operands uncontracted", text=str(einsum),
                           fix="end the path with a step over all operands that are left")
    return tuple(steps)
