"""Policy for everything that is not packed: the register tile straight on the operands as they lie.

One dimension goes on vector lanes, one or two are unrolled, one is summed in registers; the others are fused
into outer loops. Labels: V (vector) U W (unrolled) S (serial sum) O (outer) R (outer sum).
"""
from __future__ import annotations

from typing import Sequence

import numpy as np

from ..contraction import Contraction, Dimension
from ..machine import Cpu
from .choice import OUTER_BLOCK, Choice, by_either_stride, by_stride, extent, names, summed
from .opts import Fuse, Opt, Parallel, Reorder, Split, Stream, Unroll, Vectorize
from .tiling import register_tile


NEAR_ROW = 512              # elements of a row walked before the rows next to it: lines of both stay in L2
SQUARE = 16                 # side of the largest square of elements transposed in registers


class Direct:
    """The register tile on the operands as they lie."""

    def __init__(self, c: Contraction, cpu: Cpu):
        self.c, self.cpu = c, cpu
        self.components = 2 if np.dtype(c.dtypes[0]).kind == "c" else 1
        self.bits = np.dtype(c.dtypes[0]).itemsize * 8 // self.components
        self.opts: list[Opt] = []
        self.used: list[Dimension] = []

    def choice(self) -> Choice:
        vector = self._vector_dimension()
        if vector is None:
            return Choice((), "scalar", "one element", "every size is 1")
        self.used.append(vector)
        across = self._across(vector)
        if vector.summed and across is not None and across.summed and not self._reusing(vector):
            order, family, tile = self._dot_of_transposed(vector, across)
        elif vector.summed:
            order, family, tile = self._dot(vector)
        elif self._reusing(vector):
            order, family, tile = self._small_contraction(vector)
        elif summed(self.c):
            order, family, tile = self._column_sums(vector)
        else:
            order, family, tile = self._map(vector)
        why = f"{vector.name} is on the lanes: " + self._lane_reason(vector)
        return Choice((*self.opts, *self._finish(order)), family, tile, why)

    # -- which dimension goes on the lanes

    def _vector_dimension(self) -> Dimension | None:
        if not self.c.dimensions:
            return None
        long = [d for d in self.c.dimensions if d.extent >= 4] or list(self.c.dimensions)
        return max(long, key=self._lane_score)

    def _lane_score(self, d: Dimension) -> tuple:
        """Bytes moved in whole vectors, less those picked up one by one (stores count more)."""
        score = 0.0
        for t, dtype in enumerate(self.c.dtypes):
            size = extent(self.c.members(t))
            if self.c.has(d, t):
                unit = d.strides[t] == np.dtype(dtype).itemsize
                score += size if unit else -size * (1.5 if t == 0 else 1)
        return score, not d.summed, d.extent

    def _lane_reason(self, d: Dimension) -> str:
        tensors = [name for t, name in enumerate(self.c.tensor_names)
                 if self.c.has(d, t) and d.strides[t] == np.dtype(self.c.dtypes[t]).itemsize]
        return f"contiguous in {', '.join(tensors)}" if tensors else "nothing is contiguous"

    def _reusing(self, vector: Dimension) -> list[Dimension]:
        """Kept dimensions along which some input's vectors are used again; the longest first."""
        inputs = range(1, len(self.c.dtypes))
        found = [d for d in self.c.dimensions if d is not vector and not d.summed and summed(self.c)
                 and any(self.c.has(vector, t) and not self.c.has(d, t) for t in inputs)]
        return sorted(found, key=lambda d: -d.extent)

    # -- the four shapes of the tile; each returns the loops inside the outer ones, its family and tile

    def _dot(self, vector: Dimension):
        reusing = self._reusing(vector)[:2]
        # One register a sum and component; as many again are needed to load what they are made of.
        room = self.cpu.registers // self.components
        pair = [4, 4] if room >= 32 else [2, 4] if room >= 16 else [2, 2]
        widths = ([], [4], pair)[len(reusing)]
        widths = [min(w, d.extent) for w, d in zip(widths, reusing)]
        wanted = {0: 8, 1: 2, 2: 1}[len(reusing)] if self.components == 1 else 1
        lanes, vectors = self._vector(vector, wanted)
        blocks = self._unrolled(reusing, widths)
        self._rename("V", vector)
        self.opts.append(Split("V", lanes * vectors))
        tail = [f"V/{lanes * vectors}", *self._tile_loops(widths), "V"]
        self.vectorised = ("V", lanes)
        rows = " x ".join(map(str, widths))
        return blocks + tail, "reduction", f"{rows} sums of {vectors} x {lanes} lanes".lstrip()

    def _dot_of_transposed(self, vector: Dimension, across: Dimension):
        """Sums of products of one operand with another that lies the other way round, square by square."""
        side, vectors = self._square(vector, across)
        blocks = self._unrolled([across], [side])
        self._rename("V", vector)
        order = [*blocks, f"V/{side * vectors}", "U", "V"]
        if vector.extent > NEAR_ROW:
            self.opts.append(Split("V", NEAR_ROW))
            order.insert(0, f"V/{NEAR_ROW}")
        self.opts.append(Split("V", side * vectors))
        self.vectorised = ("V", side)
        return order, "reduction", f"{side} x {side} squares"

    def _small_contraction(self, vector: Dimension):
        row = self._reusing(vector)[0]
        rows = (12, 8, 4, 3, 2, 1) if self.cpu.registers >= 32 else (6, 4, 3, 2, 1)
        tile = register_tile(self.cpu, self.c.dtypes[0], row.extent, vector.extent, rows)
        lanes = min(tile.lanes, self._lanes_for(vector))
        vectors = max(1, min(tile.vectors, -(-vector.extent // lanes)))
        blocks = self._unrolled([row], [tile.mr])
        self._rename("V", vector)
        self.opts.append(Split("V", lanes * vectors))
        self._serial()
        self.vectorised = ("V", lanes)
        loops = [f"V/{lanes * vectors}", *blocks, "S", *self._tile_loops([tile.mr]), "V"]
        return loops, "direct contraction", f"{tile.mr}x{lanes * vectors} tile ({vectors} x {lanes} lanes)"

    def _column_sums(self, vector: Dimension):
        row = max(summed(self.c), key=lambda d: d.extent)
        lanes = self._lanes_for(vector)
        if -(-vector.extent // lanes) <= 8 // self.components:
            lanes, vectors = self._vector(vector, 8 // self.components)
            self._rename("V", vector)
            self.opts.append(Split("V", lanes * vectors))
            self._serial()
            self.vectorised = ("V", lanes)
            return [f"V/{lanes * vectors}", "S", "V"], "column sums", f"{vectors} x {lanes} lanes"
        # Several rows at once, in the order of memory; the sums so far stay in L1.
        width = min(8, row.extent)
        blocks = self._unrolled([row], [width])
        self._rename("V", vector)
        near = max(lanes, self.cpu.l1.size // 2 // np.dtype(self.c.dtypes[0]).itemsize // lanes * lanes)
        steps = [near, lanes] if near < vector.extent else [lanes]
        self.opts += [Split("V", step) for step in steps]
        self.vectorised = ("V", lanes)
        self.outermost = [f"V/{near}"] if len(steps) == 2 else []
        return [*blocks, f"V/{lanes}", *self._tile_loops([width]), "V"], "column sums", f"{width} rows x {lanes} lanes"

    def _across(self, vector: Dimension) -> Dimension | None:
        """The dimension in which inputs are contiguous whose lanes lie apart, that with the most bytes."""
        found: dict[str, int] = {}
        for t in range(1, len(self.c.dtypes)):
            unit = self.c.unit(t)
            if self.c.has(vector, t) and unit and unit != vector.name:
                bytes_read = extent(self.c.members(t)) * np.dtype(self.c.dtypes[t]).itemsize
                found[unit] = found.get(unit, 0) + bytes_read
        return self.c.dimension(max(found, key=found.__getitem__)) if found else None

    def _map(self, vector: Dimension):
        across = self._across(vector) if self.c.unit(0) == vector.name else None
        return self._copied(vector) if across is None else self._transposed(vector, across)

    def _transposed(self, vector: Dimension, across: Dimension):
        """Squares read along one dimension, turned in registers, and written along the other."""
        side, vectors = self._square(vector, across)
        blocks = self._unrolled([across], [side])
        self._rename("V", vector)
        self.opts.append(Split("V", side * vectors))
        self.vectorised = ("V", side)
        self.near = tuple(range(len(self.c.dtypes)))
        order = [f"V/{side * vectors}", *blocks]
        self.past_caches = self._streams(vector, rows_aligned=True)
        along = [t for t in range(1, len(self.c.dtypes)) if self.c.unit(t) == vector.name]
        if along or not self.past_caches:
            # Lines at the ends of rows are shared with the next squares: these follow soon.
            order = [*blocks, f"V/{side * vectors}"]
            if vector.extent > NEAR_ROW:
                self.opts.insert(-1, Split("V", NEAR_ROW))
                order.insert(0, f"V/{NEAR_ROW}")
        return [*order, "U", "V"], "transposition", f"{side} x {side} squares"

    def _square(self, vector: Dimension, across: Dimension) -> tuple[int, int]:
        """Side of the squares, and how many of them make up a tile; all of one must fit the registers."""
        room = min(SQUARE, self.cpu.registers // 2 // self.components)
        side = min(room, self._lanes_for(vector), self._lanes_for(across))
        vectors = 1
        while side * vectors < min(8, vector.extent):
            vectors *= 2
        return side, vectors

    def _streams(self, vector: Dimension, rows_aligned: bool) -> bool:
        """Whether to write the output past the caches: it is larger than they are, and whole lines of it are
        written at once. `rows_aligned`: rows must begin at the same place in a line for that."""
        c, line = self.c, self.cpu.l1.line
        itemsize = np.dtype(c.dtypes[0]).itemsize
        strides = [d.strides[0] for d in c.members(0) if d is not vector]
        return (c.unit(0) == vector.name and extent(c.members(0)) * itemsize > self.cpu.l3.size
                and vector.extent * itemsize >= (16 if rows_aligned else 64) * line and line % itemsize == 0
                and not (rows_aligned and any(s % line for s in strides)))

    def _copied(self, vector: Dimension):
        self.past_caches = self._streams(vector, rows_aligned=False)
        lanes, vectors = self._vector(vector, 4 // self.components)
        self._rename("V", vector)
        self.opts.append(Split("V", lanes * vectors))
        self.vectorised = ("V", lanes)
        return [f"V/{lanes * vectors}", "V"], "map", f"{vectors} x {lanes} lanes"

    # -- parts

    outermost: Sequence[str] = ()
    near: Sequence[int] = (0,)          # tensors whose neighbours outer loops visit soon after one another
    past_caches = False
    vectorised: tuple[str, int]

    def _lanes_for(self, d: Dimension) -> int:
        """Full vectors, or the smallest power of two that holds a short dimension."""
        lanes = self.cpu.lanes(self.bits)
        while lanes > 2 and lanes // 2 >= d.extent:
            lanes //= 2
        return max(lanes, 2)

    def _vector(self, d: Dimension, wanted: int) -> tuple[int, int]:
        lanes = self._lanes_for(d)
        vectors = wanted
        while vectors > 1 and (vectors // 2) * lanes >= d.extent:
            vectors //= 2
        return lanes, vectors

    def _rename(self, name: str, *group: Dimension) -> None:
        self.opts.append(Fuse(names(group), name))
        self.used += [d for d in group if d not in self.used]

    def _unrolled(self, group: Sequence[Dimension], widths: Sequence[int]) -> list[str]:
        """Put dimensions into the tile as U and W; returns the loops over their blocks."""
        blocks = []
        for name, d, width in zip("UW", group, widths):
            self._rename(name, d)
            if width > 1:
                self.opts.append(Split(name, width))
                blocks.append(f"{name}/{width}")
            else:
                blocks.append(name)
        return blocks

    @staticmethod
    def _tile_loops(widths: Sequence[int]) -> list[str]:
        return [name for name, width in zip("UW", widths) if width > 1]

    def _serial(self) -> None:
        left = [d for d in summed(self.c) if d not in self.used]
        self._rename("S", max(left, key=lambda d: d.extent))

    def _finish(self, loops: list[str]) -> list[Opt]:
        """Fuse what is left into outer loops, and fix the order of all."""
        opts: list[Opt] = []
        kept = [d for d in self.c.dimensions if d not in self.used and not d.summed]
        sums = [d for d in self.c.dimensions if d not in self.used and d.summed]
        largest = max(range(1, len(self.c.dtypes)), key=lambda t: extent(self.c.members(t)))
        sections = []
        for name, group, tensor in (("O", kept, 0), ("R", sums, largest)):
            walked = []
            if group:
                ordered = by_either_stride(group, self.near) if name == "O" else by_stride(self.c, group, tensor)
                opts.append(Fuse(names(ordered), name))
                walked.append(name)
            if len(group) > 1:
                opts.append(Split(name, OUTER_BLOCK))
                walked.insert(0, f"{name}/{OUTER_BLOCK}")
            sections.append(walked)
        outer = [*sections[0], *self.outermost, *sections[1]]
        opts.append(Reorder((*outer, *loops)))
        opts += [Unroll(name) for name in self._unrolled_in(loops)]
        opts.append(Vectorize(*self.vectorised))
        if self.past_caches:
            opts.append(Stream())
        shared = self._shared(kept)
        return opts + ([Parallel(shared)] if shared else [])

    @staticmethod
    def _unrolled_in(loops: list[str]) -> list[str]:
        return [name for name in loops if name in ("U", "W") and any(x.startswith(f"{name}/") for x in loops)]

    def _shared(self, kept: list[Dimension]) -> str:
        """The label that threads share: the kept one with the most positions."""
        extents = {opt.name: extent([self.c.dimension(n) for n in opt.labels]) for opt in self.opts
                   if isinstance(opt, Fuse) and not self.c.dimension(opt.labels[0]).summed}
        if kept:
            extents["O"] = 4 * extent(kept)        # whole outer iterations are the better share
        return max(extents, key=extents.__getitem__, default="")
