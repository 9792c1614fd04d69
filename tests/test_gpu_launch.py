"""Calls with arrays on a GPU, whose kernels the PTX executor runs: results, streams, libraries, layouts, caches."""

from __future__ import annotations

from itertools import product

import ml_dtypes  # noqa: F401  (for NumPy to know bfloat16)
import numpy as np
import pytest
from numpy.testing import assert_array_equal as assert_equal

import einjit
from einjit import gpucall, gpulaunch
from einjit.errors import OperandError
from tests.fake_gpu import DEFAULT, FakeGpu, interface, values
from tests.subprocesses import run_code

pytestmark = pytest.mark.cuda
RNG = np.random.default_rng(0)
PRODUCT = "ij,jk->ik"


@pytest.fixture
def gpu(monkeypatch):
    einjit_kernels = gpucall._kernels
    einjit_kernels.clear()
    yield FakeGpu(monkeypatch)
    einjit_kernels.clear()


def randoms(*shapes, dtype="float32"):
    return [RNG.integers(-4, 5, shape).astype(dtype) for shape in shapes]


LIBRARIES = ("cupy_array", "torch_tensor", "numba_array")


@pytest.mark.parametrize("make", LIBRARIES)
@pytest.mark.parametrize("shapes", [((5, 3), (3, 4)), ((20, 24), (24, 36))], ids=["small", "tiled"])
def test_the_result_is_an_array_of_the_same_library(gpu, make, shapes):
    a, b = randoms(*shapes)
    x, y = getattr(gpu, make)(a), getattr(gpu, make)(b)
    result = einjit.einsum(PRODUCT, x, y)
    assert type(result) is type(x)
    assert_equal(values(result), a @ b)


def test_of_two_libraries_the_first_operands_makes_the_result(gpu):
    a, b = randoms((2, 3), (3, 4))
    result = einjit.einsum(PRODUCT, gpu.torch_tensor(a), gpu.cupy_array(b))
    assert type(result) is gpu.torch.Tensor
    assert_equal(values(result), a @ b)


def test_an_array_of_no_known_library_gives_one_of_numbas(gpu):
    (a,) = randoms((4, 3))
    result = einjit.einsum("ij->i", gpu.raw(a))
    assert type(result) is gpu.numba.DeviceNDArray
    assert_equal(values(result), a.sum(1))
    (b,) = randoms((3, 2))
    assert type(einjit.einsum(PRODUCT, gpu.raw(a), gpu.cupy_array(b))) is gpu.cupy.ndarray


def test_no_labels_left_is_an_array_without_axes(gpu):
    (a,) = randoms((7,))
    result = einjit.einsum("i,i->", gpu.cupy_array(a), gpu.cupy_array(a))
    assert result.shape == () and values(result) == a @ a


def test_lists_of_labels(gpu):
    a, b = randoms((2, 3), (3, 4))
    assert_equal(values(einjit.einsum(gpu.cupy_array(a), [0, 1], gpu.cupy_array(b), [1, 2], [0, 2])), a @ b)


def test_three_operands_with_a_result_in_between(gpu):
    a, b, c = randoms((6, 5), (5, 7), (7, 3), dtype="float64")
    result = einjit.einsum("ij,jk,kl->il", *map(gpu.torch_tensor, (a, b, c)))
    assert len(gpu.driver.said("launch")) == 2 == len(gpu.made)
    assert_equal(values(result), a @ b @ c)


@pytest.mark.parametrize("make", LIBRARIES)
def test_tensordot(gpu, make):
    a, b = randoms((4, 3, 2), (3, 2, 5))
    result = einjit.tensordot(getattr(gpu, make)(a), getattr(gpu, make)(b))
    assert_equal(values(result), np.tensordot(a, b))


OF_BOTH = ("float16", "complex64", "complex128", "int64", "bool")


@pytest.mark.parametrize("make, dtype", [*product(["cupy_array", "torch_tensor"], OF_BOTH), ("cupy_array", "int8"),
                                         ("torch_tensor", "bfloat16")])
