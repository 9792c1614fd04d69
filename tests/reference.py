"""What an einsum should give, worked out without einsum: align, multiply, add, in a wider type.

Floats are computed in longdouble, integers as Python's own and then wrapped, bools as any-of-all.
It fills the whole iteration space, so it is for small problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from opt_einsum.parser import parse_einsum_input


@dataclass(frozen=True)
class Reference:
    """The exact result, how far a result of `dtype` may be from it, and that dtype."""

    value: np.ndarray
    tolerance: np.ndarray | float
    dtype: np.dtype


def reference(equation: str, *operands, dtype=None) -> Reference:
    """The result of `einsum(equation, *operands, dtype=dtype)` and the error it may have.

    NumPy converts each element to the result's dtype before anything else; integers wrap there.
    """
    arrays = [np.asarray(op) for op in operands]
    inputs, output, _ = parse_einsum_input((equation.replace(" ", ""), *arrays))
    dtype = (np.result_type(*arrays) if dtype is None else np.dtype(dtype)).newbyteorder("=")
    terms = inputs.split(",")
    if dtype.kind == "b":
        return Reference(contract(terms, output, [a.astype(bool) for a in arrays]), 0, dtype)
    if dtype.kind in "iu":
        exact = contract(terms, output, [a.astype(dtype).astype(object) for a in arrays])
        return Reference(wrap(exact, dtype), 0, dtype)
    wide = np.clongdouble if dtype.kind == "c" else np.longdouble
    arrays = [a.astype(wide) for a in arrays]
    size = contract(terms, output, [magnitude(a) for a in arrays])
    terms_summed = summed_extent(terms, output, arrays)
    return Reference(contract(terms, output, arrays), tolerance(size, terms_summed, len(terms), dtype), dtype)


def assert_close(result, expected: Reference) -> None:
    """The dtype and shape are exact, every element lies within its own tolerance."""
    result = np.asarray(result)
    assert result.dtype.newbyteorder("=") == expected.dtype  # a view of a big-endian array is big-endian
    assert result.shape == expected.value.shape
    if expected.dtype.kind in "biu":
        np.testing.assert_array_equal(result, expected.value)
        return
    error = np.abs(result.astype(expected.value.dtype) - expected.value)
    bad = ~(error <= expected.tolerance)
    worst = np.max(error - expected.tolerance, initial=0)
    assert not bad.any(), f"{bad.sum()} of {bad.size} elements are off, by up to {worst} over the tolerance"


def tolerance(size: np.ndarray, summed: int, operands: int, dtype: np.dtype):
    """A sum of `summed` products of `operands` factors, in any order, errs by at most about this."""
    eps = np.finfo(dtype).eps
    tiny = np.finfo(dtype).smallest_subnormal * operands * summed
    if dtype == np.float16:  # accumulates in float32: eps counts once for each rounding to float16
        return size * (eps * operands * 2 + np.finfo(np.float32).eps * summed) + tiny
    # 4 where a complex product is four real ones; intermediates round once more for each operand.
    return size * eps * (4 if dtype.kind == "c" else 1) * (summed + 2 * operands) + tiny


def contract(terms: Sequence[str], output: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    labels = output + "".join(sorted(set("".join(terms)) - set(output)))
    product = np.ones((1,) * len(labels), arrays[0].dtype)
    for term, array in zip(terms, arrays, strict=True):
        product = np.asarray(product * align(term, array, labels), product.dtype)  # 0-d stays an array
    # A label of extent 1 everywhere must still be summed; one that is 0 gives the empty sum.
    axes = tuple(range(len(output), len(labels)))
    if product.dtype == bool:
        return np.asarray(product.any(axis=axes))
    if product.dtype == object:
        return np.asarray(np.add.reduce(product, axis=axes, initial=0) if axes else product, dtype=object)
    return np.asarray(product.sum(axis=axes))


def align(term: str, array: np.ndarray, labels: str) -> np.ndarray:
    """Take diagonals of repeated labels, then put each label's axis at its place in `labels`."""
    while len(set(term)) < len(term):
        label = next(c for c in term if term.count(c) > 1)
        first = term.index(label)
        second = term.index(label, first + 1)
        array = np.diagonal(array, axis1=first, axis2=second)  # the diagonal comes last
        term = "".join(c for i, c in enumerate(term) if i not in (first, second)) + label
    array = array.transpose([term.index(c) for c in labels if c in term])
    return array[tuple(slice(None) if c in term else None for c in labels)]


def summed_extent(terms: Sequence[str], output: str, arrays: Sequence[np.ndarray]) -> int:
    sizes: dict[str, int] = {}
    for term, array in zip(terms, arrays, strict=True):
        for label, extent in zip(term, array.shape, strict=True):
            sizes[label] = extent if sizes.get(label, 1) == 1 else sizes[label]
    return int(np.prod([n for c, n in sizes.items() if c not in output], dtype=object))


def magnitude(array: np.ndarray) -> np.ndarray:
    return np.abs(array.real) + np.abs(array.imag)


def wrap(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    bits = 8 * dtype.itemsize
    return np.asarray(values % (1 << bits), dtype=np.uint64).astype(f"uint{bits}").view(dtype)
