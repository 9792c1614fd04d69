"""Packing: blocks of an operand, read straight from its strides, laid out as the register tile reads them.

A packed block is a row of panels; a panel holds `width` positions of the tiled label for each step of the
serial one, `panel[k][i]` (Goto and van de Geijn 2008, section 4). Of complex elements a panel row holds the
real parts, then the imaginary ones, so that the tile loads them as they are multiplied.

Where the source is contiguous along the panel whole vectors are copied; where it is contiguous along k,
squares are transposed in registers (Matthews 2016, section 5.2 walks patches for the same reason); elsewhere
elements are gathered by offset. Which of these holds is seen from the offset tables while packing.
"""
from __future__ import annotations

from functools import cache

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from . import elements as el
from .elements import I64, Element, Lanes
from .irloops import branch, counted
from .memory import is_run, table_entry
from .specs import PackSpec


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
        self.apart = spec.width * self.target.part_bytes

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
            self.put(b, b.add(destination, b.mul(k, I64(self.step_bytes))), value)
            return []

        counted(self.builder, I64(0), count, 1, [], step)

    def gather(self, destination, base, rows, steps, first, end) -> None:
        """Element by element: right for any offsets."""
        def step(b, k, carried):
            start = b.add(base, table_entry(b, steps, k))
            out = b.add(destination, b.mul(k, I64(self.step_bytes)))

            def element(b, i, carried):
                value = el.load(b, self.source, b.add(start, table_entry(b, rows, i)), 1)
                self.put(b, b.add(out, b.mul(i, I64(self.target.part_bytes))), value)
                return []

            counted(b, I64(0), I64(self.spec.width), 1, [], element)
            return []

        counted(self.builder, first, end, 1, [], step)

    @property
    def square(self) -> int:
        """Side of the squares transposed in registers: as many components as fit 32 bytes, at most 8.

        The panel's last square may overlap the one before, where smaller squares would be much slower.
        """
        width, side = self.spec.width, max(1, min(8, 32 // self.target.part_bytes))
        while side > width or (width % side and side > 4):
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
        for group in (*range(0, self.spec.width - side, side), self.spec.width - side):
            lines = []
            for i in range(group, group + side):
                address = b.add(start, table_entry(b, rows, I64(i)))
                lines.append(el.convert(b, self.source, self.target, el.load(b, self.source, address, side)))
            for q, line in enumerate(transposed(b, lines)):
                out = b.add(destination, b.mul(b.add(k, I64(q)), I64(self.step_bytes)))
                el.store_apart(b, self.target, b.add(out, I64(group * self.target.part_bytes)), line, self.apart)

    def put(self, b, out, value: Lanes) -> None:
        el.store_apart(b, self.target, out, el.convert(b, self.source, self.target, value), self.apart)


def transposed(builder, lines: list[Lanes]) -> list[Lanes]:
    """An n x n square of n lines of n lanes, transposed in log2(n) rounds of two-input shuffles."""
    n = len(lines)
    parts = []
    for c in range(len(lines[0].parts)):
        rows = [line.parts[c] for line in lines]
        stride = n // 2
        while stride:
            rows = _exchange(builder, rows, stride)
            stride //= 2
        parts.append(rows)
    return [Lanes(tuple(rows[i] for rows in parts), n) for i in range(n)]


def _exchange(builder, rows: list[ir.Value], stride: int) -> list[ir.Value]:
    """Swap the off-diagonal stride x stride blocks of every 2 stride x 2 stride square."""
    n = len(rows)
    low = [j if not j & stride else n + (j - stride) for j in range(n)]
    high = [j + stride if not j & stride else n + j for j in range(n)]
    out = list(rows)
    for i in range(n):
        if not i & stride:
            out[i] = el.shuffle(builder, rows[i], rows[i + stride], low)
            out[i + stride] = el.shuffle(builder, rows[i], rows[i + stride], high)
    return out
