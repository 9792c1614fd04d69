"""Tiles that lie over an edge: loops of fewer rows and vectors compute what is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import einjit
from einjit.schedule import packed
from einjit.schedule.tiling import RegisterTile
from tests.test_patches import POLICY

TILE = RegisterTile(8, 2, 8)
ROWS = (2, 4, 5, 8, 12, 13)      # of which the last tile holds from 2 to 8
COLUMNS = (7, 8, 9, 16, 17, 25)


def check(m: int, n: int, k: int, dtype: str, transposed: bool = False) -> str:
    """The family of the kernel that was right."""
    rng = np.random.default_rng(100 * m + n)
    a, b = (rng.integers(-9, 9, shape).astype(dtype) for shape in ((m, k), (k, n)))
    out = np.full((n, m) if transposed else (m, n), 77, dtype)
    equation = "ij,jk->ki" if transposed else "ij,jk->ik"
    kernel = einjit.compile(equation, a, b)
    kernel(a, b, out=out)
    np.testing.assert_array_equal(out.T if transposed else out, a @ b, f"{m} x {n}")
    return kernel.family


@pytest.mark.parametrize("dtype", ["float64", "complex64", "int32"])
def test_packed(dtype, always_packed, monkeypatch):
    def tiling(*arguments):
        return replace(POLICY(*arguments), tile=TILE, mc=16, kc=8, nc=32)     # in three blocks of the sum

    monkeypatch.setattr(packed, "tiling", tiling)
    monkeypatch.setattr("einjit.schedule.choose.packing_pays", lambda c: True)
    for m in ROWS:
        for n in COLUMNS:
            assert check(m, n, 20, dtype) == "packed contraction"


@pytest.mark.parametrize("dtype", ["float64", "int32"])
@pytest.mark.parametrize("transposed", [False, True])
def test_read_as_they_lie(dtype, transposed, monkeypatch):
    monkeypatch.setattr("einjit.schedule.contractions.register_tile", lambda *arguments: TILE)
    monkeypatch.setattr("einjit.schedule.choose.packing_pays", lambda c: False)
    for m in ROWS:
        for n in COLUMNS:
            assert check(m, n, 20, dtype, transposed) != "packed contraction"
