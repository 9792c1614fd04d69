"""`compile` and `Kernel`: calling one, and looking into it."""

from __future__ import annotations

import numpy as np
import pytest

import einjit
from einjit import stats
from einjit.errors import DtypeError, OperandError, ShapeError
from einjit.expr import Binary, Operand, Unary
from einjit.schedule import Split, Unroll
from tests.equations import random_array
from tests.reference import assert_close, reference
from tests.strategies import LAYOUTS, lay_out

MATMUL = "ij,jk->ik"


def numbers(*shape: int, dtype: str = "float64") -> np.ndarray:
    return random_array(np.random.default_rng(sum(shape)), shape, dtype)


A, B = numbers(7, 8), numbers(8, 9)
AB = A @ B


@pytest.fixture(scope="module")
def matmul():
    return einjit.compile(MATMUL, A, B)


# -- looking into it ---------------------------------------------------------------------------------------

def test_it_knows_what_it_was_compiled_for(matmul):
    assert (matmul.equation, matmul.shapes) == (MATMUL, ((7, 8), (8, 9)))
    assert matmul.dtypes == ("float64", "float64")


def test_each_stage_can_be_looked_at(matmul):
    (step,) = matmul.steps
    assert matmul.nest is step.nest and matmul.schedule == step.choice.schedule
    assert matmul.source == step.source.text and f"def {step.source.entry}(" in matmul.source
    assert str(step.naive).splitlines()[0] == "for i in 0 : 7"
    assert step.contraction.equation == MATMUL
    assert matmul.family == step.choice.family and matmul.tiling == step.choice.tiling
    assert len(matmul.plan.steps) == 1


def test_its_code_can_be_read(matmul):
    name = matmul.steps[0].source.entry
    assert "define" in matmul.llvm and name in matmul.llvm
    assert name in matmul.asm and "\tret" in matmul.asm


def test_its_repr_says_what_and_how(matmul):
    assert repr(matmul) == f"<einjit.Kernel ij,jk->ik for (7, 8), (8, 9): {matmul.family}, {matmul.tiling}>"
    assert matmul.family == "direct contraction"


def test_a_plan_of_several_steps():
    chain = einjit.compile("ij,jk,k->i", (9, 8), (8, 7), (7,), optimize=[(0, 1), (0, 1)])
    assert chain.family == "2 steps" and len(chain.steps) == len(chain.plan.steps) == 2
    first, last = chain.steps
    assert chain.nest is last.nest and chain.schedule == last.choice.schedule
    assert chain.source == last.source.text != first.source.text
    assert chain.tiling == f"{first.choice.tiling}; {last.choice.tiling}"
    same = einjit.compile("ij,jk,kl->il", (8, 8), (8, 8), (8, 8), optimize=[(0, 1), (0, 1)])
    assert same.tiling == same.steps[0].choice.tiling       # said once


@pytest.mark.parametrize("equation,operands,family", [
    ("ij->i", ((40, 50),), "reduction"), ("ij->j", ((40, 50),), "column sums"), ("->", ((),), "scalar"),
    ("ij->ji", ((40, 50),), "transposition"), ("ij,kj->ik", ((90, 90), (90, 90)), "packed contraction"),
    ("ij,jk->ik", ((90, 90), (90, 90)), "direct contraction"),
])
def test_families(equation, operands, family):
    assert einjit.compile(equation, *operands).family == family


def test_a_schedule_by_hand_is_kept():
    schedule = (Split("i", 4), Split("k", 3))
    kernel = einjit.compile(MATMUL, A, B, schedule=schedule)
    assert kernel.schedule == schedule and kernel.family == "user's schedule"
    assert kernel.tiling == "2 transformations"
    assert_close(kernel(A, B), reference(MATMUL, A, B))
    with pytest.raises(einjit.errors.ScheduleError):
        einjit.compile(MATMUL, A, B, schedule=(Unroll("i"),))


# -- calling it --------------------------------------------------------------------------------------------

def test_arrays_and_shapes_compile_the_same_kernel(matmul):
    assert einjit.compile(MATMUL, (7, 8), [8, 9]).source == matmul.source
    assert einjit.compile(MATMUL, (np.int64(7), 8), B).dtypes == ("float64", "float64")


