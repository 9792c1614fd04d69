"""Vectors over fused positions that straddle the end of a run: taken apart, packed, and stored."""

from __future__ import annotations

import numpy as np
import pytest
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

import einjit
from einjit.codegen.elements import I64
from einjit.codegen.runs import two_runs


@intrinsic
def runs_of_eight(typingctx, address):
    """Of 8 offsets of float32: sound + 2 * mask of the first run + 512 * mask of the second."""

    def codegen(context, builder, signature, args):
        runs = two_runs(builder, args[0], 8, 4)
        sound, first, second = (
            builder.zext(builder.bitcast(x, bits) if bits else x, I64)
            for x, bits in ((runs.sound, None), (runs.first_mask, ir.IntType(8)), (runs.second_mask, ir.IntType(8))))
        return builder.or_(sound, builder.or_(builder.shl(first, I64(1)), builder.shl(second, I64(9))))

    return types.int64(types.int64), codegen


take_apart = njit(lambda address: runs_of_eight(address))


@pytest.mark.parametrize("offsets, sound, first, second", [
    ([0, 4, 8, 12, 16, 20, 24, 28], True, 0b11111111, 0),
    ([8, 12, 16, 100, 104, 108, 112, 116], True, 0b00000111, 0b11111000),
    ([28, 0, 4, 8, 12, 16, 20, 24], True, 0b00000001, 0b11111110),
    ([0, 4, 8, 12, 16, 16, 16, 16], True, 0b00011111, 0),               # the end of a label: the last repeats
    ([0, 4, 100, 104, 108, 108, 108, 108], True, 0b00000011, 0b00011100),
    ([64, 64, 64, 64, 64, 64, 64, 64], True, 0b00000001, 0),            # no stride: one element
    ([0, 4, 100, 104, 200, 204, 208, 212], False, None, None),          # three runs
    ([0, 8, 16, 24, 32, 40, 48, 56], False, None, None),                # no neighbours
    ([28, 24, 20, 16, 12, 8, 4, 0], False, None, None),
])
def test_offsets_are_taken_apart_into_two_runs(offsets, sound, first, second):
    table = np.array(offsets)
    found = take_apart(table.ctypes.data)
    assert bool(found & 1) is sound
    if sound:
        assert (found >> 1 & 255, found >> 9) == (first, second)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128", "int32", "int16"])
@pytest.mark.parametrize("inner", [3, 7, 15, 24, 31, 33])
@pytest.mark.parametrize("equation", [
    "kmn,kxy->xmny",        # packed along broken runs
    "mnk,xyk->mxny",        # transposed while packed; the output's columns are broken
    "kmn,xky->nxmy",
])
def test_runs_of_any_length_are_packed_and_stored(equation, inner, dtype):
    rng = np.random.default_rng(5)
    sizes = {"m": 9, "n": inner, "x": 8, "y": inner, "k": 200}
    left, right = (rng.integers(-9, 9, [sizes[c] for c in term]).astype(dtype)
                   for term in equation.split("->")[0].split(","))
    shape = [sizes[c] for c in equation.split("->")[1]]
    around = np.full(np.prod(shape) + 128, 77, dtype)
    out = around[64:-64].reshape(shape)
    kernel = einjit.compile(equation, left, right)
    assert kernel.family == "packed contraction"
    kernel(left, right, out=out)
    np.testing.assert_array_equal(out, np.einsum(equation, left, right))
    assert (around[:64] == 77).all() and (around[-64:] == 77).all()


@pytest.mark.parametrize("n", [65, 66, 79, 81, 95])
def test_what_lies_past_the_last_column_is_not_stored(n):
    """Long sums come in blocks of steps, whose results so far are read back; the last vectors have few columns."""
    rng = np.random.default_rng(n)
    left, right = (rng.integers(-3, 3, shape).astype("float32") for shape in ((70, 3000), (3000, n)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("einjit.schedule.choose.lanes_unpacked", lambda c, cpu: None)
        kernel = einjit.compile("ij,jk->ik", left, right)
    assert kernel.family == "packed contraction"
    np.testing.assert_array_equal(kernel(left, right), left @ right)
