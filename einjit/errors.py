"""Errors that say what is wrong, where, and what to do.

    einjit.errors.ShapeError: label 'j' has size 3 in operand 0 (axis 1) and size 4 in operand 1 (axis 0)
      ij,jk->ik
       ^ ^
      shapes: (2, 3) (4, 5)
      fix: give 'j' one size everywhere; only size 1 stretches to another
"""
from __future__ import annotations

import unicodedata
from typing import Sequence

Span = tuple[int, int]

WIDTH = 100         # columns of an equation that are shown; longer ones are cut around the first caret
SHAPES = 12         # operands whose shapes are shown


class EinjitError(Exception):
    """Base of all of einjit's errors.

    `sentence`: what is wrong. `text`: the equation (or line of source), with carets under the span `at`, or
    under each of several spans. `shapes`: of the operands. `note`: what helps to read the text. `fix`: what
    the caller may do.
    """

    def __init__(
        self, sentence: str, *, text: str | None = None, at: Span | Sequence[Span] | None = None,
        shapes: Sequence[tuple[int, ...]] | None = None, note: str | None = None, fix: str | None = None,
    ):
        self.sentence, self.text, self.at = sentence, text, at
        self.shapes, self.note, self.fix = shapes, note, fix
        super().__init__("\n  ".join(_lines(sentence, text, _spans(at), shapes, note, fix)))

    # KeyError, which one of the classes below is too, would show its text's repr.
    __str__ = Exception.__str__

    def with_parts(self, **parts) -> EinjitError:
        """The same error with some of its parts (named as in `__init__`) put in or replaced."""
        have = {"text": self.text, "at": self.at, "shapes": self.shapes, "note": self.note, "fix": self.fix}
        return type(self)(self.sentence, **{**have, **parts})


def _spans(at: Span | Sequence[Span] | None) -> list[Span]:
    if not at:
        return []
    return [at] if isinstance(at[0], int) else list(at)


def _lines(sentence, text, spans, shapes, note, fix) -> list[str]:
    lines = [sentence]
    if text:
        shown, spans = _cut(text, spans)
        lines.append(shown)
        lines += [caret(shown, *spans)] if spans else []
    if shapes:
        more = f" ... ({len(shapes)} operands)" if len(shapes) > SHAPES else ""
        lines.append("shapes: " + " ".join(str(tuple(map(int, s))) for s in shapes[:SHAPES]) + more)
    lines += [f"note: {note}"] if note else []
    lines += [f"fix: {fix}"] if fix else []
    return lines


def _cut(text: str, spans: list[Span]) -> tuple[str, list[Span]]:
    """The part of a long text around the first span, without control characters, and the spans in it."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if len(shown) <= WIDTH:
        return shown, spans
    start = max(0, min(spans[0][0] - WIDTH // 2, len(shown) - WIDTH)) if spans else 0
    stop = start + WIDTH
    left, right = "... " * (start > 0), " ..." * (stop < len(shown))
    shift = len(left) - start
    inside = [(max(a, start) + shift, min(b, stop) + shift) for a, b in spans if a <= stop and b >= start]
    return left + shown[start:stop] + right, inside


def caret(text: str, *spans: Span) -> str:
    """Carets under text[start:stop] for each span, at least one a span; a span may stand behind the end."""
    marked = {i for start, stop in spans for i in range(start, max(stop, start + 1))}
    last = max(marked)
    columns = [_columns(c) for c in text.ljust(last + 1)]
    return "".join(("^" if i in marked else " ") * columns[i] for i in range(last + 1))


def _columns(c: str) -> int:
    """How many columns of a terminal a character takes."""
    if unicodedata.combining(c):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


class EquationError(EinjitError, ValueError):
    """The equation is not one."""


class BodyError(EquationError):
    """What a decorated function says cannot be compiled."""


class ShapeError(EinjitError, ValueError):
    """The operands' shapes do not fit the equation."""


class OperandError(EinjitError, ValueError):
    """The operands, or `out`, are not what the equation needs."""


class StrategyError(EinjitError, ValueError, KeyError):
    """`optimize` is no strategy's name. (NumPy raises a KeyError.)"""


class PathError(EinjitError, RuntimeError):
    """An explicit contraction path that does not fit the operands. (NumPy raises a RuntimeError.)"""


class ArgumentError(EinjitError, TypeError):
    """An argument is of a type that means nothing here."""


class DtypeError(EinjitError, TypeError):
    """A dtype that cannot be cast as asked, or that cannot be computed with."""


class ScheduleError(EinjitError, ValueError):
    """A transformation that is not legal, with its reason."""
