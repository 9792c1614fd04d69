"""Policy for everything that is not packed: the register tile straight on the operands as they lie.

One dimension goes on vector lanes, one or two are unrolled, one is summed in registers; the others are fused
into outer loops. Labels: V (vector) U W (unrolled) S (serial sum) O (outer) R (outer sum) I (kept, inside R).
"""
from __future__ import annotations

from typing import Mapping, Sequence

import numpy as np

from ..contraction import Contraction, Dimension
from ..machine import Cpu
from .choice import OUTER_BLOCK, Choice, by_stride, extent, names, summed
from .opts import Fuse, Opt, Parallel, Reorder, Split, Unroll, Vectorize
from .tiling import register_tile

STREAMS = 8                 # rows that are read side by side: more than these no prefetcher follows


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
        if vector.summed:
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

    def _reusing(self, vector: Dimension, reduced: bool = False) -> list[Dimension]:
        """Dimensions, kept or summed, along which some input's vectors are used again; the longest first."""
        inputs = range(1, len(self.c.dtypes))
        found = [d for d in self.c.dimensions if d is not vector and d.summed == reduced and summed(self.c)
                 and any(self.c.has(vector, t) and not self.c.has(d, t) for t in inputs)]
        return sorted(found, key=lambda d: -d.extent)

    # -- the four shapes of the tile; each returns the loops inside the outer ones, its family and tile

    def _dot(self, vector: Dimension):
        self.in_memory_order = True
        reusing = self._reusing(vector)[:2] or self._reusing(vector, reduced=True)[:1]
        widths, vectors = self._sums_at_once(reusing)
        lanes, vectors = self._vector(vector, vectors)
        blocks = self._unrolled(reusing, widths)
        self._rename("V", vector)
        self.opts.append(Split("V", lanes * vectors))
        tail = [f"V/{lanes * vectors}", *self._tile_loops(widths), "V"]
        self.vectorised = ("V", lanes)
        rows = " x ".join(map(str, widths))
        return blocks + tail, "reduction", f"{rows} sums of {vectors} x {lanes} lanes".lstrip()

    def _sums_at_once(self, reusing: Sequence[Dimension]) -> tuple[list[int], int]:
        """Rows along each reusing dimension, and the vectors of each sum."""
        if not reusing:
            return [], 8 if self.components == 1 else 1
        if len(reusing) == 1:
            if self.components > 1 or reusing[0].summed:
                return [min(4, reusing[0].extent)], 1 if self.components > 1 else 2
            return [_rows(reusing[0].extent)], 1
        # One register a sum and component; as many again are needed to load what they are made of.
        room = self.cpu.registers // self.components
        pair = [4, 4] if room >= 32 else [2, 4] if room >= 16 else [2, 2]
        return [min(w, d.extent) for w, d in zip(pair, reusing)], 1

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
        """Sums of a whole row of the output at once, in the order of memory: in registers where they hold it,
        else in L1."""
        self.in_memory_order = True
        lanes, itemsize = self._lanes_for(vector), np.dtype(self.c.dtypes[0]).itemsize
        room = self.cpu.registers // 2 // self.components
        if -(-vector.extent // lanes) <= room:
            lanes, vectors = self._vector(vector, room)
            self._rename("V", vector)
            self.opts.append(Split("V", lanes * vectors))
            self._rename("S", self._row_dimension())
            self.vectorised = ("V", lanes)
            return [f"V/{lanes * vectors}", "S", "V"], "column sums", f"{vectors} x {lanes} lanes"
        width, vectors = self._rows_at_once(vector)
        row = self._row_dimension()
        width = min(width, row.extent)
        blocks = self._unrolled([row], [width])
        self._rename("V", vector)
        block = lanes * vectors
        near = max(block, self.cpu.l1.size // 2 // itemsize // block * block)
        steps = [near, block] if near < vector.extent else [block]
        self.opts += [Split("V", step) for step in steps]
        self.vectorised = ("V", lanes)
        self.outermost = [f"V/{near}"] if len(steps) == 2 else []
        tile = f"{width} rows x {vectors} x {lanes} lanes"
        return [*blocks, f"V/{block}", *self._tile_loops([width]), "V"], "column sums", tile

    def _row_dimension(self) -> Dimension:
        """The summed dimension that moves slowest but for the shortest steps: what follows a row in memory."""
        left = [d for d in summed(self.c) if d not in self.used]
        long = [d for d in left if d.extent >= STREAMS] or left
        return min(long, key=lambda d: abs(d.strides[self._largest()]))

    def _rows_at_once(self, vector: Dimension) -> tuple[int, int]:
        """(rows, vectors of each) that are added before the sums go back to L1.

        Several rows save loads and stores of the sums. But short rows lie on one page, where prefetchers take
        them for one stream in disorder: from memory (Zen 4, float32, rows of 1 to 3 KB) 8 side by side came at
        14 to 19 GB/s, one after the other at 29 to 32; rows of 16 KB at 31 side by side, 20 to 25 in turn.
        """
        t = self._largest()
        read = sum(extent(self.c.members(t)) * np.dtype(d).itemsize for t, d in enumerate(self.c.dtypes) if t)
        short = vector.extent * abs(vector.strides[t]) <= self.cpu.l1.size // 4
        if short and read > self.cpu.l3.size // 2:
            return 1, 4 // self.components
        moving = sum(self.c.has(vector, t) for t in range(1, len(self.c.dtypes)))
        return max(2, STREAMS // max(1, moving)), 2 // self.components

    def _map(self, vector: Dimension):
        lanes, vectors = self._vector(vector, 4 // self.components)
        self._rename("V", vector)
        self.opts.append(Split("V", lanes * vectors))
        self.vectorised = ("V", lanes)
        return [f"V/{lanes * vectors}", "V"], "map", f"{vectors} x {lanes} lanes"

    # -- parts

    outermost: Sequence[str] = ()
    in_memory_order = False         # the sums R run outside the kept dimensions that move faster
    vectorised: tuple[str, int]

    def _largest(self) -> int:
        """The input with the most elements."""
        return max(range(1, len(self.c.dtypes)), key=lambda t: extent(self.c.members(t)))

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
        kept = [d for d in self.c.dimensions if d not in self.used and not d.summed]
        sums = [d for d in self.c.dimensions if d not in self.used and d.summed]
        largest = self._largest()
        slowest = max((abs(d.strides[largest]) for d in sums), default=0)
        inner = [d for d in kept if self.in_memory_order and abs(d.strides[largest]) < slowest]
        outer = [d for d in kept if d not in inner]
        opts, order = [], []
        for name, group, tensor in (("O", outer, 0), ("R", sums, largest), ("I", inner, largest)):
            fusing, walked = _walked(self.c, name, group, tensor)
            opts += fusing
            order += [*walked, *(self.outermost if name == "O" else ())]
        opts.append(Reorder((*order, *loops)))
        opts += [Unroll(name) for name in self._unrolled_in(loops)]
        opts.append(Vectorize(*self.vectorised))
        shared = self._shared({"O": outer, "I": inner})
        return opts + ([Parallel(shared)] if shared else [])

    @staticmethod
    def _unrolled_in(loops: list[str]) -> list[str]:
        return [name for name in loops if name in ("U", "W") and any(x.startswith(f"{name}/") for x in loops)]

    def _shared(self, outer: Mapping[str, Sequence[Dimension]]) -> str:
        """The label that threads share: the kept one with the most positions."""
        extents = {opt.name: extent([self.c.dimension(n) for n in opt.labels]) for opt in self.opts
                   if isinstance(opt, Fuse) and not self.c.dimension(opt.labels[0]).summed}
        # Whole outer iterations are the better share.
        extents |= {name: 4 * extent(group) for name, group in outer.items() if group}
        return max(extents, key=extents.__getitem__, default="")


def _walked(c: Contraction, name: str, group: Sequence[Dimension], tensor: int) -> tuple[list[Opt], list[str]]:
    """The opts that fuse a group into one label in the order of a tensor's memory, and the loops that walk it."""
    if not group:
        return [], []
    fuse = Fuse(names(by_stride(c, group, tensor)), name)
    if len(group) == 1:
        return [fuse], [name]
    return [fuse, Split(name, OUTER_BLOCK)], [f"{name}/{OUTER_BLOCK}", name]


def _rows(extent: int) -> int:
    """8 rows at once, or 4 where fewer of those lie past the edge; all of a shorter dimension."""
    return min((8, 4), key=lambda rows: -(-extent // rows) * rows) if extent > 8 else extent
