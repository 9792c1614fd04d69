"""The whole text of each error that a call raises: what is wrong, the equation, carets, shapes, what to do.

What else may be wrong with an equation is in test_parse.py, the layout of a text in test_errors.py.
"""

from __future__ import annotations

import numpy as np
import pytest

import einjit
from einjit.errors import (
    ArgumentError, DtypeError, EinjitError, EquationError, OperandError, PathError, ShapeError, StrategyError,
)

A, B, C = np.ones((2, 3)), np.ones((3, 4)), np.ones((4, 5))
EQUATION = "ij,jk->ik"


def product(equation=EQUATION, a=A, b=B, **keywords):
    return einjit.einsum(equation, a, b, **keywords)


def listed(**keywords):
    return einjit.einsum(A, [0, 1], B, [1, 2], **keywords)


def kernel(*operands, **keywords):
    return einjit.compile(EQUATION, (2, 3), (3, 4))(*operands, **keywords)


def compiled(*operands, **keywords):
    return einjit.compile(EQUATION, *operands, **keywords)


def tensordot(axes):
    return einjit.tensordot(A, B, axes=axes)


@einjit.jit("ij,jk->ik")
def larger(a, b):
    return a if a > b else b


THE_EQUATION = [
    (lambda: product("ij,jk->iq"), EquationError, """
output label 'q' does not appear in any operand
  ij,jk->iq
          ^
  shapes: (2, 3) (3, 4)
  fix: use one of i, j, k"""),
    (lambda: product("ij,jk->iki"), EquationError, """
output label 'i' is repeated
  ij,jk->iki
         ^ ^
  shapes: (2, 3) (3, 4)
  fix: name each output label once"""),
    (lambda: product("ij,j?->i"), EquationError, """
'?' is not a label
  ij,j?->i
      ^
  shapes: (2, 3) (3, 4)
  fix: use letters for labels"""),
    (lambda: product("ij,jk,kl->il"), OperandError, """
the equation has 3 terms and the call has 2 operands
  ij,jk,kl->il
        ^^
  shapes: (2, 3) (3, 4)
  fix: give one term for each operand, with commas between them"""),
    (lambda: product("ij->i"), OperandError, """
the equation has 1 term and the call has 2 operands
  ij->i
    ^
  shapes: (2, 3) (3, 4)
  fix: give one term for each operand, with commas between them"""),
    (lambda: einjit.einsum("ij->i"), OperandError, """
the equation has 1 term and the call has 0 operands
  ij->i
  ^^
  fix: give one term for each operand, with commas between them"""),
    (lambda: product("ijk,jk->ik"), OperandError, """
operand 0 has 2 dimensions and its term has 3 labels
  ijk,jk->ik
  ^^^
  shapes: (2, 3) (3, 4)
  fix: remove labels"""),
    (lambda: product(b=B.T), ShapeError, """
label 'j' has size 3 in operand 0 (axis 1) and size 4 in operand 1 (axis 0)
  ij,jk->ik
   ^ ^
  shapes: (2, 3) (4, 3)
  fix: give 'j' one size everywhere; only size 1 stretches to another"""),
    (lambda: product(b=B.T.astype(object)), ShapeError, """
label 'j' has size 3 in operand 0 (axis 1) and size 4 in operand 1 (axis 0)
  ij,jk->ik
   ^ ^
  shapes: (2, 3) (4, 3)
  fix: give 'j' one size everywhere; only size 1 stretches to another"""),
    (lambda: einjit.einsum("ii->i", A), ShapeError, """
label 'i' is repeated in operand 0 with sizes 2 (axis 0) and 3 (axis 1)
  ii->i
  ^^
  shapes: (2, 3)
  fix: a diagonal needs axes of equal sizes"""),
    (lambda: einjit.einsum(A, ["row", "column"], ["row", "x"]), EquationError, """
output label 'x' does not appear in any operand
  ba->bx
       ^
  shapes: (2, 3)
  note: a is 'column', b is 'row'
  fix: use one of a, b"""),
    (lambda: einjit.einsum(), OperandError, """
no equation and no operands
  fix: call einsum("ij,jk->ik", a, b)"""),
]

