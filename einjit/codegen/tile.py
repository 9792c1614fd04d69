"""The register tile: the compiler's primitive, emitted as one Numba intrinsic of explicit vector IR.

For every unrolled position and vector it keeps one accumulator; a loop over the serial reduction label
loads each operand value once and updates all accumulators that need it. Written as scalars in Python the
same tile takes Numba seconds to compile and runs at a twentieth of the speed.

Edges need no second shape of the tile. Along an unrolled label positions past the end repeat the last one
(all partial results are read before any is written, so a repeated position writes the same value again).
Along the vector label a masked copy of the loop serves the last, partial vector. But where half of a tile is enough
for what is left of its rows or columns, a loop of so many rows or vectors computes it in half the time.
"""
from __future__ import annotations

from functools import cache
from itertools import product

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from . import elements as el
from .arith import accumulate, combine, horizontals
from .elements import Element, Lanes
from .specs import AFFINE, UNIT, Part, TileSpec
from .tile_operands import Operand
from .tile_output import Output
from .tile_places import Places, Position
from .tile_totals import Totals, Values
from .vectors import I64


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
    """The loops of a tile and the update inside them.

    `left` is, wherever it is passed, how many positions the vector label has from the tile's first on, for
    the masks of a tile that may lie over an edge; None where it lies inside and needs none.
    """

    def __init__(self, builder, spec: TileSpec, args: dict[str, ir.Value]):
        self.builder, self.spec, self.args = builder, spec, args
        self.element = Element.of(spec.accumulator)
        self.places = Places(builder, spec, args)
        self.totals = Totals(builder, spec, self.element)
        self.output = Output(self.places, self.totals)
        self.operands = [Operand(self.places, t, self.element) for t in spec.inputs]
        self.positions = list(product(*(range(w) for w in spec.widths)))

    def emit(self) -> None:
        if self.spec.has_vector and not self.spec.vector_kept:
            self._emit_reduced_vector()
            return
        if any(t.packed for t in self.spec.inputs):
            self.output.prefetch()
        first = self._is_first()
        totals = self.totals.chosen(first, self.totals.identities, self.output.earlier)
        self.output.finish(self._in_registers(totals))

    def _is_first(self) -> ir.Value:
        return self.builder.icmp_signed("!=", self.args["first"], I64(0))

    def _needs_masks(self) -> bool:
        loads = any(t.vector in (UNIT, AFFINE) or t.transposed for t in self.spec.inputs)
        return loads or not all(self.spec.kept)

    # -- the loops for a whole tile and for its edges --------------------------------------------------

    def _in_registers(self, totals: Values) -> Values:
        """The loop without masks, and those for tiles that lie over an edge, with masks if they need any."""
        vectors = self.spec.vectors
        if not self._needs_masks():
            return self._by_columns(totals, None)
        return self.totals.chosen(self.places.full(), lambda: self._by_rows(totals, vectors, None),
                                  lambda: self._by_columns(totals, self.places.left))

    def _by_columns(self, totals: Values, left: ir.Value | None) -> Values:
        few, every = self.spec.edge_vectors, self.spec.vectors
        many = not few or self.places.inside("v", few * self.spec.lanes + 1)
        return self.totals.chosen(many, lambda: self._by_rows(totals, every, left),
                                  lambda: self._by_rows(totals, few, left))

    def _by_rows(self, totals: Values, vectors: int, left: ir.Value | None) -> Values:
        few, every = self.spec.edge_rows, self.spec.whole_part.rows
        many = not few or self.places.inside("u0", few + 1)
        return self.totals.chosen(many, lambda: self._loop(totals, left, Part(every, vectors)),
                                  lambda: self._repeated(self._loop(totals, left, Part(few, vectors)), few))

    def _repeated(self, totals: Values, rows: int) -> Values:
        """The totals of a loop that stopped at so many rows: the others lie past the end, and repeat the last one."""
        return {(row, j): totals[(min(row[0], rows - 1), *row[1:]), j] for row, j in totals}

    # -- the reduction loop --------------------------------------------------------------------------

    def _loop(self, totals: Values, left: ir.Value | None, part: Part) -> Values:
        fixed = {x.name: x.values(I64(0), left, part) for x in self.operands if not x.serial}
        if not self.spec.serial:
            return self._update(totals, fixed, left, part)

        def step(k: ir.Value, totals: Values) -> Values:
            for x in self.operands:
                if x.serial:
                    x.ask_ahead_of_rows(k)
            moving = {x.name: x.values(x.serial_offset(k), left, part) for x in self.operands if x.serial}
            return self._update(totals, fixed | moving, left, part)

        return self.totals.counted(self.args["count"], totals, step)

    def _update(self, totals: Values, values: dict[str, Values], left: ir.Value | None, part: Part) -> Values:
        """The totals after one step, from the values of each operand."""
        totals = dict(totals)
        for position in self.positions:
            if position and position[0] >= part.rows:
                continue
            for j in range(part.vectors):
                operands = [values[x.name][x.slot(position, j)] for x in self.operands]
                slot = self.totals.slot(position, j)
                total = accumulate(self.builder, self.element, self.spec.reduce, totals[slot], self.spec.body, operands)
                if left is not None:
                    total = self._where_inside(position, j, left, total, totals[slot])
                totals[slot] = total
        return totals

    def _where_inside(self, position: Position, j: int, left: ir.Value, new: Lanes, old: Lanes) -> Lanes:
        """`new`, but `old` for reduced positions past the end: those must not count twice, or at all."""
        b, spec = self.builder, self.spec
        for axis, kept in enumerate(spec.kept):
            inside = kept or self.places.inside(f"u{axis}", position[axis] + 1) if position[axis] else True
            if inside is not True:
                new = el.select(b, inside, new, old)
        if spec.has_vector and not spec.vector_kept:
            new = el.select(b, self.places.mask(j, left), new, old)
        return new

    # -- the vector label is summed: lanes are partial sums ------------------------------------------

    def _emit_reduced_vector(self) -> None:
        totals = self.totals.identities()
        totals = self._over_blocks(totals) if self.spec.serial == "vector" else self._in_registers(totals)
        sums = self._across(totals)
        first = self._is_first()
        # Read all before writing any: repeated rows at the edge then write the same value.
        results = {row: self.output.added(row, first, value) for row, value in sums.items()}
        for row, value in results.items():
            self.output.write(row, value)

    def _across(self, totals: Values) -> dict[Position, Lanes]:
        """One value a row: its vectors added up, then the lanes of that."""
        b, spec, sums = self.builder, self.spec, {}
        for row in self.totals.rows:
            sums[row] = totals[row, 0]
            for j in range(1, spec.vectors):
                sums[row] = combine(b, self.element, spec.reduce, sums[row], totals[row, j])
        return dict(zip(sums, horizontals(b, self.element, spec.reduce, list(sums.values()))))

    def _over_blocks(self, totals: Values) -> Values:
        """Whole blocks of the vector label in a loop, then the partial one behind it."""
        b, width, whole = self.builder, I64(self.spec.width), self.spec.whole_part
        blocks, rest = b.sdiv(self.places.left, width), b.srem(self.places.left, width)

        def update(block: ir.Value, totals: Values, left: ir.Value | None) -> Values:
            values = {x.name: x.values(x.block_offset(block), left, whole) for x in self.operands}
            return self._update(totals, values, left, whole)

        def loop(left: ir.Value | None) -> Values:
            return self.totals.counted(blocks, totals, lambda block, totals: update(block, totals, left))

        # Also a whole block needs masks where rows lie past the end that are summed, or read in vectors.
        in_blocks = self.totals.chosen(self.places.rows_inside(), lambda: loop(None), lambda: loop(width))
        some = b.icmp_signed(">", rest, I64(0))
        return self.totals.chosen(some, lambda: update(blocks, in_blocks, rest), lambda: in_blocks)
