"""The parser against NumPy's own results, and every refusal by its whole text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einjit.einsum import sizes_of
from einjit.errors import ArgumentError, EinjitError, EquationError, OperandError
from einjit.parse import check_numpy_range, parse, parse_labels, split_sublists
from einjit.tokens import tokenize
from tests.equations import CASES

_numpy_einsum = np.einsum


def shape_of(equation, *shapes) -> tuple[int, ...]:
    """The shape of the result, as the parser and the sizes have it."""
    einsum = parse(equation, tuple(map(len, shapes)))
    text = equation if isinstance(equation, str) else equation.decode()
    sizes = sizes_of(einsum, shapes, text)
    return tuple(sizes[label] for label in einsum.output)


ACCEPTED = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ba", (2, 3)),
    ("aB", (2, 3)),
    ("ii", (3, 3)),
    ("iij", (3, 3, 4)),
    ("ijji->ij", (2, 3, 3, 2)),
    ("", ()),
    ("->", ()),
    (",", (), ()),
    (",->", (), ()),
    (",i->i", (), (3,)),
    ("i,", (3,), ()),
    ("i->", (3,)),
    ("...", (2, 3)),
    ("...", ()),
    ("...->...", (2, 3)),
    ("i...", (2, 3, 4)),
    ("i...->...i", (2, 3, 4)),
    ("...i->...i", (2, 3, 4)),
    ("i...j->ji...", (2, 3, 4, 5)),
    ("i...j", (2, 3)),
    ("i...->i", (2,)),
    ("i->...i", (3,)),
    ("i,j->i...j", (3,), (2,)),
    ("...ij,...jk->...ik", (5, 2, 3), (7, 5, 3, 4)),
    ("...ij,...jk->ik...", (1, 2, 3), (5, 3, 4)),
    ("i...,...i->...", (3, 5), (4, 5, 3)),
    ("...,...->...", (3, 1, 4), (2, 1)),
    ("...,->...", (2, 3), ()),
    (" i j , j k -> i k ", (2, 3), (3, 4)),
    (" i ... j -> j ... ", (2, 3, 4)),
    ("  ->  ", ()),
    (" , i", (), (2,)),
    ("ij,ij->ij", (1, 3), (2, 1)),
    ("ij,jk->ik", (2, 1), (3, 4)),
    ("i,i->i", (1,), (0,)),
    ("ii,i->i", (1, 1), (3,)),
    ("ij->ji", (0, 3)),
    (b"ij,jk->ik", (2, 3), (3, 4)),
    (b"", ()),
]


@pytest.mark.parametrize("case", ACCEPTED, ids=[repr(e) for e, *_ in ACCEPTED])
def test_shapes_are_numpys(case):
    equation, *shapes = case
    assert shape_of(equation, *shapes) == _numpy_einsum(equation, *map(np.ones, shapes)).shape


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_of_cases(case):
    expected = _numpy_einsum(case.equation, *map(np.ones, case.shapes)).shape
    assert shape_of(case.equation, *case.shapes) == expected


PIECES = st.sampled_from(["i", "j", "A", " ", ",", "...", "->", ".", "-", ">", "i", "j", ","])


@given(st.data())
def test_random_text_is_taken_and_refused_as_numpy_does(data):
    equation = "".join(data.draw(st.lists(PIECES, max_size=9)))
    count = equation.partition("->")[0].count(",") + 1
    shapes = [tuple(data.draw(st.lists(st.integers(1, 3), max_size=3))) for _ in range(count)]
    try:
        expected = _numpy_einsum(equation, *map(np.ones, shapes)).shape
    except ValueError:
        expected = None
    try:
        actual = shape_of(equation, *shapes)
    except ValueError as error:
        assert isinstance(error, EinjitError)
        actual = None
    assert actual == expected


@pytest.mark.parametrize("equation, ndims, expected", [
    ("ij,jk", (2, 2), "ij,jk->ik"),
    ("bA", (2,), "bA->Ab"),
    ("iji", (3,), "iji->j"),
    ("a...c", (4,), "abdc->bdac"),
    ("...a,a...", (3, 2), "bca,ac->bc"),
    ("...", (0,), "->"),
    ("αβ,βγ->αγ", (2, 2), "αβ,βγ->αγ"),
    ("語字->字語", (2,), "語字->字語"),
])
def test_what_is_parsed(equation, ndims, expected):
    assert str(parse(equation, ndims)) == expected


@st.composite
def equations(draw) -> tuple[str, tuple[int, ...]]:
    """An equation that is right, and its operands' numbers of dimensions."""
    labels = draw(st.lists(st.sampled_from("ijkXYäß語"), min_size=1, max_size=5, unique=True))
    terms, ndims = [], []
    for _ in range(draw(st.integers(1, 4))):
        term = draw(st.lists(st.sampled_from(labels), max_size=4))
        extra = draw(st.integers(-1, 2))
        ndims.append(len(term) + max(extra, 0))
        if extra >= 0:
            term.insert(draw(st.integers(0, len(term))), "...")
        terms.append(term)
    space = draw(st.sampled_from(["", " "]))
    text = ",".join(space.join(term) for term in terms)
    if draw(st.booleans()):
        used = sorted({x for term in terms for x in term})
        output = draw(st.permutations(used))[:draw(st.integers(0, len(used)))]
        text += f"{space}->{space}" + space.join([*output, *(["..."] if "..." not in output else [])])
    return text, tuple(ndims)


