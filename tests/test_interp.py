"""The interpreter against the reference; the policy's schedules, for every kind of machine, against both."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einjit import machine
from einjit.contraction import Contraction, Layout, contraction
from einjit.einsum import sizes_of
from einjit.expr import Binary, Const, Operand, Select, Unary
from einjit.interp import interpret
from einjit.ir import LoopNest, Pack
from einjit.lower import lower
from einjit.parse import parse
from einjit.schedule import Fuse, Reorder, Split, Vectorize, apply
from einjit.schedule import packed as policy
from einjit.schedule.choose import choose, normalised
from tests.equations import CASES, DTYPES, Case
from tests.reference import assert_close, reference
from tests.strategies import lay_out

ROWS = ("generic", "avx2", "znver4", "avx512", "neon")


def sizes(case: Case) -> dict[str, int]:
    return sizes_of(parse(case.equation, tuple(map(len, case.shapes))), case.shapes, case.equation)


def made(case: Case, operands, layout: str = "c", body=None) -> tuple[Contraction, np.ndarray]:
    """The contraction of a case for these operands, and an output of this layout, full of wrong numbers."""
    einsum, extents = parse(case.equation, tuple(map(len, case.shapes))), sizes(case)
    out = np.full([extents[label] for label in einsum.output], 77, np.result_type(*operands))
    out = lay_out(out, layout)
    return contraction(einsum, extents, Layout.of(out), [Layout.of(op) for op in operands], body), out


def run(nest: LoopNest, c: Contraction, out: np.ndarray, operands) -> np.ndarray:
    interpret(nest, c, out, [operands[i] for i in c.operands])
    return out


POINTS = 1500       # of an iteration space that the interpreter walks
POSSIBLE = [case for case in CASES if 0 not in sizes(case).values()]
SMALL = [case for case in POSSIBLE if prod(sizes(case).values()) <= POINTS]


# -- the interpreter ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_naive_nests_mean_what_the_equation_says(case):
    operands = case.arrays()
    c, out = made(case, operands)
    assert_close(run(lower(c), c, out, operands), reference(case.equation, *operands))


@pytest.mark.parametrize("layout,out_layout", [
    ("fortran", "c"), ("transposed", "fortran"), ("sliced", "negative"), ("negative", "sliced"),
    ("broadcast", "offset"),
])
def test_it_walks_strides(layout, out_layout):
    case = Case("", "ijk,kj->ik", ((4, 5, 3), (3, 5)))
    operands = [lay_out(op, layout) for op in case.arrays("int64")]
    c, out = made(case, operands, out_layout)
    assert_close(run(lower(c), c, out, operands), reference(case.equation, *operands))


def test_it_evaluates_a_body():
    a, b = Operand(0), Operand(1)
    clipped = Select(Binary("lt", a, b), Unary("abs", Binary("sub", a, b)), Const(0.5))
    case = Case("", "ij,jk->ik", ((3, 4), (4, 5)))
    x, y = case.arrays()
    c, out = made(case, (x, y), body=clipped)
    x3, y3 = x[:, :, None], y[None]
    np.testing.assert_allclose(run(lower(c), c, out, (x, y)), np.where(x3 < y3, abs(x3 - y3), 0.5).sum(1))


@pytest.mark.parametrize("schedule,total", [
    ((), 1),
    ((Reorder(("k", "j", "i")),), 2),
    ((Fuse(("j", "k"), "f"),), 1),
    ((Fuse(("k", "j"), "f"),), 2),
    ((Fuse(("j", "k"), "f"), Fuse(("i", "f"), "g")), 1),
    ((Split("k", 2), Reorder(("i", "k/2", "k", "j"))), 2),
])
def test_it_follows_the_order_of_the_loops(schedule, total):
    # In float32, 1 is lost where it is added to 2**24.
    a = lay_out(np.array([[[2**24, 1], [-(2**24), 1]], [[0, 0], [0, 0]]], "f4"), "sliced")
    c, out = made(Case("", "ijk->", (a.shape,)), [a])
    assert run(apply(lower(c), schedule), c, out, [a]) == total


def test_it_reads_what_was_packed():
    # Packed outside the batch's loop, b is always that of the first batch: verify refuses such a nest.
    case = Case("", "bij,bjk->bik", ((2, 3, 4), (2, 4, 4)))
    a, b = case.arrays("int64")
    c, out = made(case, (a, b))
    blocks = (Split("l", 2), Split("k", 4), Reorder(("l/2", "k/4", "i", "j", "k", "l")), Vectorize("l", 2))
    nest = apply(lower(c), blocks)
    right = (*nest.nodes[:3], Pack("b", "l", "k", 2), *nest.nodes[3:])
    wrong = (*nest.nodes[:2], Pack("b", "l", "k", 2), *nest.nodes[2:])
    assert_close(run(nest.with_nodes(right), c, out, (a, b)), reference(case.equation, a, b))
    np.testing.assert_array_equal(run(nest.with_nodes(wrong), c, out, (a, b)), a @ b[0])


# -- what the policy chooses -------------------------------------------------------------------------------

def scheduled(case: Case, operands, cpu: machine.Cpu) -> tuple[Contraction, LoopNest, np.ndarray]:
    """The policy's nest, which `apply` has verified."""
    c, out = made(case, operands)
    c = normalised(c)
    return c, apply(lower(c), choose(c, cpu).schedule), out


