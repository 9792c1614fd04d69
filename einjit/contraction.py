"""From a step of the plan and the arrays' layouts to a `Contraction`: dimensions, strides, roles.

A dimension is one label, or several that can be walked as one because they lie together in every tensor.
What a tensor does along a dimension is one byte stride; 0 says that it does not move (the label is absent,
or of size 1 and broadcast). Roles follow from membership alone (Matthews 2016, section 3; Springer and
Bientinesi 2016, section 2).
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Mapping, Sequence

import numpy as np

from .expr import Expr, product

if TYPE_CHECKING:
    from .einsum import Einsum

_DIMENSION_NAMES = "ijklmnopqrstuvwxyz"
_TENSOR_NAMES = "abcdefgh"


class Role(Enum):
    """What a dimension is to a contraction of two operands a and b; n-ary nests know only kept and summed."""

    BATCH = "batch"
    M = "M"
    N = "N"
    K = "K"
    SUM_A = "sum of a"
    SUM_B = "sum of b"
    KEPT = "kept"
    SUMMED = "summed"


@dataclass(frozen=True)
class Layout:
    """Shape, byte strides and dtype of an array: all that a kernel depends on."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, array: np.ndarray) -> Layout:
        return cls(array.shape, array.strides, array.dtype.name)

    @classmethod
    def contiguous(cls, shape: Sequence[int], dtype: str) -> Layout:
        """Row-major."""
        strides, step = [], np.dtype(dtype).itemsize
        for extent in reversed(shape):
            strides.append(step)
            step *= max(extent, 1)
        return cls(tuple(shape), tuple(reversed(strides)), dtype)


@dataclass(frozen=True)
class Dimension:
    """A folded group of labels. `strides`: bytes, the output's first, then the inputs'."""

    name: str
    labels: tuple[str, ...]
    extent: int
    summed: bool
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Contraction:
    """One loop nest's worth of work, free of names and axes.

    `operands[i]` is the position, among the step's operands, of the array that input i reads; `dtypes` are
    the output's, then the inputs'. Everything is computed in `accumulator`, which is the output's dtype or wider.
    """

    dimensions: tuple[Dimension, ...]
    dtypes: tuple[str, ...]
    operands: tuple[int, ...]
    body: Expr
    accumulator: str
    reduce: str = "add"

    @property
    def tensor_names(self) -> tuple[str, ...]:
        inputs = range(len(self.operands))
        return ("out", *(_TENSOR_NAMES[i] if i < len(_TENSOR_NAMES) else f"x{i}" for i in inputs))

    def dimension(self, name: str) -> Dimension:
        return next(d for d in self.dimensions if d.name == name)

    def members(self, tensor: int) -> tuple[Dimension, ...]:
        """The dimensions along which a tensor (0 is the output) moves."""
        return tuple(d for d in self.dimensions if self.has(d, tensor))

    def has(self, d: Dimension, tensor: int) -> bool:
        return not d.summed if tensor == 0 else d.strides[tensor] != 0

    def unit(self, tensor: int) -> str:
        """The dimension in which the tensor's elements are neighbours, or ''."""
        itemsize = np.dtype(self.dtypes[tensor]).itemsize
        return next((d.name for d in self.members(tensor) if d.strides[tensor] == itemsize), "")

    @property
    def work(self) -> int:
        """Points of the iteration space."""
        total = 1
        for d in self.dimensions:
            total *= d.extent
        return total

    @property
    def equation(self) -> str:
        terms = ["".join(d.name for d in self._ordered(t)) for t in range(len(self.dtypes))]
        return ",".join(terms[1:]) + "->" + terms[0]

    def _ordered(self, tensor: int) -> list[Dimension]:
        return sorted(self.members(tensor), key=lambda d: -abs(d.strides[tensor]))

    def role(self, d: Dimension) -> Role:
        if len(self.operands) != 2:
            return Role.SUMMED if d.summed else Role.KEPT
        a, b = (d.strides[t] != 0 for t in (1, 2))
        if d.summed:
            return Role.K if a and b else Role.SUM_A if a else Role.SUM_B
        return Role.BATCH if a and b else Role.M if a else Role.N if b else Role.KEPT

    def group(self, role: Role) -> tuple[Dimension, ...]:
        return tuple(d for d in self.dimensions if self.role(d) is role)

    def swapped(self) -> Contraction:
        """The same product with a and b exchanged (products of numbers commute)."""
        dims = tuple(replace(d, strides=(d.strides[0], d.strides[2], d.strides[1])) for d in self.dimensions)
        out, a, b = self.dtypes
        return replace(self, dimensions=dims, dtypes=(out, b, a), operands=self.operands[::-1])

    def __str__(self) -> str:
        lines = [f"{self.equation}  in {self.accumulator}"]
        for d in self.dimensions:
            strides = ", ".join(f"{name} {s}" for name, s in zip(self.tensor_names, d.strides) if s)
            lines.append(f"  {d.name} = {''.join(d.labels)}: {self.role(d).value}, extent {d.extent}, "
                         f"byte strides: {strides}")
        return "\n".join(lines)


def contraction(einsum: Einsum, sizes: Mapping[str, int], out: Layout, inputs: Sequence[Layout],
                body: Expr | None = None, accumulator: str = "") -> Contraction:
    """Classify and fold one step. All sizes are at least 1. `accumulator`: a dtype, if not the output's."""
    terms = (einsum.output, *einsum.inputs)
    tensors = (out, *inputs)
    raw = []
    for label in einsum.labels:
        if sizes[label] == 1:
            continue
        strides = tuple(_stride(label, term, t) for term, t in zip(terms, tensors))
        raw.append(Dimension("", (label,), sizes[label], label not in einsum.output, strides))
    folded = _fold(raw)
    named = tuple(replace(d, name=_name(i)) for i, d in enumerate(folded))
    return Contraction(named, tuple(t.dtype for t in tensors), tuple(range(len(inputs))),
                       body or product(len(inputs)), accumulator or out.dtype)


def _stride(label: str, term: tuple[str, ...], t: Layout) -> int:
    """Bytes from one value of a label to the next; a diagonal moves along all its axes at once."""
    return sum(s for axis, s, n in zip(term, t.strides, t.shape) if axis == label and n != 1)


def _fold(dimensions: list[Dimension]) -> list[Dimension]:
    """Join neighbours in memory until no pair is left that lies together in every tensor."""
    done = False
    while not done:
        done = True
        for outer in dimensions:
            inner = next((d for d in dimensions if d is not outer and _together(outer, d)), None)
            if inner:
                joined = replace(inner, labels=outer.labels + inner.labels, extent=outer.extent * inner.extent)
                dimensions = [joined if d is outer else d for d in dimensions if d is not inner]
                done = False
                break
    return dimensions


def _together(outer: Dimension, inner: Dimension) -> bool:
    return outer.summed == inner.summed and all(o == i * inner.extent for o, i in zip(outer.strides, inner.strides))


def _name(i: int) -> str:
    letters = len(_DIMENSION_NAMES)
    return _DIMENSION_NAMES[i] if i < letters else f"{_DIMENSION_NAMES[i % letters]}{i // letters}"