OUT = [
    (lambda: product(out=np.ones((4, 2))), OperandError, """
out has shape (4, 2), and the result has shape (2, 4)
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass an out of shape (2, 4)"""),
    (lambda: product("ij, jk", out=np.ones((4, 2))), OperandError, """
out has shape (4, 2), and the result has shape (2, 4)
  ij, jk
        ^
  shapes: (2, 3) (3, 4)
  fix: pass an out of shape (2, 4)"""),
    (lambda: product("ij, jk ->", out=np.ones(1)), OperandError, """
out has shape (1,), and the result has shape ()
  ij, jk ->
           ^
  shapes: (2, 3) (3, 4)
  fix: pass an out of shape ()"""),
    (lambda: listed(out=np.ones((4, 2))), OperandError, """
out has shape (4, 2), and the result has shape (2, 4)
  AB,BC->AC
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass an out of shape (2, 4)"""),
    (lambda: product(a=A.astype(object), out=np.ones((4, 2), object)), OperandError, """
out has shape (4, 2), and the result has shape (2, 4)
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass an out of shape (2, 4)"""),
    (lambda: product(out=np.ones((2, 4), "f4")), DtypeError, """
the result has dtype float64 and cannot be cast to out's float32 under the rule 'safe'
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass casting='same_kind' or 'unsafe', or an out of the result's dtype"""),
    (lambda: product(out=[1]), DtypeError, """
out is a list, not an array
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass a NumPy array of the result's shape"""),
    (lambda: product(out=np.broadcast_to(1.0, (2, 4))), OperandError, """
out is read-only
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass an array that can be written to"""),
]

KEYWORDS = [
    (lambda: product(dtype="f4"), DtypeError, """
operand 0 has dtype float64 and cannot be cast to float32 under the rule 'safe'
  ij,jk->ik
  ^^
  shapes: (2, 3) (3, 4)
  fix: pass casting='unsafe', or convert the operand"""),
    (lambda: product(a=A.astype("f4"), dtype="f4"), DtypeError, """
operand 1 has dtype float64 and cannot be cast to float32 under the rule 'safe'
  ij,jk->ik
     ^^
  shapes: (2, 3) (3, 4)
  fix: pass casting='unsafe', or convert the operand"""),
    (lambda: product(dtype="i4", casting="same_kind"), DtypeError, """
operand 0 has dtype float64 and cannot be cast to int32 under the rule 'same_kind'
  ij,jk->ik
  ^^
  shapes: (2, 3) (3, 4)
  fix: pass casting='unsafe', or convert the operand"""),
    (lambda: listed(dtype="i4", casting="same_kind"), DtypeError, """
operand 0 has dtype float64 and cannot be cast to int32 under the rule 'same_kind'
  AB,BC->AC
  ^^
  shapes: (2, 3) (3, 4)
  fix: pass casting='unsafe', or convert the operand"""),
    (lambda: product(dtype="real"), DtypeError, """
dtype='real' is not a dtype
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass a NumPy dtype or its name, such as 'float32'"""),
    (lambda: product(order="W"), OperandError, """
order='W' is not known
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass 'C', 'F', 'A' or 'K'"""),
    (lambda: product(order=3), ArgumentError, """
order=3 is not known
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass 'C', 'F', 'A' or 'K'"""),
    (lambda: product(casting="same_value"), OperandError, """
casting='same_value' is not known
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass 'no', 'equiv', 'safe', 'same_kind' or 'unsafe'"""),
    (lambda: product(casting=None), ArgumentError, """
casting=None is not known
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass 'no', 'equiv', 'safe', 'same_kind' or 'unsafe'"""),
]

NAMES = (
    "'auto', 'auto-hq', 'optimal', 'branch-all', 'branch-2', 'branch-1', 'greedy', 'eager', 'opportunistic', "
    "'dp', 'dynamic-programming', 'random-greedy', 'random-greedy-128'")

