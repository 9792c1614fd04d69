"""Array elements as LLVM values: types, loads, stores and conversions.

A `Lanes` value is what one machine vector (or scalar, with one lane) holds: one LLVM value for a real
element, two (real and imaginary parts) for a complex one. Everything the register tile and the packing
loops move goes through here, so that they are written once for every dtype.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from .vectors import (
    I8, I32, I64, LINE, intrinsic_function, masked_load, masked_store, pointer, shuffle, splat, splat_constant)

_FLOATS = {16: ir.HalfType(), 32: ir.FloatType(), 64: ir.DoubleType()}


@dataclass(frozen=True)
class Element:
    """One array element type. `kind` is NumPy's: b i u f c, and V for bfloat16, the one type not its own that
    kernels know; `bits` is the width of one component."""

    kind: str
    bits: int

    @classmethod
    def of(cls, dtype: str) -> Element:
        dt = np.dtype(dtype)
        components = 2 if dt.kind == "c" else 1
        return cls(dt.kind, dt.itemsize * 8 // components)

    @property
    def components(self) -> int:
        return 2 if self.kind == "c" else 1

    @property
    def itemsize(self) -> int:
        return self.bits // 8 * self.components

    @property
    def part_bytes(self) -> int:
        """Bytes of one component."""
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind in "fc"

    @property
    def llvm(self) -> ir.Type:
        return _FLOATS[self.bits] if self.is_float else ir.IntType(self.bits)

    def vector(self, lanes: int) -> ir.Type:
        return self.llvm if lanes == 1 else ir.VectorType(self.llvm, lanes)


class Lanes(NamedTuple):
    """`lanes` elements in registers: one LLVM value a component."""

    parts: tuple[ir.Value, ...]
    lanes: int


def constant(element: Element, value: complex, lanes: int) -> Lanes:
    """`value` in every lane."""
    numbers = (value.real, value.imag) if element.kind == "c" else (value,)
    python = float if element.is_float else int
    return Lanes(tuple(splat_constant(element.vector(lanes), python(x)) for x in numbers), lanes)


def load(builder, element: Element, address: ir.Value, lanes: int, mask=None, otherwise: Lanes | None = None) -> Lanes:
    """`lanes` neighbouring elements from a byte address of any alignment; lanes off in `mask` are those of
    `otherwise`, or zero."""
    width = lanes * element.components
    typ = element.vector(width)
    if mask is None:
        raw = builder.load(pointer(builder, address, typ), align=1)
    else:
        rest = _join(builder, element, otherwise) if otherwise else splat_constant(typ, 0)
        raw = masked_load(builder, address, rest, _component_mask(builder, element, mask, lanes))
    return _normalised(builder, element, _split(builder, element, raw, lanes))


def stream(builder, element: Element, address: ir.Value, value: Lanes) -> None:
    """Write all lanes past the caches. The address is a multiple of the vector's bytes, or of a line's."""
    raw = _join(builder, element, value)
    store = builder.store(raw, pointer(builder, address, raw.type), align=min(LINE, value.lanes * element.itemsize))
    store.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))


def prefetch(builder, address: ir.Value, level: int, writing: bool = False) -> None:
    """Ask for the cache line of an address, which need not be one that can be read; into L1, or into L2 alone."""
    fetch = intrinsic_function(builder, "llvm.prefetch.p0", ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    locality, data = I32(4 - level), I32(1)
    builder.call(fetch, [pointer(builder, address, I8), I32(int(writing)), locality, data])


def store(builder, element: Element, address: ir.Value, value: Lanes, mask=None) -> None:
    """Write all lanes (or those on in `mask`) to neighbouring elements."""
    raw = _join(builder, element, value)
    if mask is None:
        builder.store(raw, pointer(builder, address, raw.type), align=1)
    else:
        masked_store(builder, raw, address, _component_mask(builder, element, mask, value.lanes))


def load_apart(builder, element: Element, address: ir.Value, lanes: int, apart: int) -> Lanes:
    """`lanes` elements whose components lie apart, `apart` bytes from the real parts to the imaginary ones."""
    typ = element.vector(lanes)
    starts = _starts(builder, element, address, apart)
    return Lanes(tuple(builder.load(pointer(builder, start, typ), align=1) for start in starts), lanes)


def store_apart(builder, element: Element, address: ir.Value, value: Lanes, apart: int) -> None:
    """Write elements as `load_apart` reads them."""
    for part, start in zip(value.parts, _starts(builder, element, address, apart)):
        builder.store(part, pointer(builder, start, part.type), align=1)


def _starts(builder, element: Element, address: ir.Value, apart: int) -> list[ir.Value]:
    return [builder.add(address, I64(c * apart)) if c else address for c in range(element.components)]


def gather(builder, element: Element, addresses: list[ir.Value]) -> Lanes:
    """One element from each byte address."""
    lanes = len(addresses)
    scalars = [load(builder, element, address, 1) for address in addresses]
    if lanes == 1:
        return scalars[0]
    parts = []
    for c in range(element.components):
        vector = ir.Constant(element.vector(lanes), ir.Undefined)
        for lane, scalar in enumerate(scalars):
            vector = builder.insert_element(vector, scalar.parts[c], I32(lane))
        parts.append(vector)
    return Lanes(tuple(parts), lanes)


def broadcast(builder, value: Lanes, lanes: int) -> Lanes:
    """A one-lane value in every lane."""
    if lanes == 1 or value.lanes == lanes:
        return value
    return Lanes(tuple(splat(builder, p, lanes) for p in value.parts), lanes)


def select(builder, mask, yes: Lanes, no: Lanes) -> Lanes:
    return Lanes(tuple(builder.select(mask, a, b) for a, b in zip(yes.parts, no.parts)), yes.lanes)


# -- components of complex elements: interleaved in memory, apart in registers ---------------------------

def _split(builder, element: Element, raw, lanes: int) -> Lanes:
    if element.kind != "c":
        return Lanes((raw,), lanes)
    if lanes == 1:
        return Lanes(tuple(builder.extract_element(raw, I32(c)) for c in (0, 1)), 1)
    return Lanes(tuple(shuffle(builder, raw, raw, list(range(c, 2 * lanes, 2))) for c in (0, 1)), lanes)


def _join(builder, element: Element, value: Lanes):
    if element.kind != "c":
        return value.parts[0]
    if value.lanes == 1:
        pair = ir.Constant(element.vector(2), ir.Undefined)
        for c in (0, 1):
            pair = builder.insert_element(pair, value.parts[c], I32(c))
        return pair
    order = [i // 2 + (i % 2) * value.lanes for i in range(2 * value.lanes)]
    return shuffle(builder, value.parts[0], value.parts[1], order)


def _component_mask(builder, element: Element, mask, lanes: int):
    if element.kind != "c":
        return mask
    if lanes == 1:
        return splat(builder, mask, 2)
    return shuffle(builder, mask, mask, [i // 2 for i in range(2 * lanes)])


def _normalised(builder, element: Element, value: Lanes) -> Lanes:
    """A bool byte other than 0 and 1 (a view of other memory) counts as true."""
    if element.kind != "b":
        return value
    zero = splat_constant(value.parts[0].type, 0)
    true = builder.icmp_unsigned("!=", value.parts[0], zero)
    return Lanes((builder.zext(true, value.parts[0].type),), value.lanes)


# -- conversion ------------------------------------------------------------------------------------------

_FLOAT = Element("f", 32)


def convert(builder, source: Element, target: Element, value: Lanes) -> Lanes:
    """NumPy's cast between numeric types that do not lose kind (bool < int < float < complex)."""
    if source == target:
        return value
    if source.kind == "V":
        return convert(builder, _FLOAT, target, Lanes((_from_bfloat(builder, value.parts[0]),), value.lanes))
    if target.kind == "V":
        (part,) = convert(builder, source, _FLOAT, value).parts
        return Lanes((_to_bfloat(builder, part),), value.lanes)
    real_target = Element("f", target.bits) if target.kind == "c" else target
    real_source = Element("f", source.bits) if source.kind == "c" else source
    parts = tuple(_convert_part(builder, real_source, real_target, p) for p in value.parts)
    if target.kind == "c" and source.kind != "c":
        parts += (splat_constant(target.vector(value.lanes), 0.0),)
    return Lanes(parts, value.lanes)


