"""More than two operands: one nest where that is less work, pairwise steps where it is not."""

from __future__ import annotations

import numpy as np

import einjit

rng = np.random.default_rng(0)

# MTTKRP, the core of the CP decomposition.
tensor, b, c = rng.random((60, 50, 40)), rng.random((50, 8)), rng.random((40, 8))
factor = einjit.einsum("ijk,jr,kr->ir", tensor, b, c, optimize=True)
np.testing.assert_allclose(factor, (tensor.reshape(60, -1) @ (b[:, None] * c[None]).reshape(-1, 8)))

# A chain of four matrices: the order matters, and it is printed.
chain = [rng.random(shape) for shape in ((40, 80), (80, 10), (10, 90), (90, 30))]
print(einjit.explain("ab,bc,cd,de->ae", *chain))
product = einjit.einsum("ab,bc,cd,de->ae", *chain, optimize=True)
np.testing.assert_allclose(product, np.linalg.multi_dot(chain))

# A quadratic form: one pass over the matrix, nothing in between.
x, matrix, y = rng.random(300), rng.random((300, 400)), rng.random(400)
print("x A y =", einjit.einsum("i,ij,j->", x, matrix, y, optimize=True))
np.testing.assert_allclose(einjit.einsum("i,ij,j->", x, matrix, y, optimize=True), x @ matrix @ y)