def test_dtypes(gpu, make, dtype):
    a, b = (np.abs(x).astype(dtype) for x in randoms((3, 4), (4, 5), dtype="int8"))
    result = einjit.einsum(PRODUCT, getattr(gpu, make)(a), getattr(gpu, make)(b))
    assert values(result).dtype == a.dtype
    wide = "complex128" if "complex" in dtype else "int64"
    assert_equal(values(result), (a.astype(wide) @ b.astype(wide)).astype(a.dtype))


def test_dtype_and_order_as_on_the_host(gpu):
    a, b = randoms((3, 4), (4, 5))
    result = einjit.einsum(PRODUCT, gpu.cupy_array(a), gpu.cupy_array(b), dtype="float64", order="F")
    assert values(result).dtype == np.float64 and result.memory.flags.f_contiguous
    assert_equal(values(result), a.astype("float64") @ b)


def test_numbers_as_truths(gpu):
    a, b = randoms((5,), (5,))
    out = gpu.cupy_array(np.zeros(5, "bool"))
    einjit.einsum("i,i->i", gpu.cupy_array(a), gpu.cupy_array(b), out=out, casting="unsafe")
    assert_equal(values(out), a * b != 0)


@pytest.mark.parametrize("make", LIBRARIES)
def test_memory_order_follows_the_operands(gpu, make):
    (a,) = randoms((3, 4, 5))
    x = getattr(gpu, make)(np.asfortranarray(a))
    result = einjit.einsum("ijk,ijk->ijk", x, x)
    assert result.memory.strides == np.asfortranarray(a).strides
    assert_equal(values(result), a * a)


# -- strides and alignment -------------------------------------------------------------------------------

@pytest.mark.parametrize("key", [np.s_[::2], np.s_[::-1], np.s_[:, ::2], np.s_[3:, 1:]], ids=str)
def test_views_of_any_strides(gpu, key):
    a, b = randoms((40, 44), (44, 24))
    view = a[key]
    b = b[:view.shape[1]]
    assert_equal(values(einjit.einsum(PRODUCT, gpu.cupy_array(a)[key], gpu.cupy_array(b))), view @ b)


def shifted(gpu, array, shift):
    """On the device, `shift` bytes past a multiple of 256."""
    memory = gpu.memory.allocate(array.nbytes + shift, 0)
    new = np.ndarray(array.shape, array.dtype, memory, shift)
    new[...] = array
    return gpu.cupy.ndarray(new, 0)


@pytest.mark.parametrize("which", [0, 1, 2], ids=["a", "b", "out"])
def test_a_pointer_that_is_not_aligned_takes_other_code(gpu, which):
    a, b = randoms((32, 32), (32, 32))
    arrays = [shifted(gpu, x, 4 if which == i else 0) for i, x in enumerate([a, b, a * 0])]
    result = einjit.einsum(PRODUCT, *arrays[:2], out=arrays[2])
    assert_equal(values(result), a @ b)
    (first,) = gpu.driver.said("load")
    einjit.einsum(PRODUCT, gpu.cupy_array(a), gpu.cupy_array(b), out=gpu.cupy_array(a * 0))
    assert first not in gpu.driver.said("load")[1:] and len(gpu.driver.said("load")) == 2


def test_the_code_for_pointers_that_are_not_aligned_is_machine_code_too():
    kernel = einjit.compile(PRODUCT, (32, 32), (32, 32), dtype="float32", target="cuda", cc=(8, 0))
    (step,), (other,) = kernel.steps, kernel.unaligned.steps
    assert (step.boundaries, other.boundaries) == ((16, 16, 16), (4, 4, 4))
    assert (other.choice, other.operands, other.signature) == (step.choice, step.operands, step.signature)
    assert other.code.cubin.startswith(b"\x7fELF") and other.code.cubin != step.code.cubin
    assert not other.access.vectors and len(other.words) == len(other.source.words)


@pytest.mark.parametrize("shift", [0, 2, 8])
def test_tensor_cores_take_aligned_operands_alone(gpu, shift):
    a, b = randoms((32, 64), (64, 32), dtype="float16")
    kernel = einjit.compile(PRODUCT, a.shape, b.shape, dtype="float16", target="cuda", cc=(8, 0))
    assert kernel.steps[0].boundaries[1:] == (16, 16) and kernel.unaligned.steps[0].boundaries[1] <= 2
    result = einjit.einsum(PRODUCT, gpu.cupy_array(a), shifted(gpu, b, shift))
    assert_equal(values(result), (a.astype("float32") @ b.astype("float32")).astype("float16"))


