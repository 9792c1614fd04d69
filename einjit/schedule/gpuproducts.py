"""Schedules of products for GPUs: tiles in shared memory and in registers, and tensor cores."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from ..contraction import Contraction, Role
from ..expr import product
from ..machine import Gpu
from .choice import Choice, by_stride, extent, names
from .opts import Bind, Fuse, Opt, Reorder, Share, Split, Unroll

VECTOR = 16                 # bytes that a thread reads or writes at once
SMALL = 16                  # rows, columns or summed positions below which a tile would be mostly empty
LONG_PART = 16              # blocks of a sum that one block computes at the least, where it is taken apart


@dataclass(frozen=True)
class BlockTile:
    """`bm` x `bn` elements of the output a block, `bk` steps in shared memory. The threads are `tm` x `tn`; each has
    fragments of `fragment` neighbouring rows, and columns."""

    bm: int
    bn: int
    bk: int
    fragment: int
    tm: int = 16
    tn: int = 16

    def __str__(self) -> str:
        return f"{self.bm}x{self.bn}x{self.bk} block, {self.bm // self.tm}x{self.bn // self.tn} a thread"


def tiling_pays(c: Contraction) -> bool:
    if len(c.operands) != 2 or c.body != product(2) or np.dtype(c.accumulator).kind == "b":
        return False
    if np.dtype(c.accumulator).itemsize < 4 or any(c.group(role) for role in (Role.SUM_A, Role.SUM_B, Role.KEPT)):
        return False
    return all(extent(c.group(role)) >= SMALL for role in (Role.M, Role.N, Role.K))


def tiled(c: Contraction, gpu: Gpu) -> Choice:
    n, m = (by_stride(c, c.group(role), 0) for role in (Role.N, Role.M))
    k, batch = by_stride(c, c.group(Role.K), 1), by_stride(c, c.group(Role.BATCH), 0)
    t = block_tile(c.accumulator, extent(m), extent(n), extent(batch), gpu, len(m) > 1 or len(n) > 1)
    groups = (("B", batch), ("M", m), ("N", n), ("K", k))
    opts: list[Opt] = [Fuse(names(group), label) for label, group in groups if group]
    repeats, threads, tile = [], [], []
    for label, size, across in (("M", t.bm, t.tm), ("N", t.bn, t.tn)):
        opts.append(Split(label, size))
        part = across * t.fragment
        if part < size:
            opts.append(Split(label, part))
            repeats.append(f"{label}/{part}")
        if t.fragment > 1:
            opts.append(Split(label, t.fragment))
            tile.append(label)
        threads.append(f"{label}/{t.fragment}" if t.fragment > 1 else label)
    count = extent(batch) * -(-extent(m) // t.bm) * -(-extent(n) // t.bn)
    blocks, serial = _blocks(opts, batch, (t.bm, t.bn, t.bk), count, extent(k), gpu), f"K/{t.bk}"
    opts.append(Reorder((*blocks, serial, *repeats, *threads, "K", *tile)))
    opts += [Bind(loop, "block") for loop in blocks] + [Bind(loop, "thread") for loop in threads]
    opts += [Unroll(*_label_and_step(loop)) for loop in (*repeats, "K", *tile)]
    opts += [Share("b", serial, "N", "K"), Share("a", serial, "M", "K")]
    return Choice(tuple(opts), "tiled contraction", str(t), _filling(count, opts, extent(k), gpu))


def _blocks(opts: list[Opt], batch, tile: tuple[int, int, int], count: int, k: int, gpu: Gpu) -> list[str]:
    """The loops over blocks. Splits the sum, also into parts for several blocks, where these are too few to fill the
    device."""
    bm, bn, bk = tile
    parts = min(2 * gpu.sms // count, k // (bk * LONG_PART)) if count else 1
    blocks = [*(["B"] if batch else []), f"M/{bm}", f"N/{bn}"]
    if parts > 1:
        chunk = -(-k // (parts * bk)) * bk
        opts.append(Split("K", chunk))
        blocks.insert(0, f"K/{chunk}")
    opts.append(Split("K", bk))
    return blocks


def _filling(count: int, opts: Sequence[Opt], k: int, gpu: Gpu) -> str:
    chunk = next(opt.step for opt in opts if isinstance(opt, Split) and opt.label == "K")
    parts = -(-k // chunk) if Bind(f"K/{chunk}", "block") in opts else 1
    of = f" of {parts} parts" if parts > 1 else ""
    return f"{count} blocks{of} for {gpu.sms} multiprocessors"


HALVES = VECTOR // 2        # of 16 bits, in a vector
WARP_TILE = (64, 32)        # rows and columns that a warp computes, in steps of 16 x 8 x 16
TENSOR_BLOCK = (128, 128, 32)


def suits_tensor_cores(c: Contraction, gpu: Gpu) -> bool:
    if not tiling_pays(c) or gpu.cc < (8, 0) or c.accumulator != "float32" or c.dtypes[1] != c.dtypes[2]:
        return False
    return c.dtypes[1] in ("float16", "bfloat16") and all(_in_runs(c, t) for t in (1, 2)) and _one_run_of_k(c)


def _in_runs(c: Contraction, tensor: int) -> bool:
    """Whether a tensor can be read in vectors that begin at their multiples, and lie along its rows or the sum."""
    unit = c.unit(tensor)
    if not unit or c.role(c.dimension(unit)) is Role.BATCH:
        return False
    others = [d.strides[tensor] for d in c.members(tensor) if d.name != unit]
    return c.dimension(unit).extent % HALVES == 0 and all(stride % VECTOR == 0 for stride in others)


def _one_run_of_k(c: Contraction) -> bool:
    return len({c.unit(t) for t in (1, 2) if c.dimension(c.unit(t)).summed}) <= 1


def tensor(c: Contraction, gpu: Gpu) -> Choice:
    units = {t: c.dimension(c.unit(t)) for t in (1, 2)}
    along_k = next((t for t in (1, 2) if units[t].summed), None)
    m = by_stride(c, c.group(Role.M), 0, None if units[1].summed else 1)
    n = by_stride(c, c.group(Role.N), 0, None if units[2].summed else 2)
    k = by_stride(c, c.group(Role.K), along_k or 1, along_k)
    batch = by_stride(c, c.group(Role.BATCH), 0)
    bm, bn, bk = TENSOR_BLOCK
    wm, wn = WARP_TILE
    groups = (("B", batch), ("M", m), ("N", n), ("K", k))
    warps, tiles, serial = [f"M/{wm}", f"N/{wn}"], ["K/16", "M/16", "N/8"], f"K/{bk}"
    opts: list[Opt] = [Fuse(names(group), label) for label, group in groups if group]
    count = extent(batch) * -(-extent(m) // bm) * -(-extent(n) // bn)
    blocks = _blocks(opts, batch, TENSOR_BLOCK, count, extent(k), gpu)
    steps = (("M", (bm, wm, 16)), ("N", (bn, wn, 8)), ("K", (16,)))
    opts += [Split(label, step) for label, several in steps for step in several]
    opts.append(Reorder((*blocks, serial, *warps, *tiles, "M", "N", "K")))
    opts += [Bind(loop, "block") for loop in blocks] + [Bind(loop, "thread") for loop in warps]
    opts += [Unroll(*_label_and_step(loop)) for loop in tiles] + [Bind(label, "tensor core") for label in "MNK"]
    opts += [Share("b", serial, "N", "K"), Share("a", serial, "M", "K")]
    return Choice(tuple(opts), "tensor cores", f"{bm}x{bn}x{bk} block, {wm}x{wn} a warp",
                  _filling(count, opts, extent(k), gpu))


def _label_and_step(loop: str) -> tuple[str, int]:
    label, _, step = loop.partition("/")
    return label, int(step or 1)


def block_tile(dtype: str, m: int, n: int, batch: int, gpu: Gpu, fused: bool = False) -> BlockTile:
    """The largest tile of which there are blocks for the whole device. Elements of 4 bytes have tiles of 8 x 8 a
    thread, which need 128 registers; of 8 bytes 4 x 4, and of 16 2 x 4: twice the rows spill. So do 8 x 8 where rows or
    columns are `fused` of several dimensions, whose addresses take registers each."""
    itemsize = np.dtype(dtype).itemsize
    fragment = max(1, VECTOR // itemsize)
    small = BlockTile(64, 64, 16, fragment) if itemsize < 16 else BlockTile(32, 64, 8, fragment)
    large = BlockTile(128, 128, 8, fragment)
    fills = batch * -(-m // large.bm) * -(-n // large.bn) >= gpu.sms
    return large if itemsize == 4 and fills and not fused else small
