"""`Einsum`: the value that everything starts from."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Sequence

from .errors import ShapeError


@dataclass(frozen=True)
class Einsum:
    """Labels of each operand and of the output, ellipses expanded. Labels are strings; those that parsed
    equations and ellipses give are single characters, so that `str()` is an equation again."""

    inputs: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All labels in the order of their first appearance."""
        return tuple(dict.fromkeys(label for term in self.inputs for label in term))

    @cached_property
    def summed(self) -> tuple[str, ...]:
        """The labels that the output does not have."""
        return tuple(label for label in self.labels if label not in self.output)

    def canonical(self) -> Einsum:
        """With labels renamed a, b, c ... in the order of their first appearance."""
        names = {label: symbol(i) for i, label in enumerate(self.labels)}
        return Einsum(tuple(tuple(names[x] for x in term) for term in self.inputs), tuple(names[x] for x in self.output))

    def __str__(self) -> str:
        return ",".join("".join(term) for term in self.inputs) + "->" + "".join(self.output)


def symbol(i: int) -> str:
    """The i-th label: a ... z, A ... Z, then letters beyond ASCII."""
    if i < 26:
        return chr(ord("a") + i)
    if i < 52:
        return chr(ord("A") + i - 26)
    # From 0x100 on, past the surrogates, which are no characters.
    code = 0x100 + i - 52
    return chr(code if code < 0xD800 else code + 0x800)


def sizes_of(einsum: Einsum, shapes: Sequence[tuple[int, ...]], text: str) -> dict[str, int]:
    """The size of each label; an axis of size 1 stretches to the size that the label has elsewhere.

    Raises `ShapeError` where two sizes clash. Within one operand a repeated label's sizes must be equal.
    """
    sizes: dict[str, int] = {}
    seen: dict[str, int] = {}
    for i, (term, shape) in enumerate(zip(einsum.inputs, shapes)):
        own: dict[str, int] = {}
        for label, n in zip(term, shape):
            if own.setdefault(label, n) != n:
                raise ShapeError(f"label '{label}' is repeated in operand {i} with sizes {own[label]} and {n}",
                                 text=text, at=_place(text, i, label), shapes=shapes,
                                 fix="a diagonal needs axes of one size")
        for label, n in own.items():
            have = sizes.setdefault(label, n)
            if have == n or n == 1:
                seen.setdefault(label, i)
                continue
            if have != 1:
                raise ShapeError(f"label '{label}' has size {have} in operand {seen[label]} and size {n} in operand {i}",
                                 text=text, at=_place(text, i, label), shapes=shapes)
            sizes[label], seen[label] = n, i
    return sizes


def _place(text: str, operand: int, label: str) -> tuple[int, int] | None:
    """Where a label of an operand stands in the equation's text, if it stands there."""
    start = 0
    for _ in range(operand):
        start = text.find(",", start) + 1
        if not start:
            return None
    end = min((x for x in (text.find(",", start), text.find("->", start)) if x >= 0), default=len(text))
    at = text.find(label, start, end)
    return (at, at + 1) if at >= 0 else None
