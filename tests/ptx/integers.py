"""PTX's integer arithmetic on arrays with one element a lane; scalars stand for what all lanes agree on.

Translated code calls these by name; operations that NumPy has as they are (+, &, ...) do not come by here.
"""

from __future__ import annotations

import numpy as np

Lanes = np.ndarray | np.generic
UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


def bits_of(x: Lanes) -> Lanes:
    return x.view(UNSIGNED[x.dtype.itemsize])


def clamp(x: Lanes, low: int, high: int, kind: type) -> Lanes:
    """Integers as the nearest ones of another type; the limits are that type's."""
    info = np.iinfo(x.dtype)
    low, high = max(low, int(info.min)), min(high, int(info.max))
    return np.clip(x, x.dtype.type(low), x.dtype.type(high)).astype(kind)


def quotient(a: Lanes, b: Lanes) -> Lanes:
    """Towards zero; all bits are set where b is 0."""
    ua, ub = _magnitude(a), _magnitude(b)
    q = ua // np.where(ub == 0, ub.dtype.type(1), ub)
    q = np.where((a < 0) != (b < 0), -q, q)
    return np.where(ub == 0, ~q.dtype.type(0), q).view(a.dtype)


def remainder(a: Lanes, b: Lanes) -> Lanes:
    return a - quotient(a, b) * b


def _magnitude(a: Lanes) -> Lanes:
    return np.where(a < 0, -bits_of(a), bits_of(a)) if a.dtype.kind == "i" else a


def high(a: Lanes, b: Lanes) -> Lanes:
    """The upper half of the product."""
    if a.dtype.itemsize < 8:
        wide = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
        return ((a.astype(wide) * b.astype(wide)) >> wide.type(8 * a.dtype.itemsize)).astype(a.dtype)
    ua, ub = bits_of(a), bits_of(b)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    al, ah, bl, bh = ua & low, ua >> half, ub & low, ub >> half
    middle = ah * bl + ((al * bl) >> half)
    upper = ah * bh + (middle >> half) + ((al * bh + (middle & low)) >> half)
    if a.dtype.kind == "i":
        upper = upper - np.where(a < 0, ub, np.uint64(0)) - np.where(b < 0, ua, np.uint64(0))
    return upper.view(a.dtype)


def sum_with_carry(a: Lanes, b: Lanes, carry: Lanes) -> list[Lanes]:
    total = a + b
    result = total + carry.astype(a.dtype)
    return [result, (total < a) | (result < total)]


def less_with_borrow(a: Lanes, b: Lanes, borrow: Lanes) -> list[Lanes]:
    difference = a - b
    return [difference - borrow.astype(a.dtype), (a < b) | (difference < borrow.astype(a.dtype))]


def shift_left(a: Lanes, count: Lanes) -> Lanes:
    """A count beyond the width is the width: NumPy gives 0 for it, or the sign."""
    return a << np.minimum(count, np.uint32(64)).astype(a.dtype)


def shift_right(a: Lanes, count: Lanes) -> Lanes:
    return a >> np.minimum(count, np.uint32(64)).astype(a.dtype)


def funnel(a: Lanes, b: Lanes, count: Lanes, left: bool, wrap: bool) -> Lanes:
    """32 bits of (b, a), b the upper half: its upper ones after a shift to the left, the lower ones to the right."""
    both = (b.astype(np.uint64) << np.uint64(32)) | a.astype(np.uint64)
    count = (count & np.uint32(31) if wrap else np.minimum(count, np.uint32(32))).astype(np.uint64)
    return ((both << count) >> np.uint64(32) if left else both >> count).astype(np.uint32)


