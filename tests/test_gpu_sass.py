"""Machine code for GPUs, looked into: nothing spills, and hot loops are nearly all multiply-adds.

A tile's bounds come from what NVIDIA's compiler makes of the same tiling written in CUDA C++ (anchors/sgemm.cu).
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

import numpy as np
import pytest

import einjit
from einjit.codegen.gpubuild import GpuCode, sass_of
from einjit.codegen.gpuspecs import SHARED_BYTES
from einjit.gpukernel import GpuKernel
from tests import ptx, sass
from tests.reference import assert_close, reference
from tests.subprocesses import ROOT

pytestmark = pytest.mark.cuda

CCS = ((8, 0), (9, 0))
DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
          "complex64", "complex128")
SQUARE, ODD = ((2048, 2048),) * 2, ((2047, 2047),) * 2
FORMS = ("ij,jk->ik", "ji,jk->ik", "ij,kj->ik", "ji,kj->ik")
FAMILIES = {        # family, equation, shapes
    "tile": ("tiled contraction", FORMS[0], SQUARE),
    "edges": ("tiled contraction", FORMS[0], ODD),      # every element is read and written by itself
    "small": ("tiled contraction", FORMS[2], ((256, 64), (256, 64))),
    "few": ("element a thread", "ijk,k->ik", ((64, 7, 128), (128,))),
    "map": ("element a thread", "ij,j->ij", ((2048, 64), (64,))),
    "sums": ("shared sums", "ij,ij,j->i", ((2048, 64), (2048, 64), (64,))),
    "parts": ("2 steps", "i,i->", ((1 << 20,),) * 2),
    "turned": ("turned map", "ij,j->ji", ((640, 640), (640,))),
}
SLACK = 1.05        # a hot loop may have so many times the anchor's instructions
ANCHOR = {(8, 0): 575, (9, 0): 578}     # instructions of nvcc 13.0's hot loop


@cache
def compiled(equation: str, shapes, dtype: str, cc) -> GpuKernel:
    return einjit.compile(equation, *shapes, dtype=dtype, target="cuda", cc=cc, optimize=False)


@cache
def code_of(code: GpuCode) -> sass.Code:
    return sass.parse(sass_of(code))


def hot_loop(equation: str, dtype: str, cc) -> sass.Code:
    """Of a product of large matrices."""
    (step,) = compiled(equation, SQUARE, dtype, cc).steps
    return code_of(step.code).hot_loop


def check_resources(kernel: GpuKernel) -> None:
    for step in kernel.steps:
        found = step.code.resources
        assert (found.stack, found.spill_stores, found.spill_loads) == (0, 0, 0)
        assert code_of(step.code).count("LDL", "STL") == 0
        assert found.registers <= 128       # two blocks of 256 threads fit a multiprocessor
        assert found.shared <= SHARED_BYTES


@pytest.mark.parametrize("cc", CCS, ids=str)
@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_spills(family, dtype, cc):
    name, equation, shapes = FAMILIES[family]
    if dtype == "bool" and name.startswith("tiled"):
        name = "shared sums"        # an `or` of `and`s is no product
    if dtype == "float16" and family in ("tile", "small"):
        name = "tensor cores"
    kernel = compiled(equation, shapes, dtype, cc)
    assert kernel.family == name
    check_resources(kernel)


@pytest.mark.parametrize("cc", CCS, ids=str)
@pytest.mark.parametrize("dtype", ["int32", "float32", "float64", "complex128"])
@pytest.mark.parametrize("equation, shapes", [
    ("bij,bjk->bik", ((16, 512, 512),) * 2), ("bij,bkj->bik", ((16, 512, 512),) * 2),
    ("bji,bjk->bik", ((16, 512, 512),) * 2), ("bij,bjk->bik", ((16, 511, 511),) * 2),
    ("aibj,jbkc->icka", ((32, 64, 32, 64), (64, 32, 64, 32))), ("aib,bkc->icka", ((32, 64, 2048), (2048, 64, 32))),
    ("aibj,bjck->aick", ((64, 5, 3, 7), (3, 7, 500, 4))), ("ijk,kjl->il", ((2048, 64, 64), (64, 64, 2048))),
    ("ij,jk->ik", ((300, 9000), (9000, 200))),
], ids=str)
def test_batches_fused_labels_and_parts_do_not_spill(equation, shapes, dtype, cc):
    kernel = compiled(equation, shapes, dtype, cc)
    assert kernel.steps[0].choice.family == "tiled contraction"
    check_resources(kernel)


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_single_precision_computes_nothing_in_double(family, dtype):
    _, equation, shapes = FAMILIES[family]
    assert ".f64" not in compiled(equation, shapes, dtype, CCS[0]).ptx


@pytest.mark.parametrize("cc", CCS, ids=str)
@pytest.mark.parametrize("equation", FORMS)
def test_the_loop_of_the_float32_tile(equation, cc):
    kernel = compiled(equation, SQUARE, "float32", cc)
    assert kernel.tiling == "128x128x8 block, 8x8 a thread"
    loop = hot_loop(equation, "float32", cc)
    assert loop.count("FFMA") == 8 * 8 * 8
    assert loop.share("FFMA") >= 0.85
    assert len(loop) <= SLACK * ANCHOR[cc]
    assert loop.widths("LDS") == {128: 4 * 8}
    assert loop.widths("LDG") == {128: 2}


@pytest.mark.parametrize("cc", CCS, ids=str)
@pytest.mark.parametrize("equation", FORMS)
@pytest.mark.parametrize("dtype, name, multiply_adds, share", [
    ("complex64", "FFMA", 4 * 16 * 16, 0.85), ("float64", "DFMA", 16 * 16, 0.70),
    ("complex128", "DFMA", 4 * 8 * 8, 0.70),
])
def test_the_loops_of_other_tiles(equation, dtype, name, multiply_adds, share, cc):
    loop = hot_loop(equation, dtype, cc)
    assert loop.count(name) == multiply_adds
    assert loop.share(name) >= share
    assert set(loop.widths("LDS")) == set(loop.widths("LDG")) == {128}


# -- the anchor itself -----------------------------------------------------------------------------------

ANCHOR_SOURCE = ROOT / "tests" / "anchors" / "sgemm.cu"


def nvcc(kind: str, cc, folder) -> bytes:
    out = folder / f"sgemm.{kind}"
    program = shutil.which("nvcc")
    if not program:
        pytest.skip("there is no nvcc on the path")
    flags = ["-O3", f"-arch=sm_{cc[0]}{cc[1]}", f"-{kind}"]
    subprocess.run([program, *flags, "-o", str(out), str(ANCHOR_SOURCE)], check=True)
    return out.read_bytes()


@pytest.mark.parametrize("cc", CCS, ids=str)
def test_the_loop_is_as_short_as_nvccs(cc, tmp_path):
    anchor = sass.parse(sass_of(GpuCode("sgemm", nvcc("cubin", cc, tmp_path), None))).hot_loop
    assert anchor.count("FFMA") == 8 * 8 * 8
    for equation in FORMS:
        loop = hot_loop(equation, "float32", cc)
        assert len(loop) <= SLACK * len(anchor)
        assert loop.widths("LDS") == anchor.widths("LDS")
        assert loop.widths("LDG") == anchor.widths("LDG")


def test_the_anchor_multiplies(tmp_path):
    kernel = ptx.parse(nvcc("ptx", CCS[0], tmp_path).decode())
    a, b = (np.random.default_rng(0).random(shape, np.float32) for shape in ((128, 24), (24, 256)))
    c = np.zeros((128, 256), np.float32)
    ptx.launch(kernel, (2, 1), 256, [a, b, c, np.int32(256), np.int32(24)])
    assert_close(c, reference("ij,jk->ik", a, b))
