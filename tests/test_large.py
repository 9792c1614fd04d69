"""Arrays of more than 2^31 elements."""

from __future__ import annotations

import numpy as np
import pytest

import einjit

COUNT = 2**31 + 8


@pytest.mark.long
def test_more_than_two_to_the_31_elements_in_memory():
    a = np.ones(COUNT, np.int8)
    a[-1] = 5
    assert einjit.einsum("i->", a, dtype="int64") == COUNT + 4
    assert (einjit.einsum("ij->j", a.reshape(-1, 8), dtype="int64") == [COUNT // 8] * 7 + [COUNT // 8 + 4]).all()
    out = np.zeros_like(a)
    einjit.einsum("i,->i", a, np.int8(3), out=out)
    assert out[0] == out[2**31] == 3
    assert out[-1] == 15


@pytest.mark.long
def test_more_than_two_to_the_31_points():
    """Virtual elements: they take no memory, but their number must not overflow."""
    a = np.broadcast_to(np.arange(3, dtype=np.int64), (2**16, 2**16, 3))
    assert (einjit.einsum("ijk->k", a) == np.arange(3) * 2**32).all()
