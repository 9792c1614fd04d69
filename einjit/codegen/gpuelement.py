"""Intrinsics of kernels in which each thread computes one element of the output."""
from __future__ import annotations

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from . import arith
from . import elements as el
from . import gpuvalues as gv
from .gpuspecs import Element


def starting(spec: Element):
    """nothing() -> the sum of nothing."""
    accumulator = el.Element.of(spec.accumulator)

    @intrinsic
    def nothing(typingctx):
        def codegen(context, builder, signature, args):
            return gv.packed(builder, [arith.identity(accumulator, spec.reduce, 1)])

        return gv.values_type(accumulator, 1)(), codegen

    return nothing


def valuing(spec: Element, shared: tuple[bool, ...] = ()):
    """value(addresses) -> what the body makes of the inputs there; or value(places, squares), where the inputs that
    `shared` names lie in slots of shared memory."""
    accumulator = el.Element.of(spec.accumulator)

    def evaluated(builder, inputs):
        return gv.packed(builder, [arith.evaluate(builder, accumulator, spec.body, inputs)])

    @intrinsic
    def value(typingctx, addresses):
        def codegen(context, builder, signature, args):
            return evaluated(builder, _inputs(builder, spec, args[0]))

        return gv.values_type(accumulator, 1)(addresses), codegen

    @intrinsic
    def value_shared(typingctx, places, squares):
        def codegen(context, builder, signature, args):
            def in_square(i: int, element: el.Element, slot: ir.Value) -> el.Lanes:
                taken = sum(shared[:i])
                square = builder.extract_value(args[1], taken)
                return _in_slot(context, builder, element, signature.args[1][taken], square, slot)

            return evaluated(builder, _inputs(builder, spec, args[0], shared, in_square))

        return gv.values_type(accumulator, 1)(places, squares), codegen

    return value_shared if shared else value


def fetching(dtype: str):
    """fetch(shared, slot, address): an element of device memory into a slot of shared memory."""
    element = el.Element.of(dtype)

    @intrinsic
    def fetch(typingctx, shared, slot, address):
        def codegen(context, builder, signature, args):
            return _keep(context, builder, signature, args, element, gv.load(builder, element, args[2]))

        return types.void(shared, types.uint32, gv.ADDRESS), codegen

    return fetch


def _keep(context, builder, signature, args, element: el.Element, values: list[el.Lanes]):
    """An element into the slot of shared memory that the first two arguments of an intrinsic name."""
    pointer = _slot(context, builder, element, signature.args[0], args[0], args[1])
    builder.store(gv.joined(builder, element, values), pointer, align=element.itemsize)
    return context.get_dummy_value()


def _in_slot(context, builder, element: el.Element, array_type, array, slot: ir.Value) -> el.Lanes:
    """The element in a slot of shared memory."""
    pointer = _slot(context, builder, element, array_type, array, slot)
    (value,) = gv.split(builder, element, builder.load(pointer, align=element.itemsize), 1)
    return value


def _slot(context, builder, element: el.Element, array_type, array, slot: ir.Value) -> ir.Value:
    slot = builder.trunc(slot, el.I32) if slot.type != el.I32 else slot
    offset = builder.mul(slot, el.I32(element.itemsize))
    return gv.shared_pointer(context, builder, array_type, array, offset, 0, element.vector(element.components))


def updating(spec: Element):
    """update(total, addresses) -> the sum with what the body makes of the inputs there."""
    accumulator = el.Element.of(spec.accumulator)

    @intrinsic
    def update(typingctx, total, addresses):
        def codegen(context, builder, signature, args):
            (so_far,) = gv.unpacked(builder, accumulator, args[0])
            inputs = _inputs(builder, spec, args[1])
            return gv.packed(builder, [
                arith.accumulate(builder, accumulator, spec.reduce, so_far, spec.body, inputs)])

        return total(total, addresses), codegen

    return update


