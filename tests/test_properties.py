"""Random equations, dtypes and layouts against the reference in higher precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import einjit
from tests.equations import DTYPES
from tests.reference import assert_close, reference
from tests.strategies import LAYOUTS, Problem, lay_out, problems

ORDERS = st.sampled_from([False, True, "greedy", "optimal"])


@pytest.fixture(autouse=True)
def nothing_handed_over():
    with einjit.options(handover="unsupported"):
        yield


def check(problem: Problem, optimize) -> None:
    expected = reference(problem.equation, *problem.operands)
    assume(expected.dtype != np.float16 or np.max(np.abs(expected.value), initial=0) < 2**13)
    assert_close(einjit.einsum(problem.equation, *problem.operands, optimize=optimize), expected)


@settings(max_examples=60)
@given(problems(max_operands=2), ORDERS)
def test_one_and_two_operands(problem, optimize):
    check(problem, optimize)


@settings(max_examples=40)
@given(problems(dtypes=("float32", "float64", "int32", "complex64")), ORDERS)
def test_up_to_five_operands(problem, optimize):
    check(problem, optimize)


@pytest.mark.long
@settings(max_examples=500)
@given(problems(), ORDERS)
def test_everything(problem, optimize):
    check(problem, optimize)


@settings(max_examples=40)
@given(problems(dtypes=("float64",), max_operands=3), st.sampled_from(LAYOUTS[:6]))
def test_out_of_any_layout(problem, layout):
    expected = reference(problem.equation, *problem.operands)
    assume(layout != "broadcast" and expected.value.size)
    out = lay_out(np.full(expected.value.shape, np.nan), layout)
    assert einjit.einsum(problem.equation, *problem.operands, out=out) is out
    assert_close(out, expected)


@settings(max_examples=40)
@given(problems(dtypes=("float32",), max_operands=2))
def test_a_compiled_kernel_is_the_same_function(problem):
    kernel = einjit.compile(problem.equation, *problem.operands)
    assert_close(kernel(*problem.operands), reference(problem.equation, *problem.operands))


@settings(max_examples=30)
@given(problems(dtypes=("int8", "uint16", "int64"), max_operands=3), st.sampled_from(DTYPES))
def test_the_dtype_argument_converts_first(problem, dtype):
    assume(len(problem.operands) > 1)  # a view of a single operand keeps its dtype, in NumPy too
    promoted = np.result_type(dtype, *problem.operands)
    got = einjit.einsum(problem.equation, *problem.operands, dtype=promoted)
    assert_close(got, reference(problem.equation, *problem.operands, dtype=promoted))