OPTIMIZE = [
    (lambda: einjit.einsum("ij, jk, kl -> il", A, B, C, optimize="fast"), StrategyError, f"""
optimize='fast' is not a strategy
  ij, jk, kl -> il
  ^^^^^^^^^^
  shapes: (2, 3) (3, 4) (4, 5)
  fix: pass one of {NAMES}"""),
    (lambda: einjit.einsum("ij->ji", A, optimize="fast"), StrategyError, f"""
optimize='fast' is not a strategy
  ij->ji
  ^^
  shapes: (2, 3)
  fix: pass one of {NAMES}"""),
    (lambda: product(a=A.astype(object), optimize=("fast", 10)), StrategyError, f"""
optimize='fast' is not a strategy
  ij,jk->ik
  ^^^^^
  shapes: (2, 3) (3, 4)
  fix: pass one of {NAMES}"""),
    (lambda: compiled(A, B, optimize="fast"), StrategyError, f"""
optimize='fast' is not a strategy
  ij,jk->ik
  ^^^^^
  shapes: (2, 3) (3, 4)
  fix: pass one of {NAMES}"""),
    (lambda: product(optimize={}), ArgumentError, """
optimize={} is neither a strategy nor a path
  ij,jk->ik
  ^^^^^
  shapes: (2, 3) (3, 4)
  fix: pass True, False, 'greedy', ('greedy', limit) or ['einsum_path', (0, 1), ...]"""),
    (lambda: product(optimize=[(0, 2)]), PathError, """
step (0, 2) of the path does not fit 2 operands
  ij,jk->ik
  ^^^^^
  shapes: (2, 3) (3, 4)"""),
    (lambda: product(b=B.astype(object), optimize=["einsum_path", (0,)]), PathError, """
the path leaves 2 operands
  ij,jk->ik
  ^^^^^
  shapes: (2, 3) (3, 4)
  fix: end the path with a step over all operands that are left"""),
]

KERNELS = [
    (lambda: kernel(A, np.ones((3, 5))), OperandError, """
operand 1 has shape (3, 5), and this kernel was compiled for (3, 4)
  ij,jk->ik
     ^^
  shapes: (2, 3) (3, 5)
  fix: compile another kernel, or call einjit.einsum, which takes any shape"""),
    (lambda: kernel(A, B.astype("f4")), DtypeError, """
operand 1 has dtype float32, and this kernel was compiled for float64
  ij,jk->ik
     ^^
  shapes: (2, 3) (3, 4)
  fix: compile another kernel, or call einjit.einsum, which takes any dtype"""),
    (lambda: kernel(A), OperandError, """
this kernel takes 2 operands and got 1
  ij,jk->ik
     ^^
  shapes: (2, 3)
  fix: pass one array for each term"""),
    (lambda: kernel(A, B, C), OperandError, """
this kernel takes 2 operands and got 3
  ij,jk->ik
       ^
  shapes: (2, 3) (3, 4) (4, 5)
  fix: pass one array for each term"""),
    (lambda: kernel(A, B, out=np.ones((2, 5))), OperandError, """
out has shape (2, 5), and the result has shape (2, 4)
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass an out of shape (2, 4)"""),
    (lambda: compiled((2, 3), (4, 3)), ShapeError, """
label 'j' has size 3 in operand 0 (axis 1) and size 4 in operand 1 (axis 0)
  ij,jk->ik
   ^ ^
  shapes: (2, 3) (4, 3)
  fix: give 'j' one size everywhere; only size 1 stretches to another"""),
    (lambda: compiled((2, 3)), OperandError, """
the equation has 2 terms and the call has 1 operand
  ij,jk->ik
     ^^
  shapes: (2, 3)
  fix: give one term for each operand, with commas between them"""),
    (lambda: compiled((2, 3), "34"), OperandError, """
operand 1 is '34', neither an array nor a shape
  ij,jk->ik
     ^^
  fix: pass arrays, or shapes such as (512, 256)"""),
    (lambda: compiled((2, 3), (3, 4), dtype=["f4"]), OperandError, """
1 dtypes for 2 operands
  ij,jk->ik
  ^^^^^
  fix: give one dtype, or one for each operand"""),
    (lambda: compiled((2, 3), (3, 4), dtype=["f4", "foo"]), DtypeError, """
dtype 'foo' for operand 1 is not a dtype
  ij,jk->ik
     ^^
  fix: pass a NumPy dtype or its name, such as 'float32'"""),
    (lambda: compiled(A, B.astype(object)), DtypeError, """
operand 1 has dtype object, for which there are no kernels
  ij,jk->ik
     ^^
  shapes: (2, 3) (3, 4)
  fix: call einjit.einsum, which hands such operands to NumPy"""),
    (lambda: larger(A, B.astype(object)), DtypeError, """
operand 1 has dtype object, for which there are no kernels
  ij,jk->ik
     ^^
  shapes: (2, 3) (3, 4)
  fix: convert the operand"""),
    (lambda: larger(A, B[0]), OperandError, """
operand 1 has 1 dimension and its term has 2 labels
  ij,jk->ik
     ^^
  shapes: (2, 3) (4,)
  fix: remove labels"""),
]