@pytest.mark.parametrize("shift", [0, 4])
def test_sums_that_are_taken_apart(gpu, shift):
    a, b = randoms((32, 2048), (2048, 32))
    result = einjit.einsum(PRODUCT, shifted(gpu, a, shift), gpu.cupy_array(b))
    assert len(gpu.driver.said("launch")) == 2, "partial results, and their sum"
    assert_equal(values(result), a @ b)


def test_fragments_that_are_aligned_need_no_more(gpu):
    # Four elements of two bytes are read at once.
    a, b = randoms((32, 32), (32, 32), dtype="int16")
    for shift in (0, 8):
        assert_equal(values(einjit.einsum(PRODUCT, shifted(gpu, a, shift), gpu.cupy_array(b))), a @ b)
    assert len(gpu.driver.said("load")) == 1


# -- out -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make", LIBRARIES)
def test_out(gpu, make):
    a, b = randoms((3, 4), (4, 5))
    out = getattr(gpu, make)(np.zeros((3, 5), "float64"))
    result = einjit.einsum(PRODUCT, getattr(gpu, make)(a), getattr(gpu, make)(b), out=out)
    assert result is out and not gpu.made
    assert_equal(values(out), a @ b)


def test_out_of_other_strides(gpu):
    a, b = randoms((3, 4), (4, 5))
    out = gpu.cupy_array(np.zeros((10, 6), "float32"))
    einjit.einsum(PRODUCT, gpu.cupy_array(a), gpu.cupy_array(b), out=out[::-2, ::2].transpose((1, 0)))
    assert_equal(out.memory[::-2, ::2].T, a @ b)
    assert not out.memory[::2].any()


def test_an_out_that_is_an_operand(gpu):
    (a,) = randoms((24, 24))
    x = gpu.cupy_array(a)
    assert einjit.einsum(PRODUCT, x, x, out=x) is x
    assert_equal(values(x), a @ a)
    assert len(gpu.driver.said("launch")) == 2, "the product, and a copy"


def test_an_out_that_overlaps_an_operand_in_part(gpu):
    (a,) = randoms((9, 8))
    x = gpu.cupy_array(a)
    einjit.einsum("ij->ji", x[:8], out=x[1:])
    assert_equal(values(x)[1:], a[:8].T)


def test_halves_of_one_array_do_not_overlap(gpu):
    (a,) = randoms((8, 3))
    x = gpu.cupy_array(a)
    einjit.einsum("ij->ij", x[:4], out=x[4:])
    assert_equal(values(x)[4:], a[:4])
    assert len(gpu.driver.said("launch")) == 1


# -- streams ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make, stream", [("cupy_array", 77), ("torch_tensor", 78)])
def test_the_work_goes_into_the_librarys_current_stream(gpu, make, stream):
    gpu.streams[make.partition("_")[0]] = stream
    x = getattr(gpu, make)(np.ones((2, 3), "float32"))
    einjit.einsum("ij->i", x)
    assert gpu.driver.said("launch") == [("launch", stream, 0)] and not gpu.driver.said("wait")


def test_numbas_arrays_are_waited_for_in_the_default_stream(gpu):
    x = gpu.numba_array(np.ones((2, 3), "float32"), stream=91)
    y = gpu.numba_array(np.ones((2, 3), "float32"))
    einjit.einsum("ij,ij->i", x, y)
    assert gpu.driver.log[:1] == [("wait", DEFAULT, 91)]
    assert gpu.driver.said("launch") == [("launch", DEFAULT, 0)]


class Handle:
    def __cuda_stream__(self):
        return 0, 55