def writing(spec: Element):
    """write(address, total): one element of the output."""
    accumulator, out = el.Element.of(spec.accumulator), el.Element.of(spec.out)

    @intrinsic
    def write(typingctx, address, total):
        def codegen(context, builder, signature, args):
            (value,) = gv.unpacked(builder, accumulator, args[1])
            gv.store(builder, out, args[0], [el.convert(builder, accumulator, out, value)])
            return context.get_dummy_value()

        return types.void(gv.ADDRESS, total), codegen

    return write


def _inputs(builder, spec: Element, places: ir.Value, shared: tuple[bool, ...] = (), in_square=None) -> list[el.Lanes]:
    """The inputs' elements, converted: from device memory, or those that are `shared` by `in_square`."""
    accumulator, found = el.Element.of(spec.accumulator), []
    for i, dtype in enumerate(spec.inputs):
        source, place = el.Element.of(dtype), builder.extract_value(places, i)
        value = in_square(i, source, place) if shared and shared[i] else gv.load(builder, source, place)[0]
        found.append(el.convert(builder, source, accumulator, value))
    return found


# -- totals of several threads -----------------------------------------------------------------------------

def keeping(spec: Element):
    """keep(shared, slot, total): a thread's total into its slot of shared memory."""
    accumulator = el.Element.of(spec.accumulator)

    @intrinsic
    def keep(typingctx, shared, slot, total):
        def codegen(context, builder, signature, args):
            return _keep(context, builder, signature, args, accumulator, gv.unpacked(builder, accumulator, args[2]))

        return types.void(shared, types.uint32, total), codegen

    return keep


def folding(spec: Element):
    """fold(total, shared, slot) -> the total with the one in a slot of shared memory."""
    accumulator = el.Element.of(spec.accumulator)

    @intrinsic
    def fold(typingctx, total, shared, slot):
        def codegen(context, builder, signature, args):
            other = _in_slot(context, builder, accumulator, signature.args[1], args[1], args[2])
            return _with_other(builder, spec, args[0], other)

        return total(total, shared, types.uint32), codegen

    return fold


def shuffling(spec: Element):
    """shuffle(total, distance) -> the total with that of the lane so far up in the warp. All lanes take part."""
    accumulator = el.Element.of(spec.accumulator)

    @intrinsic
    def shuffle(typingctx, total, distance):
        def codegen(context, builder, signature, args):
            (own,) = gv.unpacked(builder, accumulator, args[0])
            parts = tuple(_from_lane(builder, part, args[1]) for part in own.parts)
            return _with_other(builder, spec, args[0], el.Lanes(parts, 1))

        return total(total, types.uint32), codegen

    return shuffle


def _with_other(builder, spec: Element, total: ir.Value, other: el.Lanes) -> ir.Value:
    """A thread's total with another thread's."""
    accumulator = el.Element.of(spec.accumulator)
    (own,) = gv.unpacked(builder, accumulator, total)
    return gv.packed(builder, [arith.combine(builder, accumulator, spec.reduce, own, other)])


def _from_lane(builder, part: ir.Value, distance: ir.Value) -> ir.Value:
    """The value that another lane has in `part`, moved in words of 32 bits."""
    bits = {ir.FloatType: 32, ir.DoubleType: 64, ir.HalfType: 16}.get(type(part.type)) or part.type.width
    number = builder.bitcast(part, ir.IntType(bits))
    if bits < 32:
        return builder.trunc(_moved(builder, builder.zext(number, el.I32), distance), part.type)
    words = [builder.trunc(builder.lshr(number, ir.Constant(number.type, at)), el.I32) if bits > 32 else number
             for at in range(0, bits, 32)]
    moved = [_moved(builder, word, distance) for word in words]
    whole = moved[0]
    if bits > 32:
        low, high = (builder.zext(word, number.type) for word in moved)
        whole = builder.or_(low, builder.shl(high, ir.Constant(number.type, 32)))
    return builder.bitcast(whole, part.type)


def _moved(builder, word: ir.Value, distance: ir.Value) -> ir.Value:
    move = ir.FunctionType(el.I32, [el.I32, el.I32])
    text = "shfl.sync.down.b32 $0, $1, $2, 0x1f, 0xffffffff;"
    return builder.asm(move, text, "=r,r,r", [word, distance], side_effect=True)
