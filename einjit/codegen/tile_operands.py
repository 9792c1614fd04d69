"""How a tile loads the values of an input: broadcast, as vectors, lane by lane, or in squares turned in registers."""
from __future__ import annotations

from llvmlite import ir

from . import elements as el
from .elements import Element, Lanes
from .memory import table_entry
from .specs import ABSENT, AFFINE, PACKED, TABLE, UNIT, Part, TileTensor
from .tile_places import Places, Position
from .tile_totals import Slot, Values
from .transpose import loaded_transposed, transposed
from .vectors import I64, LINE, lane_mask, lesser


class Operand:
    """One input. Its slots are its own: positions along unrolled labels that it lacks are 0, and so are vectors
    where it lacks the vector label."""

    def __init__(self, places: Places, t: TileTensor, accumulator: Element):
        self.builder, self.spec, self.places = places.builder, places.spec, places
        self.t, self.source, self.target = t, Element.of(t.dtype), accumulator
        self.name, self.serial = t.name, t.serial
        self.offsets = places.unrolled_offsets(t)

    def slot(self, position: Position, j: int) -> Slot:
        """Where the value is that a position of the tile needs."""
        return tuple(i if mode else 0 for i, mode in zip(position, self.t.unrolled)), j if self.t.vector else 0

    def values(self, offset: ir.Value, left: ir.Value | None, part: Part) -> Values:
        """The values that a part of the tile needs at one step, `offset` bytes from the tile's first, in the
        accumulator's dtype."""
        if self.t.transposed:
            return self._values_of_squares(offset, left, part)
        values = {}
        for position in self.offsets:
            if position and position[0] >= part.rows:
                continue
            start = self._start(offset, position)
            for j in range(part.vectors if self.t.vector else 1):
                value = self._converted(self._load(start, j, left))
                values[position, j] = el.broadcast(self.builder, value, self.spec.lanes)
        return values

    def _start(self, offset: ir.Value, position: Position) -> ir.Value:
        b = self.builder
        return b.add(b.add(self.places.args[self.name], offset), self.offsets[position])

    def _converted(self, value: Lanes) -> Lanes:
        return el.convert(self.builder, self.source, self.target, value)

    def _load(self, start: ir.Value, j: int, left: ir.Value | None) -> Lanes:
        b, t, lanes = self.builder, self.t, self.spec.lanes
        if t.packed:
            address = b.add(start, I64(j * lanes * self.source.part_bytes))
            apart = self._panel_width * self.source.part_bytes
            return el.load_apart(b, self.source, address, lanes if t.vector else 1, apart)
        if not t.vector:
            return el.load(b, self.source, start, 1)
        if t.vector == UNIT:
            address = b.add(start, I64(j * lanes * self.source.itemsize))
            per_line = max(1, LINE // (lanes * self.source.itemsize))
            if j % per_line == per_line - 1 or j == self.spec.vectors - 1:
                self._ask_ahead(address)
            return el.load(b, self.source, address, lanes, None if left is None else self.places.mask(j, left))
        return el.gather(b, self.source, [b.add(start, o) for o in self.places.lane_offsets(t, j, left)])

    @property
    def _panel_width(self) -> int:
        t = self.t
        return self.spec.width if t.vector == PACKED else self.spec.widths[t.unrolled.index(PACKED)]

    # -- what a later block reads --------------------------------------------------------------------

    def _ask_ahead(self, address: ir.Value) -> None:
        """Ask for the vector of a later block that corresponds to one, the last on its line. More lines than L1 waits
        for at a time are on their way to L2. One prefetch will do: where the vector lies on two lines, the first was
        asked for with the vector before it, or belongs to this block."""
        if self.spec.ahead:
            last = I64(self.spec.lanes * self.source.itemsize - 1)
            el.prefetch(self.builder, self.builder.add(self._ahead_of(address), last), level=2)

    def ask_ahead_of_rows(self, k: ir.Value) -> None:
        """At step k, ask for the elements of a later block that correspond to those which are broadcast. Where the
        rows are neighbours in memory, at every step for the lines that they are on; else each row's turn comes once
        in as many steps as a line has elements. Into L2: rows that are there already would push others out of L1."""
        if not self.spec.ahead or self.t.packed or self.t.vector or TABLE not in self.t.unrolled:
            return
        b, axis = self.builder, self.t.unrolled.index(TABLE)
        entries = self.places.args[f"{self.name}.u{axis}"]
        rows, per_line = self.spec.widths[axis], max(1, LINE // self.source.itemsize)
        at_once = -(-rows // per_line)
        span = b.sub(table_entry(b, entries, I64(rows - 1)), table_entry(b, entries, I64(0)))
        neighbours = b.icmp_signed("==", span, I64((rows - 1) * self.source.itemsize))
        in_turn = lesser(b, b.mul(b.and_(k, I64(per_line - 1)), I64(at_once)), I64(rows - at_once))
        there = self._ahead_of(b.add(self.places.args[self.name], self.serial_offset(k)))
        for i in range(at_once):
            # The first line of neighbours was asked for with the block before, as its last.
            of_neighbours = I64(max(0, rows - 1 - i * per_line))
            row = b.select(neighbours, of_neighbours, b.add(in_turn, I64(i)))
            el.prefetch(b, b.add(there, table_entry(b, entries, row)), level=2)

    def _ahead_of(self, address: ir.Value) -> ir.Value:
        return self.builder.add(address, self.places.args[f"{self.name}.ahead"])

    # -- squares -------------------------------------------------------------------------------------

    def _values_of_squares(self, offset: ir.Value, left: ir.Value | None, part: Part) -> Values:
        """Vectors along the unrolled label, one a position on the vector label, turned in registers."""
        lanes, values = self.spec.lanes, {}
        axis = self.t.unrolled.index(UNIT)
        rows = [self.places.lane_offsets(self.t, j, left) for j in range(self.spec.vectors)]
        end = None if left is None else self.places.args[f"u{axis}.left"]
        for position in self.offsets:
            if position[axis] % lanes:
                continue        # its line is in the square of an earlier position
            start = self._start(offset, position)
            mask = None if end is None else lane_mask(self.builder, position[axis], lanes, end)
            for j in range(part.vectors):
                for i, line in enumerate(self._square(start, rows[j], mask), position[axis]):
                    if end is not None and i:
                        line = self._or_before(i, end, line, values[_moved(position, axis, i - 1), j])
                    values[_moved(position, axis, i), j] = line
        return values

    def _square(self, start: ir.Value, rows: list[ir.Value], mask: ir.Value | None) -> list[Lanes]:
        b, addresses = self.builder, [self.builder.add(start, row) for row in rows]
        for address in addresses:
            self._ask_ahead(address)
        if mask is None and self.source.components == 1:
            return [self._converted(line) for line in loaded_transposed(b, self.source, addresses)]
        lines = [el.load(b, self.source, address, self.spec.lanes, mask) for address in addresses]
        return transposed(b, [self._converted(line) for line in lines])

    def _or_before(self, i: int, end: ir.Value, line: Lanes, before: Lanes) -> Lanes:
        """Past the end the last position is repeated."""
        return el.select(self.builder, self.builder.icmp_signed("<", I64(i), end), line, before)

    # -- bytes from the tile's first element ---------------------------------------------------------

    def serial_offset(self, k: ir.Value) -> ir.Value:
        """At step k of the serial label."""
        b = self.builder
        if self.serial == TABLE:
            return table_entry(b, self.places.args[f"{self.name}.s"], k)
        if self.serial == AFFINE:
            return b.mul(k, self.places.args[f"{self.name}.s"])
        return b.mul(k, I64(self._panel_width * self.source.itemsize))

    def block_offset(self, block: ir.Value) -> ir.Value:
        """At a block of the vector label."""
        if self.t.vector == ABSENT:
            return I64(0)
        if self.t.vector == TABLE:
            raise TypeError("a fused label cannot be both vectorised and looped over inside the tile")
        b = self.builder
        return b.mul(b.mul(block, I64(self.spec.width)), self.places.lane_stride(self.t))


def _moved(position: Position, axis: int, i: int) -> Position:
    return *position[:axis], i, *position[axis + 1:]
