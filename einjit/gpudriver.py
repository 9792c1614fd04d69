"""What einjit asks of CUDA's driver: the one place that does. Tests put another `Driver` here."""
from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from .codegen import gpubuild
from .codegen.gpubuild import CudaUnavailable
from .errors import EinjitError
from .gpuarrays import handle

_lock = threading.Lock()
_driver: Driver | None = None


class CudaError(EinjitError, RuntimeError):
    """CUDA's driver refused something: a defect of einjit's, or a device that an earlier error has stopped."""


def driver() -> Driver:
    """The driver. Raises `CudaUnavailable` where there is none, or not what it is called through."""
    global _driver
    if _driver is None:
        with _lock:
            _driver = _driver or Driver()
    return _driver


class Driver:
    """Devices are given by their ordinals, streams by their handles. Nothing here waits for a device."""

    def __init__(self):
        gpubuild.numba_cuda()
        from cuda import core
        from cuda.bindings import driver as bindings

        self._core, self._bindings = core, bindings
        self._primary: dict[int, object] = {}
        self._capabilities: dict[int, tuple[int, int]] = {}
        try:
            (error,) = bindings.cuInit(0)
        except RuntimeError:        # of the loader
            raise _no_driver("its library was not found") from None
        if error != bindings.CUresult.CUDA_SUCCESS:
            raise _no_driver(error.name)

    def current_device(self) -> int:
        """That of the calling thread's context, else the first one."""
        error, device = self._bindings.cuCtxGetDevice()
        return int(device) if error == self._bindings.CUresult.CUDA_SUCCESS else 0

    def device_count(self) -> int:
        return int(self._checked(self._bindings.cuDeviceGetCount()))

    def device_of(self, pointer: int) -> int:
        attribute = self._bindings.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        return int(self._checked(self._bindings.cuPointerGetAttribute(attribute, pointer)))

    def capability(self, device: int) -> tuple[int, int]:
        found = self._capabilities.get(device)
        if found is None:
            found = self._capabilities[device] = tuple(self._core.Device(device).compute_capability)
        return found

    @contextmanager
    def on(self, device: int) -> Iterator[int]:
        """A block in which a context of that device is current: the caller's own, else the device's primary one, which
        is the one that CuPy, torch and Numba use. Gives the context's handle."""
        error, current = self._bindings.cuCtxGetDevice()
        inside = error == self._bindings.CUresult.CUDA_SUCCESS and int(current) == device
        if not inside:
            self._checked(self._bindings.cuCtxPushCurrent(self._primary_context(device)))
        try:
            yield int(self._checked(self._bindings.cuCtxGetCurrent()))
        finally:
            if not inside:
                self._checked(self._bindings.cuCtxPopCurrent())

    def load(self, cubin: bytes, symbol: str):
        """A kernel of the current context."""
        return self._core.ObjectCode.from_cubin(cubin, name=symbol).get_kernel(symbol)

    def launch(self, stream: int, kernel, grid: int, block: int, arguments: Sequence[np.generic]) -> None:
        self._core.launch(self._stream(stream), self._core.LaunchConfig(grid=grid, block=block), kernel, *arguments)

    def wait(self, stream: int, producer: int) -> None:
        """Work put into `stream` from now on waits, on the device, for what is in `producer` now."""
        self._stream(stream).wait(self._stream(producer))

    def clear(self, stream: int, pointer: int, size: int) -> None:
        """Zeros into memory."""
        self._core.Buffer.from_handle(pointer, size).fill(0, stream=self._stream(stream))

    def _primary_context(self, device: int):
        if device not in self._primary:     # kept for ever, as the other libraries do
            handle = self._checked(self._bindings.cuDeviceGet(device))
            self._primary[device] = self._checked(self._bindings.cuDevicePrimaryCtxRetain(handle))
        return self._primary[device]

    def _stream(self, stream: int):
        return self._core.Stream.from_handle(handle(stream))

    def _checked(self, answer: tuple):
        error, *values = answer
        if error != self._bindings.CUresult.CUDA_SUCCESS:
            raise CudaError(f"CUDA's driver says {error.name}")
        return values[0] if values else None


def _no_driver(reason: str) -> CudaUnavailable:
    return CudaUnavailable(f"there is no CUDA driver: {reason}",
                           fix="run this on a machine with an NVIDIA GPU and its driver; "
                               "einjit.compile(..., target='cuda', cc=(8, 0)) needs neither")
