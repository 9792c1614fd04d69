"""What kernels cost in memory, counted by the PTX executor: full sectors of global memory, and banks of shared memory
that are not in each other's way.

Left out, for they hold only in part: products of elements narrower than 4 bytes, of which a thread's chunk is less than
half a sector and which cost up to 4 times the sectors where a panel is turned (int16 1.5 to 2, int8 1.5 to 4); and
an element a thread whose operands are contiguous along another label than the output's fastest, where neither turned
maps nor shared sums help (short sums: ij,j->i).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

import einjit
from tests.equations import Case
from tests.executed import run_step
from tests.ptx import Report

pytestmark = pytest.mark.cuda

BLOCKS = 4          # that are run of a large grid
FORMS = ("ij,jk->ik", "ji,jk->ik", "ij,kj->ik", "ji,kj->ik")
SMALL, LARGE = {"i": 128, "j": 48, "k": 128}, {"i": 2048, "j": 16, "k": 2048}


def counted(equation: str, sizes: dict[str, int], dtype: str, family: str) -> Report:
    shapes = tuple(tuple(sizes[label] for label in term) for term in equation.split("->")[0].split(","))
    operands = Case("", equation, shapes).arrays(dtype)
    kernel = einjit.compile(equation, *operands, target="cuda", cc=(8, 0), optimize=False)
    assert kernel.steps[0].choice.family == family
    step = kernel.steps[0]      # where a sum is taken apart, another one adds up its parts
    few = replace(step, launch=replace(step.launch, grid=min(step.launch.grid, BLOCKS)))
    return run_step(few, [operands[i] for i in step.operands])[1]


@pytest.mark.parametrize("equation", FORMS)
@pytest.mark.parametrize("dtype, sizes", [
    *((dtype, SMALL) for dtype in ("int32", "uint32", "float32", "int64", "float64", "complex64", "complex128")),
    ("int32", LARGE), ("float32", LARGE),
], ids=lambda x: x if isinstance(x, str) else str(x["i"]))
def test_products(equation, dtype, sizes):
    report = counted(equation, sizes, dtype, "tiled contraction")
    assert report.shared_loads.worst == 1       # no conflict at all
    assert report.shared_loads.ratio == 1.0
    assert report.shared_stores.ratio <= 1.5
    assert report.global_loads.ratio <= 1.05
    assert report.global_stores.ratio <= 1.05


@pytest.mark.parametrize("equation", FORMS)
@pytest.mark.parametrize("dtype", ["int8", "uint16"])
def test_banks_of_narrow_products(equation, dtype):
    report = counted(equation, SMALL, dtype, "tiled contraction")
    assert report.shared_loads.worst == 1
    assert report.shared_stores.ratio <= 1.5
    assert report.global_stores.ratio <= 1.05


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "float32", "float64", "complex128"])
@pytest.mark.parametrize("equation", ["ik,ik->ik", "j,jk->k", "ijk->ik", "ik,k->ik", "i,i->i"])
def test_an_element_a_thread(equation, dtype):
    report = counted(equation, {"i": 64, "j": 7, "k": 128}, dtype, "element a thread")
    assert report.shared_loads.real == report.shared_stores.real == 0
    assert report.global_loads.ratio <= 1.05
    assert report.global_stores.ratio <= 1.05


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "float32", "float64", "complex128"])
@pytest.mark.parametrize("equation, family", [
    ("jk,jk->j", "shared sums"), ("ik->k", "shared sums"), ("ik->ki", "turned map"), ("ik,k->ki", "turned map"),
])
def test_shared_sums_and_turned_maps(equation, family, dtype):
    report = counted(equation, {"i": 4096, "j": 7, "k": 128}, dtype, family)
    assert report.shared_loads.worst <= 1
    assert report.shared_stores.ratio <= 1.5
    assert report.global_loads.ratio <= 1.05
    assert report.global_stores.ratio <= 1.05