@pytest.mark.parametrize("stream, handle", [(44, 44), (Handle(), 55), (0, DEFAULT)], ids=["int", "protocol", "default"])
@pytest.mark.parametrize("make", LIBRARIES)
def test_a_stream_that_is_given(gpu, make, stream, handle):
    gpu.streams.update(cupy=70, torch=71)
    producer = {"cupy_array": 70, "torch_tensor": 71, "numba_array": None}[make]
    x = getattr(gpu, make)(np.ones((2, 3), "float32"))
    result = einjit.einsum("ij->i", x, stream=stream)
    assert gpu.driver.said("launch") == [("launch", handle, 0)]
    assert gpu.driver.said("wait") == ([("wait", handle, producer)] if producer else [])
    # Its memory belongs to that stream; of Numba's, to the default one without a mark.
    made = 0 if make == "numba_array" and handle == DEFAULT else handle
    assert gpu.made == [(make.partition("_")[0], made)]
    assert_equal(values(result), np.full(2, 3))


def test_dlpack_is_told_the_stream(gpu):
    x = gpu.torch_tensor(np.ones((2, 3), "bfloat16"))
    einjit.einsum("ij->i", x, stream=33)
    assert ("dlpack", 33) in gpu.driver.log and ("dlpack", -1) not in gpu.driver.log


def test_out_is_waited_for_too(gpu):
    out = gpu.numba_array(np.zeros(2, "float32"), stream=91)
    einjit.einsum("ij->i", gpu.numba_array(np.ones((2, 3), "float32")), out=out)
    assert gpu.driver.said("wait") == [("wait", DEFAULT, 91)]


# -- devices and sizes -----------------------------------------------------------------------------------

@pytest.mark.parametrize("make", LIBRARIES)
def test_arrays_on_another_device(gpu, make):
    a, b, c = randoms((3, 4), (4, 5), (5, 2))
    x = [getattr(gpu, make)(t, device=1) for t in (a, b, c)]
    assert_equal(values(einjit.einsum("ij,jk,kl->il", *x)), a @ b @ c)
    assert {entry[2] for entry in gpu.driver.said("launch")} == {1}


@pytest.mark.parametrize("make", LIBRARIES)
@pytest.mark.parametrize("equation, shape", [("ij->i", (3, 0)), ("ij->ij", (3, 0)), ("ij->", (0, 4))])
def test_sizes_of_0(gpu, make, equation, shape):
    result = einjit.einsum(equation, getattr(gpu, make)(np.zeros(shape, "float32")))
    expected = np.einsum(equation, np.zeros(shape, "float32"))
    assert result.shape == expected.shape and not values(result).any()
    assert not gpu.driver.said("launch")


def test_a_sum_of_nothing_into_an_out_with_gaps(gpu):
    out = gpu.cupy_array(np.full(6, 9, "float32"))
    einjit.einsum("ij->i", gpu.cupy_array(np.zeros((3, 0), "float32")), out=out[::2])
    assert values(out).tolist() == [0, 9, 0, 9, 0, 9]
    einjit.einsum("ij->i", gpu.cupy_array(np.zeros((6, 0), "float32")), out=out)
    assert not values(out).any()


def test_more_blocks_than_a_grid_has(gpu, monkeypatch):
    monkeypatch.setattr(gpulaunch, "MOST_BLOCKS", 3)
    x = gpu.cupy_array(np.ones((4, 256), "float32"))
    with pytest.raises(OperandError) as error:
        einjit.einsum("ij,ij->ij", x, x)
    assert str(error.value) == """\
the result takes 4 blocks of threads, and a launch has at most 3
  fix: contract a part of the operands at a time"""


# -- kernels ---------------------------------------------------------------------------------------------

def test_a_kernel_is_called(gpu):
    a, b = randoms((32, 20), (20, 24))
    kernel = einjit.compile(PRODUCT, a.shape, b.shape, dtype="float32", target="cuda", cc=(8, 0))
    assert_equal(values(kernel(gpu.cupy_array(a), gpu.cupy_array(b))), a @ b)
    out = gpu.cupy_array(np.zeros((32, 24), "float32"))
    assert kernel(gpu.cupy_array(a), gpu.cupy_array(b), out=out, stream=9) is out
    assert gpu.driver.said("launch")[-1] == ("launch", 9, 0)
    assert_equal(values(out), a @ b)


