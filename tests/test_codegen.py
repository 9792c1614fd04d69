"""Generated source: what it says, what it is named, which nests share it; and packing from every layout.

`python -m tests.test_codegen > tests/golden/matmul.py.txt` writes the golden file anew.
"""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit, types
from numba.extending import intrinsic

import einjit
from einjit import expr
from einjit.codegen import build, specs
from einjit.codegen.cpu import emit, structure
from einjit.codegen.memory import FILLING
from einjit.codegen.packing import packing
from einjit.codegen.runs import is_run
from einjit.codegen.specs import PackSpec, TileSpec, TileTensor
from einjit.contraction import Layout, contraction
from einjit.expr import Binary, Const, Operand, Select, Unary
from einjit.ir import LoopNest
from einjit.lower import lower
from einjit.machine import table_entry
from einjit.parse import parse
from einjit.schedule import Schedule, apply
from einjit.schedule.choose import choose, normalised
from tests.equations import EVERYDAY

ROWS = ("generic", "avx2", "znver4", "avx512", "neon")
GOLDEN = Path(__file__).parent / "golden" / "matmul.py.txt"


def nest_of(equation: str, shapes, dtype: str = "float32", row: str = "avx2", body=None,
            schedule: Schedule | None = None) -> LoopNest:
    """The scheduled nest for row-major operands on a machine of the table."""
    einsum = parse(equation, tuple(map(len, shapes)))
    sizes = {label: n for term, shape in zip(einsum.inputs, shapes) for label, n in zip(term, shape)}
    out = Layout.contiguous([sizes[label] for label in einsum.output], dtype)
    c = contraction(einsum, sizes, out, [Layout.contiguous(shape, dtype) for shape in shapes], body)
    if schedule is None:
        c = normalised(c)
        schedule = choose(c, table_entry(row)).schedule
    return apply(lower(c), schedule)


def matmul(m: int = 512, k: int = 512, n: int = 512, **keywords) -> LoopNest:
    return nest_of("ij,jk->ik", ((m, k), (k, n)), **keywords)


def everyday(row: str) -> list[LoopNest]:
    return [nest_of(case.equation, case.shapes, row=row) for case in EVERYDAY]


# -- the text ----------------------------------------------------------------------------------------------

def test_the_source_of_a_matrix_product():
    assert emit(matmul()).text == GOLDEN.read_text()


@pytest.mark.parametrize("row", ROWS)
def test_it_is_loops_and_the_compilers_own_primitives(row):
    """No BLAS, no NumPy, no copies but packing: whatever is called is named here."""
    for nest in (*everyday(row), matmul(row=row)):
        tree = ast.parse(emit(nest).text)
        calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert calls <= {
            "word", "range", "lesser", "greater", "fill_offsets", "packing", "pack_a", "pack_b", "register_tile",
            "tile", "PackSpec", "TileSpec", "TileTensor", "Binary", "Operand", "njit"}
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert all(name == "numba" or re.match(r"einjit\.(codegen\.|expr)", name) for name in modules)
        assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))


def test_a_pack_stands_in_the_source_for_each_pack_of_the_nest():
    text = emit(matmul()).text
    assert len(matmul().packs) == 2
    assert re.findall(r"^ +(pack_\w)\(", text, re.M) == ["pack_b", "pack_a"]


def test_loops_stand_in_the_order_of_the_nest():
    found = re.findall(r"for (\w+) in range", emit(matmul()).text)
    assert found == ["N0", "K0", "M0", "N1", "M1"]        # K, M and N are the tile's


# -- names -------------------------------------------------------------------------------------------------

def test_the_entry_is_named_after_the_hash_of_the_source():
    source = emit(matmul())
    assert f"def {source.entry}(ptrs, p):" in source.text
    content = source.text.replace(source.entry, "@ENTRY@")
    assert source.entry == f"einsum_MK_NK_MN_float32_{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def test_whatever_is_different_has_another_name():
    minus = Binary("sub", Operand(0), Operand(1))
    nests = [
        matmul(), matmul(dtype="float64"), matmul(row="avx512"), matmul(body=minus), matmul(schedule=()),
        matmul(k=3), matmul(k=3, dtype="float64"), matmul(k=3, row="avx512"), matmul(k=3, body=minus),
        nest_of("ij,kj->ik", ((512, 3), (512, 3))), nest_of("ij,ij->ij", ((512, 3), (512, 3))),
    ]
    assert len({emit(nest).entry for nest in nests}) == len(nests)


