"""Transposes: squares turned in registers, tiles moved inside at the edges, and output past the caches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import einjit
from einjit.compiler import compile_step
from einjit.contraction import Layout, contraction
from einjit.errors import ScheduleError
from einjit.lower import lower
from einjit.machine import Cache, table_entry
from einjit.parse import parse
from einjit.program import BoundStep
from einjit.schedule import Ahead, Fuse, Parallel, Reorder, Split, Stage, Stream, Unroll, Vectorize, apply
from einjit.schedule.choose import choose, normalised
from tests.equations import random_array
from tests.reference import assert_close, reference

EQUATIONS = ("ijk->kji", "ijk->ikj", "ij,ji->ij", "ij,ji->")
DTYPES = ("bool", "int8", "uint16", "int64", "float16", "float32", "float64", "complex64", "complex128")
SIZES = ({"i": 1, "j": 40, "k": 3}, {"i": 16, "j": 16, "k": 16}, {"i": 37, "j": 5, "k": 21},
         {"i": 3, "j": 70, "k": 2}, {"i": 50, "j": 33, "k": 18})

# Labels i (contiguous in the output) and j (contiguous in the input) of "ij->ji".
SQUARES = (Fuse(("i",), "V"), Fuse(("j",), "U"), Split("V", 8), Split("U", 8),
           Reorder(("V/8", "U/8", "U", "V")), Unroll("U"), Vectorize("V", 8))


def operands(equation: str, sizes: dict[str, int], dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [random_array(rng, [sizes[c] for c in term], dtype) for term in equation.split("->")[0].split(",")]


def chosen(equation: str, shape, dtype: str = "float32", row: str = "avx512", **caches):
    layouts = [Layout.contiguous(shape, dtype)]
    einsum = parse(equation, (len(shape),))
    sizes = dict(zip(einsum.inputs[0], shape))
    out = Layout.contiguous([sizes[label] for label in einsum.output], dtype)
    c = normalised(contraction(einsum, sizes, out, layouts))
    choice = choose(c, replace(table_entry(row), **caches))
    return choice, apply(lower(c), choice.schedule)


@pytest.mark.parametrize("equation,shape", [
    ("ij->ji", (40, 50)), ("ijk->kji", (20, 30, 40)), ("ijklm->mlkji", (9, 9, 9, 9, 9))])
def test_the_tile_is_a_square_read_along_one_dimension_and_written_along_the_other(equation, shape):
    choice, nest = chosen(equation, shape)
    assert choice.family == "transposition"
    assert nest.out.unit == "V" and nest.inputs[0].unit == "U"
    kernel = einjit.compile(equation, np.zeros(shape, np.float32))
    assert "unrolled=('unit',), vector='affine'" in kernel.source


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("equation", EQUATIONS)
def test_results_for_every_dtype_and_odd_sizes(equation, dtype):
    for sizes in SIZES:
        arrays = operands(equation, sizes, dtype)
        assert_close(einjit.compile(equation, *arrays)(*arrays), reference(equation, *arrays))


@pytest.mark.parametrize("equation", ["ij->ji", "ij,ji->ij"])
@pytest.mark.parametrize("cut", [np.s_[::-1, :], np.s_[:, ::-1], np.s_[1::2, 1:], np.s_[::2, ::3]])
def test_results_for_any_strides(equation, cut):
    arrays = [x[cut] for x in operands(equation, {"i": 75, "j": 75}, "float32")]
    n = min(min(x.shape) for x in arrays)
    arrays = [x[:n, :n] for x in arrays]
    assert_close(einjit.compile(equation, *arrays)(*arrays), reference(equation, *arrays))


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128"])
@pytest.mark.parametrize("rows", [8, 24])
def test_squares_one_under_another(rows, dtype):
    (array,) = operands("ij->ji", {"i": 35, "j": 70}, dtype)
    squares = (Fuse(("i",), "V"), Fuse(("j",), "U"), Split("V", 8), Split("U", rows),
               Reorder(("V/8", f"U/{rows}", "U", "V")), Unroll("U"), Vectorize("V", 8))
    np.testing.assert_array_equal(einjit.compile("ij->ji", array, schedule=squares)(array), array.T)


@pytest.mark.parametrize("dtype", ["int8", "float32", "complex64"])
@pytest.mark.parametrize("rows,columns", [(8, 16), (17, 33), (5, 40), (40, 5), (100, 131)])
@pytest.mark.parametrize("schedule", [None, SQUARES, (*SQUARES, Stream())], ids=["policy", "squares", "streamed"])
def test_what_lies_around_the_output_is_left_alone(dtype, rows, columns, schedule):
    (array,) = operands("ij->ji", {"i": rows, "j": columns}, dtype)
    for margin in (3, 64 - rows % 64):      # rows that begin anywhere in a line, and all at the same place
        whole = np.full((columns + 2, rows + margin), 1, dtype)
        expected = whole.copy()
        expected[1:-1, 1:rows + 1] = array.T
        run(array, whole[1:-1, 1:rows + 1], schedule)
        np.testing.assert_array_equal(whole, expected)


def run(array: np.ndarray, out: np.ndarray, schedule, threads: int = 1, equation: str = "ij->ji") -> None:
    """Transpose straight into `out`, whatever its strides."""
    layouts, sizes = (Layout.of(out), [Layout.of(array)]), dict(zip("ijk", array.shape))
    step = compile_step(parse(equation, (array.ndim,)), sizes, *layouts, schedule=schedule)
    assert BoundStep(step, *layouts, threads).run(out, array) is None


def test_threads_share_a_streamed_output():
    array = np.arange(1501 * 1600, dtype=np.float32).reshape(1501, 1600)
    out = np.zeros((1600, 1501), np.float32)
    run(array, out, (*SQUARES, Parallel("V"), Stream()), threads=2)
    np.testing.assert_array_equal(out, array.T)


# -- past the caches ---------------------------------------------------------------------------------------

SMALL_L3 = Cache(2**16, 16)


@pytest.mark.parametrize("equation,shape,streamed", [
    ("ij->ji", (512, 512), True), ("ij->ji", (500, 512), False), ("ij->ji", (64, 64), False),
    ("ij->ij", (512, 512), True), ("ijk->jik", (64, 64, 100), False), ("ij->i", (40_000, 10), False)])
def test_large_outputs_of_whole_lines_are_written_past_the_caches(equation, shape, streamed):
    choice, nest = chosen(equation, shape, l3=SMALL_L3)
    assert nest.streamed == (Stream() in choice.schedule) == streamed
    assert ("past the caches" in str(nest)) == (streamed or nest.staged is not None)
    assert not chosen(equation, shape, l3=Cache(2**30, 16))[1].streamed


def test_a_streamed_kernel_stores_past_the_caches_and_ends_with_a_fence():
    kernel = einjit.compile("ij->ji", (64, 64), dtype="float32", schedule=(*SQUARES, Stream()))
    assert "past_line(out + V_lo * 4 + U_lo * out_U, 4) % 8" in kernel.source      # the first tile is not empty
    assert "!nontemporal" in kernel.llvm and "fence seq_cst" in kernel.llvm
    assert "!nontemporal" not in einjit.compile("ij->ji", (64, 64), dtype="float32", schedule=SQUARES).llvm


@pytest.mark.parametrize("equation,schedule,reason", [
    ("ij->i", (Stream(),), "partial sums over j are read again"),
    ("ij->ji", (Stream(),), "only along a vectorised label in which it is contiguous"),
    ("ij->ji", (Fuse(("j", "i"), "V"), Split("V", 16), Split("V", 8), Vectorize("V", 8), Stream()),
     "along V, which is fused, only tile by tile"),
    ("ij->ji", (Stream(), Stream()), "streamed already")])
def test_streaming_is_refused_with_its_reason(equation, schedule, reason):
    with pytest.raises(ScheduleError, match=reason):
        einjit.compile(equation, (64, 64), schedule=schedule)


RUNS = (Fuse(("j", "i"), "V"), Fuse(("k",), "U"), Split("V", 8), Split("U", 8), Reorder(("V/8", "U/8", "U", "V")),
        Unroll("U"), Vectorize("V", 8), Stream())


@pytest.mark.parametrize("dtype", ["int8", "float32", "float64", "complex64"])
@pytest.mark.parametrize("shape", [(5, 7, 9), (16, 4, 8), (3, 40, 17), (28, 28, 28), (2, 3, 20)])
@pytest.mark.parametrize("margin", [0, 3, 16])
def test_a_run_of_several_dimensions_is_streamed_and_what_lies_around_it_left_alone(dtype, shape, margin):
    (array,) = operands("ijk->kji", dict(zip("ijk", shape)), dtype)
    i, j, k = shape
    rows = np.full((k + 2, i * j + margin), 1, dtype)
    expected = rows.copy()
    expected[1:-1, :i * j] = array.transpose(2, 1, 0).reshape(k, i * j)
    run(array, rows[1:-1, :i * j].reshape(k, j, i), RUNS, equation="ijk->kji")
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("shape,run", [
    ((28, 28, 64, 40), "kji"), ((16, 64, 40), "ji"), ((1024, 16, 40), "i"), ((28, 27, 40), "")])
def test_short_rows_that_lie_together_are_streamed_as_one(shape, run):
    equation = {3: "ijk->kji", 4: "ijkl->lkji"}[len(shape)]
    nest = chosen(equation, shape, l3=SMALL_L3)[1]
    assert nest.streamed == bool(run)
    if run:
        assert nest.loops[0].name == "V/16" and "".join(reversed(nest.label("V").members)) == run


# -- staged ------------------------------------------------------------------------------------------------

# Labels of "ijk->ikj", where (k, j) of one i are a block.
BLOCKS = (Fuse(("i",), "W"), Fuse(("k",), "U"), Fuse(("j",), "V"), Split("U", 8), Split("V", 8),
          Reorder(("W", "V/8", "U/8", "U", "V")), Unroll("U"), Vectorize("V", 8), Stage("W", ("U", "V")), Ahead("W"))


@pytest.mark.parametrize("dtype", ["bool", "int16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", [(5, 7, 9), (8, 3, 8), (31, 2, 65), (3, 4, 2), (64, 5, 33)])
@pytest.mark.parametrize("margins", [(0, 0), (0, 3), (2, 0)], ids=["together", "rows apart", "columns apart"])
def test_staged_blocks_and_what_lies_around_them(dtype, shape, margins):
    (array,) = operands("ijk->ikj", dict(zip("ijk", shape)), dtype)
    i, j, k = shape
    whole = np.full((i + 2, k + margins[0], j + margins[1]), 1, dtype)
    expected = whole.copy()
    expected[1:-1, :k, :j] = array.transpose(0, 2, 1)
    run(array, whole[1:-1, :k, :j], BLOCKS, equation="ijk->ikj")
    np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("offset", [0, 1, 4, 8, 40, 60, 63])
def test_a_staged_output_may_begin_anywhere(dtype, offset):
    (array,) = operands("ijk->ikj", {"i": 4, "j": 19, "k": 27}, dtype)
    raw = np.ones(array.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    out = raw[start:start + array.nbytes].view(dtype).reshape(4, 27, 19)
    run(array, out, BLOCKS, equation="ijk->ikj")
    np.testing.assert_array_equal(out, array.transpose(0, 2, 1))
    assert raw[:start].all() and raw[start + array.nbytes:].all()


def test_threads_share_staged_blocks():
    (array,) = operands("ijk->ikj", {"i": 300, "j": 61, "k": 173}, "float32")
    for shared in "WUV":
        out = np.zeros((300, 173, 61), np.float32)
        run(array, out, (*BLOCKS, Parallel(shared)), threads=2, equation="ijk->ikj")
        np.testing.assert_array_equal(out, array.transpose(0, 2, 1))


def test_a_staged_kernel_stores_past_the_caches_and_asks_for_what_follows():
    kernel = einjit.compile("ijk->ikj", (20, 20, 20), dtype="float32", schedule=BLOCKS)
    assert "!nontemporal" in kernel.llvm and "fence seq_cst" in kernel.llvm and "llvm.prefetch" in kernel.llvm
    assert "a_ahead = 1 * a_W" in kernel.source
    assert "# out past the caches, block by block of W  # inputs of the next W asked for" in str(kernel.nest)


@pytest.mark.parametrize("equation,shape,at", [
    ("ijk->ikj", (40, 62, 63), "O"), ("ijk->ikj", (30, 250, 256), "U/64"), ("ijkl->jilk", (9, 9, 62, 63), "O"),
    ("ijk->jik", (64, 64, 100), "O"), ("ijk->jik", (9, 9, 9), ""), ("ijkl->kjli", (5, 70, 9, 70), ""),
    ("ijklmn->jilknm", (5, 5, 12, 5, 16, 16), "O"), ("ijklmn->jilknm", (5, 5, 80, 5, 16, 16), "")])
def test_rows_that_end_inside_of_lines_are_staged(equation, shape, at):
    for l3 in (SMALL_L3, Cache(2**30, 16)):
        nest = chosen(equation, shape, l3=l3, l2=Cache(2**18, 16))[1]
        staged = nest.staged.at if nest.staged else ""
        assert staged == (at if l3 is SMALL_L3 else "") and (nest.ahead == staged or not staged)


@pytest.mark.parametrize("schedule,reason", [
    ((*BLOCKS, Stream()), "cannot be streamed and staged"), ((*BLOCKS, Ahead("W")), "asked for already"),
    ((*BLOCKS[:-2], Stage("X", ("U", "V"))), "there is no loop X outside of the tile"),
    ((*BLOCKS[:-2], Ahead("U")), "there is no loop U outside of the tile"),
    ((*BLOCKS[:-2], Stage("W", ("V", "U"))), "the last label of a staged block must be the one"),
    ((*BLOCKS[:-2], Stage("W", ("V",))), "inside loop W are the labels U, V, which the staging must name once"),
    ((Fuse(("i", "k"), "U"), Fuse(("j",), "V"), Split("U", 8), Split("V", 8), Reorder(("U/8", "V/8", "U", "V")),
      Unroll("U"), Vectorize("V", 8), Stage("U/8", ("U", "V"))), "along U, which is fused")])
def test_staging_is_refused_with_its_reason(schedule, reason):
    with pytest.raises(ScheduleError, match=reason):
        einjit.compile("ijk->ikj", (20, 20, 20), dtype="float32", schedule=schedule)


def test_only_outputs_without_sums_are_staged():
    with pytest.raises(ScheduleError, match="only where nothing is summed"):
        einjit.compile("ij->i", (64, 64), schedule=(Split("i", 8), Stage("i/8", ("j", "i"))))


def test_tiles_over_an_edge_are_moved_inside_where_nothing_is_summed():
    assert "greater(lesser(" in einjit.compile("ij->ji", (37, 53), dtype="float32").source
    assert "greater(lesser(" not in einjit.compile("ij->i", (37, 53), dtype="float32").source
