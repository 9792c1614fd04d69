"""Compile a matrix product once, look at what was made, call it many times."""

from __future__ import annotations

import numpy as np

import einjit

x, y = np.random.default_rng(0).random((2, 300, 300), dtype=np.float32)

matmul = einjit.compile("ij,jk->ik", x, y)
print(matmul.explain())

z = np.empty((300, 300), np.float32)
for _ in range(3):
    matmul(x, y, out=z)
np.testing.assert_allclose(z, x @ y, rtol=1e-4)
print(f"{matmul.family}, {matmul.tiling}: agrees with x @ y")
