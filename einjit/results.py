"""Memory of large results: what earlier results have left is used again.

The system hands out memory a page at a time, at its first use, and clears each page. For a large result of
little work this takes as long as the work: adding up two arrays of 64 MB took 10.9 ms into new memory and 5.2
into memory in use (Zen 4, Linux, huge pages). Allocators of the C library keep small blocks only.

Blocks that were handed out are listed here. One is free again as soon as nothing but the list refers to it: every
view of a result holds its block (`result.base`). So nothing has to be called when a result goes.
"""
from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from .board import LINE
from .cache import on_clear
from .contraction import Layout

LEAST = 1 << 20         # bytes of a result from which on its memory is kept
MOST = 32               # blocks in the list: it is gone through at each call
SLACK = 8               # a block may be larger than asked for by this part of its size


@dataclass(frozen=True)
class _Block:
    """`memory`: bytes; `start`: the first of them on a cache line's boundary, so that no store of a vector is split;
    `size`: bytes from there."""

    memory: np.ndarray
    start: int
    size: int


def _new(size: int) -> _Block:
    memory = np.empty(size + LINE, np.uint8)
    return _Block(memory, -memory.ctypes.data % LINE, size)


class Blocks:
    """The blocks last handed out, `MOST` of them and `limit` bytes at most, those in use included."""

    def __init__(self):
        self.unlock()
        self.clear()

    def unlock(self) -> None:
        """After a fork: the thread that held the lock is not in the child."""
        self._busy = threading.Lock()

    def clear(self) -> None:
        """Let go of all blocks. Results keep theirs."""
        self._blocks: list[_Block] = []

    def take(self, size: int, limit: int) -> tuple[np.ndarray, int]:
        """Memory, and where in it `size` bytes begin. It is not free before the caller lets go of it."""
        # Never wait: whoever is here may be a finalizer that runs in the midst of this method.
        busy = self._busy
        if not busy.acquire(blocking=False):
            block = _new(size)
            return block.memory, block.start
        try:
            blocks = self._blocks
            block = _take_free(blocks, size) or _new(size)
            blocks.append(block)
            _forget(blocks, limit)
            # Referred to before the next one is let in, who would find it free.
            return block.memory, block.start
        finally:
            busy.release()


def _take_free(blocks: list[_Block], size: int) -> _Block | None:
    # Made anew: one that was kept could have been found, and held, by whoever lists all objects.
    unseen = _Block(np.empty(0, np.uint8), 0, 0)
    references = sys.getrefcount(unseen.memory)
    for i in reversed(range(len(blocks))):      # what was used last may still be in a cache
        block = blocks[i]
        free = sys.getrefcount(block.memory) == references
        # Who freezes an array with all its bases has frozen the block.
        if free and size <= block.size <= size + size // SLACK and block.memory.flags.writeable:
            return blocks.pop(i)
    return None


def _forget(blocks: list[_Block], limit: int) -> None:
    """Drop the blocks handed out longest ago until `MOST` and `limit` bytes are left."""
    excess = sum([b.size for b in blocks]) - limit
    while excess > 0 or len(blocks) > MOST:
        excess -= blocks.pop(0).size


_blocks = Blocks()
clear = on_clear(_blocks.clear)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_blocks.unlock)


def allocator(layout: Layout, kept: int) -> Callable[[], np.ndarray]:
    """What makes new arrays of this layout, their elements undefined. It fills the memory from one end to the
    other. `kept`: the bytes of memory, at most, that may be kept for later arrays."""
    shape, dtype = layout.shape, np.dtype(layout.dtype)
    size = prod(shape) * dtype.itemsize
    if LEAST <= size <= kept:
        def in_block() -> np.ndarray:
            memory, start = _blocks.take(size, kept)
            return np.ndarray(shape, dtype, memory, start, layout.strides)
        return in_block
    if layout == Layout.contiguous(shape, layout.dtype):
        return partial(np.empty, shape, dtype)      # half as long as the next
    return partial(np.ndarray, shape, dtype, None, 0, layout.strides)
