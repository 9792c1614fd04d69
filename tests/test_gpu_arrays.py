"""What is read of arrays on a GPU, whatever library they belong to: no Numba-CUDA is needed."""

from __future__ import annotations

from types import SimpleNamespace

import ml_dtypes  # noqa: F401  (for NumPy to know bfloat16)
import numpy as np
import pytest

import einjit
from einjit.contraction import Layout
from einjit.gpuarrays import any_on_device, device_said, is_device_array, read
from einjit.gpulibraries import library_of, stream_handle
from tests.fake_gpu import FakeGpu, interface

A, B = np.ones((2, 3), "float32"), np.ones((3, 4), "float32")


@pytest.fixture
def gpu(monkeypatch):
    return FakeGpu(monkeypatch)


# -- what is an array on a device ------------------------------------------------------------------------

def test_arrays_on_a_device(gpu):
    for x in (gpu.cupy_array(A), gpu.torch_tensor(A), gpu.numba_array(A), gpu.raw(A)):
        assert is_device_array(x) and any_on_device((A, x)) and any_on_device((x, None))
    for x in (A, A.tolist(), 2.0, None, "ij", np.float32(1), object()):
        assert not is_device_array(x)


@pytest.mark.parametrize("kind, there", [(1, False), (2, True), (3, False), (10, False), (13, True)],
                         ids=["CPU", "CUDA", "pinned", "ROCm", "managed"])
def test_dlpack_says_where_an_array_is(kind, there):
    class Tensor:
        def __dlpack_device__(self):
            return kind, 0

        @property
        def __cuda_array_interface__(self):
            raise AssertionError("is not asked, for it may refuse to answer")

    assert is_device_array(Tensor()) is there and device_said(Tensor()) == (0 if there else None)


def test_an_array_that_does_not_know_where_it_is_is_on_no_device():
    class Meta:
        def __dlpack_device__(self):
            raise ValueError("Unknown device type meta for Dlpack")

    assert not is_device_array(Meta())


def test_arrays_in_host_memory_are_not_asked(monkeypatch):
    monkeypatch.setattr("einjit.dispatch.any_on_device", None)
    einjit.einsum("ij->ji", A)
    einjit.einsum("ij->ji", A, out=np.empty((3, 2)), dtype="float64", casting="unsafe")


def test_libraries(gpu):
    arrays = gpu.cupy_array(A), gpu.torch_tensor(A), gpu.numba_array(A), gpu.raw(A)
    assert [library_of(x).name for x in arrays] == ["cupy", "torch", "numba", "numba"]
    mine = type("Mine", (gpu.torch.Tensor,), {"__module__": "mine"})
    assert library_of(mine(A, 0)).name == "torch"


# -- reading ---------------------------------------------------------------------------------------------

def reading(x):
    return read(x, "operand 0", 7)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "float16", "float32", "complex128"])
def test_a_plain_array(gpu, dtype):
    x = gpu.raw(np.ones((2, 3), dtype))
    found = reading(x)
    assert found.layout == Layout.contiguous((2, 3), dtype) and found.pointer == x.memory.ctypes.data
    assert (found.producer, found.read_only, found.keep) == (None, False, x)


@pytest.mark.parametrize("array", [A.T, A[::-1, ::2], np.broadcast_to(A[0], (2, 3)), np.ones(())],
                         ids=["transposed", "turned", "broadcast", "no axes"])
def test_strides(array):
    x = SimpleNamespace(__cuda_array_interface__=interface(array))
    assert reading(x).layout == Layout.of(array) and reading(x).pointer == array.ctypes.data


def test_version_2_has_no_stream_and_may_leave_strides_out():
    given = interface(A, version=2)
    del given["strides"]
    x = SimpleNamespace(__cuda_array_interface__=given)
    assert reading(x).layout == Layout.of(A) and reading(x).producer is None
    assert read(x, "operand 0", 7, unsaid=5).producer == 5


@pytest.mark.parametrize("said, producer", [(None, None), (0, 1), (1, 1), (2, 2), (99, 99)])
def test_the_producers_stream(gpu, said, producer):
    assert read(gpu.raw(A, stream=said), "operand 0", 7, unsaid=5).producer == producer


def test_no_elements_no_pointer(gpu):
    found = reading(gpu.raw(np.ones((0, 3))))
    assert found.pointer == 0 and found.layout == Layout.contiguous((0, 3), "float64")
    assert reading(gpu.raw(np.ones((0, 3)), data=(None, False))).pointer == 0


def test_read_only(gpu):
    assert reading(gpu.raw(A, data=(256, True))).read_only


@pytest.mark.parametrize("array", [A, A.T, A[:, ::2], np.ones((3, 0)), np.ones(4, "bool"), np.ones(3, "complex64")],
                         ids=lambda x: f"{x.dtype}-{x.shape}-{x.strides}")
def test_dlpack(gpu, array):
    memory = gpu.memory.copy(array, 0)
    x = Exporter(memory)
    found = reading(x)
    assert (found.layout.shape, found.layout.dtype) == (memory.shape, memory.dtype.name)
    if memory.size:
        assert found.layout.strides == memory.strides
        assert found.pointer == memory.ctypes.data
    assert found.producer is None and x.streams == [7]


class Exporter:
    """DLPack alone, as some libraries have it."""

    def __init__(self, memory):
        self.memory, self.streams = memory, []

    def __dlpack_device__(self):
        return 2, 3

    def __dlpack__(self, stream=None):
        self.streams.append(stream)
        return self.memory.__dlpack__()


def test_dlpack_where_an_interface_does_not_say_what_to_wait_for(gpu):
    """Arrays of a library that we know nothing of."""
    class Both(Exporter):
        @property
        def __cuda_array_interface__(self):
            return interface(self.memory, version=2)

    x = Both(gpu.memory.copy(A, 0))
    assert read(x, "operand 0", 7, known=False).layout == Layout.of(A) and x.streams == [7]
    assert read(x, "operand 0", 7).layout == Layout.of(A) and x.streams == [7]
    assert read(gpu.raw(A), "operand 0", 7, known=False).layout == Layout.of(A)


def test_bfloat16_by_dlpack_or_as_two_bytes(gpu):
    ones = np.ones((2, 3), "bfloat16")
    assert reading(gpu.torch_tensor(ones)).layout == Layout.of(ones)
    assert reading(gpu.numba_array(ones)).layout == Layout.of(ones)


def test_an_array_is_kept_while_it_is_used(gpu):
    x = Exporter(gpu.memory.copy(A, 0))
    assert reading(x).keep[0] is x


def test_streams():
    protocol = SimpleNamespace(__cuda_stream__=(0, 5))
    for stream in (np.int64(5), SimpleNamespace(ptr=5), SimpleNamespace(cuda_stream=5), protocol):
        assert stream_handle(stream) == 5
    assert stream_handle(0) == stream_handle(1) == 1


def test_torch_without_a_gradient_being_recorded(gpu):
    x = gpu.torch_tensor(A)
    x.requires_grad, gpu.torch.grad = True, False
    assert reading(library_of(x).checked(x, "operand 0")).layout == Layout.of(A)
