"""The register tile and the packing of a block, described as values: what generated source names and the
emitters of intrinsics build.

A tile is the innermost block of a scheduled loop nest: some labels unrolled, at most one label on vector
lanes, and at most one reduction loop around them, so that all partial results stay in registers.
"""
from __future__ import annotations

from dataclasses import dataclass

from ..expr import Expr
from ..ir import edge_rows, edge_vectors

STAGE_ROOM = 64      # bytes that a staged block's buffer has besides: it begins where in a line the block does

# How an operand moves along one label of the tile:
ABSENT = ""          # it does not have the label
UNIT = "unit"        # neighbouring elements
AFFINE = "affine"    # a byte stride, given at run time
TABLE = "table"      # a table of byte offsets, given at run time (fused labels)
PACKED = "packed"    # a packed panel: neighbouring elements across it, one panel row a step along it


@dataclass(frozen=True)
class TileTensor:
    """One tensor as the tile sees it: its name and dtype, and how it moves along each label of the tile."""

    name: str
    dtype: str
    unrolled: tuple[str, ...] = ()
    vector: str = ABSENT
    serial: str = ABSENT

    @property
    def packed(self) -> bool:
        return PACKED in (*self.unrolled, self.vector, self.serial)

    @property
    def transposed(self) -> bool:
        """Whether it is read in vectors along an unrolled label, which are turned in registers."""
        return UNIT in self.unrolled and self.vector != ABSENT


@dataclass(frozen=True)
class Part:
    """What one of a tile's loops computes: the first positions on its first unrolled label, and the first vectors."""

    rows: int
    vectors: int


@dataclass(frozen=True)
class TileSpec:
    """`widths`: extents of the unrolled labels, `kept` of which are in the output. `lanes` x `vectors` is
    the extent on the vector label; `vector_kept` says whether the output has it. `serial`: '' for no loop,
    'label' for a loop over a reduction label, 'vector' for a loop over blocks of the vector label itself.
    `whole`: the extents of labels that lie in the tile whole, by place ('u0', 'v'). `streamed`: whole tiles are
    written past the caches where their rows are aligned. `ahead`: the inputs of a later block are asked for."""

    widths: tuple[int, ...]
    kept: tuple[bool, ...]
    lanes: int
    vectors: int
    vector_kept: bool
    serial: str
    inputs: tuple[TileTensor, ...]
    out: TileTensor
    accumulator: str
    reduce: str
    body: Expr
    whole: tuple[tuple[str, int], ...] = ()
    streamed: bool = False
    ahead: bool = False

    @property
    def width(self) -> int:
        """Extent of the tile along the vector label."""
        return self.lanes * self.vectors

    @property
    def tensors(self) -> tuple[TileTensor, ...]:
        return (self.out, *self.inputs)

    @property
    def whole_part(self) -> Part:
        """All of the tile."""
        return Part(self.widths[0] if self.widths else 1, self.vectors)

    @property
    def edge_rows(self) -> int:
        """Rows of the tile's loop for a lower edge; 0 where it has none."""
        turned = any(t.transposed for t in self.inputs)     # whole squares are read
        return edge_rows(self.widths[0]) if self.widths and self.kept[0] and not turned else 0

    @property
    def edge_vectors(self) -> int:
        """Vectors of its loop for a right edge; 0 where it has none."""
        return edge_vectors(self.vectors) if self.vector_kept else 0

    @property
    def has_vector(self) -> bool:
        return self.width > 1

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the int64 arguments of the tile's intrinsic, in order.

        `x` is a tensor's address at the tile's first element; `x.u0`, `x.v`, `x.s` are its stride or
        table along an unrolled, the vector and the serial label; `u0.left`, `v.left` count the positions
        from the tile's first to the end of the label; `count` is the number of steps of the serial loop;
        `first` is 1 where the output has no earlier partial result; `x.ahead` is how many bytes behind what
        the tile reads of an input lies what a later block reads.
        """
        names = [t.name for t in self.tensors]
        for t in self.tensors:
            places = [(f"u{i}", mode) for i, mode in enumerate(t.unrolled)]
            places += [("v", t.vector), ("s", t.serial)]
            names += [f"{t.name}.{place}" for place, mode in places if mode in (AFFINE, TABLE)]
        places = [f"u{i}" for i in range(len(self.widths))] + ["v"] * self.has_vector
        names += [f"{place}.left" for place in places if place not in dict(self.whole)]
        if self.serial == "label":
            names.append("count")
        names += [f"{t.name}.ahead" for t in self.inputs if self.ahead]
        return (*names, "first")


@dataclass(frozen=True)
class PackSpec:
    """How one operand is packed: dtypes before and after, the panel's width, and how many panels are filled at a
    time where they are one run of the operand together."""

    source: str
    target: str
    width: int
    abreast: int = 1