def assert_right(case: Case, dtype: str, cpu: machine.Cpu, layout: str = "c") -> LoopNest:
    operands = [lay_out(op, layout) for op in case.arrays(dtype)]
    c, nest, out = scheduled(case, operands, cpu)
    assert_close(run(nest, c, out, operands), reference(case.equation, *operands))
    return nest


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_policys_schedules_are_legal(row, dtype):
    cpu = machine.table_entry(row)
    for case in POSSIBLE:
        scheduled(case, case.arrays(dtype), cpu)


@pytest.mark.parametrize("row", ROWS)
def test_the_policys_schedules_mean_what_the_equation_says(row):
    for case in SMALL:
        assert_right(case, "int32", machine.table_entry(row))


@st.composite
def resized(draw) -> Case:
    """One of the table's cases with other sizes, most of them smaller than a tile."""
    case = draw(st.sampled_from([c for c in POSSIBLE if c.shapes]))
    extents, points = {}, POINTS
    for label, old in sizes(case).items():
        limit = 1 if old == 1 else min(9, points)
        extents[label] = draw(st.integers(1, limit))
        points //= extents[label]
    einsum = parse(case.equation, tuple(map(len, case.shapes)))
    shapes = tuple(tuple(1 if n == 1 else extents[label] for label, n in zip(term, shape))
                   for term, shape in zip(einsum.inputs, case.shapes))
    return Case(case.name, case.equation, shapes, case.dtypes)


@settings(max_examples=200)
@given(resized(), st.sampled_from(ROWS), st.sampled_from(["int8", "int16", "int32", "float64", "complex64"]),
       st.sampled_from(["c", "fortran", "sliced", "negative", "broadcast"]), st.booleans())
def test_the_policys_schedules_are_right_at_any_size(case, row, dtype, layout, pack):
    with pytest.MonkeyPatch.context() as patch:
        if pack:
            patch.setattr(policy, "PACKED_WORK", 1)
        assert_right(case, dtype, machine.table_entry(row), layout)


def test_a_packed_nest_is_right_where_every_block_has_an_edge(monkeypatch, always_packed):
    monkeypatch.setattr(policy, "PACKED_WORK", 1)
    none = machine.Cache(0, 1)
    tiny = replace(machine.table_entry("generic"), l1=none, l2=none, l3=none)
    nest = assert_right(Case("", "ij,jk->ik", ((13, 258), (258, 9))), "int64", tiny)
    assert len(nest.packs) == 2
    blocks = {label.name: nest.loops_of(label.name)[0].step for label in nest.labels}
    for label in nest.labels:
        assert blocks[label.name] < label.extent and label.extent % blocks[label.name]


def test_a_label_that_no_operand_moves_along_is_walked_too(monkeypatch, always_packed):
    case = Case("", "ijb,jkb->ikb", ((5, 6, 3), (6, 7, 3)))
    assert not assert_right(case, "int32", machine.table_entry("avx2"), "broadcast").packs
    monkeypatch.setattr(policy, "PACKED_WORK", 1)
    assert len(assert_right(case, "int32", machine.table_entry("avx2"), "broadcast").packs) == 2


@settings(max_examples=300)
@given(st.tuples(*[st.integers(1, 3000)] * 4), st.sampled_from(ROWS), st.sampled_from(DTYPES),
       st.sampled_from(["bij,bjk->bik", "ij,kj->ki", "ij,ik->jk", "jb,ikj->bik", "ij->ji", "kij->k",
                        "ij,ij,j->i"]))
def test_the_policys_schedules_are_legal_at_any_size(extents, row, dtype, equation):
    size = dict(zip("bijk", extents))
    terms = equation.split("->")[0].split(",")
    inputs = [Layout.contiguous([size[label] for label in term], dtype) for term in terms]
    einsum = parse(equation, tuple(map(len, terms)))
    out = Layout.contiguous([size[label] for label in einsum.output], dtype)
    c = normalised(contraction(einsum, size, out, inputs))
    nest = apply(lower(c), choose(c, machine.table_entry(row)).schedule)
    assert prod(label.extent for label in nest.labels) == c.work


def test_operands_are_exchanged_where_that_makes_rows_of_the_output():
    case = Case("", "ij,jk->ki", ((5, 6), (6, 7)))
    c, _ = made(case, case.arrays())
    assert normalised(c).operands == (1, 0) and normalised(normalised(c)).operands == (1, 0)
    c, _ = made(case, case.arrays(), body=Binary("sub", Operand(0), Operand(1)))
    assert normalised(c) == c       # a - b is not b - a
