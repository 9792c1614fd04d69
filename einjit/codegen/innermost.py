"""The register tile of a scheduled nest: which loops are inside it, and its specification."""
from __future__ import annotations

from functools import cached_property

from ..ir import TILE, Kind, Label, Loop, LoopNest, Tensor, tile_width
from .specs import ABSENT, AFFINE, PACKED, TABLE, UNIT, TileSpec, TileTensor


def is_tabled(nest: LoopNest, label: Label) -> bool:
    """Whether positions on a label become offsets through a table: fused labels, and all labels of a nest
    with packs (packing walks tables, and one kernel then serves fused and plain groups)."""
    return len(label.members) > 1 or bool(nest.packs)


def absorbed(nest: LoopNest) -> Loop | None:
    """The loop that becomes part of the tile: a reduction around it, on its own label or by whole blocks of a
    summed vector label, so that partial results stay in registers."""
    outside = [n for n in nest.nodes if not isinstance(n, Loop) or n.kind not in TILE]
    if not outside or not isinstance(outside[-1], Loop):
        return None
    loop, vector = outside[-1], next((n for n in nest.loops if n.kind is Kind.VECTOR), None)
    label = nest.label(loop.label)
    if not label.summed:
        return None
    if is_tabled(nest, label) and loop is nest.loops_of(label.name)[0]:
        return None     # tables are filled by the outermost loop of a label, which must then be one
    if vector is not None and nest.label(vector.label).summed:
        return loop if loop.label == vector.label and not is_tabled(nest, label) else None
    return loop if loop.step == 1 else None


def keeps_partial_results(nest: LoopNest) -> bool:
    """Whether elements of the output are added to more than once, and so hold partial results in between."""
    in_tile = absorbed(nest)
    for label in nest.labels:
        block = label.extent
        for loop in nest.loops_of(label.name):
            if label.summed and loop is not in_tile and loop.kind not in TILE and loop.step < block:
                return True
            block = loop.step
    return False


class Innermost:
    """`tile`: the loops that are the tile; `vector` and `unrolled` among them; `absorbed`: the loop around it that
    it takes in."""

    def __init__(self, nest: LoopNest):
        self.nest = nest
        self.tile = [n for n in nest.loops if n.kind in TILE]
        self.vector = next((n for n in self.tile if n.kind is Kind.VECTOR), None)
        self.unrolled = [n for n in self.tile if n.kind is Kind.UNROLLED]
        self.absorbed = absorbed(nest)
        self.packed = {pack.tensor for pack in nest.packs}

    @property
    def spec(self) -> TileSpec:
        nest, lanes, width = self.nest, 1, 1
        if self.vector is not None:
            lanes, width = self.vector.lanes, tile_width(nest, self.vector.label)
        serial = ""
        if self.absorbed is not None:
            serial = "vector" if self.absorbed.step > 1 else "label"
        out, *inputs = (self._tile_tensor(t) for t in nest.tensors)
        return TileSpec(
            widths=tuple(tile_width(nest, u.label) for u in self.unrolled),
            kept=tuple(not nest.label(u.label).summed for u in self.unrolled),
            lanes=lanes, vectors=width // lanes,
            vector_kept=self.vector is None or not nest.label(self.vector.label).summed,
            serial=serial, inputs=tuple(inputs), out=out, accumulator=nest.accumulator,
            reduce=nest.reduce, body=nest.body,
            whole=tuple((place, nest.label(label).extent) for place, label in self.places.items()
                        if nest.is_whole(label)),
            streamed=nest.streamed, ahead=bool(nest.ahead or nest.prefetch))

    @cached_property
    def places(self) -> dict[str, str]:
        """The tile's labels by the names that its arguments have for them."""
        places = {f"u{i}": u.label for i, u in enumerate(self.unrolled)}
        if self.vector is not None:
            places["v"] = self.vector.label
        if self.absorbed is not None and self.absorbed.step == 1:
            places["s"] = self.absorbed.label
        return places

    def _tile_tensor(self, t: Tensor) -> TileTensor:
        serial = self.absorbed.label if self.absorbed is not None and self.absorbed.step == 1 else None
        dtype = self.nest.accumulator if t.name in self.packed else t.dtype
        return TileTensor(t.name, dtype, tuple(self._mode(t, u.label, self._unit_mode(t, u)) for u in self.unrolled),
                          self._mode(t, self.vector.label, UNIT) if self.vector else ABSENT,
                          self._mode(t, serial) if serial else ABSENT)

    def _mode(self, t: Tensor, label: str, unit: str = AFFINE) -> str:
        if label not in t.labels:
            return ABSENT
        if t.name in self.packed:
            return PACKED
        if is_tabled(self.nest, self.nest.label(label)):
            return TABLE
        return unit if t.unit == label else AFFINE

    def _unit_mode(self, t: Tensor, unrolled: Loop) -> str:
        """How an input moves along an unrolled label in which it is contiguous: by whole vectors, which are
        transposed in registers, where its lanes lie apart and the tile holds whole squares."""
        vector = self.vector
        if vector is None or vector.label not in t.labels or t is self.nest.out:
            return AFFINE
        return AFFINE if tile_width(self.nest, unrolled.label) % vector.lanes else UNIT
