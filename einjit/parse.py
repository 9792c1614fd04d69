"""Equations, as strings or as lists of labels, to `Einsum`, by NumPy's rules.

Beyond NumPy, any letter of any script is a label, and lists may hold any hashable labels, however many.
"""
from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import count, islice
from numbers import Integral
from typing import Any, Hashable, Mapping, Sequence

from .einsum import Einsum, symbol
from .errors import ArgumentError, EinjitError, EquationError, OperandError
from .tokens import ELLIPSIS, Term, Token, Written, tokenize

Labels = Sequence[Hashable]     # one list of the sublist form; `...` is Python's Ellipsis


def parse(text: str | bytes, ndims: tuple[int, ...]) -> Einsum:
    """The Einsum of an equation for operands of `ndims` dimensions.

    Raises `EquationError`, or `OperandError` where the number of operands or of their dimensions does not
    fit.
    """
    return _parse(text if isinstance(text, str) else text.decode(errors="replace"), ndims)


def parse_for(text: str | bytes, shapes: Sequence[tuple[int, ...]]) -> Einsum:
    """`parse` for operands of these shapes, which its errors then show."""
    try:
        return parse(text, tuple(map(len, shapes)))
    except EinjitError as error:
        raise error.with_parts(shapes=shapes) from None


@lru_cache(maxsize=4096)
def _parse(text: str, ndims: tuple[int, ...]) -> Einsum:
    written = tokenize(text)
    _check_count(written, len(ndims))
    dims = [_ellipsis_dims(text, i, term, n) for i, (term, n) in enumerate(zip(written.inputs, ndims))]
    width = max(dims, default=0)
    stretched = _unused(written, width)
    inputs = tuple(_expand(term, stretched[width - n:]) for term, n in zip(written.inputs, dims))
    if written.output is None:
        return Einsum(inputs, stretched + _implied(t.label for term in written.inputs for t in term.named))
    _check_output(written, width)
    return Einsum(inputs, _expand(written.output, stretched))


def _check_count(written: Written, operands: int) -> None:
    terms = written.inputs
    if len(terms) == operands:
        return
    raise OperandError(
        f"the equation has {_counted(len(terms), 'term')} and the call has {_counted(operands, 'operand')}",
        text=written.text, at=written.operands_span(operands),
        fix="give one term for each operand, with commas between them")


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _ellipsis_dims(text: str, operand: int, term: Term, ndim: int) -> int:
    """How many dimensions of an operand its term's ellipsis stands for; 0 without one."""
    extra = ndim - len(term.named)
    if extra and not (extra > 0 and term.has_ellipsis):
        fix = "remove labels" if extra < 0 else "give each dimension a label, or let '...' stand for the rest"
        labels = _counted(len(term.named), "label")
        raise OperandError(f"operand {operand} has {_counted(ndim, 'dimension')} and its term has {labels}",
                           text=text, at=term.span, fix=fix)
    return extra


def _unused(written: Written, n: int) -> tuple[str, ...]:
    """Labels for the dimensions of ellipses."""
    if n == 0:
        return ()
    used = {t.label for term in written.inputs for t in term.tokens}
    return tuple(islice((x for x in map(symbol, count()) if x not in used), n))


def _expand(term: Term, ellipsis: tuple[str, ...]) -> tuple[str, ...]:
    labels: list[str] = []
    for t in term.tokens:
        labels += ellipsis if t.label == ELLIPSIS else (t.label,)
    return tuple(labels)


def _implied(labels) -> tuple[str, ...]:
    """The output of an equation without one: the labels that appear once, upper case before lower."""
    return tuple(sorted(label for label, n in Counter(labels).items() if n == 1))


def _check_output(written: Written, width: int) -> None:
    known = {t.label for term in written.inputs for t in term.tokens} | {ELLIPSIS}
    seen: dict[str, Token] = {}
    for t in written.output.tokens:
        if t.label in seen:
            raise EquationError(f"output label '{t.label}' is repeated", text=written.text,
                                at=[seen[t.label].span, t.span], fix="name each output label once")
        if t.label not in known:
            raise EquationError(f"output label '{t.label}' does not appear in any operand",
                                text=written.text, at=t.span, fix=_known(known - {ELLIPSIS}))
        seen[t.label] = t
    if width and not written.output.has_ellipsis:
        start, stop = written.output.span
        fixed = f"{written.text[:start]}...{written.text[start:].strip()}"
        raise EquationError(
            f"the ellipsis stands for {_counted(width, 'dimension')}, and the output has no ellipsis",
            text=written.text, at=(start, stop),
            fix=f"write '{fixed}' to keep them, or give them labels to sum over them")


