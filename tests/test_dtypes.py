"""Element types beside float32 and float64: what is exact, what is rounded and when, and what is never made."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import einjit
from einjit.codegen.innermost import keeps_partial_results
from einjit.contraction import Layout
from einjit.errors import DtypeError
from einjit.options import current
from einjit.parse import parse
from einjit.planning import Problem, computed_in
from tests.subprocesses import run_python

RNG = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def compiled():
    with einjit.options(handover="unsupported"):
        yield


def bfloat16() -> np.dtype:
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)


SMALL_FLOATS = ("float16", "bfloat16")


def dtype_of(name: str) -> np.dtype:
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def bits(x: np.ndarray) -> np.ndarray:
    return x.view(np.uint16)


# -- integers ----------------------------------------------------------------------------------------------

def largest(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Elements of the largest absolute value, of both signs where the type has them."""
    info = np.iinfo(dtype)
    return np.full(shape, info.min if info.min else info.max, dtype)


@pytest.mark.parametrize("dtypes, result, length, narrow", [
    (("int8", "int8"), "int64", 131071, True),
    (("int8", "int8"), "int64", 131072, False),         # their sum is 2 ** 31
    (("uint8", "uint8"), "int64", 33025, True),
    (("uint8", "uint8"), "uint64", 33026, False),
    (("uint8", "uint8"), "uint64", 33025, True),
    (("int16", "int8"), "int64", 511, True),
    (("int16", "int8"), "int64", 512, False),
    (("int32", "int8"), "int64", 10, False),
    (("int8", "int8"), "int32", 1000, None),            # it is the result's own
])
def test_sums_that_fit_32_bits_are_kept_in_them(dtypes, result, length, narrow):
    a, b = (largest(dtype, shape) for dtype, shape in zip(dtypes, ((17, length), (length, 9))))
    b[:, 1::2] += 1                                     # some products are smaller
    exact = a.astype(object)[:1] @ b.astype(object)
    wide = einjit.einsum("ij,jk->ik", a, b, dtype=result)
    assert wide.dtype == result
    np.testing.assert_array_equal(wide, np.broadcast_to(exact.astype(result), (17, 9)))
    if narrow is not None:
        assert (computed_in_32_bits(a, b, result), int(abs(exact).max()) < 2 ** 31) == (narrow, narrow)


def computed_in_32_bits(a: np.ndarray, b: np.ndarray, result: str) -> bool:
    inputs = tuple(Layout.of(x) for x in (a, b))
    problem = Problem("ij,jk->ik", parse("ij,jk->ik", (2, 2)), inputs, None, result, "K", "safe", None, None, current())
    return computed_in(problem, {"i": a.shape[0], "j": a.shape[1], "k": b.shape[1]}).compute == "int32"


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("equation, shapes", [
    ("ij,jk->ik", ((33, 65), (65, 31))), ("ij,kj->ik", ((70, 600), (4, 600))), ("ij,jk->ik", ((1000, 300), (300, 4))),
    ("ij,j->i", ((9, 300), (300,))), ("ij,i->j", ((300, 40), (300,))), ("ij,ij->ij", ((9, 40), (9, 40))),
    ("ij,jk,kl->il", ((20, 30), (30, 40), (40, 20))), ("ij,jk->ik", ((17, 3000), (3000, 70))),
    ("i,j->ij", ((40,), (9,))),
])
def test_products_of_bytes_wrap_to_bytes(dtype, equation, shapes):
    """They are computed in 16 bits, of which the lower 8 are the same."""
    info = np.iinfo(dtype)
    arrays = [RNG.integers(info.min, info.max + 1, shape).astype(dtype) for shape in shapes]
    kernel = einjit.compile(equation, *arrays)
    assert kernel.steps[-1].contraction.accumulator == dtype.replace("8", "16")
    result = einjit.einsum(equation, *arrays)
    assert result.dtype == dtype
    exact = np.einsum(equation, *[a.astype(np.int64) for a in arrays], optimize=True)
    np.testing.assert_array_equal(result, exact.astype(dtype))


