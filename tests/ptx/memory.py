"""Global and local memory, and the address space that they share with shared memory.

All memories have addresses of their own in one space, so that a generic address tells which one is meant. Each array
has 64 GiB of addresses to itself: an index that leaves its array never arrives in another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import Misaligned, OutOfBounds, Race
from .threads import Threads
from .traffic import Traffic, sectors

SHARED = 1 << 24        # fits the 32 bits that PTX may keep a shared address in
LOCAL = 1 << 32
GLOBAL = 1 << 44
SPAN = 1 << 36          # addresses from one array to the next
MARGIN = 4096           # of them before an array's first element
ALIGN = 256             # what allocations on a GPU are aligned to


def space_of(address: int) -> str:
    return "global" if address >= GLOBAL else "local" if address >= LOCAL else "shared"


def in_space(address: np.ndarray, space: str) -> np.ndarray:
    low, high = {"shared": (0, LOCAL), "local": (LOCAL, GLOBAL), "global": (GLOBAL, 1 << 63)}[space]
    return (address >= np.uint64(low)) & (address < np.uint64(high))


def check_aligned(address: np.ndarray, size: int, what: str) -> None:
    beyond = address % size
    if beyond.any():
        raise Misaligned(f"{what} of {size} bytes at an address {beyond[beyond > 0][0]} past a multiple of {size}")


def gathered(arena: np.ndarray, position: np.ndarray, dtype: np.dtype, count: int) -> list[np.ndarray]:
    """`count` neighbours from aligned positions, one array for each."""
    elements, first = arena.view(dtype), position // dtype.itemsize
    return [elements[first + q] for q in range(count)]


def scattered(arena: np.ndarray, position: np.ndarray, dtype: np.dtype, values: Sequence[np.ndarray]) -> None:
    elements, first = arena.view(dtype), position // dtype.itemsize
    for q, value in enumerate(values):
        elements[first + q] = value


@dataclass(frozen=True)
class Allocation:
    """Bytes that are `shift` past a multiple of 256; `name` is for messages."""

    name: str
    data: np.ndarray
    shift: int = 0
    writable: bool = True


class GlobalMemory:
    """Arrays, and for each granule of their bytes which thread stored there: no second one may."""

    def __init__(self, allocations: Sequence[Allocation], granule: int) -> None:
        self.allocations, self.granule = tuple(allocations), granule
        room = [-(-(a.shift + a.data.size) // ALIGN) * ALIGN for a in allocations]
        starts = np.concatenate([[0], np.cumsum(room)]).astype(np.int64)
        self.arena = np.zeros(int(starts[-1]) + ALIGN, np.uint8)
        self.shift = np.array([a.shift for a in allocations] or [0])
        self.start = starts[:max(1, len(allocations))] + self.shift
        self.size = np.array([a.data.size for a in allocations] or [0])
        self.read_only = np.array([not a.writable for a in allocations] or [True])
        self.owner = np.full(self.arena.size // granule, -1)
        self.loads = self.stores = Traffic()
        for allocation, start in zip(allocations, self.start):
            self.arena[start:start + allocation.data.size] = allocation.data

    def address(self, number: int) -> int:
        """Of the first byte of an allocation."""
        return GLOBAL + number * SPAN + MARGIN + int(self.shift[number])

    def content(self, number: int) -> np.ndarray:
        return self.arena[self.start[number]:self.start[number] + self.size[number]]

    def load(self, threads: Threads, lane: np.ndarray, address: np.ndarray, dtype: np.dtype, count: int) -> list:
        size = dtype.itemsize * count
        check_aligned(address, size, "global load")
        position = self.place(address, size, "load", writes=False)
        self.loads += sectors(threads.warp[lane], position, size)
        return gathered(self.arena, position, dtype, count)

    def load_bytes(self, threads: Threads, lane: np.ndarray, address: np.ndarray, size: int,
                   taken: np.ndarray) -> np.ndarray:
        """`size` bytes a lane, of which only the first `taken` are read and the others 0."""
        result = np.zeros((lane.size, size), np.uint8)
        for part in np.unique(taken[taken > 0]):
            some = np.flatnonzero(taken == part)
            check_aligned(address[some], size, "cp.async")
            position = self.place(address[some], int(part), "cp.async", writes=False)
            self.loads += sectors(threads.warp[lane[some]], position, int(part))
            result[some, :part] = self.arena[position[:, None] + np.arange(part)]
        return result

    def store(self, threads: Threads, lane: np.ndarray, address: np.ndarray, dtype: np.dtype,
              values: Sequence[np.ndarray]) -> None:
        size = dtype.itemsize * len(values)
        check_aligned(address, size, "global store")
        position = self.place(address, size, "store", writes=True)
        self._own(position, size, threads.number[lane])
        self.stores += sectors(threads.warp[lane], position, size)
        scattered(self.arena, position, dtype, values)

    def place(self, address: np.ndarray, size: int, what: str, writes: bool) -> np.ndarray:
        """Where in the arena the addresses are."""
        number = np.clip((address - GLOBAL) // SPAN, 0, self.start.size - 1)
        within = address - GLOBAL - number * SPAN - MARGIN - self.shift[number]
        outside = (within < 0) | (within + size > self.size[number])
        if outside.any():
            at = np.flatnonzero(outside)[0]
            raise OutOfBounds(f"global {what} of bytes {within[at]} to {within[at] + size - 1} of "
                              f"{self._called(number[at])}, which has {self.size[number[at]]}")
        if writes and (refused := self.read_only[number]).any():
            raise OutOfBounds(f"global {what} to {self._called(number[refused][0])}, which is read-only")
        return self.start[number] + within

    def _called(self, number: int) -> str:
        return self.allocations[number].name if self.allocations else "nothing"

    def _own(self, position: np.ndarray, size: int, who: np.ndarray) -> None:
        parts = max(1, size // self.granule)
        cell = (position[:, None] // self.granule + np.arange(parts)).ravel()
        who = np.repeat(who, parts)
        others = (self.owner[cell] >= 0) & (self.owner[cell] != who)
        self.owner[cell] = who
        others |= self.owner[cell] != who     # in this instruction
        if others.any():
            number = int(np.searchsorted(self.start, cell[others][0] * self.granule, side="right")) - 1
            byte = int(cell[others][0]) * self.granule - int(self.start[number])
            raise Race(f"two threads store to byte {byte} of {self._called(number)}")


class LocalMemory:
    """Each thread's own: nothing can go wrong between threads."""

    def __init__(self, threads: int, size: int) -> None:
        self.size = -(-size // 16) * 16
        self.arena = np.full(threads * self.size, 0xCD, np.uint8)

    def load(self, threads: Threads, lane: np.ndarray, address: np.ndarray, dtype: np.dtype, count: int) -> list:
        return gathered(self.arena, self._place(lane, address, dtype.itemsize * count), dtype, count)

    def store(self, threads: Threads, lane: np.ndarray, address: np.ndarray, dtype: np.dtype,
              values: Sequence[np.ndarray]) -> None:
        scattered(self.arena, self._place(lane, address, dtype.itemsize * len(values)), dtype, values)

    def _place(self, lane: np.ndarray, address: np.ndarray, size: int) -> np.ndarray:
        check_aligned(address, size, "local access")
        within = address - LOCAL
        if (within < 0).any() or (within + size > self.size).any():
            raise OutOfBounds(f"local access outside of {self.size} bytes")
        return lane * self.size + within
