"""Which lines of memory a kernel asks for before it reads them: every line of a later block, and each one once or so."""

from __future__ import annotations

import numpy as np
import pytest

import einjit
from einjit import compiler
from einjit.codegen import elements
from einjit.codegen.vectors import I64
from einjit.schedule import Ahead, Fuse, Pack, Reorder, Split, Unroll, Vectorize

LINE = 64
ROWS = 12       # of a tile


@pytest.fixture
def asked(monkeypatch):
    """The addresses that kernels ask for into L2, while this holds, in order."""
    log = np.zeros(1 << 18, np.int64)       # its first word: how many follow

    def note(builder, address, level, writing=False) -> None:
        if level == 2:
            count = builder.inttoptr(I64(log.ctypes.data), I64.as_pointer())
            number = builder.add(builder.load(count), I64(1))
            builder.store(number, count)
            at = builder.add(I64(log.ctypes.data), builder.mul(number, I64(8)))
            builder.store(address, builder.inttoptr(at, I64.as_pointer()))

    monkeypatch.setattr(elements, "prefetch", note)
    compiler._forget()
    with einjit.options(disk_cache=False, threads=1):
        yield log
    compiler._forget()      # code that writes to the log must not outlive it


def in_lines(*shape: int, dtype: str) -> np.ndarray:
    """Numbers from a line's first byte on."""
    count = int(np.prod(shape))
    raw = np.zeros(count * np.dtype(dtype).itemsize + LINE, np.uint8)
    array = raw[-raw.ctypes.data % LINE:][:count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
    array[...] = np.random.default_rng(0).uniform(-1, 1, shape)
    return array


def lines_of(array: np.ndarray) -> set[int]:
    return {array[i:, j:].ctypes.data // LINE for i in range(array.shape[0]) for j in range(array.shape[1])}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("equation", ["km,kn->mn", "mk,kn->mn"], ids=["rows are neighbours", "rows are apart"])
def test_every_line_of_a_that_a_later_tile_reads_is_asked_for(equation, dtype, asked, always_packed):
    m, n, k = 10 * ROWS, 64, 64
    lanes = 64 // np.dtype(dtype).itemsize
    a = in_lines(*((k, m) if equation.startswith("k") else (m, k)), dtype=dtype)
    b = in_lines(k, n, dtype=dtype)
    groups = [step for step in einjit.compile(equation, a, b).schedule if isinstance(step, Fuse)]
    asked[0] = 0
    kernel = einjit.compile(equation, a, b, schedule=(
        *groups, Split("N", 64), Split("N", 2 * lanes),
        Split("K", k), Split("M", m), Split("M", ROWS),
        Reorder(("N/64", f"K/{k}", f"M/{m}", f"N/{2 * lanes}", f"M/{ROWS}", "K", "M", "N")),
        Unroll("M"), Vectorize("N", lanes), Pack("b", f"K/{k}", "N", "K"), Ahead(f"M/{ROWS}")))
    np.testing.assert_allclose(kernel(a, b), np.einsum(equation, a, b), rtol=1e-4, atol=1e-4)
    lines = {address // LINE for address in asked[1:1 + asked[0]].tolist()}
    rows = a.T if equation.startswith("k") else a
    assert lines_of(rows[ROWS:]) - lines_of(rows[:ROWS]) <= lines
    tiles_of_columns = n // (2 * lanes)
    assert asked[0] <= 3 * tiles_of_columns * len(lines_of(rows))
