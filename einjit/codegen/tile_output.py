"""How a tile reads earlier results from the output and writes its own.

Rows are written as whole vectors where their columns are neighbours, through masks at an edge and where they
are two runs, and from a copy on the stack, a column at a time, where they lie apart.
"""
from __future__ import annotations

from typing import Callable

from llvmlite import ir

from . import elements as el
from .arith import combine, identity
from .elements import Element, Lanes
from .irloops import branch, choose, counted
from .memory import table_entry
from .runs import Runs, is_run, store_runs, two_runs
from .specs import TABLE, UNIT
from .tile_places import Places, Position
from .tile_totals import Slot, Totals, Values
from .vectors import I1, I8, I64, LINE, lesser


class Output:
    def __init__(self, places: Places, totals: Totals):
        self.builder, self.spec, self.places, self.totals = places.builder, places.spec, places, totals
        self.element, self.stored = totals.element, Element.of(self.spec.out.dtype)
        self.offsets = places.unrolled_offsets(self.spec.out)

    def earlier(self) -> Values:
        """The partial results that the output already holds."""
        if self.spec.width == 1:
            return self._load()
        if self.spec.out.vector == UNIT:
            return self.totals.chosen(self.places.vector_inside(), self._load, self._load_masked)
        if self.spec.out.vector == TABLE:
            # One by one where they are no run: that happens once in kc steps, and code for runs compiles as long.
            return self.totals.chosen(self._is_run(), self._load, self._load_columns)
        return self._load_columns()

    def finish(self, totals: Values) -> None:
        """Write the totals."""
        if self.spec.width == 1:
            self._store(totals)
        elif self.spec.out.vector == UNIT:
            branch(self.builder, self.places.vector_inside(), lambda: self._store_whole(totals),
                   lambda: self._store_masked(totals))
        elif self.spec.out.vector == TABLE:
            branch(self.builder, self._is_run(), lambda: self._store_whole(totals), lambda: self._store_runs(totals))
        else:
            self._store_columns(totals)

    def prefetch(self) -> None:
        """Ask for the output's rows while the long loop over packed panels runs."""
        for row in self.totals.rows:
            start = self._vector((row, 0))
            for line in range(0, self.spec.width * self.stored.itemsize, LINE):
                el.prefetch(self.builder, self.builder.add(start, I64(line)), level=1, writing=True)

    # -- one element a row: the vector label is summed -----------------------------------------------

    def added(self, row: Position, first: ir.Value, value: Lanes) -> Lanes:
        """A row's value and, unless the tile is the first to add to it, its earlier one."""
        def earlier() -> list[ir.Value]:
            return list(self._read(self._row(row), 1).parts)

        def nothing() -> list[ir.Value]:
            return list(identity(self.element, self.spec.reduce, 1).parts)

        parts = choose(self.builder, first, nothing, earlier)
        return combine(self.builder, self.element, self.spec.reduce, Lanes(tuple(parts), 1), value)

    def write(self, row: Position, value: Lanes) -> None:
        self._write(self._row(row), value)

    # -- addresses and elements ----------------------------------------------------------------------

    def _row(self, row: Position) -> ir.Value:
        return self.builder.add(self.places.args[self.spec.out.name], self.offsets[row])

    def _vector(self, slot: Slot) -> ir.Value:
        """Address of a vector of neighbouring columns."""
        row, j = slot
        start = self._row(row)
        if self.spec.out.vector == TABLE:
            start = self.builder.add(start, table_entry(self.builder, self._columns, I64(0)))
        return self.builder.add(start, I64(j * self.spec.lanes * self.stored.itemsize))

    @property
    def _columns(self) -> ir.Value:
        """The table of columns, or their stride."""
        return self.places.args[f"{self.spec.out.name}.v"]

    def _read(self, address: ir.Value, lanes: int, mask: ir.Value | None = None) -> Lanes:
        return self._accumulated(el.load(self.builder, self.stored, address, lanes, mask))

    def _write(self, address: ir.Value, value: Lanes, mask: ir.Value | None = None) -> None:
        el.store(self.builder, self.stored, address, self._as_stored(value), mask)

    def _accumulated(self, value: Lanes) -> Lanes:
        return el.convert(self.builder, self.stored, self.element, value)

    def _as_stored(self, value: Lanes) -> Lanes:
        return el.convert(self.builder, self.element, self.stored, value)

    # -- columns that are neighbours -----------------------------------------------------------------

    def _load(self) -> Values:
        return {slot: self._read(self._vector(slot), self.spec.lanes) for slot in self.totals.slots}

    def _store(self, totals: Values) -> None:
        for slot in self.totals.slots:
            self._write(self._vector(slot), totals[slot])

    def _load_masked(self) -> Values:
        masks = self._masks()
        return {(row, j): self._read(self._vector((row, j)), self.spec.lanes, masks[j]) for row, j in self.totals.slots}

    def _store_masked(self, totals: Values) -> None:
        masks = self._masks()
        for row, j in self.totals.slots:
            self._write(self._vector((row, j)), totals[row, j], masks[j])

    def _masks(self) -> list[ir.Value]:
        return [self.places.mask(j, self.places.left) for j in range(self.spec.vectors)]

    def _store_whole(self, totals: Values) -> None:
        if not self.spec.streamed:
            self._store(totals)
            return
        # Past an edge rows are repeated, which would be written to memory again and again.
        branch(self.builder, self.places.all([self.places.full(), self._is_aligned()]),
               lambda: self._stream(totals), lambda: self._store(totals))

    def _is_aligned(self) -> ir.Value:
        b, rows = self.builder, I64(0)
        for row in self.totals.rows:
            rows = b.or_(rows, self._vector((row, 0)))
        boundary = min(LINE, self.spec.lanes * self.stored.itemsize)
        return b.icmp_signed("==", b.and_(rows, I64(boundary - 1)), I64(0))

    def _stream(self, totals: Values) -> None:
        for slot in self.totals.slots:
            el.stream(self.builder, self.stored, self._vector(slot), self._as_stored(totals[slot]))

    # -- columns of a fused label: one run, two, or any ----------------------------------------------

    def _is_run(self) -> ir.Value:
        """Whether all columns are neighbours."""
        return is_run(self.builder, self._columns, self.spec.width, self.stored.itemsize)

    @property
    def _masks_pay(self) -> bool:
        """Small elements have no masked stores on most machines."""
        return self.stored.bits >= 32 and self.spec.lanes > 1

    def _store_runs(self, totals: Values) -> None:
        if not self._masks_pay:
            self._store_columns(totals)
            return
        runs, sound = self._runs()

        def store() -> None:
            for row, j in self.totals.slots:
                value = self._as_stored(totals[row, j])
                store_runs(self.builder, self.stored, self._row(row), runs[j], value)

        branch(self.builder, sound, store, lambda: self._store_columns(totals))

    def _runs(self) -> tuple[list[Runs], ir.Value]:
        """The columns, vector by vector, and whether each is at most two runs. Lanes past the end are in none:
        what they hold is not always what the last column does."""
        b, lanes, sound, found = self.builder, self.spec.lanes, I1(1), []
        for j in range(self.spec.vectors):
            runs = two_runs(b, b.add(self._columns, I64(8 * j * lanes)), lanes, self.stored.itemsize)
            inside = self.places.mask(j, self.places.left)
            sound = b.and_(sound, runs.sound)
            found.append(runs._replace(first_mask=b.and_(runs.first_mask, inside),
                                       second_mask=b.and_(runs.second_mask, inside)))
        return found, sound

    # -- columns that lie apart: by way of a row-major copy on the stack -----------------------------

    def _load_columns(self) -> Values:
        b, copy = self.builder, self._copy()

        def read(row: Position, column: ir.Value, lane: ir.Value) -> None:
            value = self._read(b.add(self._row(row), column), 1)
            el.store(b, self.element, b.add(copy.vector((row, 0)), lane), value)

        self._each_element(read)
        return {slot: el.load(b, self.element, copy.vector(slot), self.spec.lanes) for slot in self.totals.slots}

    def _store_columns(self, totals: Values) -> None:
        b, copy = self.builder, self._copy()
        for slot in self.totals.slots:
            el.store(b, self.element, copy.vector(slot), totals[slot])

        def write(row: Position, column: ir.Value, lane: ir.Value) -> None:
            value = el.load(b, self.element, b.add(copy.vector((row, 0)), lane), 1)
            self._write(b.add(self._row(row), column), value)

        self._each_element(write)

    def _copy(self) -> _Copy:
        return _Copy(self.builder, self.totals.slots, self.spec.lanes * self.element.itemsize)

    def _each_element(self, visit: Callable[[Position, ir.Value, ir.Value], None]) -> None:
        """Call visit(row, byte offset of the column, that of its lane in the copy) in a loop over columns."""
        tabled, size = self.spec.out.vector == TABLE, I64(self.element.itemsize)

        def column(b, lane, _):
            offset = table_entry(b, self._columns, lane) if tabled else b.mul(lane, self._columns)
            at = b.mul(lane, size)
            for row in self.totals.rows:
                visit(row, offset, at)
            return []

        columns = lesser(self.builder, self.places.left, I64(self.spec.width))
        counted(self.builder, I64(0), columns, 1, [], column)


class _Copy:
    """A row-major copy of the tile's totals on the stack."""

    def __init__(self, builder, slots: list[Slot], vector_bytes: int):
        self.builder, self.slots, self.vector_bytes = builder, slots, vector_bytes
        # Not Numba's alloca_once: that clears the memory, a byte a store.
        with builder.goto_entry_block():
            memory = builder.alloca(ir.ArrayType(I8, len(slots) * vector_bytes))
        self.start = builder.ptrtoint(memory, I64)

    def vector(self, slot: Slot) -> ir.Value:
        return self.builder.add(self.start, I64(self.slots.index(slot) * self.vector_bytes))
