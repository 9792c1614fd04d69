"""Errors that say what is wrong, where, and what to do.

    einjit.errors.EquationError: output label 'k' does not appear in any operand
      ij->k
          ^
      shapes: (2, 3)
      fix: use one of i, j
"""
from __future__ import annotations

from typing import Sequence


class EinjitError(Exception):
    """Base of all of einjit's errors.

    `sentence`: what is wrong. `text`: the equation, with carets under the span `at`. `shapes`: of the
    operands. `fix`: what the caller may do.
    """

    def __init__(self, sentence: str, *, text: str | None = None, at: tuple[int, int] | None = None,
                 shapes: Sequence[tuple[int, ...]] | None = None, fix: str | None = None):
        self.sentence, self.text, self.at, self.shapes, self.fix = sentence, text, at, shapes, fix
        super().__init__(_render(sentence, text, at, shapes, fix))


def _render(sentence, text, at, shapes, fix) -> str:
    lines = [sentence]
    if text is not None:
        lines.append(f"  {text}")
        if at is not None:
            lines.append("  " + caret(*at))
    if shapes is not None:
        lines.append("  shapes: " + " ".join(str(tuple(s)) for s in shapes))
    if fix:
        lines.append(f"  fix: {fix}")
    return "\n".join(lines)


def caret(start: int, stop: int) -> str:
    """Carets under text[start:stop]; at least one."""
    return " " * start + "^" * max(1, stop - start)


class EquationError(EinjitError, ValueError):
    """The equation is not one."""


class ShapeError(EinjitError, ValueError):
    """The operands' shapes do not fit the equation."""


class OperandError(EinjitError, ValueError):
    """The operands, or `out`, are not what the equation needs."""


class PathError(EinjitError, RuntimeError):
    """An explicit contraction path that does not fit the operands. (NumPy raises a RuntimeError.)"""


class ArgumentError(EinjitError, TypeError):
    """An argument is of a type that means nothing here."""


class DtypeError(EinjitError, TypeError):
    """A dtype that cannot be cast as asked, or that cannot be computed with."""


class ScheduleError(EinjitError, ValueError):
    """A transformation that is not legal, with its reason."""