def field(a: Lanes, start: Lanes, length: Lanes) -> Lanes:
    """bfe: `length` bits from `start`, the sign repeated above them."""
    width = 8 * a.dtype.itemsize
    start, length = (start & np.uint32(255)).astype(np.int64), (length & np.uint32(255)).astype(np.int64)
    kind = bits_of(a).dtype.type
    taken = np.clip(np.minimum(length, width - start), 0, width)      # bits that exist
    mask = _ones(taken, kind)
    part = (bits_of(a) >> np.minimum(start, width).astype(kind)) & mask
    if a.dtype.kind == "i":
        sign_at = np.minimum(start + length - 1, width - 1)
        negative = (length > 0) & ((bits_of(a) >> np.maximum(sign_at, 0).astype(kind)) & kind(1)).astype(bool)
        part = np.where(negative, part | ~mask, part)
    return part.view(a.dtype)


def insert(a: Lanes, b: Lanes, start: Lanes, length: Lanes) -> Lanes:
    """bfi: the low `length` bits of a, put into b at `start`."""
    kind, width = b.dtype.type, 8 * b.dtype.itemsize
    start = np.minimum(start & np.uint32(255), np.uint32(width)).astype(kind)
    mask = _ones((length & np.uint32(255)).astype(np.int64), kind) << start
    return (b & ~mask) | ((a << start) & mask)


def _ones(count: Lanes, kind: type) -> Lanes:
    return ~(~kind(0) << np.asarray(count).astype(kind))


def permute(a: Lanes, b: Lanes, selector: Lanes) -> Lanes:
    """prmt: each result byte is one of the eight of (b, a), or eight times its sign."""
    both = (b.astype(np.uint64) << np.uint64(32)) | a.astype(np.uint64)
    result = np.uint64(0)
    for q in range(4):
        chosen = (selector.astype(np.uint64) >> np.uint64(4 * q)) & np.uint64(15)
        byte = (both >> (np.uint64(8) * (chosen & np.uint64(7)))) & np.uint64(255)
        signs = np.where(byte >= 128, np.uint64(255), np.uint64(0))
        result = result | (np.where(chosen >= 8, signs, byte) << np.uint64(8 * q))
    return result.astype(np.uint32)


def logic(a: Lanes, b: Lanes, c: Lanes, table: int) -> Lanes:
    """lop3: bit n of `table` is the result where a, b and c have the bits of n, a's the highest."""
    result = np.uint32(0)
    for n in range(8):
        if table >> n & 1:
            result = result | ((a if n & 4 else ~a) & (b if n & 2 else ~b) & (c if n & 1 else ~c))
    return result


def dot4(a: Lanes, b: Lanes, c: Lanes, signed_a: bool, signed_b: bool) -> Lanes:
    """dp4a: c and the four products of bytes."""
    total = c.astype(np.int64)
    for q in range(4):
        total = total + _byte(a, q, signed_a) * _byte(b, q, signed_b)
    return total.astype(np.uint32)


def _byte(x: Lanes, q: int, signed: bool) -> Lanes:
    byte = (x >> np.uint32(8 * q)).astype(np.uint8)
    return byte.view(np.int8).astype(np.int64) if signed else byte.astype(np.int64)


def population(x: Lanes) -> Lanes:
    return np.bitwise_count(x).astype(np.uint32)


def reversed_bits(x: Lanes) -> Lanes:
    kind, width = x.dtype.type, 8 * x.dtype.itemsize
    result = kind(0)
    for n in range(width):
        result = result | (((x >> kind(n)) & kind(1)) << kind(width - 1 - n))
    return result


def leading_zeros(x: Lanes) -> Lanes:
    kind, width = x.dtype.type, 8 * x.dtype.itemsize
    for shift in (1, 2, 4, 8, 16, 32):
        if shift < width:
            x = x | (x >> kind(shift))
    return np.uint32(width) - np.bitwise_count(x).astype(np.uint32)


def unpacked(x: Lanes, kind: type, count: int) -> list[Lanes]:
    """The parts of a register, the lowest first."""
    step = 8 * np.dtype(kind).itemsize
    return [(x >> x.dtype.type(step * q)).astype(kind) for q in range(count)]


def packed(parts: list[Lanes], kind: type) -> Lanes:
    step, result = 8 * parts[0].dtype.itemsize, kind(0)
    for q, part in enumerate(parts):
        result = result | (part.astype(kind) << kind(step * q))
    return result