def test_bytes_wrap_before_they_are_written_wider():
    a, b = (RNG.integers(-128, 128, (20, 20)).astype(np.int8) for _ in "ab")
    out = np.zeros((20, 20), np.int32)
    einjit.einsum("ij,jk->ik", a, b, dtype="int8", out=out)
    np.testing.assert_array_equal(out, (a.astype(np.int64) @ b).astype(np.int8))


def test_sums_of_bytes_alone_stay_bytes():
    kernel = einjit.compile("ij->j", np.ones((20, 70), np.int8))
    assert kernel.steps[-1].contraction.accumulator == "int8"


def test_bytes_are_converted_once_where_they_are_used_again():
    square, few = np.ones((64, 64), np.int8), np.ones((4, 640), np.int8)
    assert einjit.compile("ij,jk->ik", square, square).family == "packed contraction"
    assert einjit.compile("ij,kj->ik", np.ones((200, 640), np.int8), few).family == "reduction"


def test_partial_sums_of_integers_may_lie_in_a_wider_output():
    a, b = (RNG.integers(-128, 128, shape).astype(np.int8) for shape in ((40, 5000), (5000, 50)))
    out = np.full((50, 40), 7, np.int64).T
    einjit.einsum("ij,jk->ik", a, b, dtype="int64", out=out)
    np.testing.assert_array_equal(out, a.astype(np.int64) @ b.astype(np.int64))
    chain = a[:, :9], b[:9], b[:50, :6]
    x, y, z = (operand.astype(np.int64) for operand in chain)
    np.testing.assert_array_equal(einjit.einsum("ij,jk,kl->il", *chain, dtype="int64"), x @ y @ z)
    truth = a[:, :300] > 0
    np.testing.assert_array_equal(einjit.einsum("ij,jk->ik", truth, b[:300], dtype="int64"),
                                  truth.astype(np.int64) @ b[:300].astype(np.int64))


@pytest.mark.parametrize("source", ["int8", "int16", "int32", "uint8", "uint16", "uint32"])
def test_integers_summed_in_int64_are_exact(source):
    """The extremes, whose sums leave 32 bits at 2^17 products of int8 and at once for the wider ones."""
    low, high = np.iinfo(source).min, np.iinfo(source).max
    for extreme in (low, high):
        a = np.full((5, 2 ** 18), extreme, source)
        result = einjit.einsum("ik,jk->ij", a, a, dtype="int64")
        assert result.dtype == np.int64
        # Python's integers, wrapped as NumPy's are.
        exact = (int(extreme) ** 2 * 2 ** 18 + 2 ** 63) % 2 ** 64 - 2 ** 63
        np.testing.assert_array_equal(result, np.full((5, 5), exact, np.int64))


def test_packed_integers_of_both_extremes():
    a = RNG.choice(np.array([-128, 127, -1, 0], np.int8), (67, 301))
    b = RNG.choice(np.array([-128, 127, -1, 0], np.int8), (301, 71))
    result = einjit.einsum("ij,jk->ik", a, b, dtype="int64")
    np.testing.assert_array_equal(result, a.astype(np.int64) @ b.astype(np.int64))
    np.testing.assert_array_equal(einjit.einsum("ij,jk->ik", a, b), (a.astype(np.int64) @ b).astype(np.int8))


def test_a_dtype_that_is_asked_for_is_found_again_and_apart():
    """Calls with and without `dtype=` take the quick way one after the other, each with its own result."""
    a = np.full((8, 8), 100, np.int8)
    for _ in range(3):
        assert einjit.einsum("ij,jk->ik", a, a).dtype == np.int8
        wide = einjit.einsum("ij,jk->ik", a, a, dtype="int64")
        assert wide.dtype == np.int64 and (wide == 80000).all()
        assert einjit.einsum("ij,jk->ik", a, a, dtype=np.int32).dtype == np.int32
        out = np.zeros((8, 8), np.int64)
        assert einjit.einsum("ij,jk->ik", a, a, dtype="int64", out=out) is out and (out == 80000).all()


# -- float16 and bfloat16 ----------------------------------------------------------------------------------

