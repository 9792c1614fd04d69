"""Schedules of sums and maps for GPUs."""
from __future__ import annotations

from ..contraction import Contraction, Dimension
from ..machine import Gpu
from ..verify import WARP
from .choice import Choice, by_stride, extent, names, summed
from .opts import Bind, Fuse, Opt, Reorder, Share, Split, Unroll

THREADS = 256               # of a block
LONG_SUM = 32               # positions, from which on threads share a sum
FEW_ELEMENTS = 256          # of the output for each multiprocessor, below which it would idle
SHORT_PART = 8              # positions that each thread adds up of a part, at the least
SMALL = 16                  # positions, of which squares would be mostly empty


def sharing_sums_pays(c: Contraction, gpu: Gpu) -> bool:
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


def turned_along(c: Contraction) -> str:
    """The dimension along which inputs of a map are contiguous and the output is not, or ''."""
    unit = c.unit(0)
    if summed(c) or not unit or c.dimension(unit).extent < SMALL:
        return ""
    units = [c.unit(t) for t in range(1, len(c.dtypes)) if c.has(c.dimension(unit), t)]
    return next((u for u in units if u not in ("", unit) and c.dimension(u).extent >= SMALL), "")


def turned(c: Contraction) -> Choice:
    along, unit = turned_along(c), c.unit(0)
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
