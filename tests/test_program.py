"""Programs: shares of threads, workspaces, chains of steps."""

from __future__ import annotations

import threading
import tracemalloc
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import einjit
from einjit import program
from einjit.contraction import Layout
from einjit.ir import Kind
from einjit.params import tile_width
from einjit.program import BoundStep, Program, scratch
from einjit.schedule import choice
from tests.equations import EVERYDAY, Case
from tests.reference import assert_close, reference
from tests.test_codegen import nest_of

PACKED = Case("packed", "ij,jk->ik", ((61, 67), (67, 71)))
BATCHED = Case("packed batch", "bij,bjk->bik", ((3, 40, 50), (3, 50, 40)))


def made(equation: str, *operands, threads: int = 1, **keywords) -> Program:
    with einjit.options(threads=threads):
        return einjit.compile(equation, *operands, **keywords)._call.program


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape)


# -- shares ------------------------------------------------------------------------------------------------

@settings(max_examples=200)
@given(st.sampled_from(["ij,jk->ik", "bij,bjk->bik", "ij->i", "ij->j", "ij->ji", "i,j->ij", "ij->"]),
       st.tuples(*[st.integers(1, 300)] * 4), st.sampled_from(["generic", "znver4"]), st.integers(2, 9))
def test_shares_are_whole_tiles_and_together_everything(equation, extents, row, threads):
    size = dict(zip("bijk", extents))
    terms = equation.split("->")[0].split(",")
    nest = nest_of(equation, [tuple(size[label] for label in term) for term in terms], row=row)
    contraction = SimpleNamespace(dimensions=(), dtypes=("float32",), accumulator="float32")
    shares = program._shares(SimpleNamespace(nest=nest, contraction=contraction), threads)
    shared = [loop.label for loop in nest.loops if loop.kind is Kind.PARALLEL]
    if not shared:
        assert shares == [{}]       # one thread does everything
        return
    (label,) = shared
    extent, width = nest.label(label).extent, tile_width(nest, label)
    ranges = [share.pop(label) for share in shares]
    assert not any(shares)          # no other label is narrowed
    assert len(ranges) == min(threads, -(-extent // width))
    assert [start for start, _ in ranges] == [0, *(end for _, end in ranges[:-1])] and ranges[-1][1] == extent
    assert all(start % width == 0 and start < end for start, end in ranges)
    tiles = [-(-(end - start) // width) for start, end in ranges]
    assert max(tiles) - min(tiles) <= 1


COLUMNS = Case("column sums", "ij->j", ((37, 530),))
VECMAT = Case("vecmat", "i,ij->j", ((41,), (41, 267)))        # more columns than one tile has
EVERYDAY_SHARED = tuple(case for case in EVERYDAY if case.name in (
    "row_sums", "transpose", "matvec", "matmul", "outer", "batched_matmul"))
SHARED = (PACKED, BATCHED, *EVERYDAY_SHARED)
SHARED_SUMS = (COLUMNS, VECMAT, Case("sum", "ij->", ((37, 530),)), Case("inner", "ij,ij->", ((37, 530),) * 2),
               Case("middle", "ijk->j", ((9, 17, 530),)), Case("last", "ijk->k", ((40, 9, 20),)))
LONG_PRODUCT = Case("long product", "kil,jkl->ij", ((40, 37, 20), (53, 40, 20)))


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.name)
def test_threads_give_the_same_result_to_the_bit(case, always_shared):
    operands = case.arrays()
    alone = made(case.equation, *operands)
    for threads in (2, 3):
        together = made(case.equation, *operands, threads=threads)
        assert together.steps[-1].bound.threads == threads and alone.steps[-1].bound.threads == 1
        with einjit.options(threads=threads):
            np.testing.assert_array_equal(together(operands), alone(operands), strict=True)
    assert_close(alone(operands), reference(case.equation, *operands))


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.name)
def test_each_thread_writes_its_share_alone(case, monkeypatch):
    operands = case.arrays()
    bound, writers = made(case.equation, *operands).steps[0].bound, 0
    for share in program._shares(bound.step, 3):
        monkeypatch.setattr(program, "_shares", lambda *_, share=share: [share])
        alone = BoundStep(bound.step, bound.out, [Layout.of(x) for x in operands], 1)
        out = np.full(bound.out.shape, np.nan)
        alone.run(out, *operands)
        writers = writers + ~np.isnan(out)
    assert np.all(writers == 1)


@pytest.mark.parametrize("case, dtype", [*product(SHARED_SUMS, ["float64", "complex64", "int8", "bool"]),
                                         *product([LONG_PRODUCT], ["float64", "complex64", "int32"])],
                         ids=lambda x: getattr(x, "name", x))
@pytest.mark.parametrize("lay", [lambda x: x, lambda x: np.repeat(x, 2, -1)[..., ::2] if x.ndim else x,
                                 lambda x: x[::-1].copy()[::-1] if x.ndim else x], ids=["rows", "apart", "backwards"])
def test_threads_add_up_their_shares(case, dtype, lay, always_shared):
    operands = case.arrays(dtype)
    expected = reference(case.equation, *operands)
    out = lay(np.full(expected.value.shape, 77).astype(dtype))
    kernel = einjit.compile(case.equation, *operands)
    with einjit.options(threads=3):
        assert einjit.einsum(case.equation, *operands, out=out) is out
    loop = next(loop for loop in kernel.nest.loops if loop.kind is Kind.PARALLEL)
    assert kernel.nest.label(loop.label).summed
    assert_close(out, expected)


def test_shared_sums_are_the_same_to_the_bit_whoever_helps(always_shared, monkeypatch):
    a = numbers(370, 530)
    together = made("ij,ij->", a, a, threads=3)
    results = []
    for helpers in (0, 1, 2):
        monkeypatch.setattr("einjit.parallel.invite", lambda wanted, seconds, helpers=helpers: helpers)
        results.append(together([a, a]))
    np.testing.assert_array_equal(results[1:], [results[0]] * 2)
    assert not np.array_equal(results[0], made("ij,ij->", a, a)([a, a]))        # one thread adds up in another order


def test_shared_sums_keep_their_memory_until_they_are_added_up(always_shared):
    """A finalizer may run in between, and call einsum."""
    a, b = numbers(37, 530), numbers(37, 530) + 5
    together, other = made("ij->j", a, threads=3), made("ij->j", b + 1, threads=3)
    bound = together.steps[0].bound
    launch, nested = bound.launch, []

    def launch_and_finalize(*arrays):
        launch(*arrays)
        nested.append(other([b]))

    bound.launch = launch_and_finalize
    with einjit.options(threads=3):
        np.testing.assert_allclose(together([a]), a.sum(0))
    np.testing.assert_allclose(nested, [b.sum(0)])


def test_sums_are_shared_where_every_thread_can_have_an_output(always_shared, monkeypatch):
    assert made("ij->j", numbers(37, 530), threads=3).steps[0].bound.threads == 3
    assert made("ij->j", numbers(500, 20), threads=3).steps[0].bound.threads == 3
    half = made("ij->j", numbers(500, 20).astype("f2"), threads=3)      # shares of it would be rounded one by one
    assert half.dtype == "f2" and half.steps[0].bound.threads == 1
    monkeypatch.setattr(choice, "OWN_OUTPUT", 1000)
    assert made("ij->j", numbers(37, 530), threads=3).steps[0].bound.threads == 1


def test_work_that_is_not_worth_it_is_not_shared():
    assert made("ij->i", numbers(37, 53), threads=4).steps[0].bound.threads == 1
    assert made("ij->i", numbers(400, 200), threads=4).steps[0].bound.threads == 2      # some 10 us
    large = np.broadcast_to(1.0, (3000, 1000))
    assert made("ij->i", large, threads=4).steps[0].bound.threads == 4


def test_threads_begin_nothing_where_an_array_does_not_fit(always_shared):
    a = numbers(37, 53)
    together = made("ij->ij", a, threads=2)
    out = np.full((37, 53), 7.0)
    assert together.run(out, a.copy(order="F")) is NotImplemented
    assert together.run(out, out) is NotImplemented
    assert np.all(out == 7)


# -- workspaces --------------------------------------------------------------------------------------------

def in_new_threads(*functions) -> list:
    """What each returns, called in a thread that has no workspace yet."""
    found: list = []
    for function in functions:
        thread = threading.Thread(target=lambda function=function: found.append(function()))
        thread.start()
        thread.join()
    return found


@pytest.mark.parametrize("size", [1, 63, 64, 65, 100_000])
def test_a_workspace_begins_on_a_cache_line(size):
    (memory,) = in_new_threads(lambda: scratch(size))
    assert memory.bytes.ctypes.data % 64 == 0 and memory.bytes.nbytes >= size
    assert memory.words.ctypes.data == memory.bytes.ctypes.data and memory.words.nbytes == memory.bytes.nbytes


def test_a_workspace_is_kept_and_grows():
    ((first, *others),) = in_new_threads(lambda: [scratch(size) for size in (1000, 500, 1000, 1025)])
    assert [other is first for other in others] == [True, True, False]


def test_each_thread_has_a_workspace_of_its_own():
    one, other = in_new_threads(lambda: scratch(1000), lambda: scratch(1000))
    assert not np.shares_memory(one.bytes, other.bytes)


def test_packed_panels_lie_in_a_workspace_and_small_kernels_need_none(always_packed):
    operands = PACKED.arrays()
    packed = made(PACKED.equation, *operands)
    assert packed.steps[0].bound.workspace > 8 * 71 * 67
    assert made("ij->i", operands[0]).steps[0].bound.workspace == 0


# -- results -----------------------------------------------------------------------------------------------

def test_it_writes_to_out_and_returns_it():
    a, b = PACKED.arrays()
    product = made(PACKED.equation, a, b)
    out = np.empty((61, 71))
    assert product([a, b], out) is out
    np.testing.assert_array_equal(product([a, b]), out)
    assert product([a, b], np.empty((61, 71), order="F")) is NotImplemented


# -- chains ------------------------------------------------------------------------------------------------

LEFT_TO_RIGHT = [(0, 1), (0, 3), (0, 2), (0, 1)]
CHAIN = "ab,bc,cd,de,ef->af"


def test_a_chain_runs_its_steps_in_order():
    operands = [numbers(9 + i, 10 + i) for i in range(5)]
    chain = made(CHAIN, *operands, optimize=LEFT_TO_RIGHT)
    assert [step.operands for step in chain.steps] == LEFT_TO_RIGHT
    assert_close(chain(operands), reference(CHAIN, *operands))


def test_a_chain_frees_what_it_does_not_need_any_more():
    operands = [numbers(128, 128) for _ in range(5)]
    chain, out = made(CHAIN, *operands, optimize=[(0, 1), (0, 3), (0, 2), (0, 1)]), np.empty((128, 128))
    chain(operands, out)        # now the workspaces are there
    tracemalloc.start()
    try:
        chain(operands, out)
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # At most what a step reads and what it writes; at the end, nothing.
    assert 2 * out.nbytes <= peak < 2.5 * out.nbytes and current < out.nbytes


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("cut", [slice(0, 9), slice(2, 11)], ids=["on top", "overlapping"])
def test_a_chain_may_write_over_its_operands(place, cut):
    memory = numbers(11, 9)
    operands = [numbers(9, 9), numbers(9, 9) + 1, numbers(9, 9) + 2]
    operands[place] = memory[:9]
    expected = reference("ab,bc,cd->ad", *operands)
    result = einjit.einsum("ab,bc,cd->ad", *operands, out=memory[cut], optimize=[(0, 1), (0, 1)])
    assert_close(result, expected)


def test_a_chain_refuses_to_write_over_what_its_last_step_reads():
    operands = [numbers(9, 9) + i for i in range(3)]
    chain = made("ab,bc,cd->ad", *operands, optimize=[(0, 1), (0, 1)])
    expected = reference("ab,bc,cd->ad", *operands)
    assert chain.run(operands[2], *operands) is NotImplemented
    # The first operands have been read by then.
    assert chain.run(operands[0], *operands) is None
    assert_close(operands[0], expected)


def test_a_chain_refuses_another_layout_at_any_step():
    operands = [numbers(9, 9) + i for i in range(3)]
    chain = made("ab,bc,cd->ad", *operands, optimize=[(0, 1), (0, 1)])
    for place in range(3):
        others = [op.copy(order="F") if i == place else op for i, op in enumerate(operands)]
        assert chain(others) is NotImplemented
