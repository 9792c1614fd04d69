"""Packing: blocks of an operand, read straight from its strides, laid out as the register tile reads them.

A packed block is a row of panels; a panel holds `width` positions of the tiled label for each step of the
serial one, `panel[k][i]` (Goto and van de Geijn 2008, section 4). Of complex elements a panel row holds the
real parts, then the imaginary ones, so that the tile loads them as they are multiplied.

Where the source is contiguous along the panel, but for ends of its innermost dimension, whole vectors are
copied; where it is contiguous along k, squares are transposed in registers (Matthews 2016, section 5.2 walks
patches for the same reason); elsewhere elements are gathered by offset. Which of these holds is seen from the
offset tables while packing. `patches.py` has the operands whose neighbours lie several rows or steps apart.
"""
from __future__ import annotations

from functools import cache
from math import gcd

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from . import elements as el
from .elements import Element, Lanes
from .irloops import branch, counted, walked
from .memory import table_entry
from .runs import is_run, load_runs, two_runs
from .specs import PackSpec
from .transpose import transposed
from .vectors import I64, LINE, greater, lesser


@cache
def packing(spec: PackSpec):
    """The intrinsic `pack(panels, base, rows, steps, row_count, step_count)`.

    `rows` and `steps` are offset tables (bytes from `base`); `rows` is padded to a multiple of the width.
    """

    @intrinsic
    def pack(typingctx, panels, base, rows, steps, row_count, step_count):
        def codegen(context, builder, signature, args):
            Packer(builder, spec).block(*args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return pack


AHEAD = 8                   # steps: how far the rows of a panel are asked for in advance


class Packer:
    def __init__(self, builder, spec: PackSpec):
        self.builder, self.spec = builder, spec
        self.source, self.target = Element.of(spec.source), Element.of(spec.target)
        self.step_bytes = spec.width * self.target.itemsize
        self.apart = spec.width * self.target.part_bytes

    def block(self, panels, base, rows, steps, row_count, step_count) -> None:
        """What lies together is found out here, so that one kernel serves all layouts."""
        panel_bytes = self.builder.mul(step_count, I64(self.step_bytes))

        def panel(b, row, carried):
            (destination,) = carried
            entries = b.add(rows, b.mul(row, I64(8)))
            abreast = self.abreast(entries, b.sub(row_count, row))
            first = b.add(base, table_entry(b, entries, I64(0)))
            together = b.icmp_signed(">", abreast, I64(0))
            branch(b, together, lambda: self.copy(destination, panel_bytes, first, steps, step_count, abreast),
                   lambda: self.panel(destination, base, entries, steps, step_count))
            done = greater(b, abreast, I64(1))
            return [b.add(row, b.mul(done, I64(self.spec.width))), b.add(destination, b.mul(done, panel_bytes))]

        walked(self.builder, I64(0), row_count, [panels], panel)

    def abreast(self, entries, left) -> ir.Value:
        """How many panels from an entry of the table on are one run together, of those that are copied at a time."""
        b, width = self.builder, self.spec.width
        panels = b.udiv(b.add(left, I64(width - 1)), I64(width))
        most = lesser(b, panels, I64(self.spec.abreast))
        first = table_entry(b, entries, I64(0))

        def panel(b, i, _):
            at = b.add(entries, b.mul(i, I64(8 * width)))
            moved = b.sub(table_entry(b, at, I64(0)), first)
            follows = b.icmp_signed("==", moved, b.mul(i, I64(width * self.source.itemsize)))
            joined = b.and_(follows, is_run(b, at, width, self.source.itemsize))
            reached = b.add(i, b.zext(joined, I64))
            return [b.select(joined, reached, most), reached]

        return walked(b, I64(0), most, [I64(0)], panel)[0]

    def panel(self, destination, base, rows, steps, count) -> None:
        """One that is not a run."""
        if not self.pieces:
            self.transpose(destination, base, rows, steps, count)
            return
        runs = [two_runs(self.builder, self.builder.add(rows, I64(8 * at)), lanes, self.source.itemsize)
                for at, lanes in self.pieces]
        sound = runs[0].sound
        for piece in runs[1:]:
            sound = self.builder.and_(sound, piece.sound)
        branch(self.builder, sound, lambda: self.copy_runs(destination, base, runs, steps, count),
               lambda: self.transpose(destination, base, rows, steps, count))

    def copy(self, destination, panel_bytes, start, steps, count, abreast) -> None:
        """At every step the panels are one run together."""
        final = self.builder.sub(count, I64(1))
        width_bytes = self.spec.width * self.source.itemsize

        def step(b, k, carried):
            following = b.add(start, table_entry(b, steps, lesser(b, b.add(k, I64(AHEAD)), final)))
            address = b.add(start, table_entry(b, steps, k))

            def panel(b, i, carried):
                (there,) = carried
                moved = b.mul(i, I64(width_bytes))
                self._ask_for(b, b.add(following, moved))
                value = el.load(b, self.source, b.add(address, moved), self.spec.width)
                self.put(b, there, k, I64(0), value)
                return [b.add(there, panel_bytes)]

            counted(b, I64(0), abreast, 1, [destination], panel)
            return []

        counted(self.builder, I64(0), count, 1, [], step)

    def _ask_for(self, b, address) -> None:
        """Steps often lie on pages of their own, where no hardware looks ahead."""
        for line in range(0, self.spec.width * self.source.itemsize, LINE):
            el.prefetch(b, b.add(address, I64(line)), level=1)

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """The panel's width as vectors (first, lanes) that masked loads take; none for small elements, whose
        masks most machines lack, and for panels of less than 4."""
        pieces, at = [], 0
        while at < self.spec.width and self.source.bits >= 32:
            lanes = max(1, LINE // self.source.itemsize)
            while lanes > self.spec.width - at:
                lanes //= 2
            pieces.append((at, lanes))
            at += lanes
        return [] if any(lanes == 1 for _, lanes in pieces) else pieces

    def copy_runs(self, destination, base, runs, steps, count) -> None:
        """Every vector of the panel is one run or two."""
        def step(b, k, carried):
            start = b.add(base, table_entry(b, steps, k))
            for (at, lanes), piece in zip(self.pieces, runs):
                self.put(b, destination, k, I64(at), load_runs(b, self.source, start, piece, lanes))
            return []

        counted(self.builder, I64(0), count, 1, [], step)

    def gather(self, destination, base, rows, steps, first, end) -> None:
        """Element by element: right for any offsets. As many as a store takes are put together in registers: a loop of
        one load and one store took twice as long, or four times, by where in a line its code happened to lie."""
        group = gcd(self.spec.width, 8)

        def step(b, k, carried):
            start = b.add(base, table_entry(b, steps, k))

            def some(b, i, carried):
                addresses = [b.add(start, table_entry(b, rows, b.add(i, I64(j)))) for j in range(group)]
                self.put(b, destination, k, i, el.gather(b, self.source, addresses))
                return []

            counted(b, I64(0), I64(self.spec.width), group, [], some)
            return []

        counted(self.builder, first, end, 1, [], step)

    @property
    def group(self) -> int:
        """Rows transposed together: at most 8. The panel's last ones may overlap those before, where smaller
        groups would be much slower."""
        width, group = self.spec.width, 8
        while group > width or (width % group and group > 4):
            group //= 2
        return group

    @property
    def side(self) -> int:
        """Steps read at once from each row: 8, which is half a cache line of float32 (a whole one would make the
        code that much longer to compile), and whole squares."""
        return max(self.group, min(8, LINE // self.source.itemsize))

    def transpose(self, destination, base, rows, steps, count) -> None:
        """By squares where steps lie together, else element by element."""
        side = self.side

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
        """Transpose squares down the panel, for `side` steps from k on. In a loop: written out they would take a
        quarter of the kernel's compile time."""
        start = self.builder.add(base, table_entry(self.builder, steps, k))

        def square(b, first, _):
            at = lesser(b, first, I64(self.spec.width - self.group))
            self.square(start, b.add(rows, b.mul(at, I64(8))), self.place(b, destination, k, at))
            return []

        counted(self.builder, I64(0), I64(self.spec.width), self.group, [], square)

    def square(self, start, rows, there) -> None:
        """Transpose one, from the entry of its first row in the table on."""
        b, lines = self.builder, []
        for i in range(self.group):
            lines.append(el.load(b, self.source, b.add(start, table_entry(b, rows, I64(i))), self.side))
        for q, line in enumerate(transposed(b, lines)):
            self.put_at(b, b.add(there, I64(q * self.step_bytes)), line)

    def put(self, b, destination, k, at, value: Lanes) -> None:
        """Store elements of one step, from row `at` of the panel on."""
        self.put_at(b, self.place(b, destination, k, at), value)

    def place(self, b, destination, k, at) -> ir.Value:
        """Address in the panel of row `at` of a step."""
        moved = b.add(b.mul(k, I64(self.step_bytes)), b.mul(at, I64(self.target.part_bytes)))
        return b.add(destination, moved)

    def put_at(self, b, address, value: Lanes) -> None:
        el.store_apart(b, self.target, address, el.convert(b, self.source, self.target, value), self.apart)
