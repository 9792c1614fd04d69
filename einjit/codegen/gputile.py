"""Intrinsics of the tiled product: filling the panels in shared memory, the register tile on them, and its output.

`shared` is an array of bytes, an offset into it a uint32.
"""
from __future__ import annotations

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from ..expr import product
from . import arith
from . import elements as el
from . import gpuvalues as gv
from .elements import Element, Lanes
from .gpuspecs import Panel, SharedTile


def loading(panel: Panel):
    """load(addresses, inside) -> a thread's chunks, converted; zeros for those that are not inside, which are not
    read."""
    source, target = Element.of(panel.dtype), Element.of(panel.accumulator)
    together = panel.fragment if panel.vectors else 1

    @intrinsic
    def load(typingctx, addresses, inside):
        def codegen(context, builder, signature, args):
            values = []
            for i in range(signature.args[0].count):
                address, ok = builder.extract_value(args[0], i), bit(builder, args[1], i)
                found = _guarded(builder, ok, lambda at=address: gv.load(builder, source, at, together), source)
                values += [el.convert(builder, source, target, value) for value in found]
            return gv.packed(builder, values)

        count = addresses.count * together
        return gv.values_type(target, count)(addresses, inside), codegen

    return load


def _guarded(builder, ok: ir.Value, load, element: Element) -> list[Lanes]:
    """What `load` gives where `ok` is true, else zeros."""
    before = builder.block
    with builder.if_then(ok):
        values, inside = load(), builder.block
    phis = []
    for value in values:
        parts = []
        for part, zero in zip(value.parts, gv.zero(element).parts):
            phi = builder.phi(part.type)
            phi.add_incoming(part, inside)
            phi.add_incoming(zero, before)
            parts.append(phi)
        phis.append(Lanes(tuple(parts), 1))
    return phis


def keeping(panel: Panel):
    """keep(shared, offset, chunks): a thread's chunks into the panel."""
    element = Element.of(panel.accumulator)

    @intrinsic
    def keep(typingctx, shared, offset, chunks):
        def codegen(context, builder, signature, args):
            values = gv.unpacked(builder, element, args[2])
            for p in range(panel.passes):
                chunk = values[p * panel.fragment:(p + 1) * panel.fragment]
                at = p * panel.serial_step * panel.row_bytes
                if panel.turned:
                    for i, value in enumerate(chunk):
                        _store(context, builder, signature, args, at + i * panel.row_bytes, element, [value])
                else:
                    _store(context, builder, signature, args, at, element, chunk)
            return context.get_dummy_value()

        return types.void(shared, types.uint32, chunks), codegen

    def _store(context, builder, signature, args, at: int, element: Element, values) -> None:
        raw = gv.joined(builder, element, values)
        pointer = gv.shared_pointer(context, builder, signature.args[0], args[0], args[1], at, raw.type)
        builder.store(raw, pointer, align=len(values) * element.itemsize)

    return keep


def starting(spec: SharedTile):
    """nothing() -> the sums of a thread's tile, all 0."""
    element = Element.of(spec.accumulator)

    @intrinsic
    def nothing(typingctx):
        def codegen(context, builder, signature, args):
            return ir.Constant(context.get_value_type(signature.return_type), None)

        return gv.values_type(element, len(spec.a.owned) * len(spec.b.owned))(), codegen

    return nothing


def multiplying(spec: SharedTile):
    """multiply_add(shared, a_read, b_read, total) -> the tile's sums with the products of all steps in the panels."""
    element, body = Element.of(spec.accumulator), product(2)

    @intrinsic
    def multiply_add(typingctx, shared, a_read, b_read, total):
        def codegen(context, builder, signature, args):
            sums = gv.unpacked(builder, element, args[3])
            for step in range(spec.a.depth):
                rows = _fragments(context, builder, signature, args[0], args[1], spec.a, step)
                columns = _fragments(context, builder, signature, args[0], args[2], spec.b, step)
                places = [(x, y) for x in rows for y in columns]
                sums = [arith.accumulate(builder, element, "add", total, body, pair)
                        for total, pair in zip(sums, places)]
            return gv.packed(builder, sums)

        return total(shared, types.uint32, types.uint32, total), codegen

    return multiply_add


def _fragments(context, builder, signature, shared, offset, panel: Panel, step: int) -> list[Lanes]:
    """A thread's elements of one row of a panel."""
    element, values = Element.of(panel.accumulator), []
    raw = element.vector(panel.fragment * element.components)
    for start in range(0, panel.size, panel.part):
        at = step * panel.row_bytes + start * panel.itemsize
        pointer = gv.shared_pointer(context, builder, signature.args[0], shared, offset, at, raw)
        loaded = builder.load(pointer, align=panel.fragment_bytes)
        values += gv.split(builder, element, loaded, panel.fragment)
    return values


def writing(spec: SharedTile):
    """write(out, rows, rows_inside, columns, columns_inside, total): a thread's tile, at byte offsets of rows and
    columns; of the columns, each fragment's first where it is written in one access."""
    element, out = Element.of(spec.accumulator), Element.of(spec.out)
    together = spec.b.fragment if spec.vectors else 1

    @intrinsic
    def write(typingctx, base, rows, rows_inside, columns, columns_inside, total):
        def codegen(context, builder, signature, args):
            values = [el.convert(builder, element, out, v) for v in gv.unpacked(builder, element, args[5])]
            width = signature.args[3].count
            for i in range(signature.args[1].count):
                row = builder.add(args[0], builder.extract_value(args[1], i))
                for j in range(width):
                    ok = builder.and_(bit(builder, args[2], i), bit(builder, args[4], j))
                    first = (i * width + j) * together
                    with builder.if_then(ok):
                        address = builder.add(row, builder.extract_value(args[3], j))
                        gv.store(builder, out, address, values[first:first + together])
            return context.get_dummy_value()

        return types.void(base, rows, rows_inside, columns, columns_inside, total), codegen

    return write


def bit(builder, truths: ir.Value, i: int) -> ir.Value:
    truth = builder.extract_value(truths, i)
    return truth if truth.type == ir.IntType(1) else builder.trunc(truth, ir.IntType(1))


def reading(register: str):
    """anew() -> the x of a special register of PTX (`tid`, `ctaid`), read where it is called: a value known from
    earlier would have to be kept."""

    @intrinsic
    def anew(typingctx):
        def codegen(context, builder, signature, args):
            return builder.asm(ir.FunctionType(el.I32, []), f"mov.u32 $0, %{register}.x;", "=r", [], side_effect=True)

        return types.uint32(), codegen

    return anew