@pytest.mark.parametrize("name", SMALL_FLOATS)
@pytest.mark.parametrize("m,k,n", [(3, 5, 4), (67, 71, 53), (64, 64, 64), (70, 1500, 66), (1, 4000, 1)])
@pytest.mark.parametrize("order", [1, -1])
def test_products_are_summed_in_float32_and_rounded_once(name, m, k, n, order):
    dtype = dtype_of(name)
    a = RNG.standard_normal((m, k)).astype(dtype)[::order]
    b = RNG.standard_normal((k, n)).astype(dtype)[:, ::order]
    wide = a.astype(np.float64) @ b.astype(np.float64)
    half_step = {"float16": 2.0 ** -11, "bfloat16": 2.0 ** -8}[name]
    allowed = half_step * np.abs(wide) * 1.001 + 1e-6 * k
    for out in (None, np.empty((m, n), dtype), np.empty((n, m), dtype).T, np.empty((m, 2 * n), dtype)[:, ::2]):
        result = einjit.einsum("ij,jk->ik", a, b, out=out)
        assert result.dtype == dtype and (out is None or result is out)
        assert (np.abs(result.astype(np.float64) - wide) <= allowed).all()
    exact = einjit.einsum("ij,jk->ik", a, b, dtype="float32")
    assert exact.dtype == np.float32
    np.testing.assert_allclose(exact, wide, rtol=1e-5, atol=1e-6 * k)


@pytest.mark.parametrize("name", SMALL_FLOATS)
def test_small_floats_add_up_beyond_their_own_precision(name):
    ones = np.ones((3000, 5), dtype_of(name))
    for equation, total in (("ij->j", 3000), ("ij->i", 5), ("ij->", 15000), ("ij,ij->j", 3000)):
        result = einjit.einsum(equation, *[ones] * (1 + equation.count(",")))
        assert (np.asarray(result) == np.float32(total).astype(ones.dtype)).all()
    assert einjit.einsum("ij,ij->", ones, ones, dtype="float32") == 15000


def test_every_float32_rounds_to_the_nearest_bfloat16_ties_to_even():
    upper = np.arange(2 ** 16, dtype=np.uint32) << 16
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        x = (upper | np.uint32(lower)).view(np.float32)
        out = np.empty(x.shape, bfloat16())
        einjit.einsum("i->i", x, out=out, casting="same_kind")
        with np.errstate(all="ignore"):
            expected = x.astype(out.dtype)
        same = (bits(out) == bits(expected)) | (np.isnan(x) & np.isnan(out.astype(np.float32)))
        assert same.all(), x[~same][:5]


@pytest.mark.parametrize("name", SMALL_FLOATS)
def test_infinities_nans_and_overflow(name):
    dtype = dtype_of(name)
    special = np.array([np.inf, -np.inf, np.nan, 0, -0.0, 1, -2, float(np.finfo(np.float16).max)], dtype)
    one = np.ones(1, dtype)
    result = einjit.einsum("i,j->i", special, one)
    np.testing.assert_array_equal(result.astype(float), special.astype(float))
    with np.errstate(all="ignore"):
        expected = (special.astype(np.float32)[:, None] * special.astype(np.float32)).astype(dtype)
    np.testing.assert_array_equal(einjit.einsum("i,j->ij", special, special).astype(float), expected.astype(float))


def test_bfloat16_promotes_as_ml_dtypes_says():
    half = np.ones((4, 4), bfloat16())
    for other, result in (("float32", "float32"), ("float64", "float64"), ("complex64", "complex64"),
                          ("int8", "bfloat16"), ("bool", "bfloat16")):
        assert einjit.einsum("ij,jk->ik", half, np.ones((4, 4), other)).dtype == result
    with pytest.raises(DtypeError, match="no common dtype"):
        einjit.einsum("ij,jk->ik", half, np.ones((4, 4), "int32"))
    with pytest.raises(DtypeError, match="cannot be cast"):
        einjit.einsum("i,i->i", np.ones(3), np.ones(3), dtype=bfloat16())
    assert einjit.einsum("i,i->i", np.ones(3), np.ones(3), dtype=bfloat16(), casting="same_kind").dtype == "bfloat16"


