"""The plan: in which order operands are contracted. opt_einsum finds orders; here they become steps."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import isfinite, prod
from numbers import Integral
from typing import Iterable, Mapping, Sequence

from .einsum import Einsum
from .errors import ArgumentError, PathError, StrategyError

MAX_NEST_OPERANDS = 16          # a nest over more would keep too many addresses in registers
STEP_POINTS = 50_000            # what launching a step costs, in points of an iteration space: a microsecond
REUSE = 4                       # points per element from which on a product of two is bound by arithmetic
LARGE = 2**20                   # elements: an intermediate of fewer stays in cache
DWARFING = 64                   # an intermediate is too large at so many times the largest operand or result

# opt_einsum's, for messages: strategies that are registered with it later are accepted as well.
STRATEGIES = (
    "auto", "auto-hq", "optimal", "branch-all", "branch-2", "branch-1", "greedy", "eager", "opportunistic",
    "dp", "dynamic-programming", "random-greedy", "random-greedy-128",
)

Path = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Step:
    """One contraction. `operands` are positions in the list at hand: they go, the result is appended."""

    operands: tuple[int, ...]
    einsum: Einsum


@dataclass(frozen=True)
class Plan:
    """`flops` counts multiplications and additions, `largest` the elements of the largest intermediate."""

    einsum: Einsum
    sizes: tuple[tuple[str, int], ...]
    steps: tuple[Step, ...]
    flops: int
    largest: int

    def __str__(self) -> str:
        sizes = dict(self.sizes)
        rows = [("step", "operands", "equation", "flops", "result")]
        for number, step in enumerate(self.steps, 1):
            shape = " x ".join(str(sizes[x]) for x in step.einsum.output) or "scalar"
            operands = ", ".join(map(str, step.operands))
            flops = _rounded(_flops(step.einsum, sizes))
            rows.append((str(number), operands, str(step.einsum), flops, shape))
        widths = [max(map(len, column)) for column in zip(*rows)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        steps = f"{len(self.steps)} step{'s' * (len(self.steps) != 1)}"
        largest = f", largest intermediate {_rounded(self.largest)} elements" if len(self.steps) > 1 else ""
        return "\n".join([f"{self.einsum}: {steps}, {_rounded(self.flops)} flops{largest}", *table])


def _rounded(n: int) -> str:
    """Three digits of a count, which for a large network may be beyond any float."""
    from decimal import Decimal

    return str(n) if n < 10_000 else f"{Decimal(n):.2e}"


def plan(einsum: Einsum, sizes: Mapping[str, int], optimize: object = None) -> Plan:
    """Plan the contraction of operands whose labels have these sizes.

    `optimize`: None or True, the order of opt_einsum's 'auto', or one nest over all operands where that does
    no more work; False, one nest (over 16 operands at most); the name of a strategy of opt_einsum's; (name,
    the largest intermediate's elements); a path, with or without NumPy's 'einsum_path' in front.

    Raises `ArgumentError` where `optimize` is none of these, `StrategyError` for an unknown name, `PathError`
    for a path that does not fit.
    """
    if optimize is None or optimize is True:
        return _automatic(einsum, sizes)
    every = [tuple(range(len(einsum.inputs)))]
    if optimize is False:
        return _plan(einsum, sizes, every)
    path, strategy, limit = _read(optimize)
    if path is None:
        find = _strategy(strategy)
        path = every if len(einsum.inputs) <= 2 else _found(find, einsum, sizes, limit)
    return _plan(einsum, sizes, path)


def check(optimize: object) -> None:
    """Raise what `plan` raises for an `optimize` that fits no equation at all."""
    if not (optimize is None or optimize is True or optimize is False):
        path, strategy, _ = _read(optimize)
        if path is None:
            _strategy(strategy)


def one_nest(einsum: Einsum, sizes: Mapping[str, int]) -> Plan:
    """The plan of one step over all operands, however many."""
    every = Step(tuple(range(len(einsum.inputs))), einsum)
    return Plan(einsum, tuple((x, sizes[x]) for x in einsum.labels), (every,), _flops(einsum, sizes), 0)


# -- the automatic choice --------------------------------------------------------------------------------

def _automatic(einsum: Einsum, sizes: Mapping[str, int]) -> Plan:
    count = len(einsum.inputs)
    every = [tuple(range(count))]
    if count == 1:
        return _plan(einsum, sizes, every)
    best = _plan(einsum, sizes, every if count == 2 else _found(_strategy("auto"), einsum, sizes))
    summed_first = _sums(einsum)
    if summed_first:
        other = _summing_first(einsum, sizes, summed_first)
        best = other if 2 * _cost(other) < _cost(best) else best
    if 2 < count <= MAX_NEST_OPERANDS:
        nest = _plan(einsum, sizes, every)
        best = nest if _prefer_nest(nest, best) else best
    return best


def _cost(p: Plan) -> int:
    return _points(p) + STEP_POINTS * len(p.steps)


def _points(p: Plan) -> int:
    """Points of all iteration spaces; a point is a multiply-add."""
    sizes = dict(p.sizes)
    return sum(_extent(step.einsum.labels, sizes) for step in p.steps)


def _prefer_nest(nest: Plan, steps: Plan) -> bool:
    """Whether one nest is better: it does no more work, with no intermediate in memory.

    A matrix product that dominates the steps is worth its intermediate, since its operands are reused from
    cache; unless the intermediate dwarfs what goes in and comes out, and the nest is not much more work.
    """
    sizes = dict(nest.sizes)
    ends = max(_extent(term, sizes) for term in (*nest.einsum.inputs, nest.einsum.output))
    if steps.largest > max(LARGE, DWARFING * ends):
        return nest.flops <= 4 * steps.flops
    heaviest = max((step.einsum for step in steps.steps), key=lambda e: _extent(e.labels, sizes))
    return _points(nest) <= _points(steps) and _reuse(heaviest, sizes) < REUSE


def _reuse(einsum: Einsum, sizes: Mapping[str, int]) -> float:
    """How often each element that is read or written takes part, on average."""
    elements = sum(_extent(term, sizes) for term in (*einsum.inputs, einsum.output))
    return _extent(einsum.labels, sizes) / max(elements, 1)


def _sums(einsum: Einsum) -> tuple[int, ...]:
    """The operands with labels that no other operand and not the output has: they can be summed alone."""
    terms = Counter(x for term in (*einsum.inputs, einsum.output) for x in set(term))
    return tuple(i for i, term in enumerate(einsum.inputs) if any(terms[x] == 1 for x in term))


def _summing_first(einsum: Einsum, sizes: Mapping[str, int], operands: Sequence[int]) -> Plan:
    """Operands with sums of their own are summed first: `ij,kl->` need not be a nest of i x j x k x l."""
    # Results go to the end of the list: each sum moves the operands behind it one place to the front.
    sums = [(operand - moved,) for moved, operand in enumerate(operands)]
    steps = _Steps(einsum, sizes)
    for step in sums:
        steps.contract(step)
    rest = Einsum(tuple(steps.terms), einsum.output)
    path = [(0, 1)] if len(rest.inputs) == 2 else _found(_strategy("auto"), rest, sizes)
    return _plan(einsum, sizes, [*sums, *path])


# -- orders ----------------------------------------------------------------------------------------------

def _read(optimize: object) -> tuple[Path | None, object, object]:
    """(path, None, None) or (None, strategy, memory limit) of what the caller passed."""
    if isinstance(optimize, str) or callable(optimize):
        return None, optimize, None
    parts = list(optimize) if isinstance(optimize, Sequence) else []
    if len(parts) == 2 and isinstance(parts[0], str) and isinstance(parts[1], (int, float, type(None))):
        return None, parts[0], parts[1]
    path = parts[1:] if parts[:1] == ["einsum_path"] else parts
    if path and all(_are_positions(step) for step in path):
        return [tuple(step) for step in path], None, None
    raise ArgumentError(f"optimize={optimize!r} is neither a strategy nor a path",
                        fix="pass True, False, 'greedy', ('greedy', limit) or ['einsum_path', (0, 1), ...]")


def _are_positions(step: object) -> bool:
    return isinstance(step, Sequence) and not isinstance(step, str) and all(isinstance(i, Integral) for i in step)


def _strategy(name: object):
    """opt_einsum's function for a strategy: of (sets of labels, the output's, sizes, memory limit)."""
    from opt_einsum.paths import get_path_fn

    if callable(name):
        return name
    try:
        return get_path_fn(name)
    except KeyError:
        raise StrategyError(f"optimize={name!r} is not a strategy",
                            fix=f"pass one of {', '.join(map(repr, STRATEGIES))}") from None


def _found(find, einsum: Einsum, sizes: Mapping[str, int], limit: float | None = None) -> Path:
    # Labels become numbers: a set of strings has another order, and so perhaps another path, in each process.
    numbers = {label: i for i, label in enumerate(einsum.labels)}
    inputs = [frozenset(numbers[x] for x in term) for term in einsum.inputs]
    extents = {i: sizes[label] for label, i in numbers.items()}
    limit = int(limit) if limit is not None and limit >= 0 and isfinite(limit) else None
    try:
        return find(inputs, frozenset(numbers[x] for x in einsum.output), extents, limit)
    except RuntimeError as error:
        raise PathError(f"no path was found: {error}", text=str(einsum),
                        fix="raise the memory limit") from None


# -- paths -> steps --------------------------------------------------------------------------------------

def _plan(einsum: Einsum, sizes: Mapping[str, int], path: Path) -> Plan:
    steps = _Steps(einsum, sizes)
    for operands in path:
        steps.contract(operands)
    if len(steps.terms) != 1:
        raise PathError(f"the path leaves {len(steps.terms)} operands", text=str(einsum),
                        fix="end the path with a step over all operands that are left")
    flops = sum(_flops(s.einsum, sizes) for s in steps.steps)
    largest = max((_extent(s.einsum.output, sizes) for s in steps.steps[:-1]), default=0)
    return Plan(einsum, tuple((x, sizes[x]) for x in einsum.labels), tuple(steps.steps), flops, largest)


class _Steps:
    """Steps as they are added, and the terms that are left. A step keeps the labels that are needed later."""

    def __init__(self, einsum: Einsum, sizes: Mapping[str, int]):
        self.einsum, self.sizes = einsum, sizes
        self.terms = list(einsum.inputs)
        self.ids = list(range(len(self.terms)))     # of the terms: a number each, for good
        self.steps: list[Step] = []
        self.needed = Counter(x for term in (*einsum.inputs, einsum.output) for x in set(term))

    def contract(self, operands: Sequence[int]) -> None:
        count = len(self.terms)
        if not operands or len(set(operands)) != len(operands) or not all(0 <= i < count for i in operands):
            raise PathError(f"step {tuple(operands)} of the path does not fit {count} operands",
                            text=str(self.einsum))
        if len(operands) > MAX_NEST_OPERANDS:
            self._contract_in_pairs(operands)
            return
        taken = [self.terms[i] for i in operands]
        for i in sorted(operands, reverse=True):
            del self.terms[i], self.ids[i]
        self.needed.subtract(x for term in taken for x in set(term))
        kept = tuple(dict.fromkeys(x for term in taken for x in term if self.needed[x]))
        kept = kept if self.terms else self.einsum.output
        self.needed.update(kept)
        self.terms.append(kept)
        self.ids.append(len(self.einsum.inputs) + len(self.steps))
        self.steps.append(Step(tuple(operands), Einsum(tuple(taken), kept)))

    def _contract_in_pairs(self, operands: Sequence[int]) -> None:
        """A step over too many operands for one nest, in opt_einsum's greedy order."""
        inside = Counter(x for i in operands for x in set(self.terms[i]))
        kept = tuple(x for x, n in inside.items() if self.needed[x] > n)
        part = Einsum(tuple(self.terms[i] for i in operands), kept)
        ids = [self.ids[i] for i in operands]
        for pair in _found(_strategy("greedy"), part, self.sizes):
            self.contract([self.ids.index(ids[i]) for i in pair])
            for i in sorted(pair, reverse=True):
                del ids[i]
            ids.append(self.ids[-1])


def _extent(labels: Iterable[str], sizes: Mapping[str, int]) -> int:
    return prod(sizes[x] for x in labels)


def _flops(einsum: Einsum, sizes: Mapping[str, int]) -> int:
    """Of each point: the multiplications, and an addition where something is summed."""
    operations = len(einsum.inputs) - 1 + bool(einsum.summed)
    return _extent(einsum.labels, sizes) * max(1, operations)
