"""Where the tile's positions lie: inside its labels or past their ends, and at which bytes of each tensor.

A place is one of the tile's labels, by the name that its arguments have for it: u0, u1 ... unrolled, v the
vector label, s the serial one.
"""
from __future__ import annotations

from functools import reduce
from itertools import product
from typing import Iterable, Sequence

from llvmlite import ir

from .elements import Element
from .memory import table_entry
from .specs import AFFINE, PACKED, TABLE, UNIT, TileSpec, TileTensor
from .vectors import I64, lane_mask

Position = tuple[int, ...]          # on the unrolled labels


class Places:
    def __init__(self, builder, spec: TileSpec, args: dict[str, ir.Value]):
        self.builder, self.spec = builder, spec
        self.extents = dict(spec.whole)
        self.args = args | {f"{place}.left": I64(extent) for place, extent in spec.whole}

    # -- edges ---------------------------------------------------------------------------------------

    @property
    def left(self) -> ir.Value:
        """Positions on the vector label from the tile's first on; one where there is no such label."""
        return self.args.get("v.left", I64(1))

    def inside(self, place: str, count: int) -> ir.Value | bool:
        """Whether a label goes on for `count` positions from the tile's first; known where it is whole."""
        if place in self.extents:
            return self.extents[place] >= count
        return self.builder.icmp_signed(">=", self.args[f"{place}.left"], I64(count))

    def vector_inside(self) -> ir.Value | bool:
        return not self.spec.has_vector or self.inside("v", self.spec.width)

    def rows_inside(self) -> ir.Value | bool:
        """Whether the tile lies inside along every reduced unrolled label, and those along which inputs are read
        in vectors."""
        across = dict.fromkeys(t.unrolled.index(UNIT) for t in self.spec.inputs if t.transposed)
        return self.all([*self._unrolled_inside(self._reduced), *self._unrolled_inside(across)])

    def full(self) -> ir.Value | bool:
        """Whether it lies wholly inside: along the vector label too."""
        return self.all([self.vector_inside(), self.rows_inside()])

    @property
    def _reduced(self) -> list[int]:
        return [axis for axis, kept in enumerate(self.spec.kept) if not kept]

    def _unrolled_inside(self, axes: Iterable[int]) -> list[ir.Value | bool]:
        return [self.inside(f"u{axis}", self.spec.widths[axis]) for axis in axes]

    def all(self, conditions: Sequence[ir.Value | bool]) -> ir.Value | bool:
        unknown = [c for c in conditions if c is not True]
        if any(c is False for c in unknown):
            return False
        return reduce(self.builder.and_, unknown) if unknown else True

    def mask(self, vector: int, left: ir.Value) -> ir.Value:
        """The lanes of one vector that lie inside."""
        return lane_mask(self.builder, vector * self.spec.lanes, self.spec.lanes, left)

    # -- bytes ---------------------------------------------------------------------------------------

    def unrolled_offsets(self, t: TileTensor) -> dict[Position, ir.Value]:
        """Byte offset of a tensor for each unrolled position, the axes it lacks held at 0."""
        axes = [self._axis_offsets(t, axis) for axis in range(len(t.unrolled))]
        offsets = {}
        for position in product(*(range(len(entries)) for entries in axes)):
            total = I64(0)
            for entries, i in zip(axes, position):
                total = self.builder.add(total, entries[i])
            offsets[position] = total
        return offsets

    def _axis_offsets(self, t: TileTensor, axis: int) -> list[ir.Value]:
        mode = t.unrolled[axis]
        return [self._axis_offset(t, axis, i) for i in range(self.spec.widths[axis] if mode else 1)]

    def _axis_offset(self, t: TileTensor, axis: int, i: int) -> ir.Value:
        b, mode, argument = self.builder, t.unrolled[axis], f"{t.name}.u{axis}"
        if mode == TABLE:
            return table_entry(b, self.args[argument], I64(i))
        if mode == AFFINE:
            last = b.sub(self.args[f"u{axis}.left"], I64(1))
            inside = not i or self.inside(f"u{axis}", i + 1)
            return b.mul(I64(i) if inside is True else b.select(inside, I64(i), last), self.args[argument])
        # Not moving at all, contiguous, or packed: panels hold the parts of elements apart.
        element = Element.of(t.dtype)
        return I64(i * (element.part_bytes if mode == PACKED else element.itemsize))

    def lane_offsets(self, t: TileTensor, vector: int, left: ir.Value | None) -> list[ir.Value]:
        """Byte offsets of the lanes of one vector for a tensor whose lanes are not neighbours; past the end,
        where the tile may lie over it, the last one again."""
        lanes = range(vector * self.spec.lanes, (vector + 1) * self.spec.lanes)
        return [self._lane_offset(t, lane, left) for lane in lanes]

    def _lane_offset(self, t: TileTensor, lane: int, left: ir.Value | None) -> ir.Value:
        b, at = self.builder, I64(lane)
        if t.vector == TABLE:
            return table_entry(b, self.args[f"{t.name}.v"], at)
        if left is not None:
            at = b.select(b.icmp_signed("<", at, left), at, b.sub(left, I64(1)))
        return b.mul(at, self.lane_stride(t))

    def lane_stride(self, t: TileTensor) -> ir.Value:
        """Bytes from one lane to the next, where that is the same for all."""
        return I64(Element.of(t.dtype).itemsize) if t.vector == UNIT else self.args[f"{t.name}.v"]
