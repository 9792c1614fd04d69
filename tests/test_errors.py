"""How an error reads: the parts of its text, carets, and what is cut when it is long."""

from __future__ import annotations

import pickle

import pytest

from einjit import errors
from einjit.errors import EquationError, OperandError, ShapeError, StrategyError, caret


def test_all_parts():
    error = ShapeError("what is wrong", text="ij,jk->ik", at=[(1, 2), (3, 4)], shapes=((2, 3), (4, 5)),
                       note="how to read it", fix="what to do")
    assert str(error) == """what is wrong
  ij,jk->ik
   ^ ^
  shapes: (2, 3) (4, 5)
  note: how to read it
  fix: what to do"""


def test_one_span_and_no_more():
    assert str(EquationError("wrong", text="i%", at=(1, 2))) == "wrong\n  i%\n   ^"


def test_only_a_sentence():
    assert str(OperandError("wrong")) == "wrong"


def test_an_equation_without_a_place():
    assert str(OperandError("wrong", text="i->i", shapes=[(3,)])) == "wrong\n  i->i\n  shapes: (3,)"


def test_the_parts_can_be_read():
    error = ShapeError("wrong", text="i->i", at=(0, 1), shapes=[(3,)], fix="do")
    parts = (error.sentence, error.text, error.at, error.shapes, error.fix)
    assert parts == ("wrong", "i->i", (0, 1), [(3,)], "do")


@pytest.mark.parametrize("text, spans, expected", [
    ("abc", [(1, 3)], " ^^"),
    ("abc", [(0, 1), (2, 3)], "^ ^"),
    ("abc", [(3, 3)], "   ^"),
    ("", [(0, 0)], "^"),
    ("語字->x", [(1, 2)], "  ^^"),
    ("a\u0301b", [(2, 3)], " ^"),
])
def test_carets_stand_under_their_characters(text, spans, expected):
    assert caret(text, *spans) == expected


def test_control_characters_do_not_break_the_lines():
    assert str(EquationError("wrong", text="i\n\tj", at=(1, 2))) == "wrong\n  i\ufffd\ufffdj\n   ^"


def test_a_long_equation_is_cut_around_the_caret():
    text = ",".join(["ab"] * 100) + "->x"
    first, shown, carets = str(EquationError("wrong", text=text, at=(301, 302))).split("\n")
    assert shown.strip().startswith("... ") and shown.endswith("ab->x")
    assert shown[carets.index("^")] == "x"
    assert len(shown) < 110
    _, shown, carets = str(EquationError("wrong", text=text, at=[(4, 5), (298, 299)])).split("\n")
    assert shown.startswith("  ab,ab") and shown.endswith(" ...")
    assert carets == "      ^"


def test_many_shapes_are_counted():
    lines = str(ShapeError("wrong", shapes=[(2, i) for i in range(30)])).split("\n")
    assert lines[1].startswith("  shapes: (2, 0) (2, 1)") and lines[1].endswith("(2, 11) ... (30 operands)")


@pytest.mark.parametrize("name, builtin", [
    ("EquationError", ValueError), ("ShapeError", ValueError), ("OperandError", ValueError),
    ("ScheduleError", ValueError), ("DtypeError", TypeError), ("ArgumentError", TypeError),
    ("BodyError", ValueError), ("PathError", RuntimeError), ("StrategyError", ValueError),
    ("StrategyError", KeyError),
])
def test_each_class_is_also_what_numpy_raises(name, builtin):
    kind = getattr(errors, name)
    assert issubclass(kind, errors.EinjitError) and issubclass(kind, builtin)


def test_parts_can_be_put_in():
    error = StrategyError("wrong", fix="do").with_parts(text="i->i", at=(0, 1), shapes=[(3,)])
    assert type(error) is StrategyError
    assert str(error) == "wrong\n  i->i\n  ^\n  shapes: (3,)\n  fix: do"
    assert str(error.with_parts(shapes=[])) == "wrong\n  i->i\n  ^\n  fix: do"


def test_errors_travel_between_processes():
    error = ShapeError("wrong", text="i->i", at=(0, 1), shapes=[(3,)], fix="do")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.shapes == error.shapes and type(again) is ShapeError
