"""Arrays in a GPU's memory: which they are, and what they say of themselves, whatever library they belong to.

They are read by `__cuda_array_interface__` (versions 2 and 3), else by DLPack. No library is imported here: whoever has
an array of one has imported it.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import dlpack
from .contraction import Layout
from .errors import DtypeError, OperandError
from .fallback import is_compiled_dtype

_HOST = (np.ndarray, np.generic, int, float, complex, str, bytes, list, tuple, type(None))
DEFAULT_STREAM = 1          # the legacy default stream, whose handle may be written as 0 too
PER_THREAD_STREAM = 2


@dataclass(frozen=True)
class DeviceArray:
    """Where an array's elements are. `producer`: the handle of the stream in which it was written, or None; `keep`:
    what holds the memory."""

    pointer: int
    layout: Layout
    producer: int | None
    read_only: bool
    keep: object

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layout.shape

    @property
    def ndim(self) -> int:
        return len(self.layout.shape)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.layout.dtype)


def is_device_array(x) -> bool:
    """Whether `x` lies in a CUDA device's memory. It is asked what it is; nothing is read or copied."""
    if isinstance(x, _HOST):
        return False
    if hasattr(type(x), "__dlpack_device__"):
        return _dlpack_device(x) is not None
    return _has_interface(x)


def any_on_device(arrays) -> bool:
    """Whether some of them are; None is no array."""
    return any(is_device_array(x) for x in arrays)


def device_said(x) -> int | None:
    """The device that an array says it is on; the interface has no word for that, DLPack has."""
    return _dlpack_device(x) if hasattr(type(x), "__dlpack_device__") else None


def _dlpack_device(x) -> int | None:
    try:
        kind, device = x.__dlpack_device__()
    except Exception:           # of libraries that have memory of kinds which DLPack does not know
        return None
    return int(device) if int(kind) in (dlpack.CUDA, dlpack.CUDA_MANAGED) else None


def _has_interface(x) -> bool:
    if hasattr(type(x), "__cuda_array_interface__"):
        return True             # a property, which may do work
    try:
        return "__cuda_array_interface__" in vars(x)
    except TypeError:
        return False


def read(x, name: str, stream: int, unsaid: int | None = None, known: bool = True) -> DeviceArray:
    """What array `x` says of itself; `name` is for messages. `stream`: the handle of the one it will be used in: an
    array that is read by DLPack makes that stream wait, others say in `producer` what has to be waited for; `unsaid`:
    that of arrays whose interface has no word for it. `known`: whether that is known at all.

    Raises `OperandError` for an array that cannot be used, `DtypeError` for one of elements that have no kernels.
    """
    interface = getattr(x, "__cuda_array_interface__", None)
    if interface is not None and _says_all(x, interface, known):
        return _from_interface(x, interface, name, unsaid)
    if hasattr(x, "__dlpack__"):
        return _from_dlpack(x, name, stream)
    if interface is not None:
        return _from_interface(x, interface, name, unsaid)
    raise OperandError(f"{name} does not say where its memory is", fix="pass an array of CuPy's, torch's or Numba's")


def _says_all(x, interface: dict, known: bool) -> bool:
    """Whether an interface says what the elements are, and what has to be waited for, unless that is known."""
    named = interface.get("typestr", "")[1:2] != "V" or is_bfloat16(x)
    return named and (known or "stream" in interface)


def shape_of(x) -> tuple[int, ...]:
    """Of any array, on a device or not."""
    if hasattr(x, "shape"):
        return tuple(map(int, x.shape))
    return layout_of(x, "the array").shape if is_device_array(x) else np.shape(x)


def layout_of(x, name: str) -> Layout:
    """Shape, strides and dtype of an array that is not going to be read or written."""
    return read(x, name, -1).layout


def _from_interface(x, interface: dict, name: str, unsaid: int | None) -> DeviceArray:
    version = interface.get("version", 0)
    if version < 2:
        raise OperandError(f"{name} has version {version} of __cuda_array_interface__",
                           fix="use a release of its library that has version 2 or 3")
    if interface.get("mask") is not None:
        raise OperandError(f"{name} is masked", fix="fill the masked elements first: sums take no mask")
    missing = next((key for key in ("shape", "typestr", "data") if interface.get(key) is None), None)
    if missing:
        raise OperandError(f"the __cuda_array_interface__ of {name} has no '{missing}'",
                           fix="pass an array of CuPy's, torch's or Numba's")
    dtype = _dtype(x, interface["typestr"], name)
    shape = tuple(map(int, interface["shape"]))
    strides = interface.get("strides")
    layout = Layout.contiguous(shape, dtype)
    if strides is not None:
        layout = Layout(shape, tuple(map(int, strides)), dtype)
    pointer, read_only = interface["data"]
    producer = interface.get("stream", unsaid)
    producer = None if producer is None else handle(int(producer))
    return _aligned(DeviceArray(int(pointer or 0), layout, producer, bool(read_only), x), name)


def _from_dlpack(x, name: str, stream: int) -> DeviceArray:
    capsule = x.__dlpack__(stream=stream)
    t = dlpack.read(capsule)
    dtype = _known("bfloat16" if t.dtype == "bfloat16" else t.dtype, name)
    layout = Layout.contiguous(t.shape, dtype)
    if t.strides is not None:
        layout = Layout(t.shape, tuple(s * t.itemsize for s in t.strides), dtype)
    # The capsule holds what the memory belongs to, which for a conversion is not `x`.
    return _aligned(DeviceArray(t.pointer, layout, None, False, (x, capsule)), name)


def _dtype(x, typestr: str, name: str) -> str:
    if typestr[1:2] == "V" and is_bfloat16(x):
        return _known("bfloat16", name)
    if typestr[:1] == ">":
        raise DtypeError(f"{name} has elements of the other byte order ('{typestr}')", fix="convert it first")
    return _known(typestr, name)


def is_bfloat16(x) -> bool:
    """Whether an array's own dtype is that: its interface can only say that an element has two bytes."""
    return str(getattr(x, "dtype", "")).rpartition(".")[2] == "bfloat16"


def _known(dtype: str, name: str) -> str:
    if dtype == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401  (NumPy knows the name from then on)
        except ImportError:
            raise DtypeError(f"{name} has dtype bfloat16, which needs ml_dtypes, which is not installed",
                             fix="pip install ml_dtypes") from None
    found, has_kernels = _numpys(dtype)
    if not has_kernels:
        raise DtypeError(f"{name} has dtype {found}, for which there are no kernels", fix="convert the operand")
    return found


@lru_cache(maxsize=256)
def _numpys(dtype: str) -> tuple[str, bool]:
    """A dtype's name, and whether there are kernels for it."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        return dtype, False
    return (found.name, True) if is_compiled_dtype(found) else (str(found), False)


def _aligned(array: DeviceArray, name: str) -> DeviceArray:
    """Kernels read whole elements: where these do not lie on multiples of their size, a device stops with an error."""
    size, layout = array.dtype.itemsize, array.layout
    misplaced = array.pointer % size or any(s % size for s, n in zip(layout.strides, layout.shape) if n > 1)
    if misplaced and 0 not in layout.shape:
        raise OperandError(f"{name} has elements of {size} bytes that do not lie on multiples of {size}",
                           fix="copy it into an array of its own first")
    return array


def handle(stream: int) -> int:
    """One number for each stream: the default one has two."""
    return stream or DEFAULT_STREAM