def test_equations_that_share_code_share_the_name():
    assert emit(nest_of("ab,bc->ac", ((512, 512), (512, 512)))) == emit(matmul())
    assert emit(nest_of("xaj,jk->xak", ((8, 64, 512), (512, 512)))) == emit(matmul())


# -- structure ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("one,other", [
    (("ij,jk->ik", ((512, 512), (512, 512))), ("ij,jk->ik", ((700, 900), (900, 1100)))),
    (("ij,jk->ik", ((512, 512), (512, 512))), ("abj,jcd->abcd", ((20, 30, 512), (512, 30, 20)))),
    (("ij,jk->ik", ((30, 30), (30, 40))), ("ij,jk->ik", ((31, 29), (29, 45)))),
    (("ij->i", ((100, 200),)), ("ij->i", ((7, 9000),))),
    (("ij->ij", ((100, 200),)), ("ij->ij", ((3, 40_000),))),
], ids=["sizes", "fused groups", "direct", "sums", "copies"])
def test_nests_that_differ_in_extents_and_cache_blocks_share_source(one, other):
    one, other = nest_of(*one), nest_of(*other)
    assert [label.extent for label in one.labels] != [label.extent for label in other.labels]
    assert structure(one) == structure(other)
    assert emit(one) == emit(other)


def test_what_is_part_of_the_code_is_part_of_the_structure():
    nest = matmul(k=3)
    first, *others = nest.labels
    fused = replace(nest, labels=(replace(first, members=("i", "x")), *others))
    summed = replace(nest, labels=(replace(first, summed=True), *others))
    strided = replace(nest, inputs=(replace(nest.inputs[0], unit=""), nest.inputs[1]))
    added = replace(nest, body=Binary("add", Operand(0), Operand(1)))
    nests = [nest, fused, summed, strided, added, replace(nest, reduce="max"), matmul(),
             *(matmul(k=3, row=row) for row in ("generic", "znver4")), matmul(k=3, dtype="float64")]
    assert len(set(map(structure, nests))) == len(nests)


@settings(max_examples=150)
@given(st.sampled_from(EVERYDAY), st.data(), st.sampled_from(ROWS), st.sampled_from(["float32", "int8"]))
def test_the_same_structure_is_the_same_source(case, data, row, dtype):
    sizes = {c: data.draw(st.integers(1, 40), label=c) for c in sorted(set(case.equation) - set(",->"))}
    terms = case.equation.split("->")[0].split(",")
    one = nest_of(case.equation, case.shapes, dtype, row)
    other = nest_of(case.equation, [[sizes[c] for c in term] for term in terms], dtype, row)
    assert (structure(one) != structure(other)) or emit(one) == emit(other)


# -- specifications ----------------------------------------------------------------------------------------

NAMES = {**vars(specs), **vars(expr)}
SPEC = TileSpec(
    (2, 3), (True, False), 4, 2, False, "vector",
    (TileTensor("a", "float32", ("affine", "table"), "unit", ""), TileTensor("b", "int8", ("", "packed"))),
    TileTensor("out", "complex64", ("affine", "")), "complex64", "add",
    Select(Binary("lt", Operand(0), Const(float("-inf"))), Unary("neg", Const(-0.0)),
           Binary("mul", Const(float("nan")), Const(complex(1, float("inf"))))))


@pytest.mark.parametrize("spec", [SPEC, PackSpec("int8", "float32", 16)], ids=["tile", "pack"])
def test_a_specification_reads_back_as_itself(spec):
    again = eval(repr(spec), dict(NAMES))
    assert again == spec and hash(again) == hash(spec)


def test_a_body_in_the_source_reads_back_as_itself():
    nest = matmul(8, 8, 8, body=SPEC.body)
    (call,) = re.findall(r"^tile = register_tile\((.*?)^\)\)", emit(nest).text, re.M | re.S)
    assert eval(call + ")", dict(NAMES)).body == SPEC.body


