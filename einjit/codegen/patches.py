"""Packing an operand whose neighbouring elements lie several positions apart on the panel or the serial label.

Such a label is fused from several dimensions, and the one in which the operand is contiguous is not its fastest.
Read panel by panel and step by step, each line would be fetched for one element, and again for the next. So
vectors are read along the contiguous dimension, squares of them turned in registers, and each of the turned
vectors is put where its position lies: into another panel, or at a later step (Matthews 2016, section 5.2, walks
the same patches).
"""
from __future__ import annotations

from functools import cache
from math import gcd
from typing import NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from . import elements as el
from .irloops import branch, counted
from .memory import table_entry
from .packing import Packer
from .specs import PackSpec
from .transpose import transposed
from .vectors import I1, I8, I64, greater, lesser

SIDE = 8                    # elements read at once; more would make the code that much longer to compile


@cache
def packing_by_patches(spec: PackSpec, across: str):
    """The intrinsic `pack(panels, base, rows, steps, row_count, step_count, first, apart, extent)`: `packing` of an
    operand that is contiguous in a dimension of the label `across`, "panel" or "serial". On that label the block
    begins at position `first`, and the dimension has `extent` positions that are `apart`.
    """

    @intrinsic
    def pack(typingctx, panels, base, rows, steps, row_count, step_count, first, apart, extent):
        def codegen(context, builder, signature, args):
            *block, first, apart, extent = (a if a.type == I64 else builder.sext(a, I64) for a in args)
            Patches = {"panel": AcrossPanels, "serial": AcrossSteps}[across]
            Patches(builder, spec, _Block(*block), _Unit(first, apart, extent)).block()
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6, first, types.int64, types.int64), codegen

    return pack


class _Block(NamedTuple):
    """The arguments of `packing`."""

    panels: ir.Value
    base: ir.Value
    rows: ir.Value
    steps: ir.Value
    row_count: ir.Value
    step_count: ir.Value


class _Unit(NamedTuple):
    """The contiguous dimension, on the label that it is a part of."""

    first: ir.Value
    apart: ir.Value
    extent: ir.Value


class _Line(NamedTuple):
    """Where one turned vector goes: the address at the walk's first step, and bytes from one step to the next."""

    start: ir.Value
    stride: ir.Value


class _Patches:
    """`group` rows by SIDE elements along the contiguous dimension make a patch, which is walked along some other
    dimension: the steps, or the positions between two neighbours."""

    def __init__(self, builder, spec: PackSpec, block: _Block, unit: _Unit):
        self.builder, self.spec, self.at, self.unit = builder, spec, block, unit
        self.packer = Packer(builder, spec)
        self.group = gcd(spec.width, 8)
        self.panel_bytes = builder.mul(block.step_count, I64(self.packer.step_bytes))
        self.period = builder.mul(unit.apart, unit.extent)
        self.past = builder.urem(unit.first, self.period)       # how far the block begins inside a period
        # Turned vectors whose position lies outside of the block go here.
        with builder.goto_entry_block():
            memory = builder.alloca(ir.ArrayType(I8, self.packer.step_bytes))
        self.nowhere = builder.ptrtoint(memory, I64)

    def block(self) -> None:
        """By patches where the dimension is long enough for a vector, else element by element."""
        b = self.builder
        long = b.icmp_signed(">=", self.unit.extent, I64(SIDE))
        branch(b, b.and_(long, self.is_whole()), self.patches, self.elements)

    def is_whole(self) -> ir.Value:
        """Whether no turned vector lies in two panels."""
        return I1(1)

    def elements(self) -> None:
        def panel(b, row, carried):
            rows = self.row_entry(row)
            self.packer.gather(carried[0], self.at.base, rows, self.at.steps, I64(0), self.at.step_count)
            return [b.add(carried[0], self.panel_bytes)]

        counted(self.builder, I64(0), self.at.row_count, self.spec.width, [self.at.panels], panel)

    def row_entry(self, row) -> ir.Value:
        """Address of a row's entry in the table."""
        return self.builder.add(self.at.rows, self.builder.mul(row, I64(8)))

    def periods(self, count: ir.Value, visit) -> None:
        """visit(position, relative to the block's first, at which a period begins) for those that reach into it."""
        b = self.builder
        reached = b.add(self.past, count)
        number = b.udiv(b.sub(b.add(reached, self.period), I64(1)), self.period)

        def period(b, i, _):
            visit(b.sub(b.mul(i, self.period), self.past))
            return []

        counted(b, I64(0), number, 1, [], period)

    def units(self, position: ir.Value, count: ir.Value, visit) -> None:
        """visit(u, start, inside) for blocks of SIDE along the dimension, from its position 0 at `position`: u is
        the first one that lies in the block, whose positions are 0 to count - 1; `start` that of a whole vector
        in the dimension; and inside(j) whether the vector's element j lies in the block."""
        b, apart = self.builder, self.unit.apart

        def rounded_up(distance: ir.Value) -> ir.Value:
            return b.udiv(b.sub(b.add(greater(b, distance, I64(0)), apart), I64(1)), apart)

        low = rounded_up(b.sub(I64(0), position))
        high = lesser(b, self.unit.extent, rounded_up(b.sub(count, position)))

        def patch(b, u, _):
            start = lesser(b, u, b.sub(self.unit.extent, I64(SIDE)))

            def inside(j: int) -> ir.Value:
                at = b.add(start, I64(j))
                return b.and_(b.icmp_signed(">=", at, low), b.icmp_signed("<", at, high))

            visit(u, start, inside)
            return []

        counted(b, low, high, SIDE, [], patch)

    def line(self, inside: ir.Value, start: ir.Value) -> _Line:
        b = self.builder
        return _Line(b.select(inside, start, self.nowhere), b.select(inside, I64(self.packer.step_bytes), I64(0)))

    def walk(self, rows: list[ir.Value], steps: ir.Value, count: ir.Value, lines: list[_Line]) -> None:
        """Turn the patch at every step: `rows` are the addresses of its vectors, but for the step's offset."""
        def step(b, k, _):
            offset = table_entry(b, steps, k)
            vectors = [el.load(b, self.packer.source, b.add(row, offset), SIDE) for row in rows]
            for line, value in zip(lines, transposed(b, vectors)):
                self.packer.put_at(b, b.add(line.start, b.mul(k, line.stride)), value)
            return []

        counted(self.builder, I64(0), count, 1, [], step)

    def addresses(self, row: ir.Value, moved: ir.Value) -> list[ir.Value]:
        """Of a patch's rows, moved by so many elements."""
        b = self.builder
        start = b.add(self.at.base, b.mul(moved, I64(self.packer.source.itemsize)))
        return [b.add(start, table_entry(b, self.at.rows, b.add(row, I64(i)))) for i in range(self.group)]


