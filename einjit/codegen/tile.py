"""The register tile: the compiler's primitive, emitted as one Numba intrinsic of explicit vector IR.

For every unrolled position and vector it keeps one accumulator; a loop over the serial reduction label
loads each operand value once and updates all accumulators that need it. Written as scalars in Python the
same tile takes Numba seconds to compile and runs at a twentieth of the speed.

Edges need no second shape of the tile. Along an unrolled label positions past the end repeat the last one
(all partial results are read before any is written, so a repeated position writes the same value again).
Along the vector label a masked copy of the loop serves the last, partial vector.
"""
from __future__ import annotations

from functools import cache, reduce
from itertools import product

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from . import elements as el
from .arith import accumulate, combine, horizontals, identity
from .elements import I64, Element, Lanes
from .irloops import branch, choose, counted
from .memory import table_entry
from .runs import Runs, is_run, load_runs, store_runs, two_runs
from .specs import ABSENT, AFFINE, PACKED, TABLE, UNIT, TileSpec, TileTensor
from .transpose import transposed


@cache
def register_tile(spec: TileSpec):
    """The intrinsic `tile(*spec.arguments)` of a specification; every argument is an int64."""

    @intrinsic
    def tile(typingctx, arguments):
        def codegen(context, builder, signature, args):
            values = [_as_i64(builder, v) for v in cgutils.unpack_tuple(builder, args[0])]
            _Tile(builder, spec, dict(zip(spec.arguments, values))).emit()
            return context.get_dummy_value()

        return types.void(arguments), codegen

    return tile


def _as_i64(builder, value):
    if value.type == I64:
        return value
    return builder.zext(value, I64) if value.type.width < 64 else builder.trunc(value, I64)


