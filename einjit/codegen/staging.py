"""Blocks of the output by way of a buffer: collected there in any order, written in whole lines, past the caches.

Stores past the caches cost no read of the line before, and are as fast in any order; but a line must be written
whole. Where rows of the output end inside of lines, a block of rows that lie together is written at once.
"""
from __future__ import annotations

from functools import cache

from numba.core import types
from numba.extending import intrinsic

from . import elements as el
from .elements import Element
from .irloops import counted
from .memory import ADDRESS
from .vectors import I64, LINE, lesser

_LINE = Element("i", 32), LINE // 4     # what a line is moved as


@intrinsic
def stage_shift(typingctx, together, block, itemsize, stage):
    """Bytes from the elements of a block of the output to their places in the buffer `stage`; 0 where they do not
    lie together, or across the ends of lines, so that they must be written straight away."""

    def codegen(context, builder, signature, args):
        together, block, itemsize, stage = args
        size = itemsize if itemsize.type == I64 else builder.sext(itemsize, I64)
        whole = builder.icmp_signed("==", builder.urem(block, size), I64(0))
        shift = builder.sub(builder.add(stage, builder.and_(block, I64(LINE - 1))), block)
        return builder.select(builder.and_(together, whole), shift, I64(0))

    return types.int64(types.boolean, ADDRESS, itemsize, ADDRESS), codegen


@cache
def staged_writer(dtype: str):
    """The intrinsic `write_staged(block, shift, size)`: write a block of `size` bytes from its buffer, if it has been
    collected there."""

    @intrinsic
    def write_staged(typingctx, block, shift, size):
        def codegen(context, builder, signature, args):
            block, shift, size = args
            with builder.if_then(builder.icmp_signed("!=", shift, I64(0))):
                _write(builder, Element.of(dtype), block, builder.add(block, shift), size)
            return context.get_dummy_value()

        return types.void(ADDRESS, types.int64, types.int64), codegen

    return write_staged


def _write(builder, element: Element, block, stage, size) -> None:
    ahead = builder.and_(builder.neg(block), I64(LINE - 1))
    first = lesser(builder, ahead, size)
    lines = builder.and_(builder.sub(size, first), I64(-LINE))
    last = builder.add(first, lines)
    piece, lanes = _LINE

    def copy(b, at, _):
        el.store(b, element, b.add(block, at), el.load(b, element, b.add(stage, at), 1))
        return []

    def line(b, at, _):
        el.stream(b, piece, b.add(block, at), el.load(b, piece, b.add(stage, at), lanes))
        return []

    counted(builder, I64(0), first, element.itemsize, [], copy)
    counted(builder, first, last, LINE, [], line)
    counted(builder, last, size, element.itemsize, [], copy)