@given(equations())
def test_what_prints_parses_to_the_same(problem):
    einsum = parse(*problem)
    assert parse(str(einsum), tuple(map(len, einsum.inputs))) == einsum


def test_more_labels_than_numpy_has():
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 100)]
    einsum = parse(",".join(letters), (1,) * 100)
    assert einsum.output == tuple(letters)


# -- lists of labels -------------------------------------------------------------------------------------

def listed(*args):
    operands, inputs, output = split_sublists(args)
    text, einsum = parse_labels(inputs, output, tuple(np.ndim(x) for x in operands))
    sizes = sizes_of(einsum, [np.shape(x) for x in operands], text)
    return text, tuple(sizes[label] for label in einsum.output)


M23, M34, T = np.ones((2, 3)), np.ones((3, 4)), np.ones((2, 3, 4))

LISTS = [
    (M23, [0, 1], M34, [1, 2], [0, 2]),
    (M23, [0, 1], M34, [1, 2]),
    (M23, [1, 0]),
    (M23, [1, 27]),
    (M23, [27, 1]),
    (M23, [51, 0], []),
    (M23, (1, 0), (0, 1)),
    (M23, range(2)),
    (M23, np.array([1, 0])),
    (M23, [np.int8(1), np.uint8(0)]),
    (T, [0, ...]),
    (T, [..., 0]),
    (T, [..., 0], [0, ...]),
    (T, [1, ..., 0], [..., 0, 1]),
    (M23, [..., 0], np.ones((5, 2, 3)), [..., 0], [...]),
    (M23, [0, 1], [..., 0, 1]),
    (1.0, []),
    (1.0, [], 2.0, [], []),
]


@pytest.mark.parametrize("args", LISTS, ids=lambda args: repr(args[1::2]))
def test_lists_of_integers_are_numpys(args):
    assert listed(*args)[1] == _numpy_einsum(*args).shape


@pytest.mark.parametrize("args, text, shape", [
    ((M23, ["row", "col"], M34, ["col", "x"], ["x", "row"]), "ba,ax->xb", (4, 2)),
    ((M23, ["row", "col"]), "ba->ab", (3, 2)),
    ((M23, ["j", "i"]), "ji->ij", (3, 2)),
    ((M23, "ji"), "ji->ij", (3, 2)),
    ((M23, ["j", "col"]), "ja->aj", (3, 2)),
    ((M23, [100, 99]), "ba->ab", (3, 2)),
    ((M23, [10, 9]), "KJ->JK", (3, 2)),
    ((M23, [-1, 0]), "aA->aA", (2, 3)),
    ((M23, [("b", 1), ("a", 2)]), "ba->ab", (3, 2)),
    ((M23, [1j, None]), "ab->ab", (2, 3)),
    ((M23, ["x", 0]), "xA->xA", (2, 3)),
    ((M23, ["B", 1]), "ab->ab", (2, 3)),
    ((M34, [frozenset("a"), 2], M23, [0, frozenset("a")], [0, 2]), "aC,Aa->AC", (2, 4)),
], ids=lambda x: x if isinstance(x, str) else "")
def test_any_hashable_is_a_label(args, text, shape):
    assert listed(*args) == (text, shape)


