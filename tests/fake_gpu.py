"""A machine with GPUs that is none: arrays like CuPy's, torch's and Numba's in host memory, and a driver whose kernels
the PTX executor runs.

    gpu = FakeGpu(monkeypatch)          # from here on `import cupy` gives the fake
    x = gpu.cupy_array(np.ones((2, 3)))
    einjit.einsum("ij->i", x)
    gpu.driver.log                      # what the driver was asked for
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np

from einjit import gpucode, gpudriver, gpulaunch, gpulibraries
from einjit.codegen import gpubuild
from einjit.codegen.gpubuild import GpuCode, Resources

ALIGN = 256
DEFAULT = 1


class Memory:
    """Allocations of all devices: host memory on multiples of 256."""

    def __init__(self):
        self.allocations = []

    def allocate(self, size: int, device: int) -> np.ndarray:
        room = np.full(size + ALIGN, 0x5A, np.uint8)        # what nobody writes shows
        start = -room.ctypes.data % ALIGN
        self.allocations.append((room[start:start + size], device))
        return self.allocations[-1][0]

    def holding(self, pointer: int) -> tuple[np.ndarray, int]:
        for memory, device in self.allocations:
            if memory.ctypes.data <= pointer < memory.ctypes.data + max(memory.size, 1):
                return memory, device
        raise AssertionError(f"{pointer:#x} is nobody's memory")

    def array(self, shape, dtype, device: int) -> np.ndarray:
        dtype = np.dtype(dtype)
        memory = self.allocate(int(np.prod(shape, dtype=int)) * dtype.itemsize, device)
        return np.ndarray(shape, dtype, memory)

    def copy(self, array: np.ndarray, device: int) -> np.ndarray:
        """On the device, with the strides of an array that leaves no gaps."""
        made = np.copy(array, order="K")
        bytes_ = self.allocate(made.nbytes, device)
        new = np.ndarray(made.shape, made.dtype, bytes_, 0, made.strides)
        new[...] = array
        return new


class FakeDriver:
    """Compare `gpudriver.Driver`. `log`: (what, ...) of each thing that it was asked to do."""

    def __init__(self, memory: Memory, cc=(8, 0)):
        self.memory, self.cc, self.log, self.inside = memory, cc, [], [0]

    def current_device(self) -> int:
        return self.inside[-1]

    def device_of(self, pointer: int) -> int:
        return self.memory.holding(pointer)[1]

    def capability(self, device: int) -> tuple[int, int]:
        return self.cc

    @contextmanager
    def on(self, device: int):
        self.inside.append(device)
        try:
            yield 1000 + device
        finally:
            self.inside.pop()

    def load(self, cubin: bytes, symbol: str):
        self.log.append(("load", symbol))
        source, signature = pickle.loads(cubin)
        assert source.entry == symbol
        return source, signature

    def launch(self, stream, kernel, grid, block, arguments) -> None:
        from tests.ptx import Placed, launch

        source, signature = kernel
        self.log.append(("launch", stream, self.current_device()))
        placed = []
        for pointer in arguments[:signature.pointers]:
            memory, device = self.memory.holding(int(pointer))
            assert device == self.current_device(), "a pointer of another device"
            placed.append(Placed(memory, inside=int(pointer) - memory.ctypes.data))
        assert block == signature.threads
        launch(_parsed(source, signature), grid, block, [*placed, *arguments[signature.pointers:]])

    def wait(self, stream: int, producer: int) -> None:
        self.log.append(("wait", stream, producer))

    def clear(self, stream: int, pointer: int, size: int) -> None:
        self.log.append(("clear", stream, size))
        memory, _ = self.memory.holding(pointer)
        start = pointer - memory.ctypes.data
        memory[start:start + size] = 0

    def said(self, what: str) -> list[tuple]:
        return [entry for entry in self.log if entry[0] == what]


_kernels: dict = {}


def _parsed(source, signature):
    from tests.ptx import parse

    if (source, signature) not in _kernels:
        _kernels[source, signature] = parse(gpubuild.ptx_of(source, signature))
    return _kernels[source, signature]


def fake_compile(source, signature) -> GpuCode:
    """In place of a cubin, what the fake driver needs."""
    return GpuCode(source.entry, pickle.dumps((source, signature)), Resources(32, 0, 0, 0, 0))


class FakeGpu:
    def __init__(self, monkeypatch, cc=(8, 0)):
        self.memory = Memory()
        self.driver = FakeDriver(self.memory, cc)
        self.streams = {"cupy": DEFAULT, "torch": 0}
        self.made: list[tuple] = []         # (library, stream) of each array that a library made
        self.cupy, self.torch, self.numba = _cupy(self), _torch(self), _numba(self)
        monkeypatch.setattr(gpudriver, "_driver", self.driver)
        # What is compiled here must not be taken for machine code, nor machine code for what is compiled here.
        monkeypatch.setattr(gpubuild, "compile_source", fake_compile)
        monkeypatch.setattr(gpubuild, "compiler_version", lambda: "none")
        monkeypatch.setattr(gpucode, "_codes", {})
        monkeypatch.setattr(gpulaunch, "_loaded", {})
        monkeypatch.setitem(sys.modules, "cupy", self.cupy)
        monkeypatch.setitem(sys.modules, "torch", self.torch)
        monkeypatch.setattr(gpulibraries.Numba, "_cuda", lambda _: self.numba)

    def cupy_array(self, array, device: int = 0):
        return self.cupy.ndarray(self.memory.copy(np.asarray(array), device), device)

    def torch_tensor(self, array, device: int = 0):
        return self.torch.Tensor(self.memory.copy(np.asarray(array), device), device)

    def numba_array(self, array, device: int = 0, stream: int = 0):
        return self.numba.DeviceNDArray(self.memory.copy(np.asarray(array), device), stream)

    def raw(self, array, **changes):
        """Of no known library: an object with the interface alone."""
        array = self.memory.copy(np.asarray(array), 0)
        return SimpleNamespace(__cuda_array_interface__={**interface(array), **changes}, memory=array)


def interface(array: np.ndarray, version: int = 3, **more) -> dict:
    pointer = array.ctypes.data if array.size else 0
    strides = None if array.flags.c_contiguous else array.strides
    return {"shape": array.shape, "typestr": array.dtype.str, "data": (pointer, False), "strides": strides,
            "version": version, **more}


def values(x) -> np.ndarray:
    return np.array(x.memory)


def _cupy(gpu: FakeGpu) -> ModuleType:
    cupy = ModuleType("cupy")

    class ndarray:
        __module__ = "cupy"

        def __init__(self, memory, device):
            self.memory, self.device = memory, SimpleNamespace(id=device)

        shape = property(lambda self: self.memory.shape)
        ndim = property(lambda self: self.memory.ndim)
        dtype = property(lambda self: self.memory.dtype)

        @property
        def __cuda_array_interface__(self):
            return interface(self.memory, stream=gpu.streams["cupy"])

        def __dlpack_device__(self):
            return 2, self.device.id

        def __array_function__(self, function, types, arguments, keywords):
            raise AssertionError("NumPy's protocol is not for arrays on a device")

        def __array__(self, *_, **__):
            raise TypeError("Implicit conversion to a NumPy array is not allowed.")

        def __getitem__(self, key):
            return ndarray(self.memory[key], self.device.id)

        def transpose(self, axes):
            return ndarray(self.memory.transpose(axes), self.device.id)

        def get(self):
            return self.memory.copy()

    def empty(shape, dtype):
        gpu.made.append(("cupy", gpu.streams["cupy"]))
        return ndarray(gpu.memory.array(tuple(shape), dtype, gpu.driver.current_device()), gpu.driver.current_device())

    cupy.ndarray, cupy.empty = ndarray, empty
    cupy.asarray = lambda a: ndarray(gpu.memory.copy(a, gpu.driver.current_device()), gpu.driver.current_device())
    cupy.cuda = SimpleNamespace(
        Device=gpu.driver.on, get_current_stream=lambda device: SimpleNamespace(ptr=gpu.streams["cupy"]),
        ExternalStream=lambda handle: _current(gpu, "cupy", handle))
    return cupy


@contextmanager
def _current(gpu: FakeGpu, library: str, handle: int):
    before, gpu.streams[library] = gpu.streams[library], handle
    try:
        yield
    finally:
        gpu.streams[library] = before


class TorchDtype(SimpleNamespace):
    def __str__(self) -> str:
        return f"torch.{self.name}"


def _torch(gpu: FakeGpu) -> ModuleType:
    torch = ModuleType("torch")

    class Tensor:
        __module__ = "torch"
        conjugated = negated = requires_grad = False

        def __init__(self, memory, device):
            self.memory, self.device = memory, SimpleNamespace(index=device)

        shape = property(lambda self: self.memory.shape)
        ndim = property(lambda self: self.memory.ndim)
        dtype = property(lambda self: TorchDtype(name=self.memory.dtype.name))

        @property
        def __cuda_array_interface__(self):
            if self.requires_grad:
                raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")
            if self.memory.dtype.name == "bfloat16":
                raise AttributeError("bfloat16 has no typestr")
            return interface(self.memory, version=2)

        def __dlpack_device__(self):
            return 2, self.device.index

        def __dlpack__(self, stream=None):
            assert stream == -1 or stream > 0       # DLPack has no stream 0
            gpu.driver.log.append(("dlpack", stream))
            return capsule(self.memory)

        def is_conj(self):
            return self.conjugated

        def is_neg(self):
            return self.negated

        def detach(self):
            return Tensor(self.memory, self.device.index)

        def permute(self, axes):
            return Tensor(self.memory.transpose(axes), self.device.index)

        def cpu(self):
            return SimpleNamespace(numpy=self.memory.copy)

    def empty(shape, dtype, device):
        gpu.made.append(("torch", gpu.streams["torch"]))
        return Tensor(gpu.memory.array(tuple(shape), dtype.name, device.index), device.index)

    torch.Tensor, torch.empty = Tensor, empty
    torch.grad = True
    torch.is_grad_enabled = lambda: torch.grad
    torch.device = lambda kind, index: SimpleNamespace(type=kind, index=index)
    torch.as_tensor = lambda a, device: Tensor(gpu.memory.copy(a, device.index), device.index)
    torch.cuda = SimpleNamespace(
        current_stream=lambda device: SimpleNamespace(cuda_stream=gpu.streams["torch"]),
        ExternalStream=lambda handle, device: handle, stream=lambda handle: _current(gpu, "torch", handle))
    for name in ("float16", "float32", "float64", "bfloat16", "int32", "int64", "bool", "complex64", "complex128"):
        setattr(torch, name, TorchDtype(name=name))
    return torch


def capsule(array: np.ndarray):
    """A DLPack capsule; NumPy makes none of bfloat16, so its kind is written over that of an integer."""
    narrow = array.dtype.name == "bfloat16"
    made = (array.view(np.uint16) if narrow else array).__dlpack__()
    if narrow:
        address = ctypes.pythonapi.PyCapsule_GetPointer
        address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        # behind the pointer, two words of the device and the number of dimensions
        ctypes.c_uint8.from_address(address(made, b"dltensor") + 20).value = 4
    return made


def _numba(gpu: FakeGpu):
    class DeviceNDArray:
        __module__ = "numba.cuda.cudadrv.devicearray"

        def __init__(self, memory, stream):
            self.memory, self.stream = memory, stream

        shape = property(lambda self: self.memory.shape)
        ndim = property(lambda self: self.memory.ndim)
        dtype = property(lambda self: self.memory.dtype)

        @property
        def __cuda_array_interface__(self):
            return interface(self.memory, stream=self.stream or None)

        def copy_to_host(self):
            return self.memory.copy()

    def device_array(shape, dtype, strides, stream):
        gpu.made.append(("numba", stream))
        made = gpu.memory.array(shape, dtype, gpu.driver.current_device())
        if made.size:
            made = np.ndarray(shape, dtype, made.reshape(-1).view(np.uint8), 0, strides)
        return DeviceNDArray(made, stream)

    return SimpleNamespace(
        DeviceNDArray=DeviceNDArray, device_array=device_array, external_stream=lambda handle: handle,
        to_device=lambda a, stream: DeviceNDArray(gpu.memory.copy(a, gpu.driver.current_device()), stream))