class AcrossPanels(_Patches):
    """Neighbours lie in other rows: the turned vectors go to other panels, or further down in this one."""

    def is_whole(self) -> ir.Value:
        b = self.builder
        multiples = b.or_(b.or_(self.unit.apart, self.unit.first), self.at.row_count)
        return b.icmp_signed("==", b.and_(multiples, I64(self.group - 1)), I64(0))

    def patches(self) -> None:
        self.periods(self.at.row_count, self._period)
        self._padding()

    def _period(self, position: ir.Value) -> None:
        b = self.builder

        def group(b, r, _):
            self._group(b.add(position, r))
            return []

        counted(b, I64(0), self.unit.apart, self.group, [], group)

    def _group(self, position: ir.Value) -> None:
        b, apart = self.builder, self.unit.apart

        def patch(u, start, inside) -> None:
            rows = self.addresses(b.add(position, b.mul(u, apart)), b.sub(start, u))
            lines = [self.line(inside(j), self._place(b.add(position, b.mul(b.add(start, I64(j)), apart))))
                     for j in range(SIDE)]
            self.walk(rows, self.at.steps, self.at.step_count, lines)

        self.units(position, self.at.row_count, patch)

    def _place(self, row: ir.Value) -> ir.Value:
        """Address of a row's element at the first step."""
        b, width = self.builder, I64(self.spec.width)
        panel = b.add(self.at.panels, b.mul(b.sdiv(row, width), self.panel_bytes))
        return b.add(panel, b.mul(b.srem(row, width), I64(self.packer.target.part_bytes)))

    def _padding(self) -> None:
        """Rows past the last repeat it, as the table does."""
        b, width = self.builder, I64(self.spec.width)
        padded = b.mul(b.udiv(b.sub(b.add(self.at.row_count, width), I64(1)), width), width)

        def row(b, i, _):
            place, start = self._place(i), b.add(self.at.base, table_entry(b, self.at.rows, i))

            def element(b, k, _):
                value = el.load(b, self.packer.source, b.add(start, table_entry(b, self.at.steps, k)), 1)
                self.packer.put_at(b, b.add(place, b.mul(k, I64(self.packer.step_bytes))), value)
                return []

            counted(b, I64(0), self.at.step_count, 1, [], element)
            return []

        counted(b, self.at.row_count, padded, 1, [], row)


class AcrossSteps(_Patches):
    """Neighbours lie at later steps: the turned vectors go further down in the panel."""

    def patches(self) -> None:
        def panel(b, row, carried):
            def group(b, i, _):
                self._group(b.add(row, i), b.add(carried[0], b.mul(i, I64(self.packer.target.part_bytes))))
                return []

            counted(b, I64(0), I64(self.spec.width), self.group, [], group)
            return [b.add(carried[0], self.panel_bytes)]

        counted(self.builder, I64(0), self.at.row_count, self.spec.width, [self.at.panels], panel)

    def _group(self, row: ir.Value, destination: ir.Value) -> None:
        def period(position: ir.Value) -> None:
            self._intervals(lambda start, count: self._walks(
                row, destination, self.builder.add(position, start), count))

        self.periods(self.at.step_count, period)

    def _intervals(self, visit) -> None:
        """visit(start, count) for the parts of the positions between two neighbours, cut where the block begins and
        ends: in each, the same elements of a vector lie in the block."""
        b, apart = self.builder, self.unit.apart
        first = b.urem(self.unit.first, apart)
        last = b.urem(b.add(self.unit.first, self.at.step_count), apart)
        low, high = lesser(b, first, last), greater(b, first, last)

        def interval(b, i, carried):
            (start,) = carried
            end = b.select(b.icmp_signed("==", i, I64(0)), low, b.select(b.icmp_signed("==", i, I64(1)), high, apart))
            visit(start, b.sub(end, start))
            return [end]

        counted(b, I64(0), I64(3), 1, [I64(0)], interval)

    def _walks(self, row: ir.Value, destination: ir.Value, position: ir.Value, count: ir.Value) -> None:
        b, apart = self.builder, self.unit.apart

        def patch(u, start, inside) -> None:
            rows = self.addresses(row, b.sub(start, u))
            steps = b.add(self.at.steps, b.mul(b.add(position, b.mul(u, apart)), I64(8)))
            lines = []
            for j in range(SIDE):
                step = b.add(position, b.mul(b.add(start, I64(j)), apart))
                lines.append(self.line(inside(j), b.add(destination, b.mul(step, I64(self.packer.step_bytes)))))
            self.walk(rows, steps, count, lines)

        self.units(position, self.at.step_count, patch)
