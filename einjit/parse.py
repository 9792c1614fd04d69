"""Equations, as strings or as lists of labels, to `Einsum`, by NumPy's rules.

Beyond NumPy, any letter of any script is a label, and lists may hold any hashable labels, however many.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Hashable, Sequence

from .einsum import Einsum, symbol
from .errors import ArgumentError, EquationError, OperandError

_ELLIPSIS = "..."


@dataclass(frozen=True)
class _Token:
    """A label or an ellipsis and where it stands."""

    label: str
    at: int

    @property
    def span(self) -> tuple[int, int]:
        return self.at, self.at + len(self.label)


def parse(text: str | bytes, ndims: tuple[int, ...]) -> Einsum:
    """The Einsum of an equation for operands of `ndims` dimensions. Raises `EquationError`, or `OperandError`
    where the number of operands or of their dimensions does not fit."""
    return _parse(text.decode("latin-1") if isinstance(text, bytes) else text, ndims)


@lru_cache(maxsize=4096)
def _parse(text: str, ndims: tuple[int, ...]) -> Einsum:
    terms, output = _tokens(text)
    if len(terms) != len(ndims):
        raise OperandError(f"the equation has {len(terms)} term{'s' * (len(terms) != 1)} and the call has "
                           f"{len(ndims)} operand{'s' * (len(ndims) != 1)}", text=text,
                           fix="give one comma-separated term for each operand")
    return _expand(text, terms, output, ndims)


# -- text -> tokens --------------------------------------------------------------------------------------

def _tokens(text: str) -> tuple[list[list[_Token]], list[_Token] | None]:
    left, arrow, right = text.partition("->")
    if arrow and (extra := right.find("->")) >= 0:
        at = len(left) + 2 + extra
        raise EquationError("the equation has more than one arrow", text=text, at=(at, at + 2), fix="keep one '->'")
    terms, start = [], 0
    for part in left.split(","):
        terms.append(_term(text, part, start))
        start += len(part) + 1
    output = _term(text, right, len(left) + 2) if arrow else None
    return terms, output


def _term(text: str, part: str, start: int) -> list[_Token]:
    tokens, i = [], 0
    while i < len(part):
        c, at = part[i], start + i
        if c == " ":
            i += 1
        elif c.isalpha():
            tokens.append(_Token(c, at))
            i += 1
        elif part.startswith(_ELLIPSIS, i):
            if any(t.label == _ELLIPSIS for t in tokens):
                raise EquationError("a term has more than one ellipsis", text=text, at=(at, at + 3), fix="keep one '...'")
            tokens.append(_Token(_ELLIPSIS, at))
            i += 3
        else:
            raise EquationError(_bad_character(c), text=text, at=(at, at + 1))
    return tokens


def _bad_character(c: str) -> str:
    if c == ".":
        return "a dot that is not part of an ellipsis '...'"
    if c in "->":
        return f"{c!r} is not part of an arrow '->'"
    if c == ",":
        return "the output has more than one term"
    return f"{c!r} is not a label: labels are letters"


# -- lists of labels -> tokens ---------------------------------------------------------------------------

def split_sublists(args: Sequence[Any]) -> tuple[list[Any], tuple[tuple[Any, ...], ...], tuple[Any, ...] | None]:
    """einsum(a, [0, 1], b, [1, 2], [0, 2]) -> operands, their label lists, the output's list or None."""
    operands = list(args[:len(args) // 2 * 2:2])
    lists = [_label_list(x) for x in args[1::2]]
    output = _label_list(args[-1]) if len(args) % 2 else None
    if not operands:
        raise OperandError("no operands: give arrays, each followed by its list of labels")
    return operands, tuple(lists), output


def _label_list(x: Any) -> tuple[Any, ...]:
    try:
        return tuple(x)
    except TypeError:
        raise ArgumentError(f"{x!r} is not a list of labels",
                           fix="give an equation string first, or each operand followed by a list of labels") from None


def parse_labels(inputs: Sequence[Sequence[Hashable]], output: Sequence[Hashable] | None,
                 ndims: tuple[int, ...]) -> tuple[str, Einsum]:
    """The equation that stands for lists of labels, as text, and its Einsum."""
    names = _names(inputs, output)

    def written(labels) -> str:
        return "".join(_ELLIPSIS if x is Ellipsis else names[x] for x in labels)

    text = ",".join(written(labels) for labels in inputs)
    if output is not None:
        text += "->" + written(output)
    return text, parse(text, ndims)


def check_numpy_range(inputs, output) -> None:
    """Raise `EquationError` for integer labels that NumPy's einsum without `optimize` refuses."""
    for x in (label for labels in (*inputs, output or ()) for label in labels):
        if isinstance(x, int) and not 0 <= x < 52:
            raise EquationError(f"label {x} is not in [0, 52), which optimize=False asks of integer labels, as in NumPy",
                                fix="leave optimize out: then any hashable label will do")


def _names(inputs, output) -> dict[Hashable, str]:
    """A symbol for each label, in the labels' own order where they have one: the implied output is sorted."""
    found = list(dict.fromkeys(x for labels in (*inputs, output or ()) for x in labels if x is not Ellipsis))
    try:
        found.sort()
    except TypeError:
        pass
    # NumPy's letters sort upper case first.
    ordered = sorted(symbol(i) for i in range(max(52, len(found))))
    if all(isinstance(x, int) and 0 <= x < 52 for x in found):
        return {x: ordered[x] for x in found}
    return dict(zip(found, ordered))


# -- tokens -> Einsum ------------------------------------------------------------------------------------

def _expand(text: str, terms, output, ndims) -> Einsum:
    extra = [_ellipsis_dims(text, i, term, n) for i, (term, n) in enumerate(zip(terms, ndims))]
    width = max((e for e in extra if e is not None), default=0)
    used = {t.label for term in terms for t in term}
    free = iter(x for x in map(symbol, range(len(used) + width + 52)) if x not in used)
    broadcast = tuple(next(free) for _ in range(width))

    def labels(term, dims: int | None) -> tuple[str, ...]:
        return tuple(x for t in term for x in (
            (broadcast[width - (dims or 0):]) if t.label == _ELLIPSIS else (t.label,)))

    inputs = tuple(labels(term, dims) for term, dims in zip(terms, extra))
    if output is None:
        return Einsum(inputs, broadcast + _implied(terms))
    _check_output(text, terms, output, width)
    return Einsum(inputs, labels(output, width))


def _ellipsis_dims(text: str, i: int, term: list[_Token], ndim: int) -> int | None:
    """How many dimensions a term's ellipsis stands for; None if it has none."""
    named = sum(t.label != _ELLIPSIS for t in term)
    span = (term[0].at, term[-1].span[1]) if term else None
    if named == len(term):
        if named != ndim:
            raise OperandError(f"operand {i} has {ndim} dimension{'s' * (ndim != 1)} and its term has "
                               f"{named} label{'s' * (named != 1)}", text=text, at=span,
                               fix="give one label for each dimension, or '...' for the rest")
        return None
    if named > ndim:
        raise OperandError(f"operand {i} has {ndim} dimension{'s' * (ndim != 1)}, fewer than the "
                           f"{named} labels of its term", text=text, at=span)
    return ndim - named


def _implied(terms) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    for term in terms:
        for t in term:
            if t.label != _ELLIPSIS:
                counts[t.label] = counts.get(t.label, 0) + 1
    return tuple(sorted(label for label, n in counts.items() if n == 1))


def _check_output(text: str, terms, output: list[_Token], width: int) -> None:
    known = {t.label for term in terms for t in term}
    seen = set()
    for t in output:
        if t.label in seen:
            raise EquationError(f"output label '{t.label}' is repeated", text=text, at=t.span, fix="name each output label once")
        if t.label not in known and t.label != _ELLIPSIS:
            raise EquationError(f"output label '{t.label}' does not appear in any operand", text=text, at=t.span)
        seen.add(t.label)
    if width and _ELLIPSIS not in seen:
        raise EquationError("an operand's ellipsis stands for dimensions that the output has no ellipsis for", text=text,
                            at=(text.index("->") + 2, len(text)), fix="add '...' to the output, or label the dimensions to sum")
