"""Packing: blocks of an operand, read straight from its strides, laid out as the register tile reads them.

A packed block is a row of panels; a panel holds `width` positions of the tiled label for each step of the
serial one, `panel[k][i]` (Goto and van de Geijn 2008, section 4). Where the source is contiguous along the
panel whole vectors are copied; where it is contiguous along k, squares are transposed in registers
(Matthews 2016, section 5.2 walks patches for the same reason); elsewhere elements are gathered by offset.
Which of these holds is seen from the offset tables while packing.
"""
from __future__ import annotations

from functools import cache

from numba.core import types
from numba.extending import intrinsic

from . import elements as el
from .elements import I64, Element, Lanes
from .irloops import branch, counted
from .memory import is_run, table_entry
from .specs import PackSpec
from .transpose import transposed


@cache
def packing(spec: PackSpec):
    """The intrinsic `pack(panels, base, rows, steps, row_count, step_count)`.

    `rows` and `steps` are offset tables (bytes from `base`); `rows` is padded to a multiple of the width.
    """

    @intrinsic
    def pack(typingctx, panels, base, rows, steps, row_count, step_count):
        def codegen(context, builder, signature, args):
            _Packer(builder, spec).block(*args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return pack


class _Packer:
    def __init__(self, builder, spec: PackSpec):
        self.builder, self.spec = builder, spec
        self.source, self.target = Element.of(spec.source), Element.of(spec.target)
        self.step_bytes = spec.width * self.target.itemsize

    def block(self, panels, base, rows, steps, row_count, step_count) -> None:
        panel_bytes = self.builder.mul(step_count, I64(self.step_bytes))

        def panel(b, row, carried):
            (destination,) = carried
            table = b.add(rows, b.mul(row, I64(8)))
            self.panel(destination, base, table, steps, step_count)
            return [b.add(destination, panel_bytes)]

        counted(self.builder, I64(0), row_count, self.spec.width, [panels], panel)

    def panel(self, destination, base, rows, steps, count) -> None:
        """What lies together is found out here, so that one kernel serves all layouts."""
        branch(self.builder, is_run(self.builder, rows, self.spec.width, self.source.itemsize),
               lambda: self.copy(destination, base, rows, steps, count),
               lambda: self.transpose(destination, base, rows, steps, count))

    def copy(self, destination, base, rows, steps, count) -> None:
        start = self.builder.add(base, table_entry(self.builder, rows, I64(0)))

        def step(b, k, carried):
            value = el.load(b, self.source, b.add(start, table_entry(b, steps, k)), self.spec.width)
            self.put(b, destination, k, value)
            return []

        counted(self.builder, I64(0), count, 1, [], step)

    def gather(self, destination, base, rows, steps, first, end) -> None:
        """Element by element: right for any offsets."""
        def step(b, k, carried):
            start = b.add(base, table_entry(b, steps, k))
            out = b.add(destination, b.mul(k, I64(self.step_bytes)))

            def element(b, i, carried):
                value = el.load(b, self.source, b.add(start, table_entry(b, rows, i)), 1)
                value = el.convert(b, self.source, self.target, value)
                el.store(b, self.target, b.add(out, b.mul(i, I64(self.target.itemsize))), value)
                return []

            counted(b, I64(0), I64(self.spec.width), 1, [], element)
            return []

        counted(self.builder, first, end, 1, [], step)

    @property
    def square(self) -> int:
        """Side of the squares transposed in registers: as many elements as fit 32 bytes, at most 8."""
        side = max(1, min(8, 32 // self.target.itemsize))
        while self.spec.width % side:
            side //= 2
        return side

    def transpose(self, destination, base, rows, steps, count) -> None:
        """By squares where steps lie together, else element by element."""
        side = self.square

        def square_steps(b, k, carried):
            end = b.add(k, I64(side))
            inside = b.icmp_signed("<=", end, count)
            # Past the end of the table there is nothing to compare: look at its first entries instead.
            at = b.select(inside, k, I64(0))
            run = is_run(b, b.add(steps, b.mul(at, I64(8))), side, self.source.itemsize)
            last = b.select(inside, end, count)
            branch(b, b.and_(inside, run), lambda: self.squares(destination, base, rows, steps, k),
                   lambda: self.gather(destination, base, rows, steps, k, last))
            return []

        counted(self.builder, I64(0), count, side, [], square_steps)

    def squares(self, destination, base, rows, steps, k) -> None:
        """Transpose side x side squares down the panel, for `side` steps from k on."""
        b, side = self.builder, self.square
        start = b.add(base, table_entry(b, steps, k))
        for group in range(0, self.spec.width, side):
            lines = []
            for i in range(group, group + side):
                address = b.add(start, table_entry(b, rows, I64(i)))
                lines.append(el.convert(b, self.source, self.target, el.load(b, self.source, address, side)))
            for q, line in enumerate(transposed(b, lines)):
                out = b.add(destination, b.mul(b.add(k, I64(q)), I64(self.step_bytes)))
                el.store(b, self.target, b.add(out, I64(group * self.target.itemsize)), line)

    def put(self, b, destination, k, value: Lanes) -> None:
        out = b.add(destination, b.mul(k, I64(self.step_bytes)))
        el.store(b, self.target, out, el.convert(b, self.source, self.target, value))
