"""Blocks of operands copied into rows that lie one after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import einjit
from einjit.contraction import Layout, contraction
from einjit.errors import ScheduleError
from einjit.interp import interpret
from einjit.ir import LoopNest
from einjit.lower import lower
from einjit.machine import table_entry
from einjit.params import parameters
from einjit.codegen.cpu import emit
from einjit.parse import parse
from einjit.schedule import Copy, Fuse, Pack, Reorder, Split, Stream, Unroll, Vectorize, apply
from einjit.schedule.choose import choose, normalised
from tests.reference import assert_close, reference
from tests.strategies import lay_out
from tests.subprocesses import run_python

EQUATION = "ijb,jkb->ikb"           # its dimensions: i, j, the batch k, l
TILED = (
    Split("i", 4), Split("l", 3), Split("k", 16), Split("k", 4),
    Reorder(("k/16", "i/4", "l/3", "k/4", "j", "i", "l", "k")), Unroll("i"), Unroll("l"), Vectorize("k", 4))
SHARED = (*TILED, Copy("a", "k/16", "k"), Copy("b", "k/16", "k"))
INSIDE = (*TILED, Copy("a", "i/4", "k"), Copy("b", "l/3", "k"))     # one block of i, or of l


def operands(n: int, batch: int, dtype: str = "float64", layout: str = "c") -> list[np.ndarray]:
    rng = np.random.default_rng(n * batch)
    return [lay_out(rng.integers(-9, 9, shape).astype(dtype), layout) for shape in ((n, 5, batch), (5, n + 1, batch))]


def nest_of(equation: str, *shapes, dtype: str = "float64", schedule=None, cpu=table_entry("znver4")):
    einsum = parse(equation, tuple(map(len, shapes)))
    sizes = {x: n for term, shape in zip(einsum.inputs, shapes) for x, n in zip(term, shape)}
    out = Layout.contiguous([sizes[x] for x in einsum.output], dtype)
    c = normalised(contraction(einsum, sizes, out, [Layout.contiguous(shape, dtype) for shape in shapes]))
    return c, apply(lower(c), choose(c, cpu).schedule if schedule is None else schedule)


# -- what they compute -------------------------------------------------------------------------------------

@pytest.mark.parametrize("schedule", [SHARED, INSIDE], ids=["shared", "inside"])
@pytest.mark.parametrize("n", [2, 4, 5, 9])
@pytest.mark.parametrize("batch", [2, 3, 4, 5, 15, 16, 17, 35])
def test_edges(schedule, n, batch):
    arrays = operands(n, batch)
    assert_close(einjit.compile(EQUATION, *arrays, schedule=schedule)(*arrays), reference(EQUATION, *arrays))


@pytest.mark.parametrize("dtype", ["float32", "int16", "int8", "complex64", "complex128", "bool"])
def test_dtypes(dtype):
    arrays = operands(5, 37, dtype)
    assert_close(einjit.compile(EQUATION, *arrays, schedule=SHARED)(*arrays), reference(EQUATION, *arrays))


@pytest.mark.parametrize("layout", ["transposed", "offset", "unaligned"])
def test_strides(layout):
    rows_apart = [np.moveaxis(lay_out(np.moveaxis(a, 2, 0), layout), 0, 2) if layout == "transposed" else
                  lay_out(a, layout) for a in operands(5, 37)]
    if any(a.strides[2] != 8 for a in rows_apart):
        with pytest.raises(ScheduleError, match="not contiguous along k: no rows to copy"):
            einjit.compile(EQUATION, *rows_apart, schedule=SHARED)
        return
    kernel = einjit.compile(EQUATION, *rows_apart, schedule=SHARED)
    assert_close(kernel(*rows_apart), reference(EQUATION, *rows_apart))


def test_rows_in_any_order_and_repeated():
    a, b = operands(5, 37)
    views = a[::-1, ::-1], np.broadcast_to(b[:, :1], b.shape)
    kernel = einjit.compile(EQUATION, *views, schedule=(*TILED, Copy("a", "k/16", "k"), Copy("b", "k/16", "k")))
    assert_close(kernel(*views), reference(EQUATION, *views))


def test_without_a_sum_and_over_an_edge():
    # Where nothing is summed, tiles that lie over an edge are moved inside: not out of a block that is copied.
    a, b = (x[0] for x in operands(5, 33))
    schedule = (Split("i", 16), Split("i", 4), Vectorize("i", 4), Copy("a", "i/16", "i"))
    kernel = einjit.compile("b,b->b", a[0], b[0], schedule=schedule)
    assert_close(kernel(a[0], b[0]), reference("b,b->b", a[0], b[0]))


def test_the_interpreter_reads_what_was_copied():
    arrays = operands(3, 5)
    shapes = [a.shape for a in arrays]
    c, nest = nest_of(EQUATION, *shapes, schedule=SHARED)
    out = np.empty((3, 4, 5))
    interpret(nest, c, out, arrays)
    assert_close(out, reference(EQUATION, *arrays))
    assert [nest.copied_labels(copy) for copy in nest.copies] == [("j", "l", "k"), ("i", "j", "k")]
    order = ("i/4", "i", "l/3", "k/16", "k/4", "j", "l", "k")
    _, inside = nest_of(EQUATION, *shapes, schedule=(*TILED[:4], Reorder(order), Copy("a", "k/16", "k")))
    assert [inside.copied_labels(copy) for copy in inside.copies] == [("j", "k")]      # and one position of i


def test_no_access_lies_outside():
    done = run_python("-c", f"""if True:
        from functools import partial
        import numpy as np, einjit
        from einjit import program
        from einjit.schedule import *
        from tests.reference import assert_close, reference
        from tests.test_copies import EQUATION, INSIDE, SHARED, operands
        from tests.test_memory import guarded_scratch, placed
        program.STACK_WORKSPACE = 0
        for schedule in SHARED, INSIDE:
            for dtype in "float32", "int8", "complex128":
                for n, batch in (2, 3), (5, 16), (9, 37):
                    for at_end in True, False:
                        program.scratch = partial(guarded_scratch, at_end=at_end)
                        arrays = operands(n, batch, dtype)
                        inputs = [placed(a, "rows", at_end) for a in arrays]
                        kernel = einjit.compile(EQUATION, *inputs, schedule=schedule)
                        assert_close(kernel(*inputs), reference(EQUATION, *arrays))
    """)
    assert done.returncode == 0, done.stderr


# -- how they lie ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("batch, row", [(1024, 192), (3, 64), (8, 64), (9, 192)])
def test_rows_are_an_odd_number_of_lines_apart(batch, row):
    schedule = (*TILED, Copy("a", "k/16", "k"))
    c, nest = nest_of(EQUATION, (8, 5, batch), (5, 8, batch), schedule=schedule)
    words = emit(nest).words
    block = parameters(nest, c, words, {})
    assert dict(zip([w.name for w in words], block.words))["a_row"] == row
    assert block.workspace == 8 * 5 * row


def test_it_reads_as_it_runs():
    _, nest = nest_of(EQUATION, (8, 5, 9), (5, 8, 9), schedule=SHARED)
    assert [line.strip() for line in str(nest).splitlines()[:4]] == [
        "for k0 in 0 : 9 step 16", "copy b in rows along k", "copy a in rows along k", "for i0 in 0 : 8 step 4"]


# -- what is refused ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("schedule, reason", [
    ((*TILED, Copy("out", "k/16", "k")), "there is no input out"),
    ((*TILED, Copy("a", "k/16", "z")), "there is no label z"),
    ((*TILED, Copy("a", "z", "k")), "there is no loop z"),
    ((*TILED, Copy("a", "k/16", "j")), "a is not contiguous along j: no rows to copy"),
    ((*TILED, Copy("a", "k/16", "k"), Copy("a", "i/4", "k")), "a is copied twice, or packed and copied"),
    ((*TILED, Copy("a", "k/16", "k"), Reorder(("k/16", "l/3", "i/4", "k/4", "j", "i", "l", "k"))), "then copy"),
    ((Copy("a", "k", "k"), Fuse(("i", "l"), "f")), "fuse first, then copy"),
    ((Copy("a", "j", "k"), Reorder(("k", "i", "l", "j"))), "reorder first, then copy"),
    ((Reorder(("k", "i", "l", "j")), Copy("a", "i", "k")), "its rows would be one element"),
])
def test_what_cannot_be_copied_is_refused(schedule, reason):
    with pytest.raises(ScheduleError, match=reason):
        nest_of(EQUATION, (8, 5, 9), (5, 8, 9), schedule=schedule)


def test_fused_packed_and_streamed_nests_have_no_copies():
    with pytest.raises(ScheduleError, match="f is fused"):
        nest_of(EQUATION, (8, 5, 9), (5, 8, 9), schedule=(Fuse(("i", "l"), "f"), Split("k", 4),
                Reorder(("k/4", "f", "j", "k")), Copy("a", "k/4", "k")))
    with pytest.raises(ScheduleError, match="tiles of a streamed output"):
        nest_of("ab,ab->ab", (8, 9), (8, 9), schedule=(Split("i", 16), Split("i", 8), Vectorize("i", 8),
                Copy("a", "i/16", "i"), Stream()))
    with pytest.raises(ScheduleError, match="in a nest with packs"):
        nest_of("ij,jk->ik", (9, 8), (8, 9), schedule=(Split("i", 4), Split("k", 16), Split("k", 8), Split("j", 8),
                Reorder(("k/16", "j/8", "i/4", "k/8", "j", "i", "k")), Unroll("i"), Vectorize("k", 8),
                Pack("b", "j/8", "k", "j"), Copy("a", "j/8", "j")))


# -- what the policy chooses -------------------------------------------------------------------------------

def copied(nest: LoopNest) -> str:
    return "".join(sorted(copy.tensor for copy in nest.copies))


@pytest.mark.parametrize("shapes, dtype, expected", [
    (((16, 16, 1024), (16, 16, 1024)), "float64", "ab"),
    (((16, 16, 1024), (16, 16, 1024)), "float32", "ab"),
    (((16, 16, 1000), (16, 16, 1000)), "float64", ""),      # rows begin in many sets
    (((16, 16, 1024 + 8), (16, 16, 1024 + 8)), "float64", ""),
    (((8, 8, 1024), (8, 8, 1024)), "float64", "ab"),
    (((8, 8, 1024), (8, 8, 1024)), "float32", ""),          # few rows
    (((4, 16, 4096), (16, 16, 4096)), "float64", ""),       # b is read once
])
def test_rows_that_collide_are_copied(shapes, dtype, expected):
    assert copied(nest_of(EQUATION, *shapes, dtype=dtype)[1]) == expected


def test_where_caches_have_more_ways_rows_stay():
    zen4 = table_entry("znver4")
    many = replace(zen4, l2=replace(zen4.l2, ways=2 ** 12, size=2 ** 23))
    shapes = (8, 8, 1024), (8, 8, 1024)
    assert copied(nest_of(EQUATION, *shapes, cpu=many)[1]) == ""


def test_a_chosen_copy_computes_the_product():
    arrays = operands(10, 2048, "float32")
    arrays = [np.concatenate([a, a]) for a in arrays[:1]] + [arrays[1]]
    assert copied(nest_of(EQUATION, *(a.shape for a in arrays), dtype="float32")[1]) == "ab"
    assert_close(einjit.einsum(EQUATION, *arrays), reference(EQUATION, *arrays))