def _known(labels: set[str]) -> str | None:
    shown = sorted(labels)[:20]
    return f"use one of {', '.join(shown)}{' ...' * (len(shown) < len(labels))}" if shown else None


# -- lists of labels -------------------------------------------------------------------------------------

def split_sublists(
    args: Sequence[Any],
) -> tuple[list[Any], tuple[tuple[Any, ...], ...], tuple[Any, ...] | None]:
    """einsum(a, [0, 1], b, [1, 2], [0, 2]) -> operands, their label lists, the output's list or None.

    Raises `OperandError` without any operand, `ArgumentError` for what is no list of hashable labels.
    """
    operands = list(args[:len(args) // 2 * 2:2])
    if not operands:
        raise OperandError("there is no operand",
                           fix="give an equation and its operands")
    lists = tuple(_label_list(x) for x in args[1::2])
    return operands, lists, _label_list(args[-1]) if len(args) % 2 else None


def _label_list(labels: Any) -> tuple[Any, ...]:
    fix = "give an equation first, or a list of labels after each operand"
    if isinstance(labels, str) and not labels.isalpha():
        raise ArgumentError(f"{labels!r} stands where a list of labels should", fix=fix)
    try:
        found = tuple(labels)
    except TypeError:
        raise ArgumentError(f"a value of type {type(labels).__name__} stands where a list of labels should",
                            fix=fix) from None
    for label in found:
        try:
            hash(label)
        except TypeError:
            raise ArgumentError(f"a label of type {type(label).__name__} is not hashable", fix=fix) from None
    return found


def parse_labels(
    inputs: Sequence[Labels], output: Labels | None, ndims: tuple[int, ...],
) -> tuple[str, Einsum]:
    """The equation that stands for lists of labels, as text that always has an arrow, and its Einsum.

    Integer labels become the letters that NumPy gives them. The implied output has the labels in their own
    order, numbers by value; labels that cannot be compared, in the order of their appearance. Raises what
    `parse` raises.
    """
    ordered = _in_order(x for labels in (*inputs, output or ()) for x in labels if x is not Ellipsis)
    names = _letters(ordered)
    if output is None:
        counts = Counter(x for labels in inputs for x in labels)
        output = (*[Ellipsis][:counts[Ellipsis]], *(x for x in ordered if counts[x] == 1))
    text = ",".join(_text(labels, names) for labels in inputs) + "->" + _text(output, names)
    try:
        return text, parse(text, ndims)
    except (EquationError, OperandError) as error:
        raise error.with_parts(note=_legend(names)) from None


def _in_order(labels) -> list[Hashable]:
    distinct = list(dict.fromkeys(labels))
    try:
        return sorted(distinct)
    except TypeError:
        return distinct


def _letters(labels: Sequence[Hashable]) -> dict[Hashable, str]:
    """A letter for each label: NumPy's for 0 to 51, a letter for itself, for others some that are left."""
    names = {x: letter for x in labels if (letter := _own_letter(x))}
    # 1 and 'B' would both be B.
    if len(set(names.values())) < len(names):
        names = {}
    taken = set(names.values())
    free = (x for x in map(symbol, count()) if x not in taken)
    return {x: names.get(x) or next(free) for x in labels}


def _own_letter(label: Hashable) -> str:
    if isinstance(label, str):
        return label if len(label) == 1 and label.isalpha() else ""
    try:
        number = range(52).index(label)
    except ValueError:
        return ""
    return chr(ord("A") + number) if number < 26 else chr(ord("a") + number - 26)


def _text(labels: Labels, names: Mapping[Hashable, str]) -> str:
    return "".join(ELLIPSIS if x is Ellipsis else names[x] for x in labels)


def _legend(names: Mapping[Hashable, str]) -> str | None:
    others = [f"{letter} is {label!r}" for label, letter in names.items() if label != letter]
    return ", ".join(others[:20]) + " ..." * (len(others) > 20) or None


def check_numpy_range(inputs: Sequence[Labels], output: Labels | None) -> None:
    """Raise `EquationError` for integer labels that NumPy's einsum without `optimize` refuses."""
    for label in (x for labels in (*inputs, output or ()) for x in labels):
        if isinstance(label, Integral) and not 0 <= label < 52:
            raise EquationError(
                f"label {label} is not in [0, 52), which optimize=False asks of integer labels, as in NumPy",
                fix="leave optimize out: then any hashable label will do")
