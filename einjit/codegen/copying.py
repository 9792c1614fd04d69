"""Rows of an operand copied next to each other, as the register tile then finds them in few sets of the caches."""
from __future__ import annotations

from functools import cache

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .irloops import counted
from .vectors import I8, I64, LINE, pointer


@cache
def row_copy(dtype: str):
    """The intrinsic `copy(target, source, count)`: `count` elements that are neighbours in both, of any alignment."""
    itemsize = np.dtype(dtype).itemsize

    @intrinsic
    def copy(typingctx, target, source, count):
        def codegen(context, builder, signature, args):
            target, source, count = args
            size = builder.mul(count, I64(itemsize))
            lines = builder.and_(size, I64(-LINE))
            _move(builder, target, source, I64(0), lines, ir.VectorType(I8, LINE))
            _move(builder, target, source, lines, size, ir.IntType(8 * itemsize))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    return copy


def _move(builder, target, source, start, stop, typ: ir.Type) -> None:
    """Bytes `start` to `stop`, one value of the type after the other."""
    step = typ.count if isinstance(typ, ir.VectorType) else typ.width // 8

    def move(b, at, _):
        value = b.load(pointer(b, b.add(source, at), typ), align=1)
        b.store(value, pointer(b, b.add(target, at), typ), align=1)
        return []

    counted(builder, start, stop, step, [], move)
