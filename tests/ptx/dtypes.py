"""PTX types and the NumPy types that hold their values.

A register holds the type it was declared with: `.b32` as uint32, `.f32` as float32, `.pred` as bool. Values of the
16-bit floats are float32 between being read and being written, which represents them exactly; they are rounded when
written. Two of them in a register (`.f16x2`) are one more axis of length 2.
"""

from __future__ import annotations

import re

import numpy as np

NAMES = {"s": "i", "u": "u", "b": "u", "f": "f"}     # PTX's letter for a kind of type: the letter in translated code
DTYPES = {
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "f32": np.float32, "f64": np.float64,
}
HALVES = ("f16", "bf16", "f16x2", "bf16x2")
FLOATS = ("f32", "f64", *HALVES)


def bits(kind: str) -> int:
    """The size of a PTX type: of both where two are packed into a register."""
    found = re.fullmatch(r"[a-z]+(\d+)(x2)?", kind)
    if not found:
        raise ValueError(f"{kind!r} is no type with a size")
    return int(found[1]) * (2 if found[2] else 1)


def name(kind: str) -> str:
    """The name in translated code of the NumPy type for a PTX type: that of the bits for a 16-bit float."""
    if kind in HALVES:
        return f"u{bits(kind)}"
    return NAMES[kind[0]] + kind[1:]


def unsigned(kind: str) -> str:
    return f"u{bits(kind)}"


def dtype(kind: str) -> np.dtype:
    return np.dtype(DTYPES[name(kind)])
