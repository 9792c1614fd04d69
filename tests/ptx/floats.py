"""PTX's float arithmetic on arrays with one element a lane: what NumPy does not have, or does differently.

Subnormals are kept where `.ftz` would flush them, and `.approx` is as exact as NumPy.
"""

from __future__ import annotations

import numpy as np

from .integers import Lanes

ROUNDERS = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def fma(a: Lanes, b: Lanes, c: Lanes, mode: str = "rn") -> Lanes:
    """a * b + c, rounded once. In float32 by way of float64, which holds the product exactly: to nearest, the sum is
    rounded to float64 first, which can change the result in one case of some 2**29."""
    if a.dtype == np.float64:
        return _fma64(a, b, c)
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    return narrowed(product + c, mode) if mode == "rn" else narrowed(_sum_to_odd(product, c), mode)


def _fma64(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """Dekker's product and Knuth's sum carry what the rounded ones leave over."""
    product = a * b
    total = product + c
    ah, al = _split(a)
    bh, bl = _split(b)
    lost = ((ah * bh - product) + ah * bl + al * bh) + al * bl
    other = total - product
    lost = lost + ((product - (total - other)) + (c - other))
    corrected = total + lost
    return np.where(np.isfinite(corrected), corrected, total)


def _sum_to_odd(a: Lanes, b: Lanes) -> Lanes:
    """The sum; if it is inexact, that neighbour which has an odd last bit. It rounds as the exact sum does."""
    total = a + b
    other = total - a
    lost = (a - (total - other)) + (b - other)
    even = (total.view(np.uint64) & np.uint64(1)) == 0
    return np.where((lost != 0) & even & np.isfinite(total), np.nextafter(total, np.copysign(np.inf, lost)), total)


def _split(x: Lanes) -> tuple[Lanes, Lanes]:
    scaled = x * np.float64(134217729.0)     # 2**27 + 1
    upper = scaled - (scaled - x)
    return upper, x - upper


def narrowed(x: Lanes, mode: str) -> Lanes:
    """float64 or an integer to float32, rounded to nearest, towards zero, down or up."""
    y = x.astype(np.float32)
    if mode == "rn":
        return y
    exact = x.astype(np.longdouble)          # 64-bit integers as well
    back = y.astype(np.longdouble)
    down = np.where(back > exact, np.nextafter(y, np.float32(-np.inf)), y)
    up = np.where(back < exact, np.nextafter(y, np.float32(np.inf)), y)
    return {"rm": down, "rp": up, "rz": np.where(exact < 0, up, down)}[mode]


def to_integer(x: Lanes, kind: type, mode: str) -> Lanes:
    """Values outside of the type become its limits, and NaN becomes 0."""
    info = np.iinfo(kind)
    y = np.asarray(ROUNDERS[mode](x.astype(np.float64)))
    low, above = np.float64(info.min), np.float64(int(info.max) + 1)
    result = np.where((y >= low) & (y < above), y, 0.0).astype(kind)
    return np.where(y >= above, kind(info.max), np.where(y < low, kind(info.min), result))


def saturated(x: Lanes) -> Lanes:
    """Between 0 and 1; NaN becomes 0."""
    return np.where(x > 0, np.minimum(x, x.dtype.type(1)), x.dtype.type(0))


def smaller(a: Lanes, b: Lanes, nan: bool) -> Lanes:
    """NaN counts as missing, unless `nan`; -0 is less than +0."""
    both_zero = (a == 0) & (b == 0)
    least = np.minimum(a, b) if nan else np.fmin(a, b)
    return np.where(both_zero, np.where(np.signbit(a), a, b), least)


def larger(a: Lanes, b: Lanes, nan: bool) -> Lanes:
    both_zero = (a == 0) & (b == 0)
    most = np.maximum(a, b) if nan else np.fmax(a, b)
    return np.where(both_zero, np.where(np.signbit(a), b, a), most)


def ordered(a: Lanes, b: Lanes) -> Lanes:
    """Neither is NaN."""
    return (a == a) & (b == b)


def half(x: Lanes) -> Lanes:
    """float16's bits as float32."""
    return x.view(np.float16).astype(np.float32)


def bfloat(x: Lanes) -> Lanes:
    """bfloat16's bits as float32."""
    return (x.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_half(x: Lanes, mode: str = "rn") -> Lanes:
    """float16's bits."""
    y = x.astype(np.float16)
    if mode == "rz":
        y = np.where(np.abs(y.astype(x.dtype)) > np.abs(x), np.nextafter(y, np.float16(0)), y)
    return y.view(np.uint16)


def to_bfloat(x: Lanes, mode: str = "rn") -> Lanes:
    """bfloat16's bits: rounded to the nearest, the even one of two."""
    x = x.astype(np.float32)
    bits = x.view(np.uint32)
    if mode == "rn":
        bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.where(x == x, (bits >> np.uint32(16)).astype(np.uint16), np.uint16(0x7FFF))


def to_tf32(x: Lanes) -> Lanes:
    """rna: float32's bits with 10 of the mantissa left, the nearest, away from zero of two."""
    return np.where(np.isfinite(x), (x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000), x.view(np.uint32))


def pair(x: Lanes, decode) -> Lanes:
    """Two 16-bit floats in a register as float32, along a last axis of length 2."""
    return np.stack([decode(x.astype(np.uint16)), decode((x >> np.uint32(16)).astype(np.uint16))], axis=-1)


def from_pair(x: Lanes, encode) -> Lanes:
    bits = encode(x).astype(np.uint32)
    return bits[..., 0] | (bits[..., 1] << np.uint32(16))


def is_kind(x: Lanes, kind: str) -> Lanes:
    """testp"""
    tiny = np.finfo(x.dtype).tiny
    subnormal = (np.abs(x) < tiny) & (x != 0)
    return {
        "finite": np.isfinite(x), "infinite": np.isinf(x), "number": ~np.isnan(x), "notanumber": np.isnan(x),
        "normal": np.isfinite(x) & ~subnormal & (x != 0), "subnormal": subnormal,
    }[kind]
