"""Hypothesis strategies: random einsum problems over every dtype and memory layout."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from tests.equations import DTYPES, random_array

MAX_OPERANDS = 5
MAX_LABELS = 8
MAX_SIZE = 40
MAX_WORK = 60_000  # points of the whole iteration space: the reference fills it
MAX_NDIM = 5

LAYOUTS = (
    "c", "fortran", "transposed", "sliced", "offset", "negative", "broadcast", "unaligned", "big_endian",
    "read_only",
)


@dataclass(frozen=True)
class Problem:
    """An equation and its operands. `layouts` is there to be printed when an example fails."""

    equation: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    layouts: tuple[str, ...]
    seed: int
    operands: tuple[np.ndarray, ...] = field(repr=False, compare=False)


def lay_out(values: np.ndarray, layout: str) -> np.ndarray:
    """An array of the same shape and dtype as `values`, with the strides and flags of the layout.

    The contents are the same too, but for `broadcast`, which repeats the first slice of the last axis.
    """
    if layout == "fortran":
        return values.copy(order="F")
    if layout == "transposed":  # axes stored in another order, neither C nor Fortran where there are three
        order = np.roll(np.arange(values.ndim), 1)
        return values.transpose(order).copy().transpose(np.argsort(order))
    if layout == "sliced":
        return part_of(2, 1, slice(1, None, 2), values)
    if layout == "offset":
        return part_of(1, 3, slice(3, None), values)
    if layout == "negative":
        return part_of(1, 0, slice(None, None, -1), values)
    if layout == "broadcast" and values.ndim:
        return np.broadcast_to(values[..., :1], values.shape)
    if layout == "unaligned":
        raw = np.empty(values.nbytes + 1, np.uint8)[1:]
        return fill(raw.view(values.dtype).reshape(values.shape), values)
    if layout == "big_endian":
        return values.astype(values.dtype.newbyteorder(">"))
    if layout == "read_only":
        values.flags.writeable = False
    return values


def part_of(step: int, margin: int, cut: slice, values: np.ndarray) -> np.ndarray:
    """The values as a slice of a larger array, cut the same way along every axis."""
    whole = np.empty([step * n + margin for n in values.shape], values.dtype)
    return fill(whole[(cut,) * values.ndim + (...,)], values)  # ... keeps 0-d an array


def fill(target: np.ndarray, values: np.ndarray) -> np.ndarray:
    target[...] = values
    return target


@st.composite
def problems(draw, dtypes: tuple[str, ...] = DTYPES, max_operands: int = MAX_OPERANDS) -> Problem:
    """One to five operands over at most eight labels, any of which may be repeated, summed or of size 0."""
    labels = "".join(draw(st.permutations("abcdEFGh"))[: draw(st.integers(1, MAX_LABELS))])
    terms = draw(st.lists(st.text(labels, max_size=MAX_NDIM), min_size=1, max_size=max_operands))
    used = sorted(set("".join(terms)))
    sizes = draw(label_sizes(used))
    output = "".join(draw(st.permutations(used))[: draw(st.integers(0, len(used)))])
    equation = ",".join(terms) + draw(st.sampled_from(["->" + output, "->" + output, "->" + output, ""]))
    shapes = tuple(draw(term_shape(term, sizes)) for term in terms)
    # One dtype most of the time: that is where the fast paths are.
    one = draw(st.sampled_from(dtypes))
    mixed = draw(st.booleans()) and draw(st.booleans())
    chosen = tuple(draw(st.sampled_from(dtypes)) if mixed else one for _ in terms)
    layouts = tuple(draw(st.sampled_from(LAYOUTS)) for _ in terms)
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    operands = tuple(
        lay_out(random_array(rng, shape, dtype), layout)
        for shape, dtype, layout in zip(shapes, chosen, layouts, strict=True)
    )
    return Problem(equation, shapes, chosen, layouts, seed, operands)


@st.composite
def label_sizes(draw, labels: list[str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    work = 1
    for position, label in enumerate(labels):
        # An even share of what is left, so that the later labels are not all of size one.
        share = (MAX_WORK / work) ** (1 / (len(labels) - position))
        limit = max(1, min(MAX_SIZE, int(2 * share)))
        sizes[label] = draw(st.integers(1, limit))
        work *= sizes[label]
    if labels and draw(st.integers(0, 15)) == 0:
        sizes[draw(st.sampled_from(labels))] = 0
    return sizes


@st.composite
def term_shape(draw, term: str, sizes: dict[str, int]) -> tuple[int, ...]:
    """The operand's shape, now and then with a label of extent one that broadcasts."""
    stretched = {c for c in term if draw(st.integers(0, 11)) == 0}
    return tuple(1 if c in stretched else sizes[c] for c in term)