def test_dtypes_are_one_for_all_or_one_for_each():
    assert einjit.compile(MATMUL, (7, 8), (8, 9), dtype="f4").dtypes == ("float32", "float32")
    assert einjit.compile(MATMUL, (7, 8), (8, 9), dtype=["f4", np.int8]).dtypes == ("float32", "int8")
    with pytest.raises(OperandError, match="1 dtypes for 2 operands"):
        einjit.compile(MATMUL, (7, 8), (8, 9), dtype=["f4"])


def test_what_is_neither_array_nor_shape_is_refused():
    for what in ("ij", 3, (3, -1), (3, 1.5)):
        with pytest.raises(OperandError, match="neither an array nor a shape"):
            einjit.compile("ij->i", what)


def test_results_are_new_arrays(matmul):
    first, second = matmul(A, B), matmul(A, B)
    assert first is not second and not np.shares_memory(first, second)
    np.testing.assert_allclose(first, AB)


def test_out_is_written_and_returned(matmul):
    for out in (np.empty((7, 9)), np.empty((7, 9), order="F"), np.empty((14, 9))[::2],
                np.empty((7, 9), ">f8"), np.empty((7, 9)).view(np.matrix)):
        assert matmul(A, B, out=out) is out
        np.testing.assert_allclose(np.asarray(out), AB)


def test_out_may_lie_over_an_operand():
    square = einjit.compile(MATMUL, (9, 9), (9, 9))
    a, b = numbers(9, 9), numbers(9, 9) + 1
    expected = a @ b
    assert square(a, b, out=a) is a
    np.testing.assert_allclose(a, expected)


@pytest.mark.parametrize("out,error", [
    (np.empty((9, 7)), OperandError), (np.empty((7, 9), "f4"), DtypeError),
    (np.broadcast_to(0.0, (7, 9)), OperandError), ([[0.0] * 9] * 7, DtypeError),
], ids=["shape", "dtype", "read-only", "list"])
def test_an_out_that_does_not_fit_is_refused(matmul, out, error):
    with pytest.raises(error):
        matmul(A, B, out=out)


@pytest.mark.parametrize("operands,error", [
    ((A,), OperandError), ((A, B, B), OperandError), ((), OperandError), ((A, B[:, :5]), OperandError),
    ((A, B[None]), OperandError), ((A[:, :4], B[:4]), OperandError), ((A, B.astype("f4")), DtypeError),
    ((A.astype(object), B), DtypeError),
], ids=["too few", "too many", "none", "shape", "dimensions", "another sum", "dtype", "objects"])
def test_other_operands_are_refused(matmul, operands, error):
    with pytest.raises(error):
        matmul(*operands)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_operands_may_be_laid_out_in_any_way(matmul, layout):
    a, b = lay_out(A.copy(), layout), lay_out(B.copy(), layout)
    assert_close(matmul(a, b), reference(MATMUL, a, b))
    out = np.empty((7, 9))
    assert matmul(a, b, out=out) is out
    assert_close(out, reference(MATMUL, a, b))


def test_other_strides_reuse_the_code_where_it_allows(always_packed):
    a, b = numbers(60, 60), numbers(60, 60) + 1
    packed = einjit.compile(MATMUL, a, b)
    compiles = stats().compiles
    assert packed.family == "packed contraction"
    np.testing.assert_allclose(packed(a.T, b[::-1]), a.T @ b[::-1])
    assert stats().compiles == compiles


def test_lists_and_subclasses_are_operands_too(matmul):
    np.testing.assert_allclose(matmul(A.tolist(), B), AB)
    result = matmul(A.view(np.matrix), np.ma.array(B))
    assert type(result) is np.ndarray
    np.testing.assert_allclose(result, AB)


def test_read_only_operands_are_enough(matmul):
    a = A.copy()
    a.flags.writeable = False
    np.testing.assert_allclose(matmul(a, B), AB)


# -- results of every kind ---------------------------------------------------------------------------------

