"""Attention as it is written in papers: no transpose, no reshape, no copy of the heads."""

from __future__ import annotations

import numpy as np

import einjit

batch, queries, keys, heads, depth = 2, 64, 96, 4, 32
rng = np.random.default_rng(0)
q = rng.standard_normal((batch, queries, heads, depth), dtype=np.float32)
k = rng.standard_normal((batch, keys, heads, depth), dtype=np.float32)
v = rng.standard_normal((batch, keys, heads, depth), dtype=np.float32)

scores = einjit.einsum("bqhd,bkhd->bhqk", q, k) / np.float32(depth**0.5)
weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
weights /= weights.sum(axis=-1, keepdims=True)
mixed = einjit.einsum("bhqk,bkhd->bqhd", weights, v)

by_matmul = (weights @ v.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
np.testing.assert_allclose(mixed, by_matmul, rtol=1e-4, atol=1e-5)
print(f"scores {scores.shape}, output {mixed.shape}: agrees with transposes and matmul")
