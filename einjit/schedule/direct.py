"""Policy for everything that is not packed: the register tile straight on the operands as they lie.

One dimension goes on vector lanes, one or two are unrolled, one is summed in registers; the others are fused
into outer loops. Labels: V (vector) U W (unrolled) S (serial sum) O (outer) R (outer sum) I (kept, inside R).
"""
from __future__ import annotations

from math import prod
from typing import Mapping, Sequence

import numpy as np

from ..contraction import Contraction, Dimension
from ..machine import Cpu
from .choice import OUTER_BLOCK, Choice, by_either_stride, by_stride, extent, names, summed
from .opts import Fuse, Opt, Parallel, Reorder, Split, Stream, Unroll, Vectorize
from .tiling import register_tile

STREAMS = 8                 # rows that are read side by side: more than these no prefetcher follows
SHORT = 4                   # below, a dimension fills no vector
WHOLE = 32                  # longest dimension that lies in the tile whole, the code made for its extent
WHOLE_UPDATES = 64          # and the most updates of sums that are written out
MANY_TILES = 64             # from so many runs of the tile on, code for one extent alone pays
NEAR_ROW = 512              # elements of a row walked before the rows next to it: lines of both stay in L2
SQUARE = 16                 # side of the largest square of elements transposed in registers


class Direct:
    """The register tile on the operands as they lie. `lanes`: the dimension to vectorise, if it is known."""

    def __init__(self, c: Contraction, cpu: Cpu, lanes: Dimension | None = None):
        self.c, self.cpu, self.lanes = c, cpu, lanes
        self.components = 2 if np.dtype(c.accumulator).kind == "c" else 1
        self.bits = np.dtype(c.accumulator).itemsize * 8 // self.components
        self.opts: list[Opt] = []
        self.used: list[Dimension] = []
        self.whole: list[str] = []      # labels that the tile holds whole

    def choice(self) -> Choice:
        if not self.c.dimensions:
            return Choice((), "scalar", "one element", "every size is 1")
        vector = self.lanes or self._vector_dimension()
        if vector is None:
            order, family, tile = self._scalars()
            return Choice((*self.opts, *self._finish(order)), family, tile, "what would be on the lanes lies apart")
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
        """The dimension whose lanes move most; None where its elements lie apart and all others are few."""
        short = [d for d in self.c.dimensions if d.extent < SHORT]
        long = [d for d in self.c.dimensions if d.extent >= SHORT] or short
        best = max(long, key=self._lane_score)
        if best in short or self._lane_score(best)[0] > 0:
            return best
        if not (short and summed(self.c) and self._pays_whole(*short)):
            return best
        kept = [d for d in short if not d.summed and self._lane_score(d)[0] > 0]
        return max(kept, key=self._lane_score) if kept else None

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
        widths, vectors = self._sums_at_once(vector, reusing)
        lanes, vectors = self._vector(vector, vectors)
        blocks = self._unrolled(reusing, widths)
        tail = [*self._on_lanes(vector, lanes, vectors), *self._tile_loops(widths), "V"]
        rows = " x ".join(map(str, widths))
        return blocks + tail, "reduction", f"{rows} sums of {vectors} x {lanes} lanes".lstrip()

    def _sums_at_once(self, vector: Dimension, reusing: Sequence[Dimension]) -> tuple[list[int], int]:
        """Rows along each reusing dimension, and the vectors of each sum.

        Long rows run side by side, so that what they share is loaded once. Short ones run in the order of
        memory, in which prefetchers follow: products of 128 x 128 from memory took 5 ms so, and 13 with 8 side
        by side (Zen 4, float32).
        """
        most = STREAMS // self.components
        if not reusing:
            return [], most
        if len(reusing) > 1:
            # One register a sum and component; as many again are needed to load what they are made of.
            room = self.cpu.registers // self.components
            pair = [4, 4] if room >= 32 else [2, 4] if room >= 16 else [2, 2]
            return [min(w, d.extent) for w, d in zip(pair, reusing)], 1
        (row,) = reusing
        vectors = self._vector(vector, most)[1]
        rows = most // vectors
        if not self._in_turn(vector, self.cpu.l2.size):
            rows, vectors = most, 2 if row.summed else 1    # the sums of all rows are one: two chains of additions
        return [min(rows, row.extent) if rows < STREAMS else self._dot_rows(row)], vectors

    def _in_turn(self, row: Dimension, cached: int) -> bool:
        """Whether rows should be read one after the other: where they are short, several on a page or two, and
        `cached` bytes do not hold them all (sums in registers lose little by it, sums in L1 a load and a store)."""
        return row.extent * abs(row.strides[self._largest()]) <= self.cpu.l1.size // 4 and self._read() > cached

    def _dot_rows(self, row: Dimension) -> int:
        """8 rows at once, or 4 where fewer of those lie past the edge; all of a short dimension."""
        most = 16 if self.cpu.registers >= 32 and self._pays_whole(row) else STREAMS
        if row.extent <= most:
            return row.extent
        return min((8, 4), key=lambda rows: -(-row.extent // rows) * rows)

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
        rows, lanes, vectors = self._contraction_tile(vector, self._reusing(vector))
        widths = [width for _, width in rows]
        blocks = self._unrolled([row for row, _ in rows], widths)
        loops = self._on_lanes(vector, lanes, vectors)
        if len(rows) > 1:
            # Some vectors in a row for each block of rows: pages are used for longer than a vector.
            near = 16 * lanes * vectors
            if near < vector.extent:
                at = self.opts.index(Split("V", lanes * vectors))
                self.opts.insert(at, Split("V", near))
                self.outermost = [f"V/{near}"]
            loops = [*blocks, *loops]
        else:
            loops = [*blocks, *loops] if self._in_cache(vector) else [*loops, *blocks]
        serial = self._serial(prod(widths) * vectors)
        tile = " x ".join(map(str, [*widths, lanes * vectors]))
        return ([*loops, *serial, *self._tile_loops(widths), "V"], "direct contraction",
                f"{tile} tile ({vectors} x {lanes} lanes)")

    def _contraction_tile(self, vector: Dimension, reusing: Sequence[Dimension]):
        """([(dimension, its rows)], lanes, vectors). Two dimensions where each input has vectors to use again."""
        inputs = range(1, len(self.c.dtypes))
        if len(reusing) > 1 and all(self.c.has(vector, t) for t in inputs):
            widths = (4, 4) if self.cpu.registers // self.components >= 32 else (2, 4)
            return [(d, min(w, d.extent)) for d, w in zip(reusing, widths)], self._lanes_for(vector), 1
        row = reusing[0]
        rows = (12, 8, 4, 3, 2, 1) if self.cpu.registers >= 32 else (6, 4, 3, 2, 1)
        if row.extent < rows[0] and self._pays_whole(row):
            rows += (row.extent,)
        elif rows[0] > 8 and row.extent % rows[0] and row.extent % 8 == 0 and row.extent <= 2 * WHOLE:
            rows = (8, *rows)       # first, and so preferred: 32 rows are 3 tiles of 12 with a rest, or 4 of 8
        tile = register_tile(self.cpu, self.c.accumulator, row.extent, vector.extent, rows)
        lanes = min(tile.lanes, self._lanes_for(vector))
        return [(row, tile.mr)], lanes, max(1, min(tile.vectors, -(-vector.extent // lanes)))

    def _scalars(self):
        """All short dimensions written out, with no lanes: the long ones would pick up each element alone."""
        short = [d for d in self.c.dimensions if d.extent < SHORT]
        names_ = [f"U{i}" if i else "U" for i in range(len(short))]
        for name, d in zip(names_, short):
            self._rename(name, d)
        self.whole += names_
        return names_, "written out", " x ".join(str(d.extent) for d in short)

    def _in_cache(self, vector: Dimension) -> bool:
        """Whether what lies along the lanes stays in L2. Rows of the output are then written one after another,
        each whole; otherwise few columns are read by all rows before the next."""
        sizes = [extent(self.c.members(t)) * np.dtype(self.c.dtypes[t]).itemsize
                 for t in range(1, len(self.c.dtypes)) if self.c.has(vector, t)]
        return sum(sizes) <= self.cpu.l2.size // 2

    def _column_sums(self, vector: Dimension):
        """Sums of a whole row of the output at once, in the order of memory: in registers where they hold it,
        else in L1."""
        lanes, itemsize = self._lanes_for(vector), np.dtype(self.c.dtypes[0]).itemsize
        self.in_memory_order = True
        room = self.cpu.registers // 2 // self.components
        if -(-vector.extent // lanes) <= room:
            vectors = 1 << (-(-vector.extent // lanes) - 1).bit_length()
            loops = self._on_lanes(vector, lanes, vectors)
            self._rename("S", self._row_dimension())
            return [*loops, "S", "V"], "column sums", f"{vectors} x {lanes} lanes"
        width, vectors = self._rows_at_once(vector)
        if width == 1:
            lanes = self._lanes_for(vector)
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
        if self._in_turn(vector, self.cpu.l3.size // 2):
            return 1, 4 // self.components
        moving = sum(self.c.has(vector, t) for t in range(1, len(self.c.dtypes)))
        return max(2, STREAMS // max(1, moving)), 2 // self.components

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
        # New pages are in the caches already, cleared: 6.7 ms for 64 MB through them, 8.3 past them (Zen 4).
        self.past_caches = not self.c.fresh and self._streams(vector, rows_aligned=False)
        lanes, vectors = self._vector(vector, 4 // self.components)
        self._rename("V", vector)
        self.opts.append(Split("V", lanes * vectors))
        self.vectorised = ("V", lanes)
        return [f"V/{lanes * vectors}", "V"], "map", f"{vectors} x {lanes} lanes"

    # -- parts

    outermost: Sequence[str] = ()
    in_memory_order = False             # the sums R run outside the kept dimensions that move faster
    near: Sequence[int] = (0,)          # tensors whose neighbours outer loops visit soon after one another
    past_caches = False
    vectorised: tuple[str, int] | None = None

    def _read(self) -> int:
        """Bytes of all inputs."""
        return sum(extent(self.c.members(t)) * np.dtype(d).itemsize for t, d in enumerate(self.c.dtypes) if t)

    def _largest(self) -> int:
        """The input with the most elements."""
        return max(range(1, len(self.c.dtypes)), key=lambda t: extent(self.c.members(t)))

    def _lanes_for(self, d: Dimension) -> int:
        """Full vectors, or the smallest power of two that holds a short dimension.

        Sums of what comes from memory take vectors of half a cache line: arrays begin anywhere in a line, and a
        load of two lines waits for both (Zen 4: 34 to 37 GB/s with whole lines, 42 to 44 with halves).
        """
        lanes = self.cpu.lanes(self.bits)
        if self.in_memory_order and self._read() > self.cpu.l3.size // 2:
            lanes = min(lanes, self.cpu.l1.line * 4 // self.bits)
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

    def _pays_whole(self, *group: Dimension) -> bool:
        """Whether the tile should hold these dimensions whole, the code made for their extents alone: it saves
        all tests for edges, which cost more than the arithmetic where the tile is small and runs often."""
        return (all(d.extent <= WHOLE for d in group) and 0 < extent(group) <= WHOLE_UPDATES
                and self.c.work // extent(group) >= MANY_TILES)

    def _blocks(self, name: str, d: Dimension, width: int) -> list[str]:
        """Name a dimension of the tile; the loop over its blocks, if the tile does not hold it whole."""
        self._rename(name, d)
        if d.extent == width and self._pays_whole(d):
            self.whole.append(name)
            return []
        self.opts.append(Split(name, width))
        return [f"{name}/{width}"]

    def _on_lanes(self, d: Dimension, lanes: int, vectors: int) -> list[str]:
        self.vectorised = ("V", lanes)
        return self._blocks("V", d, lanes * vectors)

    def _unrolled(self, group: Sequence[Dimension], widths: Sequence[int]) -> list[str]:
        """Put dimensions into the tile as U and W; returns the loops over their blocks."""
        loops = []
        for name, d, width in zip("UW", group, widths):
            if width > 1:
                loops += self._blocks(name, d, width)
            else:
                self._rename(name, d)
                loops.append(name)
        return loops

    @staticmethod
    def _tile_loops(widths: Sequence[int]) -> list[str]:
        return [name for name, width in zip("UW", widths) if width > 1]

    def _serial(self, sums: int) -> list[str]:
        """The sum in registers: a loop, or written out where it is short."""
        left = [d for d in summed(self.c) if d not in self.used]
        longest = max(left, key=lambda d: d.extent)
        self._rename("S", longest)
        if longest.extent * sums <= WHOLE_UPDATES and self._pays_whole(longest):
            self.whole.append("S")
        return ["S"]

    def _finish(self, loops: list[str]) -> list[Opt]:
        """Fuse what is left into outer loops, and fix the order of all."""
        kept = [d for d in self.c.dimensions if d not in self.used and not d.summed]
        sums = [d for d in self.c.dimensions if d not in self.used and d.summed]
        largest = self._largest()
        slowest = max((abs(d.strides[largest]) for d in sums), default=0)
        inner = [d for d in kept if self.in_memory_order and abs(d.strides[largest]) < slowest]
        outer = [d for d in kept if d not in inner]
        opts, order = [], []
        for name, group in (("O", by_either_stride(outer, self.near)), ("R", by_stride(self.c, sums, largest)),
                            ("I", by_stride(self.c, inner, largest))):
            fusing, walked = _walked(name, group)
            opts += fusing
            order += [*walked, *(self.outermost if name == "O" else ())]
        opts.append(Reorder((*order, *loops)))
        opts += [Unroll(name) for name in self._unrolled_in(loops)]
        if self.vectorised:
            opts.append(Vectorize(*self.vectorised))
        if self.past_caches:
            opts.append(Stream())
        shared = self._shared_sum([*order, *loops], opts) or self._shared({"O": outer, "I": inner})
        return opts + ([Parallel(shared)] if shared else [])

    def _unrolled_in(self, loops: list[str]) -> list[str]:
        return [name for name in loops if name != "V" and (
            name in self.whole or any(x.startswith(f"{name}/") for x in loops))]

    def _shared_sum(self, loops: Sequence[str], opts: Sequence[Opt]) -> str:
        """The label of the outermost loop that is one, if it is summed and the output so small that every thread
        can have its own: each reads one part of the inputs in the order of memory, where columns would be parts
        of every row."""
        if extent(self.c.members(0)) * np.dtype(self.c.dtypes[0]).itemsize > 2 * self.cpu.l1.size:
            return ""
        groups = {opt.name: [self.c.dimension(n) for n in opt.labels] for opt in (*self.opts, *opts)
                  if isinstance(opt, Fuse)}
        for loop in loops:
            label, _, step = loop.partition("/")
            if extent(groups[label]) > int(step or 1):
                return label if groups[label][0].summed and label not in self.whole else ""
        return ""

    def _shared(self, outer: Mapping[str, Sequence[Dimension]]) -> str:
        """The label that threads share: the kept one with the most positions."""
        extents = {opt.name: extent([self.c.dimension(n) for n in opt.labels]) for opt in self.opts
                   if isinstance(opt, Fuse) and opt.name not in self.whole
                   and not self.c.dimension(opt.labels[0]).summed}
        # Whole outer iterations are the better share.
        extents |= {name: 4 * extent(group) for name, group in outer.items() if group}
        return max(extents, key=extents.__getitem__, default="")


def _walked(name: str, group: Sequence[Dimension]) -> tuple[list[Opt], list[str]]:
    """The opts that fuse a group, slowest first, into one label, and the loops that walk it."""
    if not group:
        return [], []
    fuse = Fuse(names(group), name)
    if len(group) == 1:
        return [fuse], [name]
    return [fuse, Split(name, OUTER_BLOCK)], [f"{name}/{OUTER_BLOCK}", name]
