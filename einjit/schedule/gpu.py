"""Schedule policy for GPUs: which family a contraction gets on a device, and why.

* tiled: products with M, N and K. Blocks of both operands lie in shared memory, each thread holds a register tile
  (Volkov and Demmel 2008; the arrangement in halves is CUTLASS's);
* reduced: sums that are long, or read along the dimension in which an operand is contiguous. The threads of a block
  share a sum, and blocks its parts where there are too few sums to fill the device; parts are added in a fixed order;
* turned: maps of operands that are contiguous along another dimension than the output is. Squares of them pass
  through shared memory, to be read along their rows and written along the output's (Ruetsch and Micikevicius 2009);
* element: everything else. One thread an element of the output, neighbours in the output on neighbouring threads.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contraction import Contraction, Dimension, Role
from ..expr import product
from ..machine import Gpu
from .choice import Choice, by_stride, extent, names, summed
from .opts import Bind, Fuse, Opt, Reorder, Share, Split, Unroll

THREADS = 256               # of a block
VECTOR = 16                 # bytes that a thread reads or writes at once
WARP = 32
LONG_SUM = 32               # positions, from which on threads share a sum
FEW_ELEMENTS = 256          # of the output for each multiprocessor, below which it would idle
SHORT_PART = 8              # positions that each thread adds up of a part, at the least
SMALL = 16                  # rows, columns or summed positions below which a tile would be mostly empty


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


def choose_for_gpu(c: Contraction, gpu: Gpu) -> Choice:
    """The policy's schedule for `c`, which `normalised` has been applied to."""
    if _tiling_pays(c):
        return tiled(c, gpu)
    if _sharing_sums_pays(c, gpu):
        return reduced(c, gpu)
    return turned(c) if _turned_along(c) else element(c)


def _tiling_pays(c: Contraction) -> bool:
    if len(c.operands) != 2 or c.body != product(2) or np.dtype(c.accumulator).kind == "b":
        return False
    if np.dtype(c.accumulator).itemsize < 4 or any(c.group(role) for role in (Role.SUM_A, Role.SUM_B, Role.KEPT)):
        return False
    return all(extent(c.group(role)) >= SMALL for role in (Role.M, Role.N, Role.K))


def _sharing_sums_pays(c: Contraction, gpu: Gpu) -> bool:
    """Whether sums are long enough for several threads, and either one thread an element would read apart what lies
    together, or there would be too few of them."""
    kept, largest = extent(tuple(d for d in c.dimensions if not d.summed)), _largest(c)
    unit = c.unit(largest)
    along = bool(unit) and c.dimension(unit).summed
    return bool(summed(c)) and _shared_sum(c).extent >= LONG_SUM and (along or kept < gpu.sms * FEW_ELEMENTS)


def _shared_sum(c: Contraction) -> Dimension:
    """The summed dimension that threads share: the one in which the largest input is contiguous, else the longest."""
    unit = c.unit(_largest(c))
    return max(summed(c), key=lambda d: (d.name == unit, d.extent))


