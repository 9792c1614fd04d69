"""The register tile alone, on packed panels, beside the core's peak of multiply-adds: `python -m bench.tile`.

The tile is taken from the source of a compiled matrix product and called in a loop on one pair of panels, which stay
in the L1 and L2 caches, so that nothing is measured but its inner loop.
"""

from __future__ import annotations

import os
import time

import numpy as np

import einjit
from bench.machine import fma_peak

STEPS = 256         # kc: panels of 12 x 256 and 32 x 256 float32 elements
CALLS = 400
ROUNDS = 200

LOOP = '''
@njit(error_model='numpy')
def run(out, a, b, rows, columns, m, n, steps, calls):
    for _ in range(calls):
        tile((out, a, b, rows, columns, m, n, steps, True))
'''


def measure(dtype: str) -> tuple[str, float, float]:
    """(the tile in words, its GF/s, the peak in GF/s), the best of many, in turn."""
    kernel = einjit.compile("ij,jk->ik", (1000, 1000), (1000, 1000), dtype=dtype)
    step = kernel.steps[0]
    namespace: dict = {"__name__": "bench.tile"}
    exec(step.source.text.split("@njit")[0] + LOOP, namespace)
    pack_a, pack_b = (next(p for p in step.nest.packs if p.tensor == name) for name in "ab")
    m, n = pack_a.width, pack_b.width
    # Every component 1, however the panels arrange them: a complex element is 1 + 1j.
    one, flops, part = (1 + 1j, 8, np.empty(0, dtype).real.dtype.name) if dtype.startswith("c") else (1, 2, dtype)
    a, b, out = (np.full(shape, one, dtype) for shape in ((STEPS, m), (STEPS, n), (m, n)))
    rows, columns = np.arange(m) * out.strides[0], np.arange(n) * out.strides[1]
    addresses = [x.ctypes.data for x in (out, a, b, rows, columns)]
    namespace["run"](*addresses, m, n, STEPS, 1)
    best = min(_seconds(namespace["run"], *addresses, m, n, STEPS, CALLS) for _ in range(ROUNDS))
    np.testing.assert_array_equal(out, one * one * STEPS)
    return kernel.tiling.split(",")[0], flops * m * n * STEPS * CALLS / best / 1e9, fma_peak(part, 1) / 1e9


def _seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for dtype in ("float32", "float64", "complex64", "complex128"):
        words, rate, peak = measure(dtype)
        print(f"{dtype}: {words}: {rate:.1f} GF/s, peak {peak:.1f} GF/s, share {rate / peak:.3f}")
