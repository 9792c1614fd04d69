"""`Einsum`: the value that everything starts from."""
from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cached_property, cache
from string import ascii_letters
from typing import Sequence

from .errors import ShapeError
from .tokens import ELLIPSIS, Token, tokenize


@dataclass(frozen=True)
class Einsum:
    """Labels of each operand and of the output, ellipses expanded.

    Labels are strings; those that the parser gives are single letters, so that `str()` is an equation again.
    """

    inputs: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All labels in the order of their first appearance."""
        return tuple(dict.fromkeys(label for term in self.inputs for label in term))

    @cached_property
    def summed(self) -> tuple[str, ...]:
        """The labels that the output does not have."""
        kept = set(self.output)
        return tuple(label for label in self.labels if label not in kept)

    def canonical(self) -> Einsum:
        """With labels renamed a, b, c ... in the order of their first appearance."""
        names = {label: symbol(i) for i, label in enumerate(self.labels)}
        return Einsum(tuple(tuple(names[x] for x in term) for term in self.inputs),
                      tuple(names[x] for x in self.output))

    def __str__(self) -> str:
        return ",".join("".join(term) for term in self.inputs) + "->" + "".join(self.output)


def symbol(i: int) -> str:
    """The i-th label: a ... z, A ... Z, then some 100,000 letters beyond ASCII, by their codes."""
    return ascii_letters[i] if i < 52 else _more_letters()[i - 52]


@cache
def _more_letters() -> tuple[str, ...]:
    """Letters that stay apart as Python names too: Python reads U+017F, say, as an s."""
    letters = filter(str.isalpha, map(chr, range(0xC0, 0x32000)))
    return tuple(c for c in letters if c.isidentifier() and unicodedata.normalize("NFKC", c) == c)


def sizes_of(einsum: Einsum, shapes: Sequence[tuple[int, ...]], text: str) -> dict[str, int]:
    """The size of each label; an axis of size 1 stretches to the size that the label has elsewhere.

    `text`: the equation that `einsum` was parsed from. Raises `ShapeError` where two sizes clash. A label
    that is repeated within one operand must have equal sizes there, as in NumPy: 1 does not stretch.
    """
    sizes: dict[str, int] = {}
    first: dict[str, tuple[int, int]] = {}      # operand and axis that a size comes from
    for operand, (term, shape) in enumerate(zip(einsum.inputs, shapes)):
        own: dict[str, int] = {}
        for axis, (label, n) in enumerate(zip(term, shape)):
            if own.setdefault(label, n) != n:
                raise _diagonal_clash(text, shapes, operand, (term.index(label), axis))
            have = sizes.setdefault(label, n)
            if have == n or n == 1:
                first.setdefault(label, (operand, axis))
            elif have == 1:
                sizes[label], first[label] = n, (operand, axis)
            else:
                raise _clash(text, shapes, first[label], (operand, axis))
    return sizes


def _diagonal_clash(text, shapes, operand: int, axes: tuple[int, int]) -> ShapeError:
    tokens = [_token(text, shapes, operand, axis) for axis in axes]
    sizes = [f"{shapes[operand][axis]} (axis {axis})" for axis in axes]
    return ShapeError(
        f"label '{tokens[0].label}' is repeated in operand {operand} with sizes {sizes[0]} and {sizes[1]}",
        text=text, at=[t.span for t in tokens], shapes=shapes, fix="a diagonal needs axes of equal sizes")


def _clash(text, shapes, one: tuple[int, int], other: tuple[int, int]) -> ShapeError:
    tokens = [_token(text, shapes, *place) for place in (one, other)]
    sizes = [f"size {shapes[i][axis]} in operand {i} (axis {axis})" for i, axis in (one, other)]
    what = f"label '{tokens[0].label}'"
    fix = f"give '{tokens[0].label}' one size everywhere; only size 1 stretches to another"
    if tokens[0].label == ELLIPSIS:
        what = "an axis of the ellipsis"
        fix = "ellipses are aligned from the right; only size 1 stretches to another"
    return ShapeError(f"{what} has {sizes[0]} and {sizes[1]}", text=text, at=[t.span for t in tokens],
                      shapes=shapes, fix=fix)


def _token(text: str, shapes, operand: int, axis: int) -> Token:
    """What the equation says of an operand's axis."""
    return tokenize(text).inputs[operand].axis(axis, len(shapes[operand]))
