"""GPU kernels, run thread by thread by the PTX executor: right numbers, no races, coalesced accesses, free banks."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import einjit
from einjit.expr import Binary, Const, Operand, Select, Unary
from tests.equations import CASES, DTYPES, Case
from tests.executed import executed
from tests.reference import assert_close, reference
from tests.strategies import lay_out

pytestmark = pytest.mark.cuda
CC = (8, 0)


def compiled(case: Case, operands, cc=CC, **keywords):
    return einjit.compile(case.equation, *operands, target="cuda", cc=cc, **keywords)


PRODUCTS = (
    Case("whole", "ij,jk->ik", ((128, 32), (32, 128))),
    Case("edges", "ij,jk->ik", ((37, 29), (29, 83))),
    Case("both_turned", "ji,kj->ik", ((40, 68), (72, 40))),
    Case("batch", "bij,bkj->bik", ((3, 20, 17), (3, 19, 17))),
    Case("contiguous_batch", "ijb,kjb->ikb", ((20, 33, 4), (40, 33, 4))),
    Case("fused", "aibj,bjck->aick", ((4, 5, 3, 7), (3, 7, 5, 4))),
    Case("fused_in_vectors", "aibj,jbkc->icka", ((3, 8, 4, 8), (8, 4, 8, 3))),
)


@pytest.mark.parametrize("case", [c for c in CASES if not c.dtypes], ids=lambda case: case.name)
def test_every_equation(case):
    operands = case.arrays("float64")
    kernel = compiled(case, operands)
    if not kernel.steps:
        assert 0 in {n for shape in case.shapes for n in shape}
        return
    result, _ = executed(kernel, operands)
    assert_close(result, reference(case.equation, *operands))


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - {"bool"}))
@pytest.mark.parametrize("case", PRODUCTS, ids=lambda case: case.name)
def test_tiled_products(case, dtype):
    operands = case.arrays(dtype)
    kernel = compiled(case, operands)
    whole_halves = case.name == "whole" and dtype == "float16"
    assert kernel.family == ("tensor cores" if whole_halves else "tiled contraction")
    result, _ = executed(kernel, operands)
    assert_close(result, reference(case.equation, *operands))


@pytest.mark.parametrize("equation, shapes, dtype", [
    ("ij,jk->ik", ((20, 2000), (2000, 30)), "float32"), ("ji,kj->ki", ((1200, 24), (33, 1200)), "complex128"),
    ("aij,jbi->ba", ((20, 40, 50), (50, 36, 40)), "int64"), ("ij,jk->ik", ((40, 3000), (3000, 24)), "float16"),
    ("ij,kj->ik", ((40, 2008), (24, 2008)), "float16"),
], ids=str)
def test_products_in_parts(equation, shapes, dtype):
    case = Case("", equation, shapes)
    operands = case.arrays(dtype)
    kernel = compiled(case, operands)
    assert len(kernel.steps) == 2 and kernel.steps[0].out.shape[0] > 1
    assert_close(executed(kernel, operands)[0], reference(equation, *operands))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family, equation, shapes", [
    ("element a thread", "ij,j->i", ((19, 7), (7,))),
    ("element a thread", "ij,ij,j->ij", ((4, 9), (4, 9), (9,))),
    ("shared sums", "ij->i", ((5, 300),)),              # one sum a block
    ("shared sums", "ij,ij->i", ((21, 40), (21, 40))),  # several
    ("shared sums", "ji->i", ((60, 37),)),              # the sums' threads are apart
    ("2 steps", "ij,j->i", ((3, 5000), (5000,))),       # sums in parts
    ("2 steps", "kij,i->j", ((2, 700, 40), (700,))),
    ("turned map", "ij->ji", ((37, 70),)),
    ("turned map", "bij,bji,i->bij", ((2, 33, 20), (2, 20, 33), (33,))),
], ids=str)
def test_families(family, equation, shapes, dtype):
    case = Case("", equation, shapes)
    operands = case.arrays(dtype)
    kernel = compiled(case, operands, optimize=False)
    assert kernel.family == family
    assert_close(executed(kernel, operands)[0], reference(equation, *operands))


HALVES = (
    ("ij,jk->ik", ((128, 64), (64, 128))), ("ji,jk->ik", ((104, 72), (104, 40))), ("ij,kj->ik", ((37, 72), (51, 72))),
    ("ji,kj->ik", ((67, 136), (40, 67))), ("bij,bjk->bik", ((2, 40, 200), (2, 200, 24))),
    ("ij,jk->ki", ((40, 40), (40, 48))),
    ("aibj,jbkc->icka", ((3, 8, 4, 8), (8, 4, 8, 8))), ("bij,bjk->ikb", ((2, 40, 24), (2, 24, 32))),
)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("equation, shapes", HALVES, ids=str)
def test_tensor_cores(equation, shapes, dtype):
    x, y = (np.random.default_rng(i).uniform(-1, 1, shape).astype(dtype) for i, shape in enumerate(shapes))
    kernel = einjit.compile(equation, x, y, target="cuda", cc=CC)
    assert kernel.family == ("tensor cores" if "67" not in str(shapes) else "tiled contraction")
    result, _ = executed(kernel, [x, y])
    exact = np.einsum(equation, x.astype("f8"), y.astype("f8"))
    assert result.dtype == x.dtype
    np.testing.assert_allclose(result.astype("f8"), exact, rtol=float(ml_dtypes.finfo(dtype).eps), atol=1e-3)


def test_no_tensor_cores_before_they_had_such_products():
    shapes = (64, 64), (64, 64)
    assert einjit.compile("ij,jk->ik", *shapes, dtype="float16", target="cuda", cc=(7, 5)).family == "tiled contraction"


A, B = Operand(0), Operand(1)
DIFFERENCE = Binary("sub", A, B)
BODIES = (*(Binary(op, A, B) for op in ("add", "div", "min", "max", "lt", "ge", "eq", "ne")), DIFFERENCE,
          *(Unary(op, DIFFERENCE) for op in ("neg", "abs", "sqrt", "exp", "log", "sin", "cos", "tanh")),
          Select(Binary("lt", A, B), DIFFERENCE, Const(0.5)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("body", BODIES, ids=str)
def test_bodies_are_as_on_a_cpu(body, dtype):
    x, y = Case("", "ij,jk->ik", ((5, 7), (7, 6))).arrays(dtype)
    x[0, 0] = np.nan
    kernel = einjit.compile("ij,jk->ik", x, y, body=body, target="cuda", cc=CC)
    expected = einjit.compile("ij,jk->ik", x, y, body=body)(x, y)
    np.testing.assert_allclose(executed(kernel, [x, y])[0], expected, rtol=1e-5 if dtype == "float32" else 1e-13)


def test_sums_that_blocks_share_are_the_same_to_the_bit_again():
    x = Case("", "ij->", ((70, 1000),)).arrays("float32")
    kernel = compiled(Case("", "ij->", ((70, 1000),)), x)
    first, second = (executed(kernel, x)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("case", [c for c in CASES if c.dtypes], ids=lambda case: case.name)
def test_mixed_dtypes(case):
    operands = case.arrays()
    assert_close(executed(compiled(case, operands), operands)[0], reference(case.equation, *operands))


@pytest.mark.parametrize("layout", ["fortran", "transposed", "sliced", "negative", "broadcast"])
@pytest.mark.parametrize("case", [PRODUCTS[1], Case("row_dots", "ij,ij->i", ((17, 29), (17, 29)))],
                         ids=lambda case: case.name)
def test_strides_of_any_kind(case, layout):
    operands = [lay_out(x, layout) for x in case.arrays("float32")]
    assert_close(executed(compiled(case, operands), operands)[0], reference(case.equation, *operands))
