"""What the direct families ask about a contraction on a machine; nothing here decides on loops."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from ..contraction import Contraction, Dimension
from ..machine import Cpu
from .choice import extent, summed
from .tiling import components_and_bits

SHORT = 4                   # below, a dimension fills no vector
WHOLE = 32                  # longest dimension that lies in the tile whole, the code made for its extent
WHOLE_UPDATES = 64          # and the most updates of sums that are written out
MANY_TILES = 64             # from so many runs of the tile on, code for one extent alone pays
PREFETCH = 1024             # bytes behind what is read that a kernel asks for: a dozen lines are on their way
MANY_SETS = 256             # of a cache: more need not be counted
SQUARE = 16                 # side of the largest square of elements transposed in registers


@dataclass(frozen=True)
class Problem:
    c: Contraction
    cpu: Cpu

    @property
    def inputs(self) -> range:
        """The inputs' numbers; 0 is the output's."""
        return range(1, len(self.c.dtypes))

    # -- elements and bytes

    @property
    def components(self) -> int:
        """Real numbers, and with them registers, an element of a sum."""
        return components_and_bits(self.c.accumulator)[0]

    @property
    def bits(self) -> int:
        """Of one component."""
        return components_and_bits(self.c.accumulator)[1]

    def itemsize(self, tensor: int) -> int:
        return np.dtype(self.c.dtypes[tensor]).itemsize

    def size(self, tensor: int) -> int:
        """Bytes of a tensor."""
        return extent(self.c.members(tensor)) * self.itemsize(tensor)

    @property
    def read(self) -> int:
        """Bytes of all inputs."""
        return sum(self.size(t) for t in self.inputs)

    @property
    def from_memory(self) -> bool:
        """Whether what is read comes from memory at least in part: L3, which others use too, holds half its size."""
        return self.read + self.size(0) > self.cpu.l3.size // 2

    @property
    def largest(self) -> int:
        """The input with the most elements."""
        return max(self.inputs, key=lambda t: extent(self.c.members(t)))

    # -- dimensions

    @property
    def short(self) -> list[Dimension]:
        return [d for d in self.c.dimensions if d.extent < SHORT]

    def is_unit(self, d: Dimension, tensor: int) -> bool:
        """Whether the tensor's elements are neighbours along the dimension."""
        return self.c.has(d, tensor) and d.strides[tensor] == self.itemsize(tensor)

    def across(self, vector: Dimension) -> Dimension | None:
        """The dimension in which inputs are contiguous whose lanes lie apart, that with the most bytes."""
        found: dict[str, int] = {}
        for t in self.inputs:
            unit = self.c.unit(t)
            if self.c.has(vector, t) and unit and unit != vector.name:
                found[unit] = found.get(unit, 0) + self.size(t)
        return self.c.dimension(max(found, key=found.__getitem__)) if found else None

    def reusing(self, vector: Dimension) -> list[Dimension]:
        """Kept dimensions of a sum along which some input's vectors are used again; the longest first."""
        return self._reusing(vector, [d for d in self.c.dimensions if not d.summed]) if summed(self.c) else []

    def reusing_in_sum(self, vector: Dimension) -> list[Dimension]:
        """Summed dimensions along which some input's vectors are used again; the longest first."""
        return self._reusing(vector, summed(self.c))

    def _reusing(self, vector: Dimension, group: Sequence[Dimension]) -> list[Dimension]:
        found = [d for d in group if d is not vector
                 and any(self.c.has(vector, t) and not self.c.has(d, t) for t in self.inputs)]
        return sorted(found, key=lambda d: -d.extent)

    def pays_whole(self, *group: Dimension) -> bool:
        """Whether the tile should hold these dimensions whole, the code made for their extents alone: it saves
        all tests for edges, which cost more than the arithmetic where the tile is small and runs often."""
        return (all(d.extent <= WHOLE for d in group) and 0 < extent(group) <= WHOLE_UPDATES
                and self.c.work // extent(group) >= MANY_TILES)

    def in_turn(self, row: Dimension, cached: int) -> bool:
        """Whether rows should be read one after the other: where they are short, several on a page or two, and
        `cached` bytes do not hold them all (sums in registers lose little by it, sums in L1 a load and a store)."""
        return row.extent * abs(row.strides[self.largest]) <= self.cpu.l1.size // 4 and self.read > cached

    def collides(self, vector: Dimension) -> bool:
        """Whether more rows along the vector's dimension begin in the same sets of L2 than it has ways there, as rows
        a power of two apart do: what is read again has been replaced by then, though L2 has room for it."""
        l2 = self.cpu.l2
        moving = [t for t in range(len(self.c.dtypes)) if self.is_unit(vector, t)]
        rows = sum(self.size(t) // self.itemsize(t) // vector.extent for t in moving)
        return rows > l2.ways * max((self._sets(vector, t) for t in moving), default=0)

    def _sets(self, vector: Dimension, tensor: int) -> int:
        """Sets of L2 in which a tensor's rows begin; many are as good as all."""
        period, line = self.cpu.l2.size // self.cpu.l2.ways, self.cpu.l2.line
        sets = {0}
        for d in self.c.members(tensor):
            if d is not vector and len(sets) < MANY_SETS:
                sets = {(at + i * d.strides[tensor]) % period // line * line
                        for at in sets for i in range(min(d.extent, MANY_SETS))}
        return len(sets)

    # -- vectors

    def lanes(self, d: Dimension) -> int:
        """Full vectors, or the smallest power of two that holds a short dimension."""
        return _fitting(self.cpu.lanes(self.bits), d)

    def lanes_from_memory(self, d: Dimension) -> int:
        """The same for sums in the order of memory. What comes from memory is taken in vectors of half a cache
        line: arrays begin anywhere in a line, and a load of two lines waits for both (Zen 4: 34 to 37 GB/s with
        whole lines, 42 to 44 with halves)."""
        if self.read <= self.cpu.l3.size // 2:
            return self.lanes(d)
        return _fitting(min(self.cpu.lanes(self.bits), self.cpu.l1.line * 4 // self.bits), d)

    def prefetch_distance(self, vector: Dimension) -> int:
        """How far behind what is read inputs are asked for that are read along `vector`, and then on in the order of
        memory; 0 where they are not, or come from a cache. Prefetchers alone keep fewer lines on their way: sums of
        128 MB took 3.4 to 3.8 ms so and 3.7 to 4.1 without (Zen 4), of 64 MB 2 % less. Twice as far took as long, but
        twice as long where rows are short."""
        moving = [t for t in self.inputs if self.is_unit(vector, t)]
        row = min((vector.extent * self.itemsize(t) for t in moving), default=0)
        on = row >= 4 * PREFETCH or len(moving) == 1 and row >= PREFETCH // 2 and self._is_dense(moving[0])
        large = self.read + self.size(0) > self.cpu.l3.size and all(self.size(t) > self.cpu.l2.size for t in moving)
        return PREFETCH if on and large else 0

    def _is_dense(self, tensor: int) -> bool:
        """Whether the tensor's elements fill their part of memory."""
        span = sum((d.extent - 1) * abs(d.strides[tensor]) for d in self.c.members(tensor))
        return span + self.itemsize(tensor) == self.size(tensor)

    def square(self, vector: Dimension, across: Dimension) -> tuple[int, int]:
        """Side of the squares transposed in registers, and how many of them make up a tile; all lines of one
        must fit the registers."""
        room = min(SQUARE, self.cpu.registers // 2 // self.components)
        side = min(room, self.lanes(vector), self.lanes(across))
        vectors = 1
        while side * vectors < min(8, vector.extent):
            vectors *= 2
        return side, vectors


def _fitting(lanes: int, d: Dimension) -> int:
    """`lanes`, or as many as a shorter dimension fills; at least 2."""
    while lanes > 2 and lanes // 2 >= d.extent:
        lanes //= 2
    return max(lanes, 2)


def vectors_along(d: Dimension, lanes: int, wanted: int) -> int:
    """As many vectors side by side as are wanted (a power of two), or as a shorter dimension needs."""
    vectors = wanted
    while vectors > 1 and (vectors // 2) * lanes >= d.extent:
        vectors //= 2
    return vectors
