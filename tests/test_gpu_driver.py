"""What the driver is asked for, told by stand-ins for NVIDIA's bindings: nothing here needs a GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import einjit
from einjit import gpudriver
from einjit.codegen import gpubuild
from einjit.codegen.gpubuild import CudaUnavailable
from einjit.errors import ArgumentError

SUCCESS, FAILED = SimpleNamespace(name="CUDA_SUCCESS"), SimpleNamespace(name="CUDA_ERROR_NO_DEVICE")


class Bindings(ModuleType):
    """Contexts are 100 and the device's ordinal."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=SUCCESS)
    CUpointer_attribute = SimpleNamespace(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL="ordinal")

    def __init__(self):
        super().__init__("cuda.bindings.driver")
        self.contexts, self.retained = [], []

    def cuInit(self, flags):
        return (SUCCESS,)

    def cuCtxGetDevice(self):
        return (SUCCESS, self.contexts[-1] - 100) if self.contexts else (FAILED, None)

    def cuDeviceGet(self, ordinal):
        return SUCCESS, ordinal

    def cuDevicePrimaryCtxRetain(self, device):
        self.retained.append(device)
        return SUCCESS, 100 + device

    def cuCtxPushCurrent(self, context):
        self.contexts.append(context)
        return (SUCCESS,)

    def cuCtxPopCurrent(self):
        return SUCCESS, self.contexts.pop()

    def cuCtxGetCurrent(self):
        return SUCCESS, self.contexts[-1]

    def cuPointerGetAttribute(self, attribute, pointer):
        return (SUCCESS, 3) if (attribute, pointer) == ("ordinal", 4096) else (FAILED, None)


class Stream:
    def __init__(self, log, handle):
        self.log, self.handle = log, handle

    def wait(self, other):
        self.log.append(("wait", self.handle, other.handle))


@pytest.fixture
def bindings(monkeypatch):
    """`import cuda.core` and `cuda.bindings.driver` give these."""
    made, log = Bindings(), []
    core = ModuleType("cuda.core")
    core.Stream = SimpleNamespace(from_handle=lambda handle: Stream(log, handle))
    core.Device = lambda device: SimpleNamespace(compute_capability=log.append(("device", device)) or (8, device))
    core.LaunchConfig = lambda grid, block: (grid, block)
    core.launch = lambda stream, config, kernel, *arguments: log.append((stream.handle, config, kernel, arguments))
    core.ObjectCode = SimpleNamespace(
        from_cubin=lambda cubin, name: SimpleNamespace(get_kernel=lambda symbol: (cubin, name, symbol)))
    core.Buffer = SimpleNamespace(from_handle=lambda pointer, size: SimpleNamespace(
        fill=lambda value, stream: log.append(("fill", pointer, size, value, stream.handle))))
    cuda, package = ModuleType("cuda"), ModuleType("cuda.bindings")
    cuda.core, cuda.bindings, package.driver, made.log = core, package, made, log
    for module in (cuda, core, package, made):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(gpubuild, "numba_cuda", lambda: None)
    monkeypatch.setattr(gpudriver, "_driver", None)
    return made


def test_there_is_one_driver(bindings):
    assert gpudriver.driver() is gpudriver.driver()


FIX = """
  fix: run this on a machine with an NVIDIA GPU and its driver; einjit.compile(..., target='cuda', cc=(8, 0)) needs \
neither"""


def refuse(error):
    def cuInit(flags):
        if isinstance(error, Exception):
            raise error
        return (error,)
    return cuInit


@pytest.mark.parametrize("error, reason", [(RuntimeError("x"), "its library was not found"),
                                           (FAILED, "CUDA_ERROR_NO_DEVICE")])
def test_no_driver(bindings, error, reason):
    bindings.cuInit = refuse(error)
    for _ in range(2):
        with pytest.raises(CudaUnavailable) as caught:
            gpudriver.driver()
        assert str(caught.value) == f"there is no CUDA driver: {reason}{FIX}"
    with pytest.raises(ArgumentError) as caught:
        einjit.compile("i->", (3,), target="cuda")
    assert str(caught.value) == f"""\
cc is not given, and there is no device to take it from (there is no CUDA driver: {reason})
  fix: pass the compute capability to compile for, such as cc=(8, 0)"""


def test_a_devices_context_is_current_inside_of_a_block(bindings):
    driver = gpudriver.driver()
    assert driver.current_device() == 0
    for _ in range(2):
        with driver.on(2) as context:
            assert context == 102 and driver.current_device() == 2
            with driver.on(1):
                assert bindings.contexts == [102, 101]
            assert bindings.contexts == [102]
    assert bindings.contexts == [] and bindings.retained == [2, 1]


def test_the_callers_own_context_stays(bindings):
    bindings.contexts.append(102)
    with gpudriver.driver().on(2) as context:
        assert context == 102 and bindings.retained == []
    assert bindings.contexts == [102]


def test_a_block_that_fails_leaves_no_context(bindings):
    with pytest.raises(ZeroDivisionError), gpudriver.driver().on(2):
        raise ZeroDivisionError
    assert bindings.contexts == []


def test_devices(bindings):
    driver = gpudriver.driver()
    assert driver.device_of(4096) == 3
    assert [driver.capability(6) for _ in range(2)] == [(8, 6)] * 2 and bindings.log == [("device", 6)]
    with pytest.raises(gpudriver.CudaError, match="^CUDA's driver says CUDA_ERROR_NO_DEVICE$"):
        driver.device_of(4097)


def test_launches(bindings):
    driver = gpudriver.driver()
    kernel = driver.load(b"code", "entry")
    assert kernel == (b"code", "entry", "entry")
    driver.launch(0, kernel, 7, 128, [np.uint64(5), np.uint32(6)])
    driver.wait(9, 0)
    driver.clear(9, 4096, 16)
    assert bindings.log == [(1, (7, 128), kernel, (5, 6)), ("wait", 9, 1), ("fill", 4096, 16, 0, 9)]