def test_many_labels():
    count = 200
    text, shape = listed(*[x for i in range(count) for x in (np.ones((2, 2)), [i, i + 1])])
    assert shape == (2, 2)
    assert text.isprintable() and len(set(text) - set(",->")) == count + 1


# -- places ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, operands, output", [
    ("ij,jk->ik", [(0, 2), (3, 5), (5, 5)], (7, 9)),
    (" ij , jk -> ik ", [(1, 3), (6, 8), (9, 9)], (12, 14)),
    ("ij,jk", [(0, 2), (3, 5), (5, 5)], (5, 5)),
    (",->", [(0, 0), (1, 1), (1, 1)], (3, 3)),
    ("...i", [(0, 4), (4, 4)], (4, 4)),
    ("", [(0, 0), (0, 0)], (0, 0)),
])
def test_where_terms_stand(text, operands, output):
    written = tokenize(text)
    assert [written.operand_span(i) for i in range(len(operands))] == operands
    assert written.output_span == output


def test_where_all_terms_stand():
    written = tokenize("i, j, k -> ijk")
    assert [written.operands_span(i) for i in range(4)] == [(0, 7), (3, 7), (6, 7), (8, 8)]
    assert written.operands_span() == (0, 7)


# -- refusals --------------------------------------------------------------------------------------------

REFUSED = [
    ("ij->k", (2,), EquationError, """output label 'k' does not appear in any operand
  ij->k
      ^
  fix: use one of i, j"""),
    (" -> k", (0,), EquationError, """output label 'k' does not appear in any operand
   -> k
      ^"""),
    ("ij->jij", (2,), EquationError, """output label 'j' is repeated
  ij->jij
      ^ ^
  fix: name each output label once"""),
    ("ij,jk->ik", (2,), OperandError, """the equation has 2 terms and the call has 1 operand
  ij,jk->ik
     ^^
  fix: give one term for each operand, with commas between them"""),
    ("ij->i", (2, 1), OperandError, """the equation has 1 term and the call has 2 operands
  ij->i
    ^
  fix: give one term for each operand, with commas between them"""),
    ("i,j,k", (), OperandError, """the equation has 3 terms and the call has 0 operands
  i,j,k
  ^^^^^
  fix: give one term for each operand, with commas between them"""),
    ("", (), OperandError, """the equation has 1 term and the call has 0 operands
  fix: give one term for each operand, with commas between them"""),
    ("i%j", (2,), EquationError, """'%' is not a label
  i%j
   ^
  fix: use letters for labels"""),
    ("i1", (2,), EquationError, """'1' is not a label
  i1
   ^
  fix: use letters for labels"""),
    ("i\tj", (2,), EquationError, """'\\t' is not a label
  i\ufffdj
   ^
  fix: use letters for labels"""),
    (b"i\xff", (2,), EquationError, """'\ufffd' is not a label
  i\ufffd
   ^
  fix: use letters for labels"""),
    ("i->j->k", (1,), EquationError, """the equation has two arrows
  i->j->k
      ^^
  fix: keep one '->'"""),
    ("->->", (0,), EquationError, """the equation has two arrows
  ->->
    ^^
  fix: keep one '->'"""),
    ("ij - > ji", (2,), EquationError, """'-' is not part of an arrow
  ij - > ji
     ^
  fix: write the arrow as '->', once and without spaces"""),
    ("ij>ji", (2,), EquationError, """'>' is not part of an arrow
  ij>ji
    ^
  fix: write the arrow as '->', once and without spaces"""),
    ("i->i,i", (1,), EquationError, """the output has more than one term
  i->i,i
      ^
  fix: put commas between operands only, before '->'"""),
    ("i..", (2,), EquationError, """a dot is not part of an ellipsis
  i..
   ^
  fix: write an ellipsis as '...', without spaces"""),
    (". . .i", (2,), EquationError, """a dot is not part of an ellipsis
  . . .i
  ^
  fix: write an ellipsis as '...', without spaces"""),
    ("...i...", (2,), EquationError, """a term has two ellipses
  ...i...
      ^^^
  fix: keep one '...'"""),
    ("i->......", (1,), EquationError, """a term has two ellipses
  i->......
        ^^^
  fix: keep one '...'"""),
    ("...i -> i", (3,), EquationError, """the ellipsis stands for 2 dimensions, and the output has no ellipsis
  ...i -> i
         ^^
  fix: write '...i ->...i' to keep them, or give them labels to sum over them"""),
    ("i...->", (2,), EquationError, """the ellipsis stands for 1 dimension, and the output has no ellipsis
  i...->
        ^
  fix: write 'i...->...' to keep them, or give them labels to sum over them"""),
    ("i,ij->j", (1, 3), OperandError, """operand 1 has 3 dimensions and its term has 2 labels
  i,ij->j
    ^^
  fix: give each dimension a label, or let '...' stand for the rest"""),
    ("ijk->k", (2,), OperandError, """operand 0 has 2 dimensions and its term has 3 labels
  ijk->k
  ^^^
  fix: remove labels"""),
    ("i...j", (1,), OperandError, """operand 0 has 1 dimension and its term has 2 labels
  i...j
  ^^^^^
  fix: remove labels"""),
    (",i", (1, 1), OperandError, """operand 0 has 1 dimension and its term has 0 labels
  ,i
  ^
  fix: give each dimension a label, or let '...' stand for the rest"""),
]