def test_the_arguments_of_a_tile_are_what_it_cannot_know():
    assert SPEC.arguments == (
        "out", "a", "b", "out.u0", "a.u0", "a.u1", "u0.left", "u1.left", "v.left", "first")
    assert (SPEC.width, SPEC.has_vector) == (8, True)


@intrinsic
def run_of_four(typingctx, table):
    """Whether four offsets are a run of elements of four bytes."""
    def codegen(context, builder, signature, args):
        return is_run(builder, args[0], 4, 4)

    return types.boolean(types.int64), codegen


address_is_run = njit(lambda address: run_of_four(address))


@pytest.mark.parametrize("offsets,expected", [
    ((0, 4, 8, 12), True), ((-104, -100, -96, -92), True), ((0, 4, 8, 16), False), ((0, 4, 12, 12), False),
    ((0, 8, 16, 24), False), ((12, 8, 4, 0), False), ((0, 0, 0, 0), False),
])
def test_a_run_is_elements_side_by_side(offsets, expected):
    table = np.array(offsets, np.int64)
    assert address_is_run(table.ctypes.data) is expected


# -- what is compiled once ---------------------------------------------------------------------------------

def test_a_kernel_has_one_function_that_fills_its_tables():
    llvm = build.llvm_of(emit(matmul()))
    assert llvm.count(f"@{FILLING}(") == 1 + 6      # the definition and a call for each label of each tensor
    assert llvm.count("define internal") == 1


def test_squares_are_written_out_once_however_wide_a_panel_is():
    def shuffles(width: int) -> int:
        pack = packing(PackSpec("float32", "float32", width))
        fill = njit(types.void(*[types.int64] * 6))(lambda a, b, c, d, e, f: pack(a, b, c, d, e, f))
        return fill.inspect_llvm(fill.signatures[0]).count("shufflevector")

    assert shuffles(64) - shuffles(32) < 24         # of which a square takes that many


# -- packing, from every layout ----------------------------------------------------------------------------

def numbers(shape, dtype: str) -> np.ndarray:
    """Small integers, whose products and sums are exact in every dtype."""
    rng = np.random.default_rng(sum(shape))
    values = rng.integers(-3, 4, shape)
    if dtype.startswith("complex"):
        values = values + 1j * rng.integers(-3, 4, shape)
    return values.astype(dtype)


def rows(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x)


def columns(x: np.ndarray) -> np.ndarray:
    return np.asfortranarray(x)


def apart(x: np.ndarray) -> np.ndarray:
    whole = np.zeros([2 * n for n in x.shape], x.dtype)
    whole[::2, ::2] = x
    return whole[::2, ::2]


def backwards(x: np.ndarray) -> np.ndarray:
    return x[::-1, ::-1].copy()[::-1, ::-1]


def unaligned(x: np.ndarray) -> np.ndarray:
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    raw[...] = x
    return raw


# In a (M x K) the panel runs down the columns, in b (K x N) along the rows: where those are contiguous,
# vectors are copied; where the other axis is, squares are transposed; else elements are gathered.
@pytest.mark.parametrize("lay_a", [rows, columns, apart, backwards, unaligned])
@pytest.mark.parametrize("lay_b", [rows, columns, apart])
@pytest.mark.parametrize("dtypes", [
    ("float32", "float32"), ("float64", "float64"), ("complex64", "complex64"), ("int16", "int16"),
    ("float16", "float16"), ("int8", "float32"),
], ids="-".join)
def test_packing_reads_every_layout(lay_a, lay_b, dtypes, always_packed):
    a, b = lay_a(numbers((53, 67), dtypes[0])), lay_b(numbers((67, 71), dtypes[1]))
    kernel = einjit.compile("ij,jk->ik", a, b)
    assert kernel.family == "packed contraction"
    np.testing.assert_array_equal(kernel(a, b), np.einsum("ij,jk->ik", a, b, dtype=np.result_type(a, b)))