def test_bfloat16_in_other_shapes_of_calls():
    a = RNG.standard_normal((6, 7)).astype(bfloat16())
    assert einjit.einsum("ij->ji", a).base is a
    assert einjit.einsum("ij,jk->ik", np.ones((3, 0), a.dtype), np.ones((0, 4), a.dtype)).dtype == a.dtype
    chain = einjit.einsum("ij,kj,kl->il", a, a, a)
    wide = a.astype(float)
    np.testing.assert_allclose(chain.astype(float), wide @ wide.T @ wide, rtol=0.02, atol=0.1)
    kernel = einjit.compile("ij,kj->ik", a, a)
    assert kernel(a, a).dtype == a.dtype
    square = a[:6, :6].copy()
    expected = einjit.einsum("ij,jk->ik", square, square)
    np.testing.assert_array_equal(bits(einjit.einsum("ij,jk->ik", square, square, out=square)), bits(expected))


@einjit.jit("i->i")
def clipped(a):
    return a if a > 2.5 else 0


@einjit.jit("i->i")
def counted(a):
    return (a > 1) * a


@pytest.mark.parametrize("body", [clipped, counted])
@pytest.mark.parametrize("dtype", SMALL_FLOATS)
def test_bodies_may_have_constants_beside_comparisons(body, dtype):
    """NumPy has no common type for bfloat16 and Python's integers."""
    a = np.arange(5).astype(dtype_of(dtype))
    result = body(a)
    assert result.dtype == a.dtype
    assert result.astype(float).tolist() == ([0, 0, 0, 3, 4] if body is clipped else [0, 0, 2, 3, 4])


def test_bfloat16_is_not_left_to_numpy_when_tiny():
    a = np.ones((2, 2), bfloat16())
    with einjit.options(handover="tiny"):
        np.testing.assert_array_equal(einjit.einsum("ij,jk->ik", a, a).astype(float), np.full((2, 2), 2.0))


def test_ml_dtypes_is_not_imported():
    done = run_python("-c", """if True:
        import sys, numpy, einjit
        einjit.einsum("i,i->", numpy.ones(3), numpy.ones(3))
        print("ml_dtypes" in sys.modules)
    """)
    assert done.stdout.strip() == "False", done.stderr


# -- where the rounding is done ----------------------------------------------------------------------------

@pytest.mark.parametrize("k,stored", [(64, "float16"), (200, "float16"), (5000, "float32")])
def test_partial_results_are_kept_wide(k, stored):
    """One block of k: the store rounds. Several: the output is float32, and rounded once all are in."""
    kernel = einjit.compile("ij,jk->ik", (200, k), (k, 200), dtype="float16")
    step = kernel.steps[0]
    assert (step.contraction.dtypes[0], step.contraction.accumulator) == (stored, "float32")
    assert stored == "float32" or not keeps_partial_results(step.nest)


def test_a_sum_in_several_blocks_keeps_partial_results():
    kernel = einjit.compile("ij,jk->ik", (200, 5000), (5000, 200))
    assert keeps_partial_results(kernel.steps[0].nest)
    assert keeps_partial_results(einjit.compile("ijk,ikl->jl", (3, 4, 5), (3, 5, 6)).steps[0].nest)
    assert not keeps_partial_results(einjit.compile("ij->j", (50, 20)).steps[0].nest)


def traced(call) -> int:
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("one,other", [("float32", "float64"), ("float64", "float32"), ("int8", "float32"),
                                       ("float16", "float16"), ("bfloat16", "bfloat16"), ("int8", "int64")])
def test_no_operand_is_copied_to_be_converted(one, other):
    a, b = np.ones((400, 400), dtype_of(one)), np.ones((400, 400), dtype_of(other))
    out = np.empty((400, 400), np.result_type(a, b))
    with einjit.options(threads=1):     # another thread may make its scratch memory in any call
        assert traced(lambda: einjit.einsum("ij,jk->ik", a, b, out=out)) < 10_000
    np.testing.assert_array_equal(out.astype(float), np.full(out.shape, 400.0))
