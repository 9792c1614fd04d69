"""The reference agrees with NumPy where NumPy is exact, and would notice a wrong result."""

from __future__ import annotations

import numpy as np
import pytest

from tests.equations import CASES, DTYPES, Case
from tests.reference import assert_close, reference


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_numpy_agrees(case):
    operands = case.arrays()
    assert_close(np.einsum(case.equation, *operands), reference(case.equation, *operands))


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != "float16"])  # where NumPy is the wrong one
def test_numpy_agrees_in_every_dtype(dtype):
    operands = Case("", "ij,jk->ik", ((7, 30), (30, 5))).arrays(dtype)
    assert_close(np.einsum("ij,jk->ik", *operands), reference("ij,jk->ik", *operands))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_wrong_element_is_seen(dtype):
    operands = Case("", "ij,jk->ik", ((7, 30), (30, 5))).arrays(dtype)
    expected = reference("ij,jk->ik", *operands)
    wrong = expected.value.astype(dtype)
    assert_close(wrong, expected)
    wrong[3, 2] = ~wrong[3, 2] if expected.dtype.kind == "b" else wrong[3, 2] + np.asarray(1, dtype)
    with pytest.raises(AssertionError):
        assert_close(wrong, expected)


def test_a_nan_is_seen():
    operands = Case("", "ij,jk->ik", ((2, 3), (3, 2))).arrays()
    wrong = np.einsum("ij,jk->ik", *operands)
    wrong[0, 0] = np.nan
    with pytest.raises(AssertionError, match="1 of 4 elements are off"):
        assert_close(wrong, reference("ij,jk->ik", *operands))