def _convert_part(builder, source: Element, target: Element, part):
    lanes = part.type.count if isinstance(part.type, ir.VectorType) else 1
    typ = target.vector(lanes)
    if target.kind == "b":
        zero = splat_constant(part.type, 0)
        truth = builder.fcmp_unordered("!=", part, zero) if source.is_float else builder.icmp_unsigned("!=", part, zero)
        return builder.zext(truth, typ)
    if source.is_float:
        if source.bits == target.bits:
            return part
        return builder.fpext(part, typ) if target.bits > source.bits else builder.fptrunc(part, typ)
    if target.is_float:
        return builder.sitofp(part, typ) if source.kind == "i" else builder.uitofp(part, typ)
    if source.bits == target.bits:
        return part
    if target.bits < source.bits:
        return builder.trunc(part, typ)
    return builder.sext(part, typ) if source.kind == "i" else builder.zext(part, typ)


# A bfloat16 is the upper half of a float32, and an integer of 16 bits in registers: nothing is computed in it.

def _from_bfloat(builder, part):
    wide = _like(part, I32)
    upper = builder.shl(builder.zext(part, wide), splat_constant(wide, 16))
    return builder.bitcast(upper, _like(part, _FLOAT.llvm))


def _to_bfloat(builder, part):
    """Rounded to the nearest, ties to even; a NaN stays one, made quiet."""
    wide = _like(part, I32)

    def number(value: int) -> ir.Constant:
        return splat_constant(wide, value)

    bits = builder.bitcast(part, wide)
    odd = builder.and_(builder.lshr(bits, number(16)), number(1))
    rounded = builder.add(bits, builder.add(odd, number(0x7FFF)))
    quiet = builder.or_(bits, number(0x400000))
    kept = builder.select(builder.fcmp_unordered("uno", part, part), quiet, rounded)
    return builder.trunc(builder.lshr(kept, number(16)), _like(part, ir.IntType(16)))


def _like(part, typ: ir.Type) -> ir.Type:
    """`typ`, in as many lanes as `part` has."""
    return ir.VectorType(typ, part.type.count) if isinstance(part.type, ir.VectorType) else typ
