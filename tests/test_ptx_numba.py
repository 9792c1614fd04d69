"""The executor of PTX on what Numba-CUDA emits. Compiling takes no GPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import complex64, cuda, float32, float64, int32
from numba.cuda import types

from tests.ptx import Kernel, Race, launch, parse

pytestmark = pytest.mark.cuda


def compiled(function, *kinds) -> Kernel:
    return parse(cuda.compile_ptx(function, kinds, cc=(8, 0))[0])


def pointer(kind) -> types.Type:
    return types.CPointer(kind)


def struct(array: np.ndarray) -> list:
    """What a kernel gets for an array of one dimension: parent, memory, size, itemsize, data, shape, strides."""
    return [0, 0, array.size, array.itemsize, array, array.size, array.itemsize]


@pytest.mark.parametrize("pitch, degree", [(32, 32), (33, 1)])
def test_transposition(pitch, degree):
    def transpose(x, y):
        tile = cuda.shared.array((32, pitch), float32)
        column, row = cuda.threadIdx.x, cuda.threadIdx.y
        for r in range(row, 32, 8):
            tile[r, column] = x[r * 32 + column]
        cuda.syncthreads()
        for r in range(row, 32, 8):
            y[r * 32 + column] = tile[column, r]

    x, y = np.arange(1024, dtype="f4"), np.zeros(1024, "f4")
    report = launch(compiled(transpose, float32[::1], float32[::1]), 1, (32, 8), struct(x) + struct(y))
    assert (y.reshape(32, 32) == x.reshape(32, 32).T).all()
    assert report.shared_loads.ratio == degree and report.global_loads.ratio == report.global_stores.ratio == 1


@pytest.mark.parametrize("ordered", [True, False])
def test_a_sum_over_a_block(ordered):
    def total(x, y, n):
        parts = cuda.shared.array(4, float64)
        at = cuda.threadIdx.x
        part = float64(0)
        while at < n:
            part += x[at]
            at += cuda.blockDim.x
        for step in (16, 8, 4, 2, 1):
            part += cuda.shfl_down_sync(0xFFFFFFFF, part, step)
        if cuda.threadIdx.x % 32 == 0:
            parts[cuda.threadIdx.x // 32] = part
        if ordered:
            cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            y[0] = parts[0] + parts[1] + parts[2] + parts[3]

    x, y = np.random.default_rng(6).random(1000), np.zeros(1)
    k = compiled(total, pointer(float64), pointer(float64), int32)
    if ordered:
        launch(k, 1, 128, [x, y, 1000])
        assert math.isclose(y[0], x.sum())
    else:
        with pytest.raises(Race):
            launch(k, 1, 128, [x, y, 1000])


def test_a_product_of_complex_matrices():
    def product(a, b, c, n):
        i, j = cuda.grid(2)
        if i < n and j < n:
            total = complex64(0)
            for k in range(n):
                total += a[i * n + k] * b[k * n + j]
            c[i * n + j] = total

    rng = np.random.default_rng(7)
    a, b = ((rng.standard_normal((11, 11)) + 1j * rng.standard_normal((11, 11))).astype("c8") for _ in range(2))
    c = np.zeros((11, 11), "c8")
    launch(compiled(product, *[pointer(complex64)] * 3, int32), (2, 3), (8, 4), [a, b, c, 11])
    assert np.allclose(c, a @ b, atol=1e-5)


def test_halves_and_functions():
    def apply(x, y, n):
        i = cuda.grid(1)
        if i < n:
            v = float64(float32(x[i]))
            y[i] = math.exp(v) + math.log(abs(v) + 1) * math.sin(100000 * v) + math.pow(abs(v), 1.5) + math.erf(v)

    x, y = np.linspace(-3, 3, 100).astype("f2"), np.zeros(100)
    launch(compiled(apply, types.float16[::1], float64[::1], int32), 2, 64, [*struct(x), *struct(y), 100])
    v = x.astype("f8")
    expected = np.exp(v) + np.log(abs(v) + 1) * np.sin(100000 * v) + abs(v) ** 1.5 + [math.erf(u) for u in v]
    assert np.allclose(y, expected, rtol=1e-13, atol=1e-13)
