"""Reading DLPack capsules (dlpack.h, version 0.8): what arrays of any library say of their memory.

Only read, never taken: the capsule keeps the memory while it lives, and lets go of it by itself.
"""
from __future__ import annotations

import ctypes
from dataclasses import dataclass

CUDA, CUDA_MANAGED = 2, 13          # kinds of memory that belong to a CUDA device
_NAME = b"dltensor"
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}


class _DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
                ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


@dataclass(frozen=True)
class DLTensor:
    """What a capsule says. `strides`: in elements, or None for row-major; `dtype`: as NumPy and ml_dtypes name it."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: str
    itemsize: int


def read(capsule) -> DLTensor:
    """What a capsule of `__dlpack__` describes. Raises `ValueError` for one that is no plain tensor's."""
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    t = _DLTensor.from_address(address(capsule, _NAME))
    strides = tuple(t.strides[:t.ndim]) if t.strides else None
    return DLTensor((t.data or 0) + t.byte_offset, tuple(t.shape[:t.ndim]), strides, _dtype(t), t.bits * t.lanes // 8)


def _dtype(t: _DLTensor) -> str:
    kind = _KINDS.get(t.code, f"type{t.code}_")
    if kind == "bool":
        return "bool"
    return f"{kind}{t.bits}" + (f"x{t.lanes}" if t.lanes != 1 else "")