def test_a_kernel_called_with_other_strides_keeps_its_schedule(gpu):
    from einjit.schedule import Bind, Fuse, Split

    a, b = randoms((6, 8), (6, 8))
    schedule = (Fuse(("i",), "O"), Split("O", 32), Bind("O/32", "block"), Bind("O", "thread"))
    kernel = einjit.compile("ij,ij->ij", a.shape, b.shape, dtype="float32", target="cuda", cc=(8, 0), schedule=schedule)
    turned = gpu.cupy_array(np.asfortranarray(a))
    assert_equal(values(kernel(gpu.cupy_array(a), gpu.cupy_array(b))), a * b)
    with pytest.raises(einjit.errors.ScheduleError):    # where dimensions do not fold, it does not fit
        kernel(turned, gpu.cupy_array(b))


def test_a_kernel_called_with_other_strides_keeps_its_order_of_contraction(gpu):
    a, b, c = randoms((4, 5), (5, 6), (6, 3))
    kernel = einjit.compile("ij,jk,kl->il", a.shape, b.shape, c.shape, dtype="float32", target="cuda", cc=(8, 0),
                            optimize=False)
    assert_equal(values(kernel(*map(gpu.cupy_array, (np.asfortranarray(a), b, c)))), a @ b @ c)
    assert len(gpu.driver.said("launch")) == 1


def test_compiled_for_the_device_at_hand(gpu):
    gpu.driver.cc = (8, 6)
    x = gpu.cupy_array(np.ones((3, 4), "float32"))
    kernel = einjit.compile("ij->i", x, target="cuda")
    assert kernel.device.cc == (8, 6) and kernel.dtypes == ("float32",)
    assert_equal(values(kernel(x)), np.full(3, 4))


def test_a_kernel_of_another_capability(gpu):
    kernel = einjit.compile("ij->i", (3, 4), dtype="float32", target="cuda", cc=(8, 6))
    with pytest.raises(OperandError) as error:
        kernel(gpu.cupy_array(np.ones((3, 4), "float32")))
    assert str(error.value) == """\
this kernel is for compute capability (8, 6), and device 0 has (8, 0)
  ij->i
  fix: compile it with cc=(8, 0)"""
    gpu.driver.cc = (8, 9)
    kernel(gpu.cupy_array(np.ones((3, 4), "float32")))


def test_shapes_of_the_same_code_share_a_module(gpu):
    before = einjit.stats()
    for n in (5, 6, 7):
        (a,) = randoms((3, n))
        assert_equal(values(einjit.einsum("ij->i", gpu.cupy_array(a))), a.sum(1))
    assert len(gpu.driver.said("launch")) == 3 and len(gpu.driver.said("load")) == 1
    assert einjit.stats().compiles + einjit.stats().disk_hits - before.compiles - before.disk_hits <= 1


def test_a_module_is_loaded_on_each_device(gpu):
    for device in (0, 1, 0, 1):
        einjit.einsum("ij->i", gpu.cupy_array(np.ones((3, 4), "float32"), device=device))
    assert len(gpu.driver.said("load")) == 2


def test_devices_of_other_capabilities_have_kernels_of_their_own(gpu):
    for cc in ((8, 0), (8, 6), (8, 0)):
        gpu.driver.cc = cc
        einjit.einsum("ij->i", gpu.cupy_array(np.ones((3, 4), "float32")))
    assert [cc for _, cc, _ in gpucall._kernels] == [(8, 6), (8, 0)]
    assert len(gpu.driver.said("load")) == 2


def test_a_call_like_another_is_not_planned_again(gpu, monkeypatch):
    x = gpu.cupy_array(np.ones((3, 4), "float32"))
    einjit.einsum("ij->i", x)
    monkeypatch.setattr(gpucall, "compile_for_gpu", None)
    einjit.einsum("ij->i", gpu.cupy_array(np.ones((3, 4), "float32")))
    einjit.cache.clear()
    with pytest.raises(TypeError):
        einjit.einsum("ij->i", x)


