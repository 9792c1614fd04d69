"""One problem to time: an equation, its extents and a dtype; its work, its operands, and its right answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod, sqrt

import numpy as np

# Bound once: with einjit under test, someone may put it in NumPy's place.
_numpy_einsum = np.einsum

try:
    import ml_dtypes        # gives NumPy the name bfloat16
except ImportError:
    ml_dtypes = None

DTYPES = {"f16": "float16", **({"bf16": "bfloat16"} if ml_dtypes else {}),
          "f32": "float32", "f64": "float64", "c64": "complex64", "c128": "complex128",
          "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64"}

# A complex multiply-add is four real ones.
COMPLEX_FLOPS = 4

# The reference may cost this many multiply-adds; a larger case is checked on a sample of its output.
REFERENCE_WORK = 100_000_000
SAMPLED = 6  # indices of each output label, the first and the last among them


@dataclass(frozen=True)
class Case:
    """`sizes` is label -> extent; `dtype` NumPy's name; operands are C-contiguous.

    `out`: the result goes into an array that exists; otherwise every peer returns a new one.
    `result`: the dtype to compute in, where it is not the operands'.
    `twin`: the name of a case of equal work whose rate this one's is compared with.
    """

    name: str
    equation: str
    sizes: Mapping[str, int]
    dtype: str
    family: str
    out: bool = False
    result: str = ""
    twin: str = ""

    @property
    def result_dtype(self) -> str:
        return self.result or self.dtype

    @property
    def terms(self) -> tuple[str, ...]:
        return tuple(self.equation.split("->")[0].split(","))

    @property
    def output(self) -> str:
        return self.equation.split("->")[1]

    @property
    def summed(self) -> str:
        return "".join(sorted(set("".join(self.terms)) - set(self.output)))

    def shape(self, term: str) -> tuple[int, ...]:
        return tuple(self.sizes[label] for label in term)

    def extent(self, labels: str) -> int:
        """How many points the space of `labels` has."""
        return prod(self.sizes[label] for label in set(labels))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(self.shape(term) for term in self.terms)

    @cached_property
    def flops(self) -> int:
        """Multiplications and additions of the best known order; a matmul has 2 m n k."""
        points = self.extent("".join(self.terms))
        work = points * (len(self.terms) - 1 + bool(self.summed))
        if len(self.terms) > 2:
            work = min(work, self._pairwise_flops())
        return work * (COMPLEX_FLOPS if self.dtype.startswith("complex") else 1)

    def _pairwise_flops(self) -> int:
        from opt_einsum import contract_path

        return int(contract_path(self.equation, *self.shapes, shapes=True, optimize="optimal")[1].opt_cost)

    @property
    def bytes(self) -> int:
        """What must move: each input read once, the output written once."""
        return sum(self.extent(term) for term in self.terms) * np.dtype(self.dtype).itemsize + self._written

    @property
    def writes(self) -> float:
        """The output's share of `bytes`."""
        return self._written / self.bytes

    @property
    def _written(self) -> int:
        return self.extent(self.output) * np.dtype(self.result_dtype).itemsize

    def shrunk(self, largest: int) -> Case:
        """The same equation with no extent above `largest`, as its name says."""
        sizes = {label: min(n, largest) for label, n in self.sizes.items()}
        return replace(self, name=f"{self.name} cut to {largest}", sizes=sizes)

    def operands(self) -> list[np.ndarray]:
        """The same random numbers every time, no larger than 1 in size; integers from -3 to 3."""
        rng = np.random.default_rng(0)
        return [_random(rng, shape, np.dtype(self.dtype)) for shape in self.shapes]

    def new_output(self) -> np.ndarray:
        return np.zeros(self.shape(self.output), self.result_dtype)


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iu":
        return rng.integers(-3, 4, shape, dtype)
    if dtype.kind == "c":
        real = rng.random((*shape, 2), np.float32 if dtype.itemsize == 8 else np.float64) * 2 - 1
        return real.view(dtype)[..., 0]
    values = rng.random(shape, np.float32 if dtype.itemsize <= 4 else np.float64) * 2 - 1
    return values.astype(dtype, copy=False)


@dataclass(frozen=True)
class Reference:
    """The right answer in double precision (integers: in their own), at the output's `picked` indices."""

    picked: tuple[np.ndarray, ...]
    values: np.ndarray
    tolerance: float

    def error(self, result: np.ndarray) -> float:
        """How far `result`, a whole output, is off at worst, in tolerances; 1 is the limit."""
        sample = result[np.ix_(*self.picked)] if self.picked else result
        if self.values.dtype.kind in "iu":
            return 0.0 if np.array_equal(sample, self.values) else np.inf
        worst = float(np.abs(sample - self.values).max(initial=0.0))
        return worst / self.tolerance if np.isfinite(worst) else np.inf


def reference(case: Case, operands: list[np.ndarray]) -> Reference:
    """What the case's result must be; of a large case, at the corners and at random places of the output."""
    rng = np.random.default_rng(1)
    small = case.flops <= REFERENCE_WORK
    picked = {label: np.arange(n) if small else _sample(rng, n) for label, n in case.sizes.items()
              if label in case.output}
    dtype = np.dtype(case.result_dtype)
    wide = dtype if dtype.kind in "iu" else np.result_type(dtype, np.float64)
    parts = [_part(x, term, picked).astype(wide, copy=False) for x, term in zip(operands, case.terms)]
    values = _numpy_einsum(case.equation, *parts, optimize=len(parts) > 1)
    if dtype.kind in "iu":
        return Reference(tuple(picked[label] for label in case.output), values, 0.0)
    # A sum of n products errs by about sqrt(n) roundings of its size; the factor leaves room for any order.
    terms = case.extent(case.summed)
    size = max(float(np.abs(values).max(initial=0.0)), sqrt(terms) * 3 ** (-len(parts) / 2))
    tolerance = float((ml_dtypes or np).finfo(dtype).eps) * (2 * sqrt(terms) + 16) * size
    return Reference(tuple(picked[label] for label in case.output), values, tolerance)


def _sample(rng: np.random.Generator, extent: int) -> np.ndarray:
    if extent <= SAMPLED:
        return np.arange(extent)
    inner = 1 + rng.choice(extent - 2, SAMPLED - 2, replace=False)
    return np.sort(np.concatenate(([0, extent - 1], inner)))


def _part(operand: np.ndarray, term: str, picked: Mapping[str, np.ndarray]) -> np.ndarray:
    for axis, label in enumerate(term):
        if label in picked:
            operand = operand.take(picked[label], axis)
    return operand
