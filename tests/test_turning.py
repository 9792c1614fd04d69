"""Operands that are turned around by a step of their own."""

from __future__ import annotations

import numpy as np
import pytest

import einjit
from einjit import machine
from tests.test_unpacked import ZNVER4


@pytest.fixture(autouse=True)
def on_zen4(monkeypatch):
    """What is worth turning depends on the lanes; the code runs anywhere, on vectors that LLVM takes apart."""
    monkeypatch.setattr(machine, "detect", lambda: ZNVER4)


def operands(*shapes, dtype="float32"):
    rng = np.random.default_rng(0)
    return [rng.integers(-9, 9, shape).astype(dtype) for shape in shapes]


def steps(equation: str, *arrays, **options) -> list[str]:
    return [str(step.einsum) for step in einjit.compile(equation, *arrays, **options).plan.steps]


@pytest.mark.parametrize("equation, shapes, dtype, expected", [
    ("ij,jk->ik", ((1000, 300), (300, 4)), "float32", ["jk->kj", "ij,kj->ik"]),
    ("ij,jk->ik", ((1000, 300), (300, 5)), "float32", ["ij,jk->ik"]),           # they fill the lanes better
    ("ij,jk->ik", ((1000, 300), (300, 3)), "float64", ["jk->kj", "ij,kj->ik"]),
    ("ij,jk->ik", ((1000, 300), (300, 4)), "float64", ["ij,jk->ik"]),
    ("ij,jk->ik", ((1000, 300), (300, 4)), "int8", ["jk->kj", "ij,kj->ik"]),
    ("ij,jk->ik", ((1000, 300), (300, 2)), "complex64", ["ij,jk->ik"]),
    ("ij,jk->ik", ((60, 1000), (1000, 4)), "float32", ["ij,jk->ik"]),           # too few rows to make up for it
    ("ij,jk->ik", ((1000, 40), (40, 4)), "float32", ["ij,jk->ik"]),             # too little work
    ("ij,jk->ik", ((100, 65536), (65536, 4)), "float32", ["jk->kj", "ij,kj->ik"]),
    ("ij,jk->ik", ((100, 65537), (65537, 4)), "float32", ["ij,jk->ik"]),        # more than L2 holds
    ("ij,kj->ik", ((1000, 300), (4, 300)), "float32", ["ij,kj->ik"]),           # nothing to turn
    ("ji,jk->ik", ((300, 1000), (300, 4)), "float32", ["ji,jk->ik"]),           # the rows lie apart as well
    ("ji,kj->ik", ((300, 4), (1000, 300)), "float32", ["ji->ij", "ij,kj->ik"]),
    ("bij,bjk->bik", ((2, 1000, 300), (2, 300, 4)), "float32", ["bij,bjk->bik"]),
    ("ijx,jxk->ik", ((1000, 20, 15), (20, 15, 3)), "float32", ["jxk->kjx", "ijx,kjx->ik"]),
    ("ij,jkl->ikl", ((1000, 300), (300, 2, 2)), "float32", ["jkl->klj", "ij,klj->ikl"]),
    ("ija,jkb->ik", ((1000, 300, 1), (300, 3, 1)), "float32", ["jkb->bkj", "ija,bkj->ik"]),
    ("ijl,jkl->ik", ((1000, 300, 5), (300, 3, 1)), "float32", ["ijl,jkl->ik"]),     # l is repeated
    ("ij,jk,kl->il", ((1000, 300), (300, 4), (4, 900)), "float32", ["jk->kj", "ij,kj->ik", "kl,ik->il"]),
    ("kl,ij,jk->il", ((4, 900), (1000, 300), (300, 4)), "float32", ["jk->kj", "ij,kj->ik", "kl,ik->il"]),
])
def test_few_columns_are_turned_and_the_result_is_right(equation, shapes, dtype, expected):
    arrays = operands(*shapes, dtype=dtype)
    assert steps(equation, *arrays) == expected
    np.testing.assert_array_equal(einjit.einsum(equation, *arrays), np.einsum(equation, *arrays, optimize=True))


def test_an_operand_of_any_strides_is_turned():
    a, b = operands((1000, 300), (300, 8))
    view = b[::-1, ::2]
    assert steps("ij,jk->ik", a, view) == ["jk->kj", "ij,kj->ik"]
    np.testing.assert_array_equal(einjit.einsum("ij,jk->ik", a, view), a @ view)


def test_into_an_operand():
    # The result overwrites what was turned.
    memory = np.zeros((1000, 4), np.float32)
    a, b = operands((1000, 300), (300, 4))
    memory[:300] = b
    np.testing.assert_array_equal(einjit.einsum("ij,jk->ik", a, memory[:300], out=memory), a @ b)


def test_steps_that_the_caller_chose_stay_as_they_are():
    a, b = operands((1000, 300), (300, 4))
    assert steps("ij,jk->ik", a, b, optimize=False) == ["ij,jk->ik"]
    assert steps("ij,jk->ik", a, b, optimize=[(0, 1)]) == ["ij,jk->ik"]
    assert steps("ij,jk->ik", a, b, schedule=()) == ["ij,jk->ik"]


def test_the_intermediate_counts():
    plan = einjit.compile("ij,jk->ik", *operands((1000, 300), (300, 4))).plan
    assert plan.largest == 1200 and plan.steps[1].operands == (0, 1)
    plan = einjit.compile("ji,kj->ik", *operands((300, 4), (1000, 300))).plan
    assert [step.operands for step in plan.steps] == [(0,), (1, 0)]