@pytest.mark.parametrize("equation, ndims, kind, text", REFUSED, ids=[repr(r[0]) for r in REFUSED])
def test_refusals(equation, ndims, kind, text):
    with pytest.raises(kind) as refusal:
        parse(equation, ndims)
    assert str(refusal.value) == text
    assert type(refusal.value) is kind


LISTS_REFUSED = [
    ((M23, [0, 1], [0, 2]), EquationError, """output label 'C' does not appear in any operand
  AB->AC
       ^
  note: A is 0, B is 1, C is 2
  fix: use one of A, B"""),
    ((M23, ["i", "col"], ["i", "i"]), EquationError, """output label 'i' is repeated
  ia->ii
      ^^
  note: a is 'col'
  fix: name each output label once"""),
    ((M23, ["i"], ["i"]), OperandError, """operand 0 has 2 dimensions and its term has 1 label
  i->i
  ^
  fix: give each dimension a label, or let '...' stand for the rest"""),
    ((M23, [..., ...]), EquationError, """a term has two ellipses
  ......->...
     ^^^
  fix: keep one '...'"""),
    ((M23, 0), ArgumentError, """a value of type int stands where a list of labels should
  fix: give an equation first, or a list of labels after each operand"""),
    ((M23, [0, 1], None), ArgumentError, """a value of type NoneType stands where a list of labels should
  fix: give an equation first, or a list of labels after each operand"""),
    ((M23, M34, "ij,jk->ik"), ArgumentError, """a label of type ndarray is not hashable
  fix: give an equation first, or a list of labels after each operand"""),
    ((M23, "ij->ji"), ArgumentError, """'ij->ji' stands where a list of labels should
  fix: give an equation first, or a list of labels after each operand"""),
    ((M23,), OperandError, """there is no operand
  fix: give an equation and its operands"""),
    ((), OperandError, """there is no operand
  fix: give an equation and its operands"""),
]


@pytest.mark.parametrize("args, kind, text", LISTS_REFUSED, ids=[r[2].split("\n")[0] for r in LISTS_REFUSED])
def test_refusals_of_lists(args, kind, text):
    with pytest.raises(kind) as refusal:
        listed(*args)
    assert str(refusal.value) == text


def test_numpys_range_of_integer_labels():
    check_numpy_range(([0, ..., 51], ["x"]), [0])
    with pytest.raises(EquationError) as refusal:
        check_numpy_range(([0, 1],), [np.int64(52)])
    assert str(refusal.value) == (
        "label 52 is not in [0, 52), which optimize=False asks of integer labels, as in NumPy\n"
        "  fix: leave optimize out: then any hashable label will do")