@pytest.mark.parametrize("inner", [2, 3, 5, 8, 31, 32, 33])
@pytest.mark.parametrize("axes", ["", "transposed"])
def test_runs_that_end_inside_a_panel_are_seen(inner, axes):
    # n and p lie together as pairs only: a panel over them is several runs, whatever its ends look like.
    a, b = numbers((48, 200), "float32"), numbers((200, 6, 2 * inner), "float32")[:, :, :inner]
    equation = "mk,knp->mnp"
    if axes:
        b, equation = b.transpose(2, 1, 0), "mk,pnk->mnp"
    kernel = einjit.compile(equation, a, b)
    assert kernel.family == "packed contraction"
    np.testing.assert_array_equal(kernel(a, b), np.einsum(equation, a, b))


@pytest.mark.parametrize("inner", [3, 4, 8, 9, 16])
def test_steps_that_end_inside_a_square_are_seen(inner):
    # Two summed labels that do not fold: squares of steps straddle their ends.
    a, b = numbers((48, 9, 2 * inner), "float32")[:, :, :inner], numbers((9, inner, 96), "float32")
    kernel = einjit.compile("mkl,kln->mn", a, b)
    assert kernel.family == "packed contraction"
    np.testing.assert_array_equal(kernel(a, b), np.einsum("mkl,kln->mn", a, b))


def packed_by_hand(memory: np.ndarray, panels: int, rows, steps, abreast: int, past: Sequence[int] = ()) -> None:
    """Pack float64, four rows a panel, inside of `memory`: from its start to its element number `panels`. `rows` and
    `steps` count elements; `past` is what lies behind the table of rows."""
    pack = packing(PackSpec("float64", "float64", 4, abreast))
    fill = njit(lambda *arguments: pack(*arguments))
    tables = [8 * np.array([*offsets, *behind], np.int64) for offsets, behind in ((rows, past), (steps, ()))]
    base = memory.ctypes.data
    fill(base + 8 * panels, base, tables[0].ctypes.data, tables[1].ctypes.data, len(rows), len(steps))


def test_panels_that_lie_side_by_side_are_filled_step_by_step():
    # Step 1 of the first panel is put where step 0 of the second one is read from.
    memory = np.arange(20.0)
    packed_by_hand(memory, 0, range(8), (0, 12), abreast=2)
    np.testing.assert_array_equal(memory[:16], [0, 1, 2, 3, 12, 13, 14, 15, 4, 5, 6, 7, 16, 17, 18, 19])
    memory = np.arange(20.0)
    packed_by_hand(memory, 0, range(8), (0, 12), abreast=1)
    np.testing.assert_array_equal(memory[:16], [0, 1, 2, 3, 12, 13, 14, 15, 12, 13, 14, 15, 16, 17, 18, 19])


@pytest.mark.parametrize("rows", [
    range(12), (*range(8), *range(9, 13)), (*range(4), *range(9, 17)), (*range(4), 4, 5, 8, 9, *range(8, 12)),
    (*range(10, 14), *range(4), *range(4, 8)), (*range(8), 8, 9, 9, 9),
], ids=["one run", "two and one", "one and two", "broken between", "backwards", "padded"])
def test_panels_of_one_run_and_others(rows):
    # What lies behind the table goes on as the rows do.
    memory, steps = np.arange(200.0), (0, 20, 40)
    expected = [memory[row + step] for first in (0, 4, 8) for step in steps for row in rows[first:first + 4]]
    packed_by_hand(memory, 100, rows, steps, abreast=8, past=range(rows[-1] + 1, rows[-1] + 21))
    np.testing.assert_array_equal(memory[100:136], expected)
    np.testing.assert_array_equal(memory[136:], np.arange(136.0, 200.0))


def test_one_kernel_packs_from_all_of_them(always_packed):
    a, b = numbers((53, 67), "float32"), numbers((67, 71), "float32")
    sources = {einjit.compile("ij,jk->ik", lay_a(a), lay_b(b)).source
               for lay_a in (rows, columns, apart) for lay_b in (rows, columns, apart)}
    folded = numbers((53, 9, 7), "float32"), numbers((9, 7, 81), "float32")
    assert len(sources | {einjit.compile("ijl,jlk->ik", *folded).source}) == 1


if __name__ == "__main__":
    print(emit(matmul()).text, end="")
