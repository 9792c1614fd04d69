"""Elements in a GPU's registers and memory, as LLVM values: what the intrinsics of GPU kernels have in common.

In Numba's eyes a sum, or a tile of them, is a tuple of numbers, one a component: LLVM keeps such tuples in registers.
"""
from __future__ import annotations

from typing import Sequence

from llvmlite import ir
from numba.cuda import types
from numba.cuda.np import arrayobj

from . import elements as el
from .elements import Element, Lanes

GLOBAL = 1          # NVVM's address space of device memory
ADDRESS = types.uint64


def number(element: Element):
    """Numba's type for one component."""
    if element.kind == "b":
        return types.uint8
    return getattr(types, {"i": "int", "u": "uint", "f": "float", "c": "float"}[element.kind] + str(element.bits))


def values_type(element: Element, count: int):
    """Numba's type for so many elements."""
    return types.UniTuple(number(element), count * element.components)


def packed(builder, values: Sequence[Lanes]) -> ir.Value:
    """Elements as one tuple."""
    parts = [part for value in values for part in value.parts]
    aggregate = ir.Constant(ir.ArrayType(parts[0].type, len(parts)), ir.Undefined)
    for i, part in enumerate(parts):
        aggregate = builder.insert_value(aggregate, part, i)
    return aggregate


def unpacked(builder, element: Element, aggregate: ir.Value) -> list[Lanes]:
    """The elements of a tuple."""
    n = element.components
    parts = [builder.extract_value(aggregate, i) for i in range(aggregate.type.count)]
    return [Lanes(tuple(parts[i:i + n]), 1) for i in range(0, len(parts), n)]


def load(builder, element: Element, address: ir.Value, count: int = 1) -> list[Lanes]:
    """`count` neighbours from a byte address in device memory, which is a multiple of what they take together."""
    word = _word(element, count)
    typ = word or element.vector(count * element.components)
    raw = builder.load(builder.inttoptr(address, typ.as_pointer(GLOBAL)), align=count * element.itemsize)
    values = _taken_apart(builder, element, raw, count) if word else split(builder, element, raw, count)
    return _normalised(builder, element, values)


def store(builder, element: Element, address: ir.Value, values: Sequence[Lanes]) -> None:
    """Write neighbours to a byte address in device memory, which is a multiple of what they take together."""
    raw = joined(builder, element, values)
    builder.store(raw, builder.inttoptr(address, raw.type.as_pointer(GLOBAL)), align=len(values) * element.itemsize)


def _word(element: Element, count: int) -> ir.IntType | None:
    """The integer as which several small elements are read at once: NVIDIA's compiler takes such vectors apart."""
    bits = 8 * count * element.itemsize
    return ir.IntType(bits) if count > 1 and element.bits < 32 and bits <= 64 else None


def _taken_apart(builder, element: Element, word: ir.Value, count: int) -> list[Lanes]:
    """The elements of an integer, by shifts: a cast would be folded into the load."""
    bits = 8 * element.itemsize
    moved = [builder.lshr(word, ir.Constant(word.type, bits * i)) for i in range(count)]
    return [Lanes((builder.bitcast(builder.trunc(x, ir.IntType(bits)), element.llvm),), 1) for x in moved]


def split(builder, element: Element, raw: ir.Value, count: int) -> list[Lanes]:
    """The elements of one machine value."""
    n = element.components
    if count * n == 1:
        return [Lanes((raw,), 1)]
    parts = [builder.extract_element(raw, el.I32(i)) for i in range(count * n)]
    return [Lanes(tuple(parts[i:i + n]), 1) for i in range(0, len(parts), n)]


def joined(builder, element: Element, values: Sequence[Lanes]) -> ir.Value:
    """Elements as one machine value."""
    parts = [part for value in values for part in value.parts]
    if len(parts) == 1:
        return parts[0]
    raw = ir.Constant(ir.VectorType(parts[0].type, len(parts)), ir.Undefined)
    for i, part in enumerate(parts):
        raw = builder.insert_element(raw, part, el.I32(i))
    return raw


def shared_pointer(context, builder, array_type, array, offset: ir.Value, constant: int, typ: ir.Type) -> ir.Value:
    """Into an array of bytes in shared memory; constants come last, for them to become part of the instruction."""
    data = arrayobj.make_array(array_type)(context, builder, array).data
    at = builder.gep(data, [builder.zext(offset, ir.IntType(64))], inbounds=True)
    if constant:
        at = builder.gep(at, [ir.Constant(ir.IntType(64), constant)], inbounds=True)
    return builder.bitcast(at, typ.as_pointer())


def zero(element: Element) -> Lanes:
    return el.constant(element, 0, 1)


def _normalised(builder, element: Element, values: list[Lanes]) -> list[Lanes]:
    """A bool byte other than 0 and 1 (a view of other memory) counts as true."""
    if element.kind != "b":
        return values
    byte = values[0].parts[0].type
    ones = [builder.icmp_unsigned("!=", v.parts[0], ir.Constant(byte, 0)) for v in values]
    return [Lanes((builder.zext(one, byte),), 1) for one in ones]
