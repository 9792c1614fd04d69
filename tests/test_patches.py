"""Packing by patches: operands whose neighbouring elements lie several positions apart on a fused label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import einjit
from einjit.schedule import packed
from einjit.schedule.tiling import RegisterTile
from tests.subprocesses import run_python

# Neighbours lie along u, on a label fused from u and r of which r is the faster one.
EQUATIONS = {
    "rku,km->mur": "panel",         # across the panels of b
    "rku,mk->mur": "panel",
    "rlsku,kml->murs": "panel",
    "rku,kxn->xurn": "panel",       # of a
    "mru,nur->mn": "serial",        # across steps: the other operand decides their order
    "mrsu,nurs->mn": "serial",
}
POLICY = packed.tiling          # others take its place below
DTYPES = ("float32", "float64", "complex64", "complex128", "int32", "int8")


def operands(equation: str, sizes: dict[str, int], dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(sizes.values()))
    return [rng.integers(-3, 3, [sizes[label] for label in term]).astype(dtype)
            for term in equation.split("->")[0].split(",")]


def blocks(mc: int, kc: int, nc: int):
    """The policy's tiling with other blocks, in register tiles; kc in steps."""
    def tiling(*arguments):
        t = POLICY(*arguments)
        return replace(t, mc=mc * t.tile.mr, kc=kc, nc=nc * t.tile.nr)

    return tiling


def check(equation: str, sizes: dict[str, int], dtype: str) -> None:
    arrays = operands(equation, sizes, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("einjit.schedule.choose.packing_pays", lambda c: True)
        patch.setattr(packed, "ROW_USES", 0)    # a is packed too, and decides the order of the sum
        kernel = einjit.compile(equation, *arrays)
    assert kernel.family == "packed contraction"
    np.testing.assert_array_equal(kernel(*arrays), np.einsum(equation, *arrays))


def sizes(r: int, u: int, k: int = 40) -> dict[str, int]:
    return {"r": r, "u": u, "s": 2, "l": 3, "x": 30, "k": k, "m": 19, "n": 37}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_which_kernels_pack_by_patches(equation, monkeypatch):
    monkeypatch.setattr(packed, "ROW_USES", 0)
    arrays = operands(equation, sizes(16, 24), "float32")
    assert f"{EQUATIONS[equation]!r}" in einjit.compile(equation, *arrays).source


def test_neighbours_that_are_the_fastest_need_no_patches():
    left, right = np.zeros((30, 20, 8), "float32"), np.zeros((30, 50), "float32")
    assert "by_patches(" not in einjit.compile("kur,km->mur", left, right).source


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("equation", EQUATIONS)
def test_every_dtype(equation, dtype):
    check(equation, sizes(16, 24), dtype)


@pytest.mark.parametrize("r", [2, 7, 8, 24])
@pytest.mark.parametrize("u", [7, 8, 31])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_any_extents(equation, u, r):
    check(equation, sizes(r, u, k=72), "float64")


@pytest.mark.parametrize("mc, kc, nc", [(2, 8, 2), (3, 16, 3), (2, 200, 7)])
@pytest.mark.parametrize("r, u", [(8, 8), (16, 24), (13, 17)])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_blocks_that_begin_and_end_anywhere(monkeypatch, equation, r, u, mc, kc, nc):
    monkeypatch.setattr(packed, "tiling", blocks(mc, kc, nc))
    check(equation, sizes(r, u, k=50), "float32")


@pytest.mark.parametrize("r, u", [(4, 8), (4, 10), (12, 16)])
def test_the_last_panel_of_rows_repeats_the_last_row(monkeypatch, r, u):
    """Tiles over the edge compute and write it again."""
    def twelve_rows(*arguments):
        return replace(POLICY(*arguments), tile=RegisterTile(12, 2, 16), mc=24, nc=64)

    monkeypatch.setattr(packed, "tiling", twelve_rows)
    check("rku,kxn->xurn", sizes(r, u), "float32")


def test_nothing_beside_the_operands_is_read():
    done = run_python("-m", "tests.test_patches")
    assert done.returncode == 0, f"ended at {done.stdout.splitlines()[-1:]}\n{done.stderr}"


def main(extents=((8, 8), (24, 9), (13, 17), (8, 31))) -> None:
    """In a process of its own: every array and the workspace against pages that may not be touched."""
    from functools import partial

    from einjit import program
    from tests.test_memory import guarded_scratch, placed

    program.STACK_WORKSPACE, packed.ROW_USES = 0, 0
    for equation in EQUATIONS:
        for r, u in extents:
            for tiling in (POLICY, blocks(2, 24, 2), blocks(3, 100, 3)):
                packed.tiling = tiling
                arrays = operands(equation, sizes(r, u, k=72), "float32")
                expected = np.einsum(equation, *arrays)
                print(equation, r, u, flush=True)
                for at_end in (True, False):
                    program.scratch = partial(guarded_scratch, at_end=at_end)
                    inputs = [placed(x, "rows", at_end) for x in arrays]
                    out = placed(np.zeros(expected.shape, "float32"), "rows", at_end)
                    einjit.compile(equation, *inputs)(*inputs, out=out)
                    np.testing.assert_array_equal(out, expected)


if __name__ == "__main__":
    main()
