"""An equation as it is written: its labels and ellipses with their places, before any operand is known."""
from __future__ import annotations

from dataclasses import dataclass

from .errors import EquationError, Span

ELLIPSIS = "..."


@dataclass(frozen=True)
class Token:
    """A label or an ellipsis, and where it stands in the text."""

    label: str
    at: int

    @property
    def span(self) -> Span:
        return self.at, self.at + len(self.label)


@dataclass(frozen=True)
class Term:
    """One operand's or the output's tokens; `span` is what stands between the commas, spaces included."""

    tokens: tuple[Token, ...]
    span: Span

    @property
    def named(self) -> tuple[Token, ...]:
        return tuple(t for t in self.tokens if t.label != ELLIPSIS)

    @property
    def has_ellipsis(self) -> bool:
        return any(t.label == ELLIPSIS for t in self.tokens)

    def axis(self, axis: int, ndim: int) -> Token:
        """The token that stands for an axis of an array of `ndim` dimensions."""
        before = next((i for i, t in enumerate(self.tokens) if t.label == ELLIPSIS), ndim)
        if axis < before:
            return self.tokens[axis]
        behind = len(self.tokens) - before - 1
        return self.tokens[axis - ndim] if axis >= ndim - behind else self.tokens[before]


@dataclass(frozen=True)
class Written:
    """`output` is None where the equation has no arrow."""

    text: str
    inputs: tuple[Term, ...]
    output: Term | None

    def operand_span(self, operand: int) -> Span:
        """Where an operand's term stands; the end of the operands' terms if there is none for it."""
        if operand >= len(self.inputs):
            return self.operands_span(operand)
        return _without_spaces(self.text, *self.inputs[operand].span)

    def operands_span(self, first: int = 0) -> Span:
        """Where the operands' terms stand, from the `first` on."""
        end = self.inputs[-1].span[1]
        start = self.inputs[first].span[0] if first < len(self.inputs) else end
        return _without_spaces(self.text, start, end)

    @property
    def output_span(self) -> Span:
        """Where the output's term stands: at the end of the text if it is implied."""
        end = len(self.text)
        return _without_spaces(self.text, *(self.output.span if self.output else (end, end)))


def _without_spaces(text: str, start: int, stop: int) -> Span:
    part = text[start:stop]
    blank = len(part) - len(part.lstrip())
    return (start + blank, start + len(part.rstrip())) if part.strip() else (stop, stop)


def tokenize(text: str) -> Written:
    """Split an equation. Spaces mean nothing, except inside '->' and '...', where they may not stand.

    Raises `EquationError` for a character that is no letter, a second arrow, stray dots.
    """
    left, arrow, right = text.partition("->")
    second = right.find("->")
    if second >= 0:
        at = len(left) + 2 + second
        raise EquationError("the equation has two arrows", text=text, at=(at, at + 2), fix="keep one '->'")
    terms, start = [], 0
    for part in left.split(","):
        terms.append(_term(text, start, start + len(part)))
        start += len(part) + 1
    output = _term(text, len(left) + 2, len(text)) if arrow else None
    return Written(text, tuple(terms), output)


def _term(text: str, start: int, stop: int) -> Term:
    tokens: list[Token] = []
    at = start
    while at < stop:
        c = text[at]
        if c.isalpha():
            tokens.append(Token(c, at))
        elif text.startswith(ELLIPSIS, at, stop):
            if any(t.label == ELLIPSIS for t in tokens):
                raise EquationError("a term has two ellipses", text=text, at=(at, at + 3),
                                    fix="keep one '...'")
            tokens.append(Token(ELLIPSIS, at))
            at += len(ELLIPSIS) - 1
        elif c != " ":
            raise _bad_character(text, at)
        at += 1
    return Term(tuple(tokens), (start, stop))


def _bad_character(text: str, at: int) -> EquationError:
    c = text[at]
    sentence, fix = f"{c!r} is not a label", "use letters for labels"
    if c == ".":
        sentence, fix = "a dot is not part of an ellipsis", "write an ellipsis as '...', without spaces"
    elif c in "->":
        sentence, fix = f"{c!r} is not part of an arrow", "write the arrow as '->', once and without spaces"
    elif c == ",":
        sentence, fix = "the output has more than one term", "put commas between operands only, before '->'"
    return EquationError(sentence, text=text, at=(at, at + 1), fix=fix)
