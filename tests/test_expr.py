"""Element expressions: printing that Python reads back, values, constants that stay apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einjit.expr import (
    Binary, Const, Expr, Operand, Select, Unary, evaluate, operands, product, working_dtype,
)

A, B, C = Operand(0), Operand(1), Operand(2)

TEXTS = [
    (product(1), "a"),
    (product(3), "a * b * c"),
    (Binary("mul", Binary("sub", A, B), Binary("sub", A, B)), "(a - b) * (a - b)"),
    (Binary("sub", A, Binary("sub", B, C)), "a - (b - c)"),
    (Binary("div", A, Binary("mul", B, C)), "a / (b * c)"),
    (Unary("neg", Binary("add", A, B)), "-(a + b)"),
    (Binary("mul", Unary("neg", A), B), "-a * b"),
    (Unary("sqrt", Unary("abs", Binary("sub", A, B))), "sqrt(abs(a - b))"),
    (Binary("max", A, Const(0.0)), "max(a, 0.0)"),
    (Binary("lt", Binary("lt", A, B), C), "(a < b) < c"),
    (Select(Binary("gt", A, Const(0)), A, Binary("mul", Const(0.1), A)), "a if a > 0 else 0.1 * a"),
    (Select(Select(A, B, C), A, Select(B, A, C)), "a if (b if a else c) else a if b else c"),
    (Binary("add", Select(A, B, C), Const(1)), "(b if a else c) + 1"),
    (Const(float("-inf")), "float('-inf')"),
    (Const(complex(1, float("nan"))), "complex(1.0, float('nan'))"),
    (Operand(9), "x9"),
]


@pytest.mark.parametrize("expr, text", TEXTS, ids=[text for _, text in TEXTS])
def test_an_expression_prints_as_python(expr, text):
    assert str(expr) == text


def test_the_caller_may_name_the_operands():
    assert product(2).text(["a[i, k]", "b[k, j]"]) == "a[i, k] * b[k, j]"


NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 2.0, float("inf"), float("nan")]))
ARITHMETIC = st.sampled_from(["add", "sub", "mul", "min", "max"])
COMPARISONS = st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"])


def _larger(smaller: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(Unary, st.sampled_from(["neg", "abs"]), smaller),
        st.builds(Binary, ARITHMETIC, smaller, smaller),
        st.builds(Select, st.builds(Binary, COMPARISONS, smaller, smaller), smaller, smaller),
    )


EXPRESSIONS = st.recursive(
    st.one_of(st.builds(Operand, st.integers(0, 2)), st.builds(Const, NUMBERS)), _larger, max_leaves=12)


@given(EXPRESSIONS, st.lists(st.floats(-4, 4), min_size=3, max_size=3))
def test_the_text_is_python_that_means_the_same(expr, values):
    names = {"min": np.minimum, "max": np.maximum, "abs": abs, "float": float}
    with np.errstate(all="ignore"):
        expected = eval(str(expr), names, dict(zip("abc", map(np.float64, values))))
        actual = evaluate(expr, list(map(np.float64, values)))
    np.testing.assert_array_equal(actual, expected)


@given(EXPRESSIONS)
def test_the_repr_makes_an_equal_expression(expr):
    names = {"Binary": Binary, "Const": Const, "Operand": Operand, "Select": Select, "Unary": Unary}
    again = eval(repr(expr), names)
    assert again == expr
    assert hash(again) == hash(expr)


@pytest.mark.parametrize("op, function", [
    ("sqrt", math.sqrt), ("exp", math.exp), ("log", math.log), ("sin", math.sin), ("cos", math.cos),
    ("tanh", math.tanh), ("abs", abs), ("neg", lambda x: -x),
])
def test_unary_functions(op, function):
    assert evaluate(Unary(op, A), [np.float64(0.7)]) == pytest.approx(function(0.7), rel=1e-15)


def test_arrays_are_evaluated_element_by_element():
    x = np.array([[-1.0, 2.0], [3.0, -4.0]], np.float32)
    y = np.array([1.0, -1.0], np.float32)
    expr = Select(Binary("lt", A, Const(0)), Binary("div", A, Const(2)), Binary("mul", A, B))
    result = evaluate(expr, [x, y])
    assert result.tolist() == [[-0.5, -2.0], [3.0, -2.0]]
    assert result.dtype == np.float32


def test_constants_of_different_types_are_different():
    different = [Const(1), Const(1.0), Const(True), Const(1 + 0j), Const(0.0), Const(-0.0)]
    assert len(set(different)) == len(different)
    assert Const(float("nan")) == Const(float("nan"))


def test_operands_are_those_that_are_read():
    assert operands(Select(Binary("lt", C, Const(0)), A, Unary("neg", C))) == {0, 2}
    assert operands(Const(1)) == set()


@pytest.mark.parametrize("expr, dtypes, expected", [
    (A, ["int8"], "int8"),
    (product(2), ["int8", "float32"], "float32"),
    (Binary("mul", A, Const(2)), ["uint8"], "uint8"),
    (Binary("mul", A, Const(0.5)), ["float16"], "float16"),
    (Binary("mul", A, Const(0.5)), ["int32"], "float64"),
    (Binary("div", A, B), ["int32", "int32"], "float64"),
    (Select(Binary("lt", A, Const(0.5)), A, B), ["int32", "int16"], "float64"),
    (Select(Binary("lt", A, Const(1)), A, B), ["int32", "int16"], "int32"),
    (Select(Binary("lt", A, B), B, B), ["int64", "float32"], "float64"),
    (Binary("lt", A, Const(0)), ["float32"], "float32"),
    (Unary("abs", A), ["complex64"], "complex64"),
    (B, ["complex64", "int8"], "int8"),
])
def test_the_dtype_that_everything_can_be_computed_in(expr, dtypes, expected):
    assert working_dtype(expr, dtypes) == expected
