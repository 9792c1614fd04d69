"""LLVM values of any type: vectors and their masks, loads and stores through them, and LLVM's own intrinsics.

An address is an i64; a vector of one lane is a scalar.
"""
from __future__ import annotations

from llvmlite import ir

from ..board import LINE  # noqa: F401 - for whoever emits code

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)



# -- vectors ---------------------------------------------------------------------------------------------

def splat(builder, scalar: ir.Value, lanes: int) -> ir.Value:
    if lanes == 1:
        return scalar
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def splat_constant(typ: ir.Type, number) -> ir.Constant:
    if isinstance(typ, ir.VectorType):
        return ir.Constant(typ, [number] * typ.count)
    return ir.Constant(typ, number)


def iota(typ: ir.IntType, lanes: int, scale: int = 1) -> ir.Constant:
    if lanes == 1:
        return ir.Constant(typ, 0)
    return ir.Constant(ir.VectorType(typ, lanes), [i * scale for i in range(lanes)])


def shuffle(builder, x: ir.Value, y: ir.Value, indices: list[int]) -> ir.Value:
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(indices)), indices))


def lane_mask(builder, first: int, lanes: int, valid: ir.Value) -> ir.Value:
    """Lanes first, first + 1, ... that lie below `valid` (an i64)."""
    if lanes == 1:
        return builder.icmp_signed("<", I64(first), valid)
    positions = ir.Constant(ir.VectorType(I64, lanes), [first + i for i in range(lanes)])
    return builder.icmp_signed("<", positions, splat(builder, valid, lanes))


def lesser(builder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The smaller of two signed integers."""
    return builder.select(builder.icmp_signed("<", x, y), x, y)


def greater(builder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The greater of two signed integers."""
    return builder.select(builder.icmp_signed(">", x, y), x, y)


# -- memory ----------------------------------------------------------------------------------------------

def pointer(builder: ir.IRBuilder, address: ir.Value, typ: ir.Type) -> ir.Value:
    return builder.inttoptr(address, typ.as_pointer())


def masked_load(builder, address, rest, mask):
    typ = rest.type
    if not isinstance(typ, ir.VectorType):
        with builder.if_else(mask) as (then, otherwise):
            with then:
                loaded, there = builder.load(pointer(builder, address, typ), align=1), builder.block
            with otherwise:
                empty = builder.block
        phi = builder.phi(typ)
        phi.add_incoming(loaded, there)
        phi.add_incoming(rest, empty)
        return phi
    fn = intrinsic_function(builder, f"llvm.masked.load.{suffix(typ)}.p0", typ,
                            [typ.as_pointer(), I32, mask.type, typ])
    return builder.call(fn, [pointer(builder, address, typ), I32(1), mask, rest])


def masked_store(builder, raw, address, mask) -> None:
    if not isinstance(raw.type, ir.VectorType):
        with builder.if_then(mask):
            builder.store(raw, pointer(builder, address, raw.type), align=1)
        return
    fn = intrinsic_function(builder, f"llvm.masked.store.{suffix(raw.type)}.p0", ir.VoidType(),
                            [raw.type, raw.type.as_pointer(), I32, mask.type])
    builder.call(fn, [raw, pointer(builder, address, raw.type), I32(1), mask])


# -- intrinsics ------------------------------------------------------------------------------------------

def suffix(typ: ir.Type) -> str:
    """The type's name inside an LLVM intrinsic's name: v8f32, i64 ..."""
    if isinstance(typ, ir.VectorType):
        return f"v{typ.count}{suffix(typ.element)}"
    if isinstance(typ, ir.IntType):
        return f"i{typ.width}"
    return {ir.HalfType: "f16", ir.FloatType: "f32", ir.DoubleType: "f64"}[type(typ)]


def intrinsic_function(builder, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
    """The declaration of an LLVM intrinsic (llvmlite's own helper refuses vectors)."""
    module = builder.module
    if name in module.globals:
        return module.globals[name]
    return ir.Function(module, ir.FunctionType(result, arguments), name)


def call(builder, name: str, arguments, flags=()) -> ir.Value:
    """An intrinsic whose arguments and result are of one type."""
    typ = arguments[0].type
    fn = intrinsic_function(builder, f"{name}.{suffix(typ)}", typ, [typ] * len(arguments))
    return builder.call(fn, arguments, fastmath=flags)
