"""The libraries whose arrays come in and go out: how each makes an array, and in which stream it works.

Each of them is imported where its arrays are at hand, and Numba where those of no known library are.
"""
from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache, partial
from importlib import import_module

import numpy as np

from .codegen import gpubuild
from .contraction import Layout
from .errors import ArgumentError, DtypeError, OperandError
from .gpuarrays import DEFAULT_STREAM, PER_THREAD_STREAM, handle


class Numba:
    """Also the one for arrays of libraries that we know nothing of."""

    name, moving = "numba", "numba.cuda.to_device(x)"

    def current_stream(self, device: int) -> int:
        """Its default one, which an environment variable makes one of each thread."""
        self._cuda()
        from numba import config

        return PER_THREAD_STREAM if getattr(config, "CUDA_PER_THREAD_DEFAULT_STREAM", False) else DEFAULT_STREAM

    def producer(self, device: int) -> int | None:
        """The stream in which arrays that do not say it were written; None if there is nothing to wait for."""
        return None

    def checked(self, array, name: str):
        """The array, in a form whose memory means what it says. Raises `OperandError`."""
        return array

    def empty(self, layout: Layout, device: int, stream: int):
        """A new array of a layout that leaves no gaps, its elements undefined, for work in that stream."""
        cuda = self._cuda()
        stream = self._stream(cuda, stream)
        return cuda.device_array(layout.shape, np.dtype(layout.dtype), layout.strides, stream=stream)

    def from_host(self, array: np.ndarray, device: int, stream: int):
        """A copy of a row-major array."""
        cuda = self._cuda()
        return cuda.to_device(array, stream=self._stream(cuda, stream))

    def to_host(self, array) -> np.ndarray:
        """A copy in host memory, once the work on it is done."""
        return array.copy_to_host()

    def _stream(self, cuda, stream: int):
        # Numba's arrays say to others that they must wait for their stream: not for the default one.
        return 0 if stream == self.current_stream(0) else cuda.external_stream(stream)

    def _cuda(self):
        return gpubuild.numba_cuda()[0]


class CuPy:
    name, moving = "cupy", "cupy.asarray(x)"

    def current_stream(self, device: int) -> int:
        return handle(int(self._cupy().cuda.get_current_stream(device).ptr))

    def producer(self, device: int) -> int | None:
        return self.current_stream(device)

    def checked(self, array, name: str):
        return array

    def empty(self, layout: Layout, device: int, stream: int):
        cupy = self._cupy()
        with self._inside(cupy, device, stream):
            return _permuted(layout, lambda shape: cupy.empty(shape, np.dtype(layout.dtype)), "transpose")

    def from_host(self, array: np.ndarray, device: int, stream: int):
        cupy = self._cupy()
        with self._inside(cupy, device, stream):
            return cupy.asarray(array)

    def to_host(self, array) -> np.ndarray:
        return array.get()

    def _inside(self, cupy, device: int, stream: int):
        """Its pool keeps memory for each stream: what is freed is used again in the same one."""
        if stream == self.current_stream(device):
            return cupy.cuda.Device(device)
        return _both(cupy.cuda.Device(device), partial(cupy.cuda.ExternalStream, stream))

    def _cupy(self):
        return import_module("cupy")


class Torch:
    name, moving = "torch", "x.to('cuda')"

    def current_stream(self, device: int) -> int:
        return handle(int(self._torch().cuda.current_stream(device).cuda_stream))

    def producer(self, device: int) -> int | None:
        return self.current_stream(device)

    def checked(self, array, name: str):
        if array.is_conj() or array.is_neg():
            what = "conjugated" if array.is_conj() else "negated"
            raise OperandError(f"{name} is {what} only in name: its memory is not",
                               fix=f"pass x.resolve_{'conj' if array.is_conj() else 'neg'}()")
        if not array.requires_grad:
            return array
        if self._torch().is_grad_enabled():
            raise OperandError(f"{name} requires a gradient, which einjit does not record",
                               fix="pass x.detach(), or call it under torch.no_grad()")
        return array.detach()

    def empty(self, layout: Layout, device: int, stream: int):
        torch = self._torch()
        dtype = getattr(torch, layout.dtype, None)
        if dtype is None:
            raise DtypeError(f"the result has dtype {layout.dtype}, which this release of torch does not have",
                             fix="pass dtype=, or an out")
        make = partial(torch.empty, dtype=dtype, device=torch.device("cuda", device))
        with self._inside(torch, device, stream):
            return _permuted(layout, make, "permute")

    def from_host(self, array: np.ndarray, device: int, stream: int):
        torch = self._torch()
        with self._inside(torch, device, stream):
            return torch.as_tensor(array, device=torch.device("cuda", device))

    def to_host(self, array) -> np.ndarray:
        return array.cpu().numpy()

    def _inside(self, torch, device: int, stream: int):
        """Its memory belongs to the stream that it was made in."""
        if stream == self.current_stream(device):
            return nullcontext()
        return torch.cuda.stream(torch.cuda.ExternalStream(stream, device=device))

    def _torch(self):
        return import_module("torch")


Library = Numba | CuPy | Torch
_LIBRARIES = {"numba": Numba(), "numba_cuda": Numba(), "cupy": CuPy(), "torch": Torch()}


def library_of(array) -> Library:
    """By the name of the module that its type, or one of those which that is made of, comes from."""
    return _own_library(type(array)) or _LIBRARIES["numba"]


def is_known(array) -> bool:
    """Whether its library is one of these."""
    return _own_library(type(array)) is not None


@lru_cache(maxsize=256)
def _own_library(kind: type) -> Library | None:
    names = (base.__module__.partition(".")[0] for base in kind.__mro__)
    return next((_LIBRARIES[name] for name in names if name in _LIBRARIES), None)


def stream_handle(stream) -> int:
    """The handle of a stream of any library. Raises `ArgumentError` for what is none."""
    if isinstance(stream, (int, np.integer)) and not isinstance(stream, bool):
        return handle(int(stream))
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        # It was an attribute once, and is a method now: (version, handle).
        return handle(int((protocol() if callable(protocol) else protocol)[1]))
    for name in ("ptr", "cuda_stream"):
        if isinstance(getattr(stream, name, None), int):
            return handle(getattr(stream, name))
    raise ArgumentError(f"stream is a {type(stream).__name__}, not a stream",
                        fix="pass a stream of CuPy's, torch's or Numba's, or the handle of one")


def _permuted(layout: Layout, make: Callable, method: str):
    """An array made row-major, whose axes are then put where the layout has them."""
    slowest_first = sorted(range(len(layout.shape)), key=lambda axis: -layout.strides[axis])
    array = make([layout.shape[axis] for axis in slowest_first])
    if slowest_first == list(range(len(layout.shape))):
        return array
    return getattr(array, method)([slowest_first.index(axis) for axis in range(len(layout.shape))])


class _both:
    """Two contexts, the second one made inside of the first."""

    def __init__(self, outer, inner: Callable):
        self.outer, self.make = outer, inner

    def __enter__(self):
        self.outer.__enter__()
        try:
            self.inner = self.make()
            self.inner.__enter__()
        except BaseException:
            self.outer.__exit__(None, None, None)
            raise

    def __exit__(self, *error):
        try:
            self.inner.__exit__(*error)
        finally:
            self.outer.__exit__(*error)
