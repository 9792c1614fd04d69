"""`Einsum` as a value: its labels, canonical names, printing; and sizes that clash, by their whole texts."""

from __future__ import annotations

import numpy as np
import pytest

from einjit.einsum import Einsum, sizes_of, symbol
from einjit.errors import ShapeError
from einjit.parse import parse

_numpy_einsum = np.einsum


def test_labels_come_in_the_order_of_their_appearance():
    einsum = parse("jk,ij,ii->ik", (2, 2, 2))
    assert einsum.labels == ("j", "k", "i")
    assert einsum.summed == ("j",)


def test_it_prints_as_an_equation():
    assert str(Einsum((("i", "j"), ()), ("j",))) == "ij,->j"


def test_canonical_names_depend_on_the_pattern_alone():
    assert str(parse("zy,yx->zx", (2, 2)).canonical()) == "ab,bc->ac"
    assert parse("qp,pq->", (2, 2)).canonical() == parse("ij,ji->", (2, 2)).canonical()


def test_equal_equations_are_one_key():
    assert len({parse("ij->j", (2,)), parse(" i j -> j", (2,)), Einsum((("i", "j"),), ("j",))}) == 1


def test_symbols_are_letters_that_stay_apart():
    found = [symbol(i) for i in range(5000)]
    assert "".join(found[:52]) == "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert all(len(s) == 1 and s.isalpha() for s in found)
    assert found[52:] == sorted(found[52:])
    # As names of a Python program too, which reads some letters as others.
    scope: dict = {}
    exec("\n".join(f"{s} = {i}" for i, s in enumerate(found)), scope)
    assert [scope[s] for s in found] == list(range(5000))


@pytest.mark.parametrize("equation, shapes, expected", [
    ("ij,jk->ik", [(2, 3), (3, 4)], {"i": 2, "j": 3, "k": 4}),
    ("ij,jk->ik", [(2, 1), (3, 4)], {"i": 2, "j": 3, "k": 4}),
    ("ij,jk->ik", [(2, 3), (1, 4)], {"i": 2, "j": 3, "k": 4}),
    ("i,i,i->i", [(1,), (5,), (1,)], {"i": 5}),
    ("i,i->i", [(1,), (0,)], {"i": 0}),
    ("ii,i->i", [(1, 1), (3,)], {"i": 3}),
    ("...,...->...", [(4, 1), (3,)], {"a": 4, "b": 3}),
    (",->", [(), ()], {}),
])
def test_sizes(equation, shapes, expected):
    einsum = parse(equation, tuple(map(len, shapes)))
    assert sizes_of(einsum, shapes, equation) == expected


CLASHES = [
    ("ij,jk->ik", [(2, 3), (4, 5)],
     """label 'j' has size 3 in operand 0 (axis 1) and size 4 in operand 1 (axis 0)
  ij,jk->ik
   ^ ^
  shapes: (2, 3) (4, 5)
  fix: give 'j' one size everywhere; only size 1 stretches to another"""),
    # The size of 1 in operand 0 is not what clashes.
    ("i,i,i->", [(1,), (2,), (3,)],
     """label 'i' has size 2 in operand 1 (axis 0) and size 3 in operand 2 (axis 0)
  i,i,i->
    ^ ^
  shapes: (1,) (2,) (3,)
  fix: give 'i' one size everywhere; only size 1 stretches to another"""),
    (" i j, j k", [(2, 0), (3, 5)],
     """label 'j' has size 0 in operand 0 (axis 1) and size 3 in operand 1 (axis 0)
   i j, j k
     ^  ^
  shapes: (2, 0) (3, 5)
  fix: give 'j' one size everywhere; only size 1 stretches to another"""),
    ("iji->j", [(2, 3, 4)],
     """label 'i' is repeated in operand 0 with sizes 2 (axis 0) and 4 (axis 2)
  iji->j
  ^ ^
  shapes: (2, 3, 4)
  fix: a diagonal needs axes of equal sizes"""),
    ("k,i...i->k...", [(2,), (1, 5, 5, 3)],
     """label 'i' is repeated in operand 1 with sizes 1 (axis 0) and 3 (axis 3)
  k,i...i->k...
    ^   ^
  shapes: (2,) (1, 5, 5, 3)
  fix: a diagonal needs axes of equal sizes"""),
    ("i...j,...j->...", [(9, 2, 3, 4), (5, 3, 4)],
     """an axis of the ellipsis has size 2 in operand 0 (axis 1) and size 5 in operand 1 (axis 0)
  i...j,...j->...
   ^^^  ^^^
  shapes: (9, 2, 3, 4) (5, 3, 4)
  fix: ellipses are aligned from the right; only size 1 stretches to another"""),
    ("...j,j->...", [(9, 2, 3), (4,)],
     """label 'j' has size 3 in operand 0 (axis 2) and size 4 in operand 1 (axis 0)
  ...j,j->...
     ^ ^
  shapes: (9, 2, 3) (4,)
  fix: give 'j' one size everywhere; only size 1 stretches to another"""),
]


@pytest.mark.parametrize("equation, shapes, text", CLASHES, ids=[c[0] for c in CLASHES])
def test_clashing_sizes(equation, shapes, text):
    einsum = parse(equation, tuple(map(len, shapes)))
    with pytest.raises(ShapeError) as refusal:
        sizes_of(einsum, shapes, equation)
    assert str(refusal.value) == text
    with pytest.raises(ValueError):
        _numpy_einsum(equation, *map(np.ones, shapes))
