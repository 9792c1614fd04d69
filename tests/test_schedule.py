"""Schedules: whatever is legal leaves the meaning alone, and what is not is refused with its reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import einjit
from einjit.contraction import Contraction, Layout, contraction
from einjit.einsum import sizes_of
from einjit.errors import ScheduleError
from einjit.interp import interpret
from einjit.ir import Kind, LoopNest
from einjit.lower import lower
from einjit.parse import parse
from einjit.schedule import Copy, Fuse, Pack, Parallel, Reorder, Schedule, Split, Unroll, Vectorize, apply
from tests.equations import Case
from tests.reference import assert_close, reference

SMALL = (
    Case("", "ij,jk->ik", ((5, 7), (7, 9))),
    Case("", "ik,jk->ij", ((5, 7), (9, 7))),
    Case("", "bij,bjk->bik", ((2, 5, 3), (2, 3, 6))),
    Case("", "acbd,dbea->ec", ((3, 5, 2, 4), (4, 2, 6, 3))),
    Case("", "ij->j", ((6, 7),)),
    Case("", "ij->ji", ((6, 7),)),
    Case("", "iij,jx->i", ((5, 5, 4), (4, 3))),
    Case("", "ij,ij,i->i", ((6, 7), (6, 7), (6,))),
)


@st.composite
def steps(draw, nest: LoopNest):
    """One transformation with arguments that stand in the nest; legal or not."""
    label = st.sampled_from([label.name for label in nest.labels])
    loop = st.sampled_from([loop.name for loop in nest.loops])
    size = st.sampled_from([2, 3, 4, 6, 8])
    kind = draw(st.sampled_from([Split, Split, Split, Reorder, Unroll, Vectorize, Pack, Copy, Copy, Parallel, Fuse]))
    if kind is Split:
        return Split(draw(label), draw(size))
    if kind is Reorder:
        return Reorder(tuple(draw(st.permutations([loop.name for loop in nest.loops]))))
    if kind is Vectorize:
        return Vectorize(draw(label), draw(st.sampled_from([2, 4, 8])))
    if kind is Pack:
        return Pack(draw(st.sampled_from([t.name for t in nest.inputs])), draw(loop), draw(label), draw(label),
                    draw(st.sampled_from([1, 2, 8])))
    if kind is Copy:
        return Copy(draw(st.sampled_from([t.name for t in nest.inputs])), draw(loop), draw(label))
    if kind is Fuse:
        return Fuse(tuple(draw(st.lists(label, min_size=2, max_size=2))), "f")
    return kind(draw(label))


@st.composite
def scheduled(draw) -> tuple[Case, Schedule]:
    """A small case and a schedule that is legal for it. Illegal steps are left out, each for a reason."""
    case = draw(st.sampled_from(SMALL))
    _, nest, *_ = lowered(case)
    schedule: list = []
    for _ in range(draw(st.integers(1, 10))):
        step = draw(steps(nest))
        try:
            nest = step(nest)
        except ScheduleError as refusal:
            assert len(str(refusal)) > 15  # a reason, not a code
        else:
            schedule.append(step)
    return case, tuple(schedule)


def lowered(case: Case) -> tuple[Contraction, LoopNest, np.ndarray, list[np.ndarray]]:
    """The contraction, its naive nest, an output to fill and the operands; integers, so that sums are exact."""
    operands = case.arrays("int32")
    einsum = parse(case.equation, tuple(op.ndim for op in operands))
    sizes = sizes_of(einsum, [op.shape for op in operands], case.equation)
    out = np.full([sizes[c] for c in einsum.output], -1, np.int32)
    c = contraction(einsum, sizes, Layout.of(out), [Layout.of(op) for op in operands])
    return c, lower(c), out, [operands[i] for i in c.operands]


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.equation)
def test_the_interpreter_runs_the_naive_nest(case):
    c, nest, out, inputs = lowered(case)
    interpret(nest, c, out, inputs)
    assert_close(out, reference(case.equation, *case.arrays("int32")))


@settings(max_examples=150)
@given(scheduled())
def test_a_legal_schedule_leaves_the_meaning_alone(drawn):
    case, schedule = drawn
    c, nest, out, inputs = lowered(case)
    try:
        changed = apply(nest, schedule)
    except ScheduleError:  # each step may stand alone, while the whole is not a nest that can be compiled
        assume(False)
    interpret(changed, c, out, inputs)
    assert_close(out, reference(case.equation, *case.arrays("int32")))


@settings(max_examples=30)
@given(scheduled())
def test_compiled_code_does_what_the_schedule_says_or_refuses(drawn):
    case, schedule = drawn
    operands = case.arrays("float64")
    try:
        kernel = einjit.compile(case.equation, *operands, schedule=schedule)
    except ScheduleError:
        assume(False)
    assert kernel.schedule == schedule
    assert_close(kernel(*operands), reference(case.equation, *operands))


TILED = (
    Split("k", 4), Split("i", 3), Unroll("i"), Vectorize("k", 4), Reorder(("i/3", "k/4", "j", "i", "k")),
)


def test_a_schedule_by_hand_compiles():
    case = SMALL[0]
    operands = case.arrays("float64")
    kernel = einjit.compile(case.equation, *operands, schedule=TILED)
    assert kernel.schedule == TILED
    assert [loop.name for loop in kernel.nest.loops] == ["i/3", "k/4", "j", "i", "k"]
    assert [loop.kind for loop in kernel.nest.loops[-2:]] == [Kind.UNROLLED, Kind.VECTOR]
    assert_close(kernel(*operands), reference(case.equation, *operands))


@pytest.mark.parametrize("rows,columns", [(20, 40), (24, 40), (20, 32), (13, 63)])
def test_a_tile_over_the_end_of_a_block_leaves_the_next_block_alone(rows, columns):
    """Sums in two parts are added to what is there: a row that two blocks computed would be added twice."""
    a, b = (np.arange(n * 30.0).reshape(n, 30) % 7 for n in (50, 90))
    schedule = (Fuse(("i",), "M"), Fuse(("k",), "N"), Fuse(("j",), "K"),
                Split("N", columns), Split("N", 16), Split("K", 20), Split("M", rows), Split("M", 12),
                Reorder((f"N/{columns}", "K/20", f"M/{rows}", "N/16", "M/12", "K", "M", "N")),
                Unroll("M"), Vectorize("N", 8), Pack("b", "K/20", panel="N", serial="K"))
    np.testing.assert_array_equal(einjit.compile("ij,kj->ik", a, b, schedule=schedule)(a, b), a @ b.T)


@pytest.mark.parametrize("schedule,reason", [
    ((Split("x", 4),), "there is no label x"),
    ((Split("i", 1),), "a block of 1 is no block"),
    ((Fuse(("i", "k"), "m"), Reorder(("j", "m")), Unroll("m")),
     "loop m walks a table of offsets, which a loop over blocks must fill: split it first"),
    ((Split("k", 6), Vectorize("k", 3)), "3 lanes: must be a power of two"),
    ((Split("k", 6), Reorder(("i", "j", "k/6", "k")), Vectorize("k", 4)), "4 lanes do not divide the block of 6 k"),
    ((Reorder(("i", "j")),), "the order must name each loop once: i, k, j; it names i, j"),
    ((Pack("out", "i", "i", "j"),), "there is no input out"),
    ((Split("i", 4), Pack("a", "i/4", "i", "j", 0)), "0 panels abreast are none"),
    ((Split("k", 4), Unroll("k")), "unrolled and vectorised loops must be the innermost ones, with nothing between them"),
], ids=lambda x: "" if isinstance(x, str) else str(x))
def test_an_illegal_schedule_is_refused_with_its_reason(schedule, reason):
    operands = SMALL[0].arrays("float64")
    with pytest.raises(ScheduleError) as refusal:
        einjit.compile(SMALL[0].equation, *operands, schedule=schedule)
    assert str(refusal.value).endswith(reason)
    with pytest.raises(ScheduleError, match="of the schedule|the schedule is"):
        apply(lowered(SMALL[0])[1], schedule)
