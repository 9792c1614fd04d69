"""The direct policy: loops in the order of memory, rows side by side or in turn, small extents whole in the tile."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

import einjit
from einjit.codegen.cpu import emit, structure
from einjit.contraction import Layout, contraction
from einjit.errors import ScheduleError
from einjit.interp import interpret
from einjit.ir import Kind, LoopNest, tile_width
from einjit.lower import lower
from einjit.machine import table_entry
from einjit.parse import parse
from einjit.schedule import Ahead, Fuse, Prefetch, Reorder, Split, Stream, Unroll, Vectorize, apply
from einjit.schedule.choose import choose, normalised
from tests.equations import random_array
from tests.reference import assert_close, reference
from tests.strategies import lay_out

ZEN4 = table_entry("znver4")


def nest_of(equation: str, *extents: int, dtype: str = "float32", cpu=ZEN4) -> LoopNest:
    """The scheduled nest of row-major operands; extents in the order in which labels are met."""
    terms = equation.replace("->", ",").split(",")
    sizes = dict(zip(dict.fromkeys("".join(terms[:-1])), extents))
    *inputs, out = (Layout.contiguous([sizes[label] for label in term], dtype) for term in terms)
    c = normalised(contraction(parse(equation, tuple(map(len, terms[:-1]))), sizes, out, inputs))
    return apply(lower(c), choose(c, cpu).schedule)


def loops(nest: LoopNest) -> list[str]:
    return [loop.name for loop in nest.loops]


def members(nest: LoopNest, label: str) -> str:
    return "".join(reversed(nest.label(label).members))


# -- sums --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("equation,extents,order", [
    ("ijk->j", (256, 250, 256), ["R", "I", "V/64", "V"]),       # i, then j inside it, k on the lanes
    ("ijk->i", (256, 250, 256), ["O", "V/64", "V"]),
    ("ijk->ik", (256, 250, 256), ["O", "V/256", "S", "V"]),     # a row's sums in registers
    ("ijk->k", (256, 250, 256), ["V/256", "S", "V"]),
    ("ijklm->ikm", (20, 20, 20, 20, 100), ["O", "R", "I", "V/128", "S", "V"]),
])
def test_sums_walk_memory_in_order(equation, extents, order):
    nest = nest_of(equation, *extents)
    assert loops(nest) == order
    assert nest.inputs[0].unit == "V"


def test_a_sum_over_a_short_last_axis_has_it_on_the_lanes():
    nest = nest_of("ijklmn->m", 16, 15, 16, 17, 16, 16)
    assert nest.label("V").summed and nest.label("V").extent == 16
    assert loops(nest)[:2] == ["R", "I"]


@pytest.mark.parametrize("equation,extents,lanes", [
    ("ij->", (4000, 4000), 8), ("ij->", (400, 400), 16),        # from memory by half cache lines
    ("ij,ij->i", (4000, 4000), 8), ("ijk->ik", (100, 1000, 1000), 8),
    ("ijk->ik", (256, 250, 256), 16),                           # else registers would not hold a row's sums
])
def test_what_comes_from_memory_is_read_by_half_lines(equation, extents, lanes):
    assert nest_of(equation, *extents).loops[-1].lanes == lanes


@pytest.mark.parametrize("equation,extents,ahead", [
    ("ij->j", (4000, 4000), "U/8"), ("ij->j", (1000, 1000), ""), ("ijk->ik", (100, 400, 1000), ""),    # in turn
    ("ij,j->i", (4000, 4000), "U/8"), ("i,ij,j->", (4000, 4000), "U/8"), ("ij->i", (4000, 4000), ""),
    ("ij,ji->", (4000, 4000), "U/16"), ("ij,ji->", (400, 400), ""), ("ij->j", (1500, 2500), "U/8"),     # over L3 / 2
    ("ij,ji->ij", (1001, 1001), "U/16"), ("ij,ji->ij", (400, 400), ""), ("ij->ji", (1500, 1500), "U/16"),
    ("ijk->ikj", (499, 61, 60), "")])                           # most of what follows a row is another place
def test_rows_read_side_by_side_from_memory_are_asked_for(equation, extents, ahead):
    assert nest_of(equation, *extents).ahead == ahead


@pytest.mark.parametrize("equation,n,streamed", [
    ("ij,ij->ij", 1600, True), ("ij,ij->ij", 1400, False), ("i,j->ij", 1600, False), ("i,j->ij", 2200, True)])
def test_outputs_go_past_the_caches_that_find_no_room_beside_the_inputs(equation, n, streamed):
    assert nest_of(equation, n, n).streamed == streamed


def test_inputs_that_lie_either_way_are_read_in_runs_of_both_and_the_output_streamed():
    nest = nest_of("ij,ji->ij", 4000, 4000)
    assert loops(nest)[:3] == ["V/512", "U/16", "V/16"] and nest.streamed and nest.ahead == "U/16"
    assert loops(nest_of("ij,i->ji", 4000, 4000))[:2] == ["V/16", "U/16"]      # what lies along rows is in a cache


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [16, 64, 80, 129])
def test_streamed_squares_of_inputs_that_lie_either_way_are_right(dtype, n):
    operands = [random_array(np.random.default_rng(i), (n, n), dtype) for i in (1, 2)]
    schedule = einjit.compile("ij,ji->ij", *operands).schedule
    loop = next(opt for opt in schedule if isinstance(opt, Reorder)).order[0]
    kernel = einjit.compile("ij,ji->ij", *operands, schedule=(*schedule, Stream(), Ahead(loop)))
    assert_close(kernel(*operands), reference("ij,ji->ij", *operands))


@pytest.mark.parametrize("equation", ["ij->j", "ij,j->i", "i,ij,j->", "ij,ji->", "ij,ij->j"])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("n", [8, 57, 129])
def test_asking_for_the_next_rows_changes_nothing(equation, dtype, n):
    rng = np.random.default_rng(3)
    operands = [random_array(rng, [n] * len(term), dtype) for term in equation.split("->")[0].split(",")]
    schedule = einjit.compile(equation, *operands).schedule
    loop = next(opt for opt in schedule if isinstance(opt, Reorder)).order[0]
    kernel = einjit.compile(equation, *operands, schedule=(*schedule, Ahead(loop)))
    assert kernel.nest.ahead == loop and "llvm.prefetch" in kernel.llvm
    assert_close(kernel(*operands), reference(equation, *operands))


@pytest.mark.parametrize("equation,extents,distance", [
    ("ij->", (4000, 4000), 1024), ("ij->", (1000, 1000), 0), ("ij->i", (4000, 4000), 1024),
    ("ij->i", (200_000, 128), 1024), ("ij->i", (500_000, 64), 0),       # short rows: less to gain than to do
    ("ij,ij->ij", (4000, 4000), 1024), ("ij,j->ij", (4000, 4000), 0), ("ij,j->i", (4000, 4000), 0)])
def test_what_is_read_on_and_on_from_memory_is_asked_for(equation, extents, distance):
    assert nest_of(equation, *extents).prefetch == distance


def test_short_rows_that_lie_apart_are_not_asked_for_beyond_their_end():
    for row, distance in ((128, 1024), (256, 0)):
        rows, sums = Layout((200_000, 128), (row * 4, 4), "float32"), Layout.contiguous((200_000,), "float32")
        c = contraction(parse("ij->i", (2,)), {"i": 200_000, "j": 128}, sums, [rows])
        assert apply(lower(c), choose(c, ZEN4).schedule).prefetch == distance


@pytest.mark.parametrize("equation", ["ij->", "ij->i", "ij,ij->i", "ij,ij->ij", "ijk->ik"])
@pytest.mark.parametrize("dtype", ["float32", "complex128", "int16"])
@pytest.mark.parametrize("n", [8, 57, 129])
def test_a_prefetch_changes_nothing(equation, dtype, n):
    rng = np.random.default_rng(3)
    operands = [random_array(rng, [n] * len(term), dtype) for term in equation.split("->")[0].split(",")]
    schedule = einjit.compile(equation, *operands).schedule
    kernel = einjit.compile(equation, *operands, schedule=(*schedule, Prefetch(1024)))
    assert "llvm.prefetch" in kernel.llvm and "asked for 1024 bytes ahead" in str(kernel.nest)
    assert_close(kernel(*operands), reference(equation, *operands))


@pytest.mark.parametrize("extra,reason", [((Prefetch(0),), "0 bytes behind"),
                                          ((Ahead("V/64"), Prefetch(64)), "by loop or by distance, not both")])
def test_a_prefetch_that_makes_no_sense_is_refused(extra, reason):
    schedule = (Fuse(("i",), "V"), Split("V", 64), Vectorize("V", 16), *extra)
    with pytest.raises(ScheduleError, match=reason):
        einjit.compile("i->", (1000,), dtype="float32", schedule=schedule)


def rows_at_once(nest: LoopNest) -> int:
    return prod(tile_width(nest, loop.label) for loop in nest.loops if loop.kind is Kind.UNROLLED)


@pytest.mark.parametrize("equation", ["ijk->ik", "ijk,k->ij"])
def test_short_rows_from_memory_are_read_in_turn(equation):
    # Rows of 4 KB. All of it in cache: side by side, which saves loads.
    assert rows_at_once(nest_of(equation, 40, 400, 1000)) == 1
    assert rows_at_once(nest_of(equation, 1, 104, 1000)) == 8


@pytest.mark.parametrize("equation,rows", [("ij->j", 8), ("ij,i->j", 8), ("ij,ij->j", 4), ("ij,j->i", 8)])
def test_long_rows_are_read_side_by_side_but_not_too_many(equation, rows):
    assert rows_at_once(nest_of(equation, 4000, 4000)) == rows


def test_what_two_factors_share_is_loaded_once_for_several_rows():
    nest = nest_of("i,ij,j->", 4000, 4000)
    assert rows_at_once(nest) == 8 and nest.label("U").summed


# -- small extents -----------------------------------------------------------------------------------------

def test_a_batch_of_tiny_products_has_no_loop_but_that_over_the_batch():
    nest = nest_of("bij,bjk->bik", 5000, 4, 4, 4)
    assert loops(nest) == ["O", "S", "U", "V"]
    assert all(nest.is_whole(label) for label in "SUV")
    assert "range(O_lo, O_hi)" in emit(nest).text and "left" not in emit(nest).text


def test_the_code_of_a_whole_label_is_for_its_extent_alone():
    one = nest_of("bij,bjk->bik", 5000, 4, 4, 4)
    assert structure(one) == structure(nest_of("bij,bjk->bik", 9000, 4, 4, 4))
    assert structure(one) != structure(nest_of("bij,bjk->bik", 5000, 4, 4, 3))
    # Few runs of the tile do not pay for a kernel of their own.
    assert not any(nest_of("ij,jk->ik", 4, 4, 4).is_whole(label) for label in "UV")


def test_tiny_matrices_times_vectors_are_written_out():
    nest = nest_of("bij,bj->bi", 5000, 3, 3)
    assert [loop.kind for loop in nest.loops] == [Kind.PARALLEL, Kind.UNROLLED, Kind.UNROLLED]


def test_a_batch_that_is_contiguous_gets_a_tile_of_rows_and_columns():
    nest = nest_of("ijb,jkb->ikb", 8, 8, 4096, 8)
    assert [(loop.label, tile_width(nest, loop.label)) for loop in nest.loops[-3:]] == [("U", 4), ("W", 4), ("V", 16)]
    assert members(nest, "V") == "k"        # b, the third dimension


# -- right, whatever the sizes -----------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "int8"])
@pytest.mark.parametrize("layout", ["c", "f", "reversed"])
@pytest.mark.parametrize("equation,extents", [
    ("bij,bjk->bik", (70, 3, 3, 3)), ("bij,bjk->bik", (65, 5, 7, 2)), ("bij,bjk->bik", (64, 2, 9, 13)),
    ("bij,bj->bi", (100, 3, 3)), ("bij,bj->bi", (67, 13, 11)), ("bij,bj->bi", (80, 16, 31)),
    ("ijb,jkb->ikb", (3, 3, 70, 2)), ("ijb,jkb->ikb", (6, 5, 33, 7)), ("bi,bi->b", (300, 3)), ("bi,bi->b", (70, 5)),
    ("ijk->j", (9, 11, 13)), ("ijk->ik", (5, 19, 37)), ("ijkl->jl", (3, 4, 5, 6)), ("ijkl->k", (7, 3, 5, 6)),
    ("i,ij,j->", (13, 45)), ("ij,ij->j", (9, 300)),
], ids=str)
def test_small_and_odd_extents_are_right(equation, extents, layout, dtype):
    terms = equation.split("->")[0].split(",")
    sizes = dict(zip(dict.fromkeys("".join(terms)), extents))
    rng = np.random.default_rng(1)
    operands = [lay_out(rng.integers(-3, 4, [sizes[x] for x in term]).astype(dtype), layout) for term in terms]
    assert_close(einjit.compile(equation, *operands)(*operands), reference(equation, *operands))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 11, 16])
@pytest.mark.parametrize("summed", [2, 5, 16])
def test_sums_of_several_rows_are_folded_into_each_other(rows, summed):
    rng = np.random.default_rng(2)
    a, b = rng.random((70, rows, summed)), rng.random((70, summed))
    assert_close(einjit.compile("bij,bj->bi", a, b)(a, b), reference("bij,bj->bi", a, b))


WHOLE = (Fuse(("i",), "U"), Fuse(("j",), "V"), Reorder(("U", "V")), Unroll("U"), Vectorize("V", 4))


@pytest.mark.parametrize("equation", ["ij->ij", "ij->i", "ij->j", "ij->"])
def test_whole_labels_mean_what_loops_mean(equation):
    a = np.arange(35.0).reshape(5, 7)
    out = np.full([{"i": 5, "j": 7}[x] for x in equation[4:]], -1.0)
    strided = np.lib.stride_tricks.as_strided(np.arange(500.0), (5, 7), (8 * 50, 16))
    for operand in (a, strided):
        kernel = einjit.compile(equation, operand, schedule=_schedule(equation, operand))
        assert_close(kernel(operand), reference(equation, operand))
        c = contraction(parse(equation, (2,)), {"i": 5, "j": 7}, Layout.of(out), [Layout.of(operand)])
        interpret(apply(lower(c), _schedule(equation, operand)), c, out, [operand])
        assert_close(out, reference(equation, operand))


def _schedule(equation: str, operand: np.ndarray):
    """Both labels whole; one, where they are folded to one of 35."""
    out = Layout.contiguous([{"i": 5, "j": 7}[x] for x in equation[4:]], "float64")
    c = contraction(parse(equation, (2,)), {"i": 5, "j": 7}, out, [Layout.of(operand)])
    return WHOLE if len(c.dimensions) == 2 else (Fuse(("i",), "V"), Vectorize("V", 4))