class _Tile:
    def __init__(self, builder, spec: TileSpec, args: dict[str, ir.Value]):
        self.builder, self.spec = builder, spec
        self.args = args | {f"{place}.left": I64(extent) for place, extent in spec.whole}
        self.element = Element.of(spec.accumulator)
        self.stored = Element.of(spec.out.dtype)
        self.positions = list(product(*(range(w) for w in spec.widths)))
        self.offsets = {t.name: self._unrolled_offsets(t) for t in spec.tensors}

    # -- where things are ----------------------------------------------------------------------------

    def _unrolled_offsets(self, t: TileTensor) -> dict[tuple[int, ...], ir.Value]:
        """Byte offset of a tensor for each unrolled position, the axes it lacks held at 0."""
        b, element = self.builder, Element.of(t.dtype)
        axes = []
        for axis, (width, mode) in enumerate(zip(self.spec.widths, t.unrolled)):
            left = self.args[f"u{axis}.left"]
            key = f"{t.name}.u{axis}"
            entries = []
            for i in range(width if mode else 1):
                if mode == TABLE:
                    entries.append(table_entry(b, self.args[key], I64(i)))
                elif mode == AFFINE:
                    last = b.sub(left, I64(1))
                    inside = not i or self._inside(f"u{axis}", i + 1)
                    at = I64(i) if inside is True else b.select(inside, I64(i), last)
                    entries.append(b.mul(at, self.args[key]))
                else:       # not moving at all, contiguous, or packed: panels hold the parts of elements apart
                    entries.append(I64(i * (element.part_bytes if mode == PACKED else element.itemsize)))
            axes.append(entries)
        offsets = {}
        for position in product(*(range(len(entries)) for entries in axes)):
            total = I64(0)
            for entries, i in zip(axes, position):
                total = b.add(total, entries[i])
            offsets[position] = total
        return offsets

    @staticmethod
    def _own(t: TileTensor, position: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(i if mode else 0 for i, mode in zip(position, t.unrolled))

    def _address(self, t: TileTensor, position: tuple[int, ...]) -> ir.Value:
        return self.builder.add(self.args[t.name], self.offsets[t.name][self._own(t, position)])

    def _lane_offsets(self, t: TileTensor, vector: int, partial: bool) -> list[ir.Value]:
        """Byte offsets of the lanes of one vector for a tensor whose lanes are not neighbours."""
        b, spec = self.builder, self.spec
        offsets = []
        for lane in range(vector * spec.lanes, (vector + 1) * spec.lanes):
            if t.vector == TABLE:
                offsets.append(table_entry(b, self.args[f"{t.name}.v"], I64(lane)))
                continue
            at = I64(lane)
            if partial:
                left = self.args["v.left"]
                at = b.select(b.icmp_signed("<", at, left), at, b.sub(left, I64(1)))
            stride = I64(Element.of(t.dtype).itemsize) if t.vector == UNIT else self.args[f"{t.name}.v"]
            offsets.append(b.mul(at, stride))
        return offsets

    # -- the whole tile ------------------------------------------------------------------------------

    def emit(self) -> None:
        if self.spec.has_vector and not self.spec.vector_kept:
            self._emit_reduced_vector()
            return
        if any(t.packed for t in self.spec.inputs):
            self._prefetch_rows()
        totals = self._flat(self._initial())
        if self._needs_masks():
            totals = choose(self.builder, self._full(),
                            lambda: self._flat(self._loop(self._unflat(totals), partial=False)),
                            lambda: self._flat(self._loop(self._unflat(totals), partial=True)))
        else:
            totals = self._flat(self._loop(self._unflat(totals), partial=False))
        self._finish(self._unflat(totals))

    def _inside(self, place: str, count: int) -> ir.Value | bool:
        """Whether a label goes on for `count` positions from the tile's first; known where it is whole."""
        extent = dict(self.spec.whole).get(place)
        if extent is not None:
            return extent >= count
        return self.builder.icmp_signed(">=", self.args[f"{place}.left"], I64(count))

    def _full(self) -> ir.Value | bool:
        """Whether the tile lies wholly inside: along the vector label and every reduced unrolled one."""
        return self._all([self._vector_inside(), *self._reduced_inside(), *self._across_inside()])

    def _reduced_inside(self) -> list:
        return [self._inside(f"u{axis}", width)
                for axis, (width, kept) in enumerate(zip(self.spec.widths, self.spec.kept)) if not kept]

    def _across_inside(self) -> list:
        """Of labels along which inputs are read in vectors."""
        across = dict.fromkeys(t.unrolled.index(UNIT) for t in self.spec.inputs if t.transposed)
        return [self._inside(f"u{axis}", self.spec.widths[axis]) for axis in across]

    def _all(self, conditions: list) -> ir.Value | bool:
        unknown = [c for c in conditions if c is not True]
        if any(c is False for c in unknown):
            return False
        return reduce(self.builder.and_, unknown) if unknown else True

    def _needs_masks(self) -> bool:
        loads = any(t.vector in (UNIT, AFFINE) or t.transposed for t in self.spec.inputs)
        return loads or not all(self.spec.kept)

    # -- accumulators: one for each kept position and vector -----------------------------------------

    def _slot(self, position: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(i if kept else 0 for i, kept in zip(position, self.spec.kept))

    @property
    def _slots(self) -> list[tuple[tuple[int, ...], int]]:
        kept = dict.fromkeys(self._slot(p) for p in self.positions)
        return [(p, j) for p in kept for j in range(self.spec.vectors)]

    def _flat(self, totals: dict) -> list[ir.Value]:
        return [part for slot in self._slots for part in totals[slot].parts]

    def _unflat(self, values: list[ir.Value]) -> dict:
        n = self.element.components
        return {slot: Lanes(tuple(values[i * n:(i + 1) * n]), self.spec.lanes) for i, slot in enumerate(self._slots)}

    def _identities(self) -> dict:
        return {slot: identity(self.element, self.spec.reduce, self.spec.lanes) for slot in self._slots}

    # -- the reduction loop --------------------------------------------------------------------------

    def _loop(self, totals: dict, partial: bool) -> dict:
        fixed = {t.name: self._values(t, I64(0), partial) for t in self.spec.inputs if not t.serial}
        if not self.spec.serial:
            return self._update(totals, fixed, partial)

        def step(b, k, carried):
            values = dict(fixed)
            for t in self.spec.inputs:
                if t.serial:
                    values[t.name] = self._values(t, self._serial_offset(t, k), partial)
            return self._flat(self._update(self._unflat(carried), values, partial))

        return self._unflat(counted(self.builder, I64(0), self.args["count"], 1, self._flat(totals), step))

    def _serial_offset(self, t: TileTensor, k: ir.Value) -> ir.Value:
        b = self.builder
        if t.serial == TABLE:
            return table_entry(b, self.args[f"{t.name}.s"], k)
        if t.serial == AFFINE:
            return b.mul(k, self.args[f"{t.name}.s"])
        return b.mul(k, I64(self._panel_width(t) * Element.of(t.dtype).itemsize))

    def _panel_width(self, t: TileTensor) -> int:
        return self.spec.width if t.vector == PACKED else self.spec.widths[t.unrolled.index(PACKED)]

    def _values(self, t: TileTensor, offset: ir.Value, partial: bool) -> dict:
        """The operand at one step, by its own unrolled position and vector, in the accumulator's dtype."""
        if t.transposed:
            return self._transposed_values(t, offset, partial)
        b, source, values = self.builder, Element.of(t.dtype), {}
        for position in self.offsets[t.name]:
            start = b.add(b.add(self.args[t.name], offset), self.offsets[t.name][position])
            for j in range(self.spec.vectors if t.vector else 1):
                raw = self._load(t, source, start, j, partial)
                value = el.convert(b, source, self.element, raw)
                values[position, j] = el.broadcast(b, value, self.spec.lanes)
        return values

    def _load(self, t: TileTensor, source: Element, start: ir.Value, j: int, partial: bool) -> Lanes:
        b, lanes = self.builder, self.spec.lanes
        if t.packed:
            address = b.add(start, I64(j * lanes * source.part_bytes))
            return el.load_apart(b, source, address, lanes if t.vector else 1, self._panel_width(t) * source.part_bytes)
        if not t.vector:
            return el.load(b, source, start, 1)
        if t.vector == UNIT:
            address = b.add(start, I64(j * lanes * source.itemsize))
            mask = el.lane_mask(b, j * lanes, lanes, self.args["v.left"]) if partial else None
            return el.load(b, source, address, lanes, mask)
        return el.gather(b, source, [b.add(start, o) for o in self._lane_offsets(t, j, partial)])

    def _transposed_values(self, t: TileTensor, offset: ir.Value, partial: bool) -> dict:
        """Vectors along the unrolled label, one a position on the vector label, turned in registers."""
        b, spec, source, values = self.builder, self.spec, Element.of(t.dtype), {}
        axis = t.unrolled.index(UNIT)
        left = self.args[f"u{axis}.left"]
        rows = {j: self._lane_offsets(t, j, partial) for j in range(spec.vectors)}
        for position in self.offsets[t.name]:
            first = position[axis]
            if first % spec.lanes:
                continue        # its line is in the square of an earlier position
            start = b.add(b.add(self.args[t.name], offset), self.offsets[t.name][position])
            mask = el.lane_mask(b, first, spec.lanes, left) if partial else None
            for j in range(spec.vectors):
                lines = [el.load(b, source, b.add(start, row), spec.lanes, mask) for row in rows[j]]
                lines = transposed(b, [el.convert(b, source, self.element, line) for line in lines])
                for i, line in enumerate(lines, first):
                    at = (*position[:axis], i, *position[axis + 1:])
                    if partial and i:       # past the end the last position is repeated
                        before = (*position[:axis], i - 1, *position[axis + 1:])
                        line = el.select(b, b.icmp_signed("<", I64(i), left), line, values[before, j])
                    values[at, j] = line
        return values

    def _update(self, totals: dict, values: dict, partial: bool) -> dict:
        b, spec = self.builder, self.spec
        totals = dict(totals)
        for position in self.positions:
            for j in range(spec.vectors):
                operands = [values[t.name][self._own(t, position), j if t.vector else 0] for t in spec.inputs]
                slot = (self._slot(position), j)
                total = accumulate(b, self.element, spec.reduce, totals[slot], spec.body, operands)
                if partial:
                    total = self._where_inside(position, j, total, totals[slot])
                totals[slot] = total
        return totals

    def _where_inside(self, position, j: int, new: Lanes, old: Lanes) -> Lanes:
        """`new`, but `old` for reduced positions past the end: those must not count twice, or at all."""
        b, spec = self.builder, self.spec
        for axis, kept in enumerate(spec.kept):
            inside = kept or self._inside(f"u{axis}", position[axis] + 1) if position[axis] else True
            if inside is not True:
                new = el.select(b, inside, new, old)
        if spec.has_vector and not spec.vector_kept:
            mask = el.lane_mask(b, j * spec.lanes, spec.lanes, self.args["v.left"])
            new = el.select(b, mask, new, old)
        return new

    # -- the output has the vector label (or there is none) -------------------------------------------

    def _initial(self) -> dict:
        first = self.builder.icmp_signed("!=", self.args["first"], I64(0))
        return self._unflat(choose(self.builder, first, lambda: self._flat(self._identities()),
                                   lambda: self._flat(self._earlier())))

    def _earlier(self) -> dict:
        """The partial result that the output already holds."""
        if self.spec.width == 1:
            return self._plain_load(None)
        if self.spec.out.vector == UNIT:
            return self._unflat(choose(self.builder, self._vector_inside(),
                                       lambda: self._flat(self._plain_load(None)),
                                       lambda: self._flat(self._plain_load(self._masks()))))
        if self.spec.out.vector == TABLE:
            return self._unflat(choose(self.builder, self._neighbours(),
                                       lambda: self._flat(self._plain_load(None)),
                                       lambda: self._flat(self._broken_load())))
        return self._buffered_load()

    def _finish(self, totals: dict) -> None:
        if self.spec.width == 1:
            self._plain_store(totals, None)
        elif self.spec.out.vector == UNIT:
            branch(self.builder, self._vector_inside(), lambda: self._whole_store(totals),
                   lambda: self._plain_store(totals, self._masks()))
        elif self.spec.out.vector == TABLE:
            branch(self.builder, self._neighbours(), lambda: self._plain_store(totals, None),
                   lambda: self._broken_store(totals))
        else:
            self._buffered_store(totals)

    def _prefetch_rows(self) -> None:
        """Ask for the output's rows while the long loop over packed panels runs."""
        row_bytes = self.spec.width * self.stored.itemsize
        for position in dict.fromkeys(p for p, _ in self._slots):
            start = self._row(position, 0)
            for line in range(0, row_bytes, el.LINE):
                el.prefetch(self.builder, self.builder.add(start, I64(line)), writing=True)

    def _vector_inside(self) -> ir.Value | bool:
        return not self.spec.has_vector or self._inside("v", self.spec.width)

    def _masks(self) -> list:
        spec = self.spec
        return [el.lane_mask(self.builder, j * spec.lanes, spec.lanes, self.args["v.left"])
                for j in range(spec.vectors)]

    def _neighbours(self) -> ir.Value:
        """Whether this row of output columns is one contiguous run (it may straddle two)."""
        return is_run(self.builder, self.args[f"{self.spec.out.name}.v"], self.spec.width, self.stored.itemsize)

    def _row(self, position, j: int) -> ir.Value:
        start = self._address(self.spec.out, position)
        if self.spec.out.vector == TABLE:
            start = self.builder.add(start, table_entry(self.builder, self.args[f"{self.spec.out.name}.v"], I64(0)))
        return self.builder.add(start, I64(j * self.spec.lanes * self.stored.itemsize))

    def _read(self, address, lanes: int, mask=None) -> Lanes:
        """Elements of the output, as they are accumulated."""
        return el.convert(self.builder, self.stored, self.element,
                          el.load(self.builder, self.stored, address, lanes, mask))

    def _write(self, address, value: Lanes, mask=None) -> None:
        el.store(self.builder, self.stored, address, el.convert(self.builder, self.element, self.stored, value), mask)

    def _plain_load(self, masks) -> dict:
        return {(p, j): self._read(self._row(p, j), self.spec.lanes, masks and masks[j]) for p, j in self._slots}

    def _plain_store(self, totals: dict, masks) -> None:
        for p, j in self._slots:
            self._write(self._row(p, j), totals[p, j], masks and masks[j])

    def _runs(self) -> tuple[list[Runs], ir.Value]:
        """The output's columns, vector by vector, and whether each is at most two runs."""
        b, lanes, sound = self.builder, self.spec.lanes, el.I1(1)
        table, found = self.args[f"{self.spec.out.name}.v"], []
        for j in range(self.spec.vectors):
            runs = two_runs(b, b.add(table, I64(8 * j * lanes)), lanes, self.stored.itemsize)
            sound = b.and_(sound, runs.sound)
            found.append(runs)
        return found, sound

    @property
    def _masks_pay(self) -> bool:
        """Small elements have no masked stores on most machines."""
        return self.stored.bits >= 32 and self.spec.lanes > 1

    def _broken_load(self) -> dict:
        """Of columns that are no single run."""
        if not self._masks_pay:
            return self._buffered_load()
        b, (runs, sound) = self.builder, self._runs()

        def masked(p, j) -> Lanes:
            raw = load_runs(b, self.stored, self._address(self.spec.out, p), runs[j], self.spec.lanes)
            return el.convert(b, self.stored, self.element, raw)

        return self._unflat(choose(b, sound, lambda: self._flat({slot: masked(*slot) for slot in self._slots}),
                                   lambda: self._flat(self._buffered_load())))

    def _broken_store(self, totals: dict) -> None:
        if not self._masks_pay:
            self._buffered_store(totals)
            return
        b, (runs, sound) = self.builder, self._runs()

        def masked() -> None:
            for p, j in self._slots:
                value = el.convert(b, self.element, self.stored, totals[p, j])
                store_runs(b, self.stored, self._address(self.spec.out, p), runs[j], value)

        branch(b, sound, masked, lambda: self._buffered_store(totals))

    def _whole_store(self, totals: dict) -> None:
        if not self.spec.streamed:
            self._plain_store(totals, None)
            return
        # Past an edge rows are repeated, which would be written to memory again and again.
        b = self.builder
        branch(b, self._all([self._full(), self._aligned()]), lambda: self._streamed_store(totals),
               lambda: self._plain_store(totals, None))

    def _aligned(self) -> ir.Value:
        b, rows = self.builder, I64(0)
        for position in dict.fromkeys(p for p, _ in self._slots):
            rows = b.or_(rows, self._row(position, 0))
        boundary = min(el.LINE, self.spec.lanes * self.stored.itemsize)
        return b.icmp_signed("==", b.and_(rows, I64(boundary - 1)), I64(0))

    def _streamed_store(self, totals: dict) -> None:
        for p, j in self._slots:
            value = el.convert(self.builder, self.element, self.stored, totals[p, j])
            el.stream(self.builder, self.stored, self._row(p, j), value)

    def _buffer(self) -> ir.Value:
        """A row-major copy of the tile on the stack, for output columns that lie apart."""
        size = len(self._slots) * self.spec.lanes * self.element.itemsize
        # Not Numba's alloca_once: that clears the memory, a byte a store.
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(ir.ArrayType(el.I8, size))
        return self.builder.ptrtoint(slot, I64)

    def _buffer_row(self, buffer, index: int) -> ir.Value:
        return self.builder.add(buffer, I64(index * self.spec.lanes * self.element.itemsize))

    def _each_column(self, visit) -> None:
        """Call visit(offset in the output's row, byte offset in the buffer's row) in a loop over columns."""
        out, size = self.spec.out, I64(self.element.itemsize)
        table = self.args[f"{out.name}.v"]

        def column(b, lane, _):
            offset = table_entry(b, table, lane) if out.vector == TABLE else b.mul(lane, table)
            visit(offset, b.mul(lane, size))
            return []

        left, width = self.args["v.left"], I64(self.spec.width)
        columns = self.builder.select(self.builder.icmp_signed("<", left, width), left, width)
        counted(self.builder, I64(0), columns, 1, [], column)

    def _rows_of_buffer(self):
        rows = list(dict.fromkeys(p for p, _ in self._slots))
        return [(p, i * self.spec.vectors) for i, p in enumerate(rows)]

    def _buffered_load(self) -> dict:
        b, buffer = self.builder, self._buffer()

        def visit(offset, lane):
            for position, index in self._rows_of_buffer():
                value = self._read(b.add(self._address(self.spec.out, position), offset), 1)
                el.store(b, self.element, b.add(self._buffer_row(buffer, index), lane), value)

        self._each_column(visit)
        return {slot: el.load(b, self.element, self._buffer_row(buffer, i), self.spec.lanes)
                for i, slot in enumerate(self._slots)}

    def _buffered_store(self, totals: dict) -> None:
        b, buffer = self.builder, self._buffer()
        for i, slot in enumerate(self._slots):
            el.store(b, self.element, self._buffer_row(buffer, i), totals[slot])

        def visit(offset, lane):
            for position, index in self._rows_of_buffer():
                value = el.load(b, self.element, b.add(self._buffer_row(buffer, index), lane), 1)
                self._write(b.add(self._address(self.spec.out, position), offset), value)

        self._each_column(visit)

    # -- the vector label is summed: lanes are partial sums -------------------------------------------

    def _emit_reduced_vector(self) -> None:
        b, spec = self.builder, self.spec
        totals = self._flat(self._identities())
        if spec.serial == "vector":
            totals = self._over_blocks(totals)
        else:
            totals = choose(b, self._full(),
                            lambda: self._flat(self._loop(self._unflat(totals), partial=False)),
                            lambda: self._flat(self._loop(self._unflat(totals), partial=True)))
        sums = self._across(self._unflat(totals))
        first = b.icmp_signed("!=", self.args["first"], I64(0))
        # Read all before writing any: repeated rows at the edge then write the same value.
        results = {}
        for position, value in sums.items():
            def earlier(position=position):
                return list(self._read(self._address(spec.out, position), 1).parts)

            parts = choose(b, first, lambda: list(identity(self.element, spec.reduce, 1).parts), earlier)
            results[position] = combine(b, self.element, spec.reduce, Lanes(tuple(parts), 1), value)
        for position, value in results.items():
            self._write(self._address(spec.out, position), value)

    def _across(self, totals: dict) -> dict:
        b, spec, sums = self.builder, self.spec, {}
        for position in dict.fromkeys(p for p, _ in self._slots):
            sums[position] = totals[position, 0]
            for j in range(1, spec.vectors):
                sums[position] = combine(b, self.element, spec.reduce, sums[position], totals[position, j])
        return dict(zip(sums, horizontals(b, self.element, spec.reduce, list(sums.values()))))

    def _over_blocks(self, totals: list) -> list:
        """Whole blocks of the vector label in a loop, then the partial one behind it."""
        b, spec = self.builder, self.spec
        left = self.args["v.left"]
        blocks = b.sdiv(left, I64(spec.width))
        rest = b.srem(left, I64(spec.width))

        def update(carried, block, partial):
            values = {t.name: self._values(t, self._block_offset(t, block), partial) for t in spec.inputs}
            return self._flat(self._update(self._unflat(carried), values, partial))

        def fast():
            return counted(b, I64(0), blocks, 1, totals, lambda b, k, carried: update(carried, k, False))

        def slow():
            def masked(b, k, carried):
                self.args["v.left"] = I64(spec.width)
                return update(carried, k, True)
            return counted(b, I64(0), blocks, 1, totals, masked)

        totals_ = choose(b, self._all([*self._reduced_inside(), *self._across_inside()]), fast, slow)
        self.args["v.left"] = rest
        some = b.icmp_signed(">", rest, I64(0))
        result = choose(b, some, lambda: update(totals_, blocks, True), lambda: totals_)
        self.args["v.left"] = left
        return result

    def _block_offset(self, t: TileTensor, block: ir.Value) -> ir.Value:
        b = self.builder
        if t.vector == ABSENT:
            return I64(0)
        if t.vector == TABLE:
            raise TypeError("a fused label cannot be both vectorised and looped over inside the tile")
        stride = I64(Element.of(t.dtype).itemsize) if t.vector == UNIT else self.args[f"{t.name}.v"]
        return b.mul(b.mul(block, I64(self.spec.width)), stride)
