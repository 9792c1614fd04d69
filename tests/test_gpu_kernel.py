"""Compiling for a GPU: the handle, what it refuses, and what is kept."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import einjit
from einjit import gpucode, machine
from einjit.codegen.gpubuild import CudaUnavailable
from einjit.errors import ArgumentError, DtypeError
from tests.subprocesses import run_python

MATMUL = ("ij,jk->ik", (64, 48), (48, 80))


def without_numba_cuda(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "numba_cuda", None)
    monkeypatch.setattr(gpucode, "_codes", {})


def test_without_numba_cuda_it_says_what_to_install(monkeypatch):
    without_numba_cuda(monkeypatch)
    with pytest.raises(CudaUnavailable) as caught:
        einjit.compile(*MATMUL, target="cuda", cc=(8, 0))
    assert str(caught.value) == ("CUDA kernels need Numba-CUDA, which is not installed\n"
                                 "  fix: pip install 'einjit[cuda]'")


@pytest.mark.parametrize("arguments, text", [
    ({"target": "gpu"}, "target is 'gpu'\n  fix: pass target='cpu' or target='cuda'"),
    ({"target": "cuda", "cc": (3, 0)}, "cc is (3, 0), which is no compute capability that there are kernels for\n"
     "  fix: pass one from (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), such as cc=(8, 0)"),
    ({"target": "cuda", "cc": "8.0"}, "cc is '8.0', which is no compute capability that there are kernels for\n"
     "  fix: pass one from (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), such as cc=(8, 0)"),
])
def test_what_it_does_not_compile_for(arguments, text):
    with pytest.raises(ArgumentError) as caught:
        einjit.compile(*MATMUL, **arguments)
    assert str(caught.value) == text


def test_a_dtype_without_kernels():
    with pytest.raises(DtypeError, match="operand 0 has dtype float128"):
        einjit.compile("i->", (3,), dtype="longdouble", target="cuda", cc=(8, 0))


def test_importing_einjit_imports_nothing_for_gpus():
    done = run_python("-c", """if True:
        import sys, einjit
        print([m for m in sys.modules if m.split('.')[0] in ('numba', 'cuda', 'numba_cuda')])
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_the_table_of_devices():
    for cc in machine.compute_capabilities():
        device = machine.gpu(cc)
        assert device.cc == cc and device.arch == f"sm_{cc[0]}{cc[1]}"
        assert device.warps in (32, 48, 64) and device.shared >= 64 * 1024
    assert machine.gpu((8, 7)).name == machine.gpu((8, 6)).name     # between two rows


@pytest.mark.cuda
def test_the_handle():
    kernel = einjit.compile(*MATMUL, dtype="float32", target="cuda", cc=(9, 0))
    assert repr(kernel) == ("<einjit.GpuKernel ij,jk->ik for (64, 48), (48, 80) on sm_90: tiled contraction, 64x64x16 "
                            "block, 4x4 a thread>")
    assert ".target sm_90" in kernel.ptx and "FFMA" in kernel.sass
    assert kernel.resources.shared == 2 * 16 * (68 + 68) * 4
    assert kernel.steps[0].launch.grid == 2 and kernel.steps[0].launch.block == 256
    assert kernel.source.startswith("from numba import cuda")
    assert kernel.explain() == einjit.explain(*MATMUL, dtype="float32", target="cuda", cc=(9, 0))


@pytest.mark.cuda
def test_several_steps():
    kernel = einjit.compile("ij,jk,kl->il", (64, 48), (48, 80), (80, 20), target="cuda", cc=(8, 0))
    assert kernel.family == "2 steps" and len(kernel.plan.steps) == 2


@pytest.mark.cuda
def test_nothing_to_compute():
    kernel = einjit.compile("ij,jk->ik", (0, 3), (3, 4), target="cuda", cc=(8, 0))
    assert (kernel.family, kernel.steps, kernel.ptx, kernel.source, kernel.nest) == ("empty", (), "", "", None)


@pytest.mark.cuda
def test_shapes_share_code():
    one = einjit.compile("ij,jk->ik", (256, 128), (128, 256), dtype="float32", target="cuda", cc=(8, 0))
    before = einjit.stats().compiles
    other = einjit.compile("ij,jk->ik", (100, 36), (36, 64), dtype="float32", target="cuda", cc=(8, 0))
    assert other.steps[0].code is one.steps[0].code and einjit.stats().compiles == before
    assert other.steps[0].launch != one.steps[0].launch


@pytest.mark.cuda
def test_code_comes_from_the_disk_the_second_time(cold_cache):
    program = """if True:
        import einjit
        kernel = einjit.compile("ij->j", (500, 300), dtype="float32", target="cuda", cc=(8, 0))
        print(einjit.stats().compiles, einjit.stats().disk_hits, kernel.resources)
    """
    first, second = (run_python("-c", program) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    compiles, hits, resources = first.stdout.split(" ", 2)
    assert (hits, second.stdout.split(" ", 2)) == ("0", ["0", compiles, resources])


@pytest.mark.cuda
@pytest.mark.parametrize("cc", machine.compute_capabilities())
def test_every_compute_capability(cc):
    kernel = einjit.compile(*MATMUL, dtype="float16", target="cuda", cc=cc)
    assert kernel.resources.spill_stores == 0 and np.dtype(kernel.dtypes[0]) == np.float16