AXES = [
    (lambda: tensordot(([0], [0])), OperandError, """
axis 0 of a has size 2 and axis 0 of b has size 3
  shapes: (2, 3) (3, 4)"""),
    (lambda: tensordot(([0, 1], [0])), OperandError, """
2 axes of a and 1 axes of b cannot be paired
  shapes: (2, 3) (3, 4)"""),
    (lambda: tensordot(([2], [0])), OperandError, """
a has no axis 2
  shapes: (2, 3) (3, 4)"""),
    (lambda: tensordot(([0, 0], [0, 0])), OperandError, """
an axis is contracted twice
  shapes: (2, 3) (3, 4)"""),
]

REFUSALS = [*THE_EQUATION, *OUT, *KEYWORDS, *OPTIMIZE, *KERNELS, *AXES]
BUILTIN = {DtypeError: TypeError, ArgumentError: TypeError, PathError: RuntimeError, StrategyError: KeyError}


@pytest.mark.parametrize("handover", ["tiny", "unsupported"])
@pytest.mark.parametrize("call, kind, text", REFUSALS, ids=[r[2].split("\n")[1][:40] for r in REFUSALS])
def test_the_whole_text(call, kind, text, handover):
    with einjit.options(handover=handover), pytest.raises(EinjitError) as refusal:
        call()
    assert type(refusal.value) is kind
    assert isinstance(refusal.value, BUILTIN.get(kind, ValueError))
    assert str(refusal.value) == text[1:]


def test_a_body_for_real_numbers_points_at_the_complex_operands():
    with pytest.raises(DtypeError) as refusal:
        larger(A, B.astype("c16"))
    sentence, *rest = str(refusal.value).split("\n")
    assert sentence.endswith("is not defined for complex numbers")
    assert rest == ["  ij,jk->ik", "     ^^", "  shapes: (2, 3) (3, 4)",
                    "  fix: use + - * / alone, or real operands"]


def test_an_unknown_keyword_is_pythons_own_error():
    for name in ("colour", "optimise", "ouput", "type"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            product(**{name: None})
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            kernel(A, B, **{name: None})


@pytest.mark.parametrize("keywords", [
    {"optimize": "fast"}, {"optimize": ("fast", 10)}, {"optimize": 1}, {"optimize": {}},
    {"casting": "same_value"}, {"casting": "SAFE"}, {"casting": None}, {"order": "W"}, {"order": 3},
    {"dtype": "real"},
], ids=repr)
def test_the_class_is_numpys(keywords):
    operands = "ij,jk,kl->il", A, B, C
    with pytest.raises(Exception) as numpys:
        np.einsum(*operands, **keywords)
    with pytest.raises(EinjitError) as refusal:
        einjit.einsum(*operands, **keywords)
    assert isinstance(refusal.value, numpys.type)


def test_order_may_be_none_as_in_numpy():
    np.testing.assert_array_equal(product(order=None), A @ B)


def last_two_first(inputs, output, sizes, limit):
    return [(1, 2), (0, 1)]


STRATEGIES = ["auto", "dp", "branch-2", ("greedy", None), ("dp", 1000), [(0, 1), (0, 1)], [(0, 1, 2)], last_two_first]


@pytest.mark.parametrize("optimize", STRATEGIES, ids=lambda x: getattr(x, "__name__", None) or repr(x))
@pytest.mark.parametrize("dtype", ["float64", "object"])
def test_strategies_that_numpy_does_not_know_reach_it_as_paths(optimize, dtype):
    """Tiny calls and other dtypes are NumPy's: it must not refuse what einjit takes."""
    before = einjit.stats().handed_over
    got = einjit.einsum("ij,jk,kl->il", A.astype(dtype), B.astype(dtype), C.astype(dtype), optimize=optimize)
    np.testing.assert_array_equal(got, A @ B @ C)
    assert einjit.stats().handed_over != before


class Foreign:
    """An array of another library's: it answers for itself."""

    def __array_function__(self, function, types, args, kwargs):
        return kwargs


def test_another_librarys_array_gets_the_keywords_that_were_given():
    assert einjit.einsum("i->i", Foreign()) == {}
    given = {"optimize": False, "dtype": "f4", "order": "C", "casting": "unsafe"}
    assert einjit.einsum("i->i", Foreign(), **given) == given