def test_a_result_without_labels_is_a_scalar():
    dot = einjit.compile("i,i->", (50,), (50,))
    x, y = numbers(50), numbers(50) + 1
    assert isinstance(dot(x, y), np.float64) and isinstance(dot(x[::-1], y), np.float64)
    out = np.empty(())
    assert dot(x, y, out=out) is out
    assert_close(dot(x, y), reference("i,i->", x, y))
    assert isinstance(dot(x.tolist(), y), np.float64)
    half = x.astype("f2")
    assert isinstance(einjit.compile("i,i->", half, half)(half, half), np.float16)


def test_float16_is_summed_in_float32():
    # Summed in float16, 2048 + 1 is 2048.
    ones = np.ones((1, 4000), "f2")
    total = einjit.compile("ij->i", ones)
    assert total(ones).dtype == np.float16 and total(ones)[0] == 4000
    assert total.steps[0].contraction.dtypes == ("float16", "float16")
    assert total.steps[0].contraction.accumulator == "float32"
    out = np.empty(1, "f2")
    assert total(ones, out=out) is out and out[0] == 4000


@pytest.mark.parametrize("equation,shape", [("ij->ji", (5, 6)), ("ii->i", (5, 5)), ("ij->ij", (5, 6))])
def test_views_are_made_into_arrays(equation, shape):
    a = numbers(*shape)
    kernel = einjit.compile(equation, a)
    for operand in (a, a[::-1], np.asfortranarray(a)):
        result = kernel(operand)
        assert not np.shares_memory(result, operand) and result.flags.c_contiguous
        np.testing.assert_array_equal(result, np.einsum(equation, operand))


@pytest.mark.parametrize("equation,shapes", [
    ("ij,jk->ik", ((4, 0), (0, 6))), ("ij,jk->ik", ((0, 5), (5, 6))), ("ij->", ((0, 3),)),
    ("ij->ji", ((0, 3),)), ("ij,jk,kl->il", ((4, 5), (5, 0), (0, 3))),
])
def test_sizes_of_zero(equation, shapes):
    operands = [np.ones(shape) for shape in shapes]
    kernel = einjit.compile(equation, *shapes)
    expected = np.einsum(equation, *operands)
    np.testing.assert_array_equal(kernel(*operands), expected, strict=True)
    out = np.full(np.shape(expected), np.nan)
    assert kernel(*operands, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_with_nothing_to_compute_there_is_nothing_to_look_at():
    empty = einjit.compile("ij->j", (0, 3))
    assert (empty.plan, empty.nest, empty.steps, empty.schedule) == (None, None, (), ())
    assert (empty.source, empty.llvm, empty.asm, empty.tiling) == ("", "", "", "")
    assert repr(empty) == "<einjit.Kernel ij->j for (0, 3): empty>"
    with pytest.raises(OperandError):
        empty(np.ones((1, 3)))


@pytest.mark.parametrize("optimize", [None, False, True, "optimal", [(0, 2), (0, 1)], [(0, 1, 2)]])
def test_any_number_of_operands_in_any_order(optimize):
    operands = [numbers(6, 7), numbers(7, 8), numbers(8, 5)]
    kernel = einjit.compile("ij,jk,kl->il", *operands, optimize=optimize)
    assert_close(kernel(*operands), reference("ij,jk,kl->il", *operands))
    strided = [op[::-1] for op in operands]
    assert_close(kernel(*strided), reference("ij,jk,kl->il", *strided))


def test_a_body_instead_of_the_product():
    distance = Unary("abs", Binary("sub", Operand(0), Operand(1)))
    kernel = einjit.compile(MATMUL, A, B, body=distance)
    expected = np.abs(A[:, :, None] - B[None]).sum(1)
    np.testing.assert_allclose(kernel(A, B), expected)
    np.testing.assert_allclose(kernel(A[::-1], B), expected[::-1])
    np.testing.assert_allclose(kernel(A, B, out=np.empty((7, 9), order="F")), expected)


def test_sizes_of_one_stretch():
    kernel = einjit.compile("ij,ij->ij", (1, 5), (4, 1))
    a, b = numbers(1, 5), numbers(4, 1)
    np.testing.assert_allclose(kernel(a, b), a * b)
    with pytest.raises(ShapeError):
        einjit.compile("ij,ij->ij", (2, 5), (4, 1))
