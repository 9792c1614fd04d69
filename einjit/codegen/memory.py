"""Intrinsics that generated kernels use to read their parameter block and to build offset tables.

An address is an int64 here, a stride or an offset counts bytes. See `einjit.kernel` for the layout of
the parameter block.
"""
from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from . import vectors
from .irloops import counted
from .vectors import I64, LINE, pointer

ADDRESS = types.int64
FILLING = "einjit_fill_offsets"     # name of a function inside of each kernel that has tables


@intrinsic
def word(typingctx, address, index):
    """The index-th int64 at an address."""

    def codegen(context, builder, signature, args):
        return table_entry(builder, args[0], builder.sext(args[1], I64) if args[1].type != I64 else args[1])

    return types.int64(ADDRESS, index), codegen


@intrinsic
def lesser(typingctx, x, y):
    """The smaller of two int64 (Numba compiles `min` as a function of its own)."""

    def codegen(context, builder, signature, args):
        return vectors.lesser(builder, *args)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def greater(typingctx, x, y):
    """The greater of two int64."""

    def codegen(context, builder, signature, args):
        return vectors.greater(builder, *args)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def past_line(typingctx, address, itemsize):
    """Elements between the start of the cache line and an address; 0 where they are not whole ones."""

    def codegen(context, builder, signature, args):
        size = args[1] if args[1].type == I64 else builder.sext(args[1], I64)
        past = builder.and_(args[0], I64(LINE - 1))
        whole = builder.icmp_signed("==", builder.urem(past, size), I64(0))
        return builder.select(whole, builder.udiv(past, size), I64(0))

    return types.int64(ADDRESS, itemsize), codegen


@intrinsic
def fence(typingctx):
    """Order stores past the caches, which follow no order of their own, before whatever comes next."""

    def codegen(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


def table_entry(builder, address, index):
    return builder.load(builder.gep(pointer(builder, address, I64), [index]), align=8)


def _set_word(builder, address, index, value) -> None:
    builder.store(value, builder.gep(pointer(builder, address, I64), [index]), align=8)


@intrinsic
def fill_offsets(typingctx, table, digits, which, start, stop, padded):
    """Byte offsets of the fused positions start ... stop - 1, written to `table` as int64.

    `digits` describes the fused label: its number of members n, their n extents (fastest first), then n
    byte strides for each tensor, of which tensor `which` is meant. Entries up to `padded` in all repeat
    the last one, so that a register tile over the edge reads and writes the last row again, harmlessly.
    """

    def codegen(context, builder, signature, args):
        builder.call(_filling(builder.module), [a if a.type == I64 else builder.sext(a, I64) for a in args])
        return context.get_dummy_value()

    return types.void(ADDRESS, ADDRESS, which, types.int64, types.int64, padded), codegen


def _filling(module: ir.Module) -> ir.Function:
    """The function that fills a table: one for all of a kernel's, for each would take as long to compile."""
    if FILLING in module.globals:
        return module.globals[FILLING]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 6), FILLING)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    _fill(builder, *function.args)
    builder.ret_void()
    return function


def _fill(builder, table, digits, which, start, stop, padded) -> None:
    members = table_entry(builder, digits, I64(0))
    extents = builder.add(digits, I64(8))
    row = builder.mul(members, builder.add(which, I64(1)))
    strides = builder.add(extents, builder.mul(row, I64(8)))
    fastest, stride = table_entry(builder, extents, I64(0)), table_entry(builder, strides, I64(0))
    filled = _fill_runs(builder, table, members, extents, strides, fastest, stride, start, stop)
    last = table_entry(builder, table, builder.sub(filled, I64(1)))

    def repeat(b, i, _):
        _set_word(b, table, i, last)
        return []

    counted(builder, filled, padded, 1, [], repeat)


def _fill_runs(builder, table, members, extents, strides, fastest, stride, start, stop):
    """Fill run by run of the fastest member: one division chain a run, one addition an entry."""
    count = builder.sub(stop, start)
    head, body, done = (builder.append_basic_block(f"runs.{x}") for x in ("head", "body", "done"))
    before = builder.block
    builder.branch(head)
    builder.position_at_end(head)
    filled = builder.phi(I64)
    filled.add_incoming(I64(0), before)
    builder.cbranch(builder.icmp_signed("<", filled, count), body, done)
    builder.position_at_end(body)
    position = builder.add(start, filled)
    digit = builder.urem(position, fastest)

    def slower(b, d, carried):
        rest, offset = carried
        extent = table_entry(b, extents, d)
        offset = b.add(offset, b.mul(b.urem(rest, extent), table_entry(b, strides, d)))
        return b.udiv(rest, extent), offset

    first = [builder.udiv(position, fastest), builder.mul(digit, stride)]
    _, base = counted(builder, I64(1), members, 1, first, slower)
    left, room = builder.sub(fastest, digit), builder.sub(count, filled)
    end = builder.add(filled, vectors.lesser(builder, left, room))

    def entry(b, i, carried):
        _set_word(b, table, i, carried[0])
        return [b.add(carried[0], stride)]

    counted(builder, filled, end, 1, [base], entry)
    filled.add_incoming(end, builder.block)
    builder.branch(head)
    builder.position_at_end(done)
    return filled