def test_the_last_used_kernels_are_kept(gpu, monkeypatch):
    monkeypatch.setattr(gpucall, "KERNELS", 2)
    for n in (3, 4, 3, 5):
        einjit.einsum("i->", gpu.cupy_array(np.ones(n, "float32")))
    assert [problem.shapes for problem, *_ in gpucall._kernels] == [((3,),), ((5,),)]


SECOND_PROCESS = """
    import numpy as np, einjit
    from tests.fake_gpu import FakeGpu, values
    import pytest
    with pytest.MonkeyPatch.context() as patch:
        gpu = FakeGpu(patch)
        x = gpu.cupy_array(np.ones((3, 4), "float32"))
        assert values(einjit.einsum("ij->i", x)).tolist() == [4, 4, 4]
        print(einjit.stats().compiles, einjit.stats().disk_hits)
"""


def test_a_second_process_compiles_nothing(cold_cache):
    assert run_code(SECOND_PROCESS) == "1 0\n"
    assert run_code(SECOND_PROCESS) == "0 1\n"


# -- jit -------------------------------------------------------------------------------------------------

def test_jit(gpu):
    @einjit.jit("ik,jk->ij", target="cuda")
    def sqdist(a, b):
        return (a - b) ** 2

    a, b = randoms((5, 3), (4, 3))
    expected = ((a[:, None] - b) ** 2).sum(-1)
    result = sqdist(gpu.torch_tensor(a), gpu.torch_tensor(b), stream=12)
    assert type(result) is gpu.torch.Tensor and gpu.driver.said("launch") == [("launch", 12, 0)]
    assert_equal(values(result), expected)
    kernel = sqdist.compile((5, 3), (4, 3), dtype="float32", cc=(8, 0))
    assert isinstance(kernel, einjit.gpukernel.GpuKernel)
    assert_equal(values(kernel(gpu.cupy_array(a), gpu.cupy_array(b))), expected)


def test_a_function_for_the_cpu_takes_arrays_on_a_device_too(gpu):
    @einjit.jit("i,i->i")
    def larger(a, b):
        return a if a > b else b

    a, b = randoms((9,), (9,))
    assert_equal(values(larger(gpu.cupy_array(a), gpu.cupy_array(b))), np.maximum(a, b))


@pytest.mark.parametrize("make", LIBRARIES)
def test_transfers(gpu, make):
    @einjit.jit("ij,jk->ik", target="cuda", transfer=True)
    def product(a, b): ...

    a, b = randoms((3, 4), (4, 5))
    result = product(a, b)
    assert type(result) is np.ndarray
    assert_equal(result, a @ b)
    out = np.zeros((3, 5), "float64")
    assert product(a, b, out=out) is out
    assert_equal(out, a @ b)
    x = getattr(gpu, make)(a)
    mixed = product(x, b)
    assert type(mixed) is type(x)
    assert_equal(values(mixed), a @ b)
    assert product(np.ones((1, 2)), np.ones((2, 1))).shape == (1, 1)


def test_a_transferred_sum_is_a_scalar(gpu):
    @einjit.jit("i,i->", target="cuda", transfer=True)
    def dot(a, b): ...

    assert dot(np.arange(4.0), np.arange(4.0)) == 14 and np.ndim(dot([1.0], [2.0])) == 0
    assert type(dot(np.arange(4.0)[::-1], np.arange(4.0))) is np.float64


def test_a_number_is_transferred_as_one(gpu):
    @einjit.jit(",i->i", target="cuda", transfer=True)
    def scale(a, b): ...

    assert_equal(scale(2.0, gpu.numba.to_device(np.arange(3.0), 0)).memory, [0, 2, 4])
    assert_equal(scale(2.0, np.arange(3.0)), [0, 2, 4])


def test_an_array_of_an_unknown_library_is_exported_to_the_stream(gpu):
    class Tensor:
        memory = gpu.memory.copy(np.ones((2, 3), "float32"), 0)
        __cuda_array_interface__ = interface(memory, version=2)

        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, stream):
            gpu.driver.log.append(("dlpack", stream))
            return self.memory.__dlpack__()

    assert_equal(values(einjit.einsum("ij->i", Tensor(), stream=8)), [3, 3])
    assert gpu.driver.said("dlpack") == [("dlpack", 8)]
