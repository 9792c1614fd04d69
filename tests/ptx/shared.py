"""Shared memory, and what threads must not do in it without a barrier.

For each granule of bytes it is kept who wrote it last and who read it since, and when. Time is counted for a block in
the barriers that it passed, and for a warp in those of its own (bar.warp.sync). Two accesses, one of them a write, by
different threads within one such time are a race.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import OutOfBounds, Race, Uninitialised
from .memory import SHARED, check_aligned, gathered, scattered
from .threads import Threads
from .traffic import Traffic, wavefronts

# Who did it: a lane's number, or one of these; several lanes of warp w are -2 - w.
MANY = -1
ATOMIC = -(1 << 40)
NEVER, PENDING = 0, -1      # in place of a time: not written yet, to be written by a cp.async in flight


@dataclass(frozen=True)
class Touch:
    """The granules of one access, one element for each lane and granule: which, by whom, and when."""

    cell: np.ndarray
    who: np.ndarray
    warp: np.ndarray
    time: np.ndarray
    warp_time: np.ndarray


class History:
    """For each granule the last access of a kind."""

    def __init__(self, cells: int) -> None:
        self.who, self.time, self.warp_time = (np.zeros(cells, np.int64) for _ in range(3))

    def put(self, touch: Touch, who: np.ndarray | int) -> None:
        self.who[touch.cell], self.time[touch.cell], self.warp_time[touch.cell] = who, touch.time, touch.warp_time


@dataclass(frozen=True)
class Copy:
    """A cp.async in flight: `group` says in which of its thread's groups each lane's part is."""

    lane: np.ndarray
    position: np.ndarray
    data: np.ndarray
    group: np.ndarray

    def only(self, chosen: np.ndarray) -> Copy:
        return Copy(self.lane[chosen], self.position[chosen], self.data[chosen], self.group[chosen])


class SharedMemory:
    """That of the blocks which run together; each has `size` bytes, and addresses them from SHARED on."""

    def __init__(self, threads: Threads, size: int, granule: int) -> None:
        self.threads, self.granule = threads, granule
        self.limit, self.size = size, -(-size // 16) * 16
        self.arena = np.full(threads.blocks * self.size, 0xCD, np.uint8)
        self.written, self.read = (History(self.arena.size // granule) for _ in range(2))
        self.time = np.ones(threads.blocks, np.int64)
        self.warp_time = np.ones(threads.warps, np.int64)
        self.groups = np.zeros(threads.count, np.int64)     # that each thread has committed
        self.copies: list[Copy] = []
        self.loads = self.stores = Traffic()

    def load(self, threads: Threads, lane: np.ndarray, address: np.ndarray, dtype: np.dtype, count: int) -> list:
        size = dtype.itemsize * count
        position = self._place(lane, address, size, "load")
        self._count_load(lane, address, size)
        self._read(self._touch(lane, position, size))
        return gathered(self.arena, position, dtype, count)

    def store(self, threads: Threads, lane: np.ndarray, address: np.ndarray, dtype: np.dtype,
              values: Sequence[np.ndarray]) -> None:
        size = dtype.itemsize * len(values)
        position = self._place(lane, address, size, "store")
        self.stores += wavefronts(threads.slot[lane], address - SHARED, size)
        touch = self._touch(lane, position, size)
        self._check_write(touch)
        self.written.put(touch, touch.who)
        twice = self.written.who[touch.cell] != touch.who
        if twice.any():
            raise Race(f"two threads store at once to {self._where(touch, twice)}")
        scattered(self.arena, position, dtype, values)

    def atomic(self, lane: np.ndarray, address: np.ndarray, size: int) -> np.ndarray:
        """The arena's positions for an atomic operation: it may meet others of its kind, but nothing else."""
        position = self._place(lane, address, size, "atomic")
        touch = self._touch(lane, position, size)
        self._check_read(touch, atomic=True)
        self._check_write(touch, atomic=True)
        self.written.put(touch, ATOMIC)
        return position

    def load_rows(self, lane: np.ndarray, address: np.ndarray) -> np.ndarray:
        """ldmatrix: 16 bytes from each address, which any lane of the warp may get."""
        position = self._place(lane, address, 16, "ldmatrix")
        self._count_load(lane, address, 16)
        touch = self._touch(lane, position, 16)
        self._read(Touch(touch.cell, -2 - touch.warp, touch.warp, touch.time, touch.warp_time))
        return self.arena[position[:, None] + np.arange(16)]

    def pass_barrier(self, blocks: np.ndarray) -> None:
        self.time[blocks] += 1

    def pass_warp_barrier(self, warps: np.ndarray) -> None:
        self.warp_time[warps] += 1

    def begin_copy(self, lane: np.ndarray, address: np.ndarray, data: np.ndarray) -> None:
        """cp.async: until its thread waits for it, the destination is nobody's to read or write."""
        size = data.shape[1]
        position = self._place(lane, address, size, "cp.async")
        self.stores += wavefronts(self.threads.slot[lane], address - SHARED, size)
        touch = self._touch(lane, position, size)
        self._check_write(touch)
        self.written.put(touch, touch.who)
        self.written.time[touch.cell] = PENDING
        self.copies.append(Copy(lane, position, data, self.groups[lane]))

    def commit(self, lane: np.ndarray) -> None:
        self.groups[lane] += 1

    def wait(self, lane: np.ndarray, left: int | None) -> None:
        """The lanes' copies arrive, but for those in the latest `left` groups; with None even uncommitted ones."""
        waits = np.zeros(self.threads.count, bool)
        waits[lane] = True
        remaining = []
        for copy in self.copies:
            arrives = waits[copy.lane]
            if left is not None:
                arrives &= copy.group < self.groups[copy.lane] - left
            if arrives.any():
                self._arrive(copy.only(arrives))
            if not arrives.all():
                remaining.append(copy.only(~arrives))
        self.copies = remaining

    def _arrive(self, copy: Copy) -> None:
        size = copy.data.shape[1]
        self.arena[copy.position[:, None] + np.arange(size)] = copy.data
        touch = self._touch(copy.lane, copy.position, size)
        self.written.put(touch, touch.who)

    def _place(self, lane: np.ndarray, address: np.ndarray, size: int, what: str) -> np.ndarray:
        check_aligned(address, size, f"shared {what}")
        offset = address - SHARED
        outside = (offset < 0) | (offset + size > self.limit)
        if outside.any():
            first = int(offset[outside][0])
            raise OutOfBounds(f"shared {what} of bytes {first} to {first + size - 1} of {self.limit}")
        return self.threads.block[lane] * self.size + offset

    def _count_load(self, lane: np.ndarray, address: np.ndarray, size: int) -> None:
        self.loads += wavefronts(self.threads.slot[lane], address - SHARED, size)

    def _touch(self, lane: np.ndarray, position: np.ndarray, size: int) -> Touch:
        parts = max(1, size // self.granule)
        cell = (position[:, None] // self.granule + np.arange(parts)).ravel()
        who = np.repeat(lane, parts)
        warp = self.threads.warp[who]
        return Touch(cell, who, warp, self.time[self.threads.block[who]], self.warp_time[warp])

    def _read(self, touch: Touch) -> None:
        self._check_read(touch)
        cell, who, alone = touch.cell, touch.who, -2 - touch.warp
        before = np.where(self.read.time[cell] == touch.time, self.read.who[cell], who)
        together = np.where(before == who, who, np.where(self._warp(before) == touch.warp, alone, MANY))
        self.read.put(touch, together)
        others = self.read.who[cell] != together     # several lanes in this instruction
        if others.any():
            self.read.who[cell[others]] = alone[others]
            now = self.read.who[cell]
            covered = (now == together) | (now == alone) & (together != MANY)
            self.read.who[cell[~covered]] = MANY

    def _check_read(self, touch: Touch, atomic: bool = False) -> None:
        written = self.written.time[touch.cell]
        for time, what in ((NEVER, "nobody wrote"), (PENDING, "a cp.async in flight will write")):
            if (wrong := written == time).any():
                raise Uninitialised(f"load of what {what}, from {self._where(touch, wrong)}")
        wrong = self._unordered(self.written, touch)
        if atomic:
            wrong &= self.written.who[touch.cell] != ATOMIC
        if wrong.any():
            raise Race(f"load after another thread's store with no barrier between, from {self._where(touch, wrong)}")

    def _check_write(self, touch: Touch, atomic: bool = False) -> None:
        if (wrong := self.written.time[touch.cell] == PENDING).any():
            raise Race(f"store to where a cp.async in flight will write, {self._where(touch, wrong)}")
        for history, what in ((self.written, "store"), (self.read, "load")):
            wrong = self._unordered(history, touch)
            if atomic:
                wrong &= history.who[touch.cell] != ATOMIC
            if wrong.any():
                where = self._where(touch, wrong)
                raise Race(f"store after another thread's {what} with no barrier between, to {where}")

    def _unordered(self, history: History, touch: Touch) -> np.ndarray:
        """Where no barrier lies between the last access and this one of another thread."""
        who = history.who[touch.cell]
        close = (history.time[touch.cell] == touch.time) & (who != touch.who)
        if close.any():
            close &= ~((self._warp(who) == touch.warp) & (history.warp_time[touch.cell] < touch.warp_time))
        return close

    def _warp(self, who: np.ndarray) -> np.ndarray:
        """The one warp that the accesses are from; -1 if there is none."""
        return np.where(who >= 0, self.threads.warp[np.maximum(who, 0)], np.where(who > ATOMIC, -2 - who, -1))

    def _where(self, touch: Touch, wrong: np.ndarray) -> str:
        at = np.flatnonzero(wrong)[0]
        byte = int(touch.cell[at]) * self.granule
        thread = int(touch.who[at]) if touch.who[at] >= 0 else int(np.argmax(self.threads.warp == touch.warp[at]))
        return f"byte {byte % self.size} (thread {thread % self.threads.per_block})"
