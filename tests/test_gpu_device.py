"""The same on a real device: results, libraries, streams, and how einjit's kernels stand to cuBLAS's."""

from __future__ import annotations

import numpy as np
import pytest

import einjit
from einjit import gpucall, gpulibraries
from einjit.codegen.gpubuild import CudaUnavailable
from einjit.errors import OperandError
from einjit.gpudriver import driver
from tests.equations import CASES, Case
from tests.reference import assert_close, reference
from tests.subprocesses import run_code

try:
    driver().device_count()
    MISSING = ""
except CudaUnavailable as error:
    MISSING = error.sentence

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(MISSING), reason=MISSING)]
RNG = np.random.default_rng(0)
LIBRARIES = ("numba", "cupy", "torch")
DTYPES = ("bool", "int8", "int32", "int64", "float16", "float32", "float64", "complex64", "complex128")


@pytest.fixture(params=LIBRARIES)
def library(request):
    if request.param != "numba":
        pytest.importorskip(request.param)
    return gpulibraries._LIBRARIES[request.param]


def put(library, *arrays, device: int = 0):
    with driver().on(device):
        stream = library.current_stream(device)
        return [library.from_host(np.asarray(a, order="C"), device, stream) for a in arrays]


def normal(*shapes, dtype="float32"):
    return [RNG.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("case", [c for c in CASES if not c.dtypes], ids=lambda case: case.name)
def test_every_equation(library, case):
    operands = case.arrays("float64")
    result = einjit.einsum(case.equation, *put(library, *operands))
    assert type(result) is type(put(library, *operands)[0])
    assert_close(library.to_host(result), reference(case.equation, *operands))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", [((37, 29), (29, 83)), ((256, 512), (512, 384)), ((5, 3), (3, 4))], ids=str)
def test_dtypes(library, dtype, shapes):
    operands = Case("", "ij,jk->ik", shapes).arrays(dtype)
    result = einjit.einsum("ij,jk->ik", *put(library, *operands))
    assert_close(library.to_host(result), reference("ij,jk->ik", *operands))


def test_bfloat16_of_torch():
    torch = pytest.importorskip("torch")
    x, y = (torch.randn(shape, device="cuda").to(torch.bfloat16) for shape in ((130, 64), (64, 72)))
    result = einjit.einsum("ij,jk->ik", x, y)
    assert result.dtype is torch.bfloat16
    torch.testing.assert_close(result, x @ y, rtol=2e-2, atol=1e-1)


def test_a_product_larger_than_a_cache_is_cublass(library):
    if library.name == "numba":
        pytest.skip("it has no cuBLAS")
    a, b = normal((2048, 1536), (1536, 2000))
    x, y = put(library, a, b)
    np.testing.assert_allclose(library.to_host(einjit.einsum("ij,jk->ik", x, y)), library.to_host(x @ y),
                               rtol=1e-3, atol=1e-2)


def test_many_blocks_and_a_batch(library):
    a, b = normal((64, 200, 130), (64, 130, 170))
    result = einjit.einsum("bij,bjk->bik", *put(library, a, b))
    np.testing.assert_allclose(library.to_host(result), a @ b, rtol=1e-3, atol=1e-3)


def test_three_operands(library):
    a, b, c = normal((60, 50), (50, 70), (70, 30), dtype="float64")
    result = einjit.einsum("ij,jk,kl->il", *put(library, a, b, c))
    np.testing.assert_allclose(library.to_host(result), a @ b @ c)


def test_out_and_overlaps(library):
    a, b, out = *normal((96, 96), (96, 96)), np.zeros((96, 96), "float32")
    x, y, z = put(library, a, b, out)
    assert einjit.einsum("ij,jk->ik", x, y, out=z) is z
    np.testing.assert_allclose(library.to_host(z), a @ b, rtol=1e-3, atol=1e-3)
    assert einjit.einsum("ij,jk->ik", x, y, out=x) is x
    np.testing.assert_allclose(library.to_host(x), a @ b, rtol=1e-3, atol=1e-3)


def test_views_and_pointers_that_are_not_aligned(library):
    if library.name == "numba":
        pytest.skip("its views are few")
    (a,) = normal((130, 131))
    (x,) = put(library, a)
    for key in (np.s_[1:, 1:], np.s_[::2, 3:], np.s_[:, ::3]):
        result = einjit.einsum("ij,kj->ik", x[key], x[key])
        np.testing.assert_allclose(library.to_host(result), a[key] @ a[key].T, rtol=1e-3, atol=1e-3)


def test_sizes_of_0(library):
    (x,) = put(library, np.zeros((3, 0), "float32"))
    result = einjit.einsum("ij->i", x)
    assert library.to_host(result).tolist() == [0, 0, 0]


def test_a_stream_that_is_given(library):
    from numba import cuda

    a, b = normal((256, 256), (256, 256))
    x, y = put(library, a, b)
    stream = cuda.stream()
    result = einjit.einsum("ij,jk->ik", x, y, stream=stream)
    stream.synchronize()
    np.testing.assert_allclose(library.to_host(result), a @ b, rtol=1e-3, atol=1e-3)


def test_the_work_follows_the_current_stream(library):
    if library.name == "numba":
        pytest.skip("it has no current stream")
    a, b = normal((512, 512), (512, 512))
    if library.name == "cupy":
        import cupy

        stream = cupy.cuda.Stream(non_blocking=True)
        block = stream
    else:
        import torch

        stream = torch.cuda.Stream()
        block = torch.cuda.stream(stream)
    with block:
        x, y = put(library, a, b)
        for _ in range(5):      # each waits for what was put into the stream before it
            y = einjit.einsum("ij,jk->ik", x, y) / 16
        stream.synchronize()
    for _ in range(5):
        b = a @ b / 16
    np.testing.assert_allclose(library.to_host(y), b, rtol=1e-2, atol=1e-2)


def test_the_producers_stream_is_waited_for():
    from numba import cuda

    a, b = normal((1024, 1024), (1024, 1024))
    stream = cuda.stream()
    x = cuda.to_device(a, stream=stream)
    y = cuda.to_device(b, stream=stream)
    np.testing.assert_allclose(einjit.einsum("ij,jk->ik", x, y).copy_to_host(), a @ b, rtol=1e-3, atol=1e-2)


def test_a_graph_of_torchs_takes_a_call_up():
    """Whoever waits for the device, or copies to the host, breaks a capture."""
    torch = pytest.importorskip("torch")
    x, y, out = (torch.randn((128, 128), device="cuda") for _ in range(3))
    einjit.einsum("ij,jk->ik", x, y, out=out)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        einjit.einsum("ij,jk->ik", x, y, out=out)
    x.copy_(torch.randn_like(x))
    graph.replay()
    torch.testing.assert_close(out, x @ y, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not MISSING and driver().device_count() < 2, reason="there is one device")
def test_the_second_device(library):
    a, b = normal((64, 64), (64, 64))
    result = einjit.einsum("ij,jk->ik", *put(library, a, b, device=1))
    np.testing.assert_allclose(library.to_host(result), a @ b, rtol=1e-3, atol=1e-3)
    with pytest.raises(OperandError, match="operand 1 is on device 0"):
        einjit.einsum("ij,jk->ik", *put(library, a, device=1), *put(library, b))


def test_a_kernel_of_the_device_at_hand(library):
    a, b = normal((100, 90), (90, 80))
    kernel = einjit.compile("ij,jk->ik", a.shape, b.shape, dtype="float32", target="cuda")
    assert kernel.device.cc == driver().capability(driver().current_device())
    np.testing.assert_allclose(library.to_host(kernel(*put(library, a, b))), a @ b, rtol=1e-3, atol=1e-3)


def test_jit_with_transfers():
    @einjit.jit("ik,jk->ij", target="cuda", transfer=True)
    def sqdist(a, b):
        return (a - b) ** 2

    a, b = normal((50, 3), (40, 3))
    np.testing.assert_allclose(sqdist(a, b), ((a[:, None] - b) ** 2).sum(-1), rtol=1e-4)


def test_a_second_process_compiles_nothing(cold_cache):
    code = """
        import numpy as np, einjit
        from numba import cuda
        x = cuda.to_device(np.ones((3, 4), "float32"))
        assert einjit.einsum("ij->i", x).copy_to_host().tolist() == [4, 4, 4]
        print(einjit.stats().compiles, einjit.stats().disk_hits)
    """
    assert run_code(code) == "1 0\n"
    assert run_code(code) == "0 1\n"


def test_modules_are_shared():
    einjit.cache.clear()
    before = len(gpucall.gpulaunch._loaded)
    for n in (1000, 1001, 5000):
        (x,) = put(gpulibraries._LIBRARIES["numba"], np.ones((3, n), "float32"))
        assert einjit.einsum("ij->i", x).copy_to_host().tolist() == [n] * 3
    assert len(gpucall.gpulaunch._loaded) <= before + 1
