"""The whole text of each error that a call raises once its equation has been understood.

Those about the equation itself are in test_parse.py, the layout of a text is in test_errors.py.
"""

from __future__ import annotations

import numpy as np
import pytest

import einjit
from einjit.errors import DtypeError, EinjitError, OperandError

A, B = np.ones((2, 3)), np.ones((3, 4))
EQUATION = "ij,jk->ik"


def product(**keywords):
    return einjit.einsum(EQUATION, A, B, **keywords)


def kernel(*operands, **keywords):
    return einjit.compile(EQUATION, (2, 3), (3, 4))(*operands, **keywords)


def tensordot(axes):
    return einjit.tensordot(A, B, axes=axes)


REFUSALS = [
    (lambda: product(out=np.ones((4, 2))), OperandError, """
out has shape (4, 2), and the result has shape (2, 4)
  ij,jk->ik
  shapes: (2, 3) (3, 4)
  fix: pass an out of shape (2, 4)"""),
    (lambda: product(out=np.ones((2, 4), "f4")), DtypeError, """
the result has dtype float64 and cannot be cast to out's float32 under the rule 'safe'
  ij,jk->ik
  shapes: (2, 3) (3, 4)
  fix: pass casting='same_kind' or 'unsafe', or an out of the result's dtype"""),
    (lambda: product(dtype="f4"), DtypeError, """
operand 0 has dtype float64 and cannot be cast to float32 under the rule 'safe'
  ij,jk->ik
  shapes: (2, 3) (3, 4)
  fix: pass casting='unsafe', or convert the operand"""),
    (lambda: product(dtype="i4", casting="same_kind"), DtypeError, """
operand 0 has dtype float64 and cannot be cast to int32 under the rule 'same_kind'
  ij,jk->ik
  shapes: (2, 3) (3, 4)
  fix: pass casting='unsafe', or convert the operand"""),
    (lambda: product(out=[1]), DtypeError, """
out is a list, not an array
  ij,jk->ik"""),
    (lambda: product(out=np.broadcast_to(1.0, (2, 4))), OperandError, """
out is read-only
  ij,jk->ik"""),
    (lambda: product(order="W"), OperandError, """
order must be one of 'C', 'F', 'A' or 'K', not 'W'"""),
    (lambda: product(casting="blah"), OperandError, """
casting must be one of 'no', 'equiv', 'safe', 'same_kind' or 'unsafe', not 'blah'"""),
    (lambda: einjit.einsum(), OperandError, """
no equation and no operands
  fix: call einsum("ij,jk->ik", a, b)"""),
    (lambda: kernel(A, np.ones((3, 5))), OperandError, """
operand 1 has shape (3, 5), and this kernel was compiled for (3, 4)
  ij,jk->ik
  shapes: (2, 3) (3, 4)
  fix: compile another kernel, or call einjit.einsum, which takes any shape"""),
    (lambda: kernel(A, B.astype("f4")), DtypeError, """
operand 1 has dtype float32, and this kernel was compiled for float64
  ij,jk->ik
  fix: compile another kernel, or call einjit.einsum, which takes any dtype"""),
    (lambda: kernel(A), OperandError, """
this kernel takes 2 operands and got 1
  ij,jk->ik"""),
    (lambda: kernel(A, B, out=np.ones((2, 5))), OperandError, """
out has shape (2, 5), and the result has shape (2, 4)
  ij,jk->ik
  shapes: (2, 3) (3, 4)
  fix: pass an out of shape (2, 4)"""),
    (lambda: einjit.compile("ij->i", A.astype(object)), DtypeError, """
operand 0 has dtype object, for which there are no kernels
  ij->i
  fix: call einjit.einsum, which hands such operands to NumPy"""),
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


@pytest.mark.parametrize("call,kind,text", REFUSALS, ids=[text.split("\n")[1][:40] for _, _, text in REFUSALS])
def test_the_whole_text(call, kind, text):
    with pytest.raises(EinjitError) as refusal:
        call()
    assert type(refusal.value) is kind
    assert isinstance(refusal.value, TypeError if kind is DtypeError else ValueError)
    assert str(refusal.value) == text[1:]


def test_an_unknown_keyword_is_pythons_own_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        product(colour="red")
