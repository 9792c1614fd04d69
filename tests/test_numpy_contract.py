"""What np.einsum promises beside the numbers: dtypes, views, out=, order, casting, odd arrays, errors.

Where NumPy can be asked, it is asked. Nothing compilable is handed to it while the tests run.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import einjit
from tests.equations import CASES, DTYPES, Case
from tests.reference import assert_close, reference
from tests.strategies import LAYOUTS, lay_out

_numpy_einsum = np.einsum

PRODUCTS = ("ij,jk->ik", "ij,jk->ki", "ik,jk->ij", "ij,ij->ij", "ij,ij->i", "i,j->ij", "ij,j->i", "ij,ij->")
VIEWS = (
    ("ij->ji", (3, 4)), ("ij->ij", (3, 4)), ("ijk->kij", (2, 3, 4)), ("ii->i", (4, 4)),
    ("iij->ji", (3, 3, 4)), ("iii->i", (3, 3, 3)), ("ijij->ji", (2, 3, 2, 3)),
    ("...ij->...ji", (2, 3, 4)), ("i...->...i", (2, 3, 4)),
    ("ba", (3, 4)), ("ij->ji", (0, 4)), ("i->i", (5,)),
)


@pytest.fixture(autouse=True)
def nothing_handed_over():
    with einjit.options(handover="unsupported"):
        yield


def operands_of(equation: str, dtype: str = "float64", size: int = 6) -> list[np.ndarray]:
    terms = equation.split("->")[0].split(",")
    return Case("", equation, tuple((size,) * len(t) for t in terms)).arrays(dtype)


# ---- values and dtypes

@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_case(case):
    operands = case.arrays()
    assert_close(einjit.einsum(case.equation, *operands), reference(case.equation, *operands))


@pytest.mark.parametrize("optimize", [False, True, "greedy", "optimal", ("greedy", 1000), None],
                         ids=["False", "True", "greedy", "optimal", "limit", "None"])
@pytest.mark.parametrize("case", [c for c in CASES if len(c.shapes) > 2], ids=lambda c: c.name)
def test_every_order_of_contraction(case, optimize):
    operands = case.arrays()
    got = einjit.einsum(case.equation, *operands, optimize=optimize)
    assert_close(got, reference(case.equation, *operands))


def test_a_path_given_as_a_list():
    operands = Case("", "ab,bc,cd->ad", ((3, 4), (4, 5), (5, 6))).arrays()
    expected = reference("ab,bc,cd->ad", *operands)
    for path in (["einsum_path", (1, 2), (0, 1)], ["einsum_path", (0, 1, 2)], [(0, 1), (0, 1)]):
        assert_close(einjit.einsum("ab,bc,cd->ad", *operands, optimize=path), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("equation", PRODUCTS)
def test_every_dtype(equation, dtype):
    operands = operands_of(equation, dtype, size=19)
    assert_close(einjit.einsum(equation, *operands), reference(equation, *operands))


@pytest.mark.parametrize("second", DTYPES)
@pytest.mark.parametrize("first", DTYPES)
def test_the_dtype_of_a_mixture_is_numpys(first, second):
    a, b = (np.ones(3, d) for d in (first, second))
    assert einjit.einsum("i,i->", a, b).dtype == np.result_type(first, second)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_one_operand(dtype):
    a = Case("", "ijk->j", ((5, 40, 7),)).arrays(dtype)[0]
    for equation in ("ijk->j", "ijk->ik", "ijk->", "ijk->kj"):
        assert_close(einjit.einsum(equation, a), reference(equation, a))


def test_integers_wrap():
    assert einjit.einsum("i->", np.ones(300, np.int8)) == 44
    assert einjit.einsum("i,i->", np.full(4, 2**15, np.int32), np.full(4, 2**15, np.int32)) == 0
    assert einjit.einsum("i->", np.full(3, 2**64 - 1, np.uint64)) == 2**64 - 3


def test_bool_is_any_of_all():
    a = np.array([[True, True], [False, False]])
    np.testing.assert_array_equal(einjit.einsum("ij,jk->ik", a, a), [[True, True], [False, False]])
    assert einjit.einsum("ij->", a).dtype == np.bool_
    assert einjit.einsum("ij->", a, dtype=int) == 2
    # Converted before it is summed: NumPy's optimize=True gives 1 * 3 here.
    assert einjit.einsum("i,j->", np.ones(2, bool), np.full(1, 3), optimize=True) == 6


def test_float16_accumulates_in_float32():
    a = np.ones((2, 5000), np.float16)
    got = einjit.einsum("ij,kj->ik", a, a)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, np.full((2, 2), 5000, np.float16))
    assert einjit.einsum("ij->", a) == np.float16(10000)


def test_the_dtype_argument_is_what_is_computed_in():
    a = np.full(100_000, 0.1, np.float32)
    got = einjit.einsum("i,i->", a, a, dtype="float64")
    assert got.dtype == np.float64
    assert abs(got - 100_000 * float(np.float32(0.1)) ** 2) < 1e-8
    assert einjit.einsum("i,i->i", a, a, dtype=complex).dtype == np.complex128


def test_nan_and_infinity():
    a = np.ones((4, 5))
    b = np.ones((5, 3))
    a[0, 1], a[1, 2], a[2, 3], b[3, 0] = np.nan, np.inf, np.inf, 0
    with np.errstate(invalid="ignore"):
        expected = [[sum(a[i, j] * b[j, k] for j in range(5)) for k in range(3)] for i in range(4)]
    np.testing.assert_array_equal(einjit.einsum("ij,jk->ik", a, b), expected)
    assert np.isnan(einjit.einsum("i->", np.array([np.inf, -np.inf])))


@pytest.mark.parametrize("size", [1, 7, 8, 9, 33, 64, 65])
def test_infinity_does_not_leak_out_of_a_padded_edge(size):
    a = np.full((size, 3), np.inf)
    b = np.ones((3, size))
    np.testing.assert_array_equal(einjit.einsum("ij,jk->ik", a, b), np.full((size, size), np.inf))


def test_warnings_are_not_raised_for_the_user():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        einjit.einsum("i,i->i", np.array([1e300]), np.array([1e300]))
        einjit.einsum("ij,jk->ik", np.full((3, 3), 100, np.int8), np.full((3, 3), 100, np.int8))


# ---- what comes back

@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("equation,shape", VIEWS)
def test_pure_transposes_and_diagonals_are_views(equation, shape, optimize):
    a = np.arange(np.prod(shape), dtype=float).reshape(shape)
    got = einjit.einsum(equation, a, optimize=optimize)
    expected = _numpy_einsum(equation, a)
    assert got.__array_interface__["data"] == expected.__array_interface__["data"]
    assert got.strides == expected.strides and got.shape == expected.shape
    assert got.flags.writeable
    a.flags.writeable = False
    assert not einjit.einsum(equation, a, optimize=optimize).flags.writeable


def test_writing_through_a_view():
    a = np.zeros((3, 3))
    einjit.einsum("ii->i", a)[:] = 1
    np.testing.assert_array_equal(a, np.eye(3))


def test_with_out_a_transpose_is_a_copy():
    a = np.arange(12.0).reshape(3, 4)
    out = np.zeros((4, 3))
    assert einjit.einsum("ij->ji", a, out=out) is out
    np.testing.assert_array_equal(out, a.T)
    assert not np.shares_memory(out, a)


@pytest.mark.parametrize("equation", ["ij,ij->", "ij->", "ii->", "ij,jk->"])
def test_a_full_sum_is_a_scalar(equation):
    got = einjit.einsum(equation, *operands_of(equation))
    assert type(got) is np.float64


def test_scalars_lists_and_zero_dimensional_arrays():
    assert einjit.einsum(",->", 2, 3) == 6
    assert einjit.einsum(",i->i", 2, [1, 2, 3]).tolist() == [2, 4, 6]
    assert einjit.einsum("ij,j->i", [[1, 2], [3, 4]], [5.0, 6.0]).tolist() == [17.0, 39.0]
    assert einjit.einsum("->", np.array(3.5)) == 3.5
    assert einjit.einsum("...,...->...", np.array(3.0), np.array(2.0)) == 6
    assert einjit.einsum(b"ij->ji", np.zeros((2, 3))).shape == (3, 2)


def test_sublists():
    a, b = operands_of("ij,jk->ik")
    expected = reference("ij,jk->ik", a, b)
    assert_close(einjit.einsum(a, [0, 1], b, [1, 2], [0, 2]), expected)
    assert_close(einjit.einsum(a, [0, 1], b, [1, 2]), expected)
    assert_close(einjit.einsum(a, (Ellipsis, 1), b, [1, 2], [Ellipsis, 2]), expected)
    assert_close(einjit.einsum(a, ["row", "x"], b, ["x", None], ["row", None]), expected)


def test_labels_beyond_numpys():
    a, b = operands_of("ij,jk->ik")
    assert_close(einjit.einsum("αβ,βγ->αγ", a, b), reference("ij,jk->ik", a, b))
    many = [np.full((2,), 2.0) for _ in range(60)]
    args = [x for pair in ((m, [("label", n)]) for n, m in enumerate(many)) for x in pair]
    assert einjit.einsum(*args, [], optimize=True) == 4.0**60


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_subclasses_come_back_as_plain_arrays():
    a = np.matrix([[1.0, 2.0], [3.0, 4.0]])
    assert type(einjit.einsum("ij,jk->ik", a, a)) is np.ndarray
    assert type(einjit.einsum("ij->ji", a)) is np.ndarray


def test_tensordot():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 4, 5)), rng.random((4, 5, 6))
    for axes in (2, ([1, 2], [0, 1]), ([2], [1]), 0, ((-1,), (1,)), (1, 0)):
        got = einjit.tensordot(a, b, axes=axes)
        np.testing.assert_allclose(got, np.tensordot(a, b, axes=axes), rtol=1e-13)
    np.testing.assert_allclose(einjit.tensordot(a, b), np.tensordot(a, b), rtol=1e-13)
    with pytest.raises(ValueError):
        einjit.tensordot(a, b, axes=1)


# ---- order and casting

@pytest.mark.parametrize("equation", PRODUCTS)
def test_order_of_the_result(equation):
    operands = operands_of(equation)
    assert einjit.einsum(equation, *operands, order="C").flags.c_contiguous
    assert einjit.einsum(equation, *operands, order="F").flags.f_contiguous
    fortran = [np.asfortranarray(op) for op in operands]
    if max(op.ndim for op in operands) > 1:  # vectors alone are in both orders
        assert einjit.einsum(equation, *fortran, order="A").flags.f_contiguous
        assert einjit.einsum(equation, *operands, order="A").flags.c_contiguous
    for order in "CFAK":
        assert_close(einjit.einsum(equation, *fortran, order=order), reference(equation, *operands))


def test_order_k_keeps_the_layout_of_the_operands():
    a = np.asfortranarray(np.random.default_rng(0).random((3, 4)))
    assert einjit.einsum("ij,ij->ij", a, a).strides == _numpy_einsum("ij,ij->ij", a, a).strides == (8, 24)


def test_order_k_keeps_each_product_of_a_batch_together():
    q, k = np.random.default_rng(0).random((2, 2, 5, 3, 4))
    assert einjit.einsum("bqhd,bkhd->bhqk", q, k).flags.c_contiguous
    assert einjit.einsum("bhqd,bhkd->bqkh", *(x.transpose(0, 2, 1, 3) for x in (q, k))).flags.c_contiguous


def test_casting():
    a = np.ones((2, 3))
    assert einjit.einsum("ij,ij->ij", a, a, dtype="f4", casting="same_kind").dtype == np.float32
    assert einjit.einsum("ij,ij->ij", a * 2.5, a, dtype="i4", casting="unsafe").tolist() == [[2] * 3] * 2
    out = np.zeros((2, 3), np.float32)
    assert einjit.einsum("ij,ij->ij", a, a, out=out, casting="same_kind") is out
    assert out.sum() == 6
    wide = np.zeros((2, 3), complex)
    assert einjit.einsum("ij,ij->ij", a, a, out=wide) is wide
    assert wide.sum() == 6


# ---- out=

@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("broadcast", "read_only")])
@pytest.mark.parametrize("equation", [e for e in PRODUCTS if not e.endswith(">")])
def test_out_of_any_layout(equation, layout):
    operands = operands_of(equation, size=19)
    expected = reference(equation, *operands)
    out = lay_out(np.full(expected.value.shape, np.nan), layout)
    assert einjit.einsum(equation, *operands, out=out) is out
    assert_close(out, expected)


@pytest.mark.parametrize("equation,target", [
    ("ij,jk->ik", 0), ("ij,jk->ik", 1), ("ij,jk->ki", 1), ("ij,ij->ij", 0), ("ij,ij->ji", 0), ("ij->ji", 0),
    ("ij,jk,kl->il", 2),
])
@pytest.mark.parametrize("optimize", [False, True])
def test_out_may_be_an_operand(equation, target, optimize):
    operands = operands_of(equation, size=13)
    expected = reference(equation, *[op.copy() for op in operands])
    einjit.einsum(equation, *operands, out=operands[target], optimize=optimize)
    assert_close(operands[target], expected)


def test_out_may_overlap_an_operand_in_part():
    memory = np.random.default_rng(0).random(200)
    a, b, out = memory[:100].reshape(10, 10), memory[40:140].reshape(10, 10), memory[70:170].reshape(10, 10)
    expected = reference("ij,jk->ik", a.copy(), b.copy())
    einjit.einsum("ij,jk->ik", a, b, out=out)
    assert_close(out, expected)
    a, out = memory[:-1], memory[1:]
    expected = reference("i,->i", a.copy(), np.array(2.0))
    einjit.einsum("i,->i", a, 2.0, out=out)
    assert_close(out, expected)


def test_out_is_overwritten_not_added_to():
    a = np.ones((3, 0))
    out = np.full((3, 3), 7.0)
    einjit.einsum("ij,kj->ik", a, a, out=out)
    np.testing.assert_array_equal(out, np.zeros((3, 3)))


def test_out_with_zero_dimensions():
    out = np.full((), np.nan)
    assert einjit.einsum("ij,ij->", np.ones((3, 4)), np.ones((3, 4)), out=out) is out
    assert out == 12


# ---- odd arrays

@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "complex64", "bool"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij,kj->ik", "ij,ij->j", "ij,j->i"])
def test_operands_of_any_layout(equation, layout, dtype):
    operands = [lay_out(op, layout) for op in operands_of(equation, dtype, size=18)]
    assert_close(einjit.einsum(equation, *operands), reference(equation, *operands))


def test_operands_are_left_alone():
    operands = operands_of("ij,jk->ik", size=40)
    before = [op.copy() for op in operands]
    for op in operands:
        op.flags.writeable = False
    einjit.einsum("ij,jk->ik", *operands)
    for op, was in zip(operands, before, strict=True):
        np.testing.assert_array_equal(op, was)


def test_one_array_twice():
    a = np.random.default_rng(0).random((20, 20))
    assert_close(einjit.einsum("ij,jk->ik", a, a), reference("ij,jk->ik", a, a))
    assert_close(einjit.einsum("ij,ji->", a, a), reference("ij,ji->", a, a))


def test_strides_that_are_no_multiple_of_the_item():
    record = np.zeros(30, np.dtype([("tag", "i1"), ("value", "f8")], align=False))
    record["value"] = np.arange(30)
    assert einjit.einsum("i,i->", record["value"], record["value"]) == sum(n * n for n in range(30))
    out = np.zeros(30, record.dtype)
    einjit.einsum("i,i->i", record["value"], record["value"], out=out["value"])
    np.testing.assert_array_equal(out["value"], np.arange(30.0) ** 2)
    assert not out["tag"].any()


def test_the_result_of_big_endian_operands_is_native():
    a = np.arange(6.0).reshape(2, 3).astype(">f8")
    got = einjit.einsum("ij->i", a)
    assert got.dtype.isnative and got.tolist() == [3.0, 12.0]
    out = np.zeros((2, 2), ">f8")
    einjit.einsum("ij,kj->ik", a, a, out=out)
    assert out.tolist() == [[5.0, 14.0], [14.0, 50.0]]


def test_a_zero_stride_operand_of_more_than_2_to_the_31_elements():
    wide = np.broadcast_to(np.float32(1), (3, 2**30))
    assert einjit.einsum("ij->i", wide, dtype="float64").tolist() == [2.0**30] * 3


def test_an_array_of_more_than_2_to_the_31_elements():
    a = np.zeros(2**31 + 16, np.int8)  # pages that are never written take no memory
    a[0], a[2**31 - 1], a[-1] = 1, 2, 4
    assert einjit.einsum("i->", a) == 7
    rows = a.reshape(-1, 16)
    assert einjit.einsum("ij->j", rows).tolist() == [1] + [0] * 14 + [6]
    assert einjit.einsum("ij,ij->", rows[-2:], rows[-2:]) == 20


# ---- what NumPy must do itself

def test_objects_and_long_doubles_are_handed_over():
    before = sum(einjit.stats().handed_over.values())
    a = np.array([10**30, 2], object)
    assert einjit.einsum("i,i->", a, a) == 10**60 + 4
    b = np.arange(4, dtype=np.longdouble)
    got = einjit.einsum("i,i->", b, b)
    assert got.dtype == np.longdouble and got == 14
    assert sum(einjit.stats().handed_over.values()) == before + 2


def test_a_compilable_call_is_not_handed_over():
    before = einjit.stats()
    a = np.ones((3, 23), np.int16)  # a shape of this test's own
    einjit.einsum("ij,kj->ki", a, a)
    after = einjit.stats()
    assert after.planned == before.planned + 1
    assert after.handed_over == before.handed_over


def test_tiny_calls_may_be_handed_over_by_default():
    with einjit.options(handover="tiny"):
        before = sum(einjit.stats().handed_over.values())
        a = np.ones((2, 1, 2, 1, 2), np.uint16)
        assert einjit.einsum("abcde,abcdf,gbhdf->eahg", a, a, a).shape == (2, 2, 2, 2)
        assert sum(einjit.stats().handed_over.values()) == before + 1


def test_a_view_of_any_dtype():
    dates = np.array(["2020", "2021"], "M8[Y]").reshape(1, 2)
    assert einjit.einsum("ij->ji", dates).shape == (2, 1)


def test_it_survives_taking_numpys_place(monkeypatch):
    monkeypatch.setattr(np, "einsum", einjit.einsum)
    a = np.array([1, 2], object)
    assert np.einsum("i,i->", a, a) == 5
    with einjit.options(handover="tiny"):
        assert np.einsum("i,j->ji", [1.0, 2.0], [3.0]).tolist() == [[3.0, 6.0]]
    with pytest.raises(ValueError):
        np.einsum("ij->k", np.ones((2, 2)))


# ---- errors: the class here, the whole texts below and in the tests of the parser

BAD = {
    "unknown output label": ("ij->ik", [np.ones((2, 2))], {}),
    "repeated output label": ("ij->ii", [np.ones((2, 2))], {}),
    "size clash": ("ij,jk->ik", [np.ones((2, 3)), np.ones((4, 5))], {}),
    "clash within an operand": ("ii->i", [np.ones((2, 3))], {}),
    "one against many within an operand": ("ii->i", [np.ones((1, 3))], {}),
    "too few operands": ("ij,jk->ik", [np.ones((2, 2))], {}),
    "too many operands": ("ij->i", [np.ones((2, 2)), np.ones(2)], {}),
    "no operands": ("ij->i", [], {}),
    "bad character": ("i%->i", [np.ones((2, 2))], {}),
    "two arrows": ("ij->j->i", [np.ones((2, 2))], {}),
    "two ellipses": ("...i...->i", [np.ones((2, 2))], {}),
    "two dots": ("..i->i", [np.ones((2, 2))], {}),
    "too few labels": ("i->i", [np.ones((2, 2))], {}),
    "too many labels": ("ijk->i", [np.ones((2, 2))], {}),
    "dtype not safe": ("ij,ij->ij", [np.ones((2, 2))] * 2, {"dtype": "f4"}),
    "dtype of another kind": ("ij,ij->ij", [np.ones((2, 2))] * 2, {"dtype": "i4", "casting": "same_kind"}),
    "out not safe": ("ij,ij->ij", [np.ones((2, 2))] * 2, {"out": np.ones((2, 2), "f4")}),
    "out of another shape": ("ij,ij->ij", [np.ones((2, 2))] * 2, {"out": np.ones((2, 3))}),
    "out of size one": ("ij,ij->i", [np.ones((2, 2))] * 2, {"out": np.ones(1)}),
    "out of more dimensions": ("ij,ij->i", [np.ones((2, 2))] * 2, {"out": np.ones((1, 2))}),
    "out read-only": ("ij,ij->ij", [np.ones((2, 2))] * 2, {"out": np.broadcast_to(1.0, (2, 2))}),
    "out not an array": ("ij->ij", [np.ones((2, 2))], {"out": [[1, 2], [3, 4]]}),
    "unknown order": ("ij,ij->ij", [np.ones((2, 2))] * 2, {"order": "W"}),
    "unknown casting": ("ij,ij->ij", [np.ones((2, 2))] * 2, {"casting": "blah"}),
    "unknown keyword": ("ij->ij", [np.ones((2, 2))], {"colour": "red"}),
    "dates against numbers": ("i,i->i", [np.array(["2020"], "M8[Y]"), np.ones(1)], {}),
    "text": ("i,i->", [np.array(["a"]), np.array(["b"])], {}),
}


@pytest.mark.parametrize("what", BAD)
def test_an_error_is_of_the_class_numpy_raises(what):
    equation, operands, options = BAD[what]
    with pytest.raises((ValueError, TypeError)) as numpys:
        _numpy_einsum(equation, *operands, **options)
    expected = ValueError if issubclass(numpys.type, ValueError) else TypeError
    with pytest.raises(expected):
        einjit.einsum(equation, *operands, **options)


def test_after_an_error_the_same_equation_works():
    with pytest.raises(einjit.errors.ShapeError):
        einjit.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((4, 5)))
    assert einjit.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((3, 5))).tolist() == [[3.0] * 5] * 2