def reduced(c: Contraction, gpu: Gpu) -> Choice:
    shared = _shared_sum(c)
    kept = by_stride(c, tuple(d for d in c.dimensions if not d.summed), 0)
    others = by_stride(c, tuple(d for d in summed(c) if d is not shared), _largest(c))
    elements = extent(kept)
    along = shared.name == c.unit(_largest(c))
    # Threads that follow one another read what lies together.
    across = THREADS // min(THREADS, _power(shared.extent)) if along else min(WARP, _power(elements))
    across = min(across, _power(elements))
    deep = THREADS // across
    parts = _parts(shared.extent, deep, -(-elements // across), gpu)
    opts: list[Opt] = [Fuse((shared.name,), "R")]
    opts += [Fuse(names(kept), "O")] if kept else []
    blocks, threads = [], ["R"]
    if parts > 1:
        chunk = -(-shared.extent // (parts * deep)) * deep
        opts.append(Split("R", chunk))
        blocks.append(f"R/{chunk}")
    opts.append(Split("R", deep))
    if kept and across > 1:
        opts.append(Split("O", across))
        threads = ["O", "R"] if along else ["R", "O"]
    if kept:
        blocks.append(f"O/{across}" if across > 1 else "O")
    opts.append(Reorder((*blocks, *names(others), f"R/{deep}", *threads)))
    opts += [Bind(loop, "block") for loop in blocks] + [Bind(loop, "thread") for loop in threads]
    why = f"{elements} sums of {extent(summed(c))} for {gpu.sms} multiprocessors"
    why += f", in {parts} parts" if parts > 1 else ""
    return Choice(tuple(opts), "shared sums", f"{across} x {deep} threads", why)


def _parts(length: int, deep: int, blocks: int, gpu: Gpu) -> int:
    """Into how many parts sums are taken apart, for two blocks a multiprocessor; none shorter than pays."""
    wanted = -(-2 * gpu.sms // blocks)
    return max(1, min(wanted, length // (deep * SHORT_PART)))


def _turned_along(c: Contraction) -> str:
    """The dimension along which inputs of a map are contiguous and the output is not, or ''."""
    unit = c.unit(0)
    if summed(c) or not unit or c.dimension(unit).extent < SMALL:
        return ""
    units = [c.unit(t) for t in range(1, len(c.dtypes)) if c.has(c.dimension(unit), t)]
    return next((u for u in units if u not in ("", unit) and c.dimension(u).extent >= SMALL), "")


def turned(c: Contraction) -> Choice:
    along, unit = _turned_along(c), c.unit(0)
    others = by_stride(c, tuple(d for d in c.dimensions if d.name not in (along, unit)), 0)
    inputs = [t for t in range(1, len(c.dtypes)) if c.unit(t) == along and c.has(c.dimension(unit), t)]
    blocks = [*(["B"] if others else []), f"U/{WARP}", f"V/{WARP}"]
    rows = THREADS // WARP
    opts: list[Opt] = [Fuse((along,), "U"), Fuse((unit,), "V"), *([Fuse(names(others), "B")] if others else []),
                       Split("U", WARP), Split("U", rows), Split("V", WARP), Reorder((*blocks, f"U/{rows}", "U", "V"))]
    opts += [Bind(loop, "block") for loop in blocks] + [Bind(loop, "thread") for loop in ("U", "V")]
    opts += [Unroll("U", rows), *(Share(c.tensor_names[t], f"V/{WARP}", "U", "V") for t in inputs)]
    why = f"{along} is contiguous in an input, {unit} in the output"
    return Choice(tuple(opts), "turned map", f"{WARP} x {WARP} squares", why)


def _power(n: int) -> int:
    """The next power of two."""
    return 1 << (n - 1).bit_length()


def element(c: Contraction) -> Choice:
    kept = by_stride(c, tuple(d for d in c.dimensions if not d.summed), 0)
    sums = by_stride(c, tuple(d for d in c.dimensions if d.summed), _largest(c))
    opts: list[Opt] = []
    if kept:
        opts += [Fuse(names(kept), "O"), Split("O", THREADS),
                 Reorder((f"O/{THREADS}", "O", *names(sums))), Bind(f"O/{THREADS}", "block"), Bind("O", "thread")]
    why = "neighbouring threads write neighbouring elements" if kept else "one sum: one thread"
    return Choice(tuple(opts), "element a thread", f"{THREADS if kept else 1} threads a block", why)


def _largest(c: Contraction) -> int:
    """The input with the most elements."""
    return max(range(1, len(c.dtypes)), key=lambda t: extent(c.members(t)), default=0)


def tiled(c: Contraction, gpu: Gpu) -> Choice:
    n, m = (by_stride(c, c.group(role), 0) for role in (Role.N, Role.M))
    k, batch = by_stride(c, c.group(Role.K), 1), by_stride(c, c.group(Role.BATCH), 0)
    t = block_tile(c.accumulator, extent(m), extent(n), extent(batch), gpu)
    groups = (("B", batch), ("M", m), ("N", n), ("K", k))
    opts: list[Opt] = [Fuse(names(group), label) for label, group in groups if group]
    opts += [Split("K", t.bk)]
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
    blocks = [*(["B"] if batch else []), f"M/{t.bm}", f"N/{t.bn}"]
    serial = f"K/{t.bk}"
    opts.append(Reorder((*blocks, serial, *repeats, *threads, "K", *tile)))
    opts += [Bind(loop, "block") for loop in blocks] + [Bind(loop, "thread") for loop in threads]
    opts += [Unroll(*_label_and_step(loop)) for loop in (*repeats, "K", *tile)]
    opts += [Share("b", serial, "N", "K"), Share("a", serial, "M", "K")]
    count = extent(batch) * -(-extent(m) // t.bm) * -(-extent(n) // t.bn)
    return Choice(tuple(opts), "tiled contraction", str(t), f"{count} blocks for {gpu.sms} multiprocessors")


def _label_and_step(loop: str) -> tuple[str, int]:
    label, _, step = loop.partition("/")
    return label, int(step or 1)


def block_tile(dtype: str, m: int, n: int, batch: int, gpu: Gpu) -> BlockTile:
    """The largest tile of which there are blocks for the whole device. Elements of 4 bytes have tiles of 8 x 8 a
    thread, which need 128 registers; of 8 bytes 4 x 4, and of 16 2 x 4: twice the rows spill."""
    itemsize = np.dtype(dtype).itemsize
    fragment = max(1, VECTOR // itemsize)
    small = BlockTile(64, 64, 16, fragment) if itemsize < 16 else BlockTile(32, 64, 8, fragment)
    large = BlockTile(128, 128, 8, fragment)
    fills = batch * -(-m // large.bm) * -(-n // large.bn) >= gpu.sms
    return large if itemsize == 4 and fills else small

