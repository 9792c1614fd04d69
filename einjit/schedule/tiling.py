"""Block sizes from a model of the machine, for packed contractions and for the register tile."""
from __future__ import annotations

from dataclasses import dataclass
from math import gcd, lcm

import numpy as np

from ..ir import edge_rows, edge_vectors
from ..machine import Cpu


@dataclass(frozen=True)
class RegisterTile:
    """mr rows by `vectors` vectors of `lanes` elements: nr = vectors * lanes columns."""

    mr: int
    vectors: int
    lanes: int

    @property
    def nr(self) -> int:
        return self.vectors * self.lanes


@dataclass(frozen=True)
class Tiling:
    """Register tile and cache blocks of a packed contraction (Goto and van de Geijn 2008)."""

    tile: RegisterTile
    mc: int
    kc: int
    nc: int

    def __str__(self) -> str:
        t = self.tile
        return f"{t.mr}x{t.nr} tile ({t.vectors} x {t.lanes} lanes), mc {self.mc}, kc {self.kc}, nc {self.nc}"


LEAST_KC = 256              # steps of a block, whatever the size of L2
MOST_OF_B = 4 << 20         # bytes of a block of b, whatever the size of L3, which other cores may use as well
WIDE = 32                   # tiles, up to which a block of b may take more
FEW_ROWS = 16               # times as many columns as rows make packing a again for each block cheap
STRADDLING = 20             # cycles to write a vector as two runs: see `register_tile`


@dataclass(frozen=True)
class Written:
    """How the output is written: `run` columns lie together, and every `steps` steps of the sum they are."""

    run: int
    steps: int


def register_tile(cpu: Cpu, dtype: str, m: int, n: int, rows: tuple[int, ...],
                  written: Written | None = None) -> RegisterTile:
    """The tile that computes m x n results in the fewest cycles a step of k.

    A step costs its multiply-adds or the latency of one, whichever is longer, plus loads that do not overlap fully;
    positions that a tile has past the edge are paid like the others, but for those that its loops for edges leave
    out. `rows`: the mr to try. The first of them with two full vectors is the common tile: others must be better by a
    sixth, because each other tile is another kernel to compile. With 32 registers that is 8 rows: 12 have a lower
    cost a step, but leave longer edges and write more at once. Measured on Zen 4 on packed panels, 12 rows and 8, in
    GF/s of float64: 64 x 2000 x 64 45.4 and 51.6, 400 x 400 x 200 54.7 and 56.3, 1000 x 1000 x 4 32.7 and 34.8, x
    1000 53.5 and 54.9; in float32 88 and 100, 106 and 109, 65 and 70, 107 and 108; nowhere were 12 the better.

    A tile that lies over the end of a run of columns writes its vectors in two parts, through masks. Measured on
    Zen 4 where 24 columns lie together (TCCG 31 to 48, sums of 24 steps), that took 11 to 27 cycles a vector, and
    tiles of 24 columns instead of 16 and 32 saved 10 to 40 % of the time.
    """
    components, bits = components_and_bits(dtype)
    best = None
    for lanes in _lane_counts(cpu, bits, min(n, written.run) if written else n):
        for vectors in (3, 2, 1):
            for mr in rows:
                # Of a complex element two are in flight: its multiply-adds come in pairs that wait for each other.
                registers = (mr + 1) * vectors * components + components ** 2
                too_large = m <= edge_rows(mr) or n <= edge_vectors(vectors) * lanes    # the edge would be all
                if registers > cpu.registers or too_large:
                    continue
                cost = sum(across * down * _step(cpu, dtype, height, wide, lanes)
                           for height, down in _parts(m, mr, edge_rows(mr))
                           for wide, across in _parts(-(-n // lanes), vectors, edge_vectors(vectors)))
                if written and written.run < n:
                    parted = _straddling(lanes * vectors, written.run) * mr * vectors * components * STRADDLING
                    cost += -(-m // mr) * -(-n // (lanes * vectors)) * parted / written.steps
                common = (mr, vectors, lanes) == (rows[0], 2, cpu.lanes(bits))
                key = (cost * (5 / 6 if common else 1), -mr * vectors)
                if best is None or key < best[0]:
                    best = key, RegisterTile(mr, vectors, lanes)
    return best[1]


def _step(cpu: Cpu, dtype: str, mr: int, vectors: int, lanes: int) -> float:
    """Cycles of one step of a tile, or of a part of it."""
    components, bits = components_and_bits(dtype)
    flops = mr * vectors * components * components * max(lanes * bits, 128) / cpu.fma_bits
    return max(flops, cpu.fma_latency) + 0.25 * (mr + vectors) * components


def _parts(extent: int, whole: int, edge: int) -> list[tuple[int, int]]:
    """(size, how many) of what tiles compute along an extent: whole ones, and one that stops at an edge."""
    full, rest = divmod(extent, whole)
    if rest:
        return [(whole, full), (edge if rest <= edge else whole, 1)]
    return [(whole, full)]


def _straddling(width: int, run: int) -> float:
    """The share of tiles, laid side by side from the start of a run on, that lie over the end of one."""
    return min(1.0, (width - gcd(width, run)) / run)


def components_and_bits(dtype: str) -> tuple[int, int]:
    """The real numbers an element is made of, and the bits of one."""
    dt = np.dtype(dtype)
    components = 2 if dt.kind == "c" else 1
    return components, dt.itemsize * 8 // components


def _lane_counts(cpu: Cpu, bits: int, n: int) -> list[int]:
    """The machine's full vectors, and half ones where the label is short."""
    full = cpu.lanes(bits)
    if full <= 2:
        return [full]
    return [full, full // 2] if n < 4 * full else [full]


def rows_to_try(cpu: Cpu) -> tuple[int, ...]:
    """mr of register tiles on packed panels, the preferred one first."""
    return (8, 12, 4) if cpu.registers >= 32 else (6, 4, 2)


def tiling(cpu: Cpu, dtype: str, m: int, n: int, k: int, run: int, rows: tuple[int, ...] = (),
           spread: int = 1) -> Tiling:
    """Blocks after Low, Igual, Smith and Quintana-Orti (TOMS 2016), section 4, then balanced. `run`: columns of
    the output that lie together. `rows`: the mr to try, if not the usual ones. `spread`: columns among which those of
    a pair of cache lines of b are.

    The mc x kc block of A fills a quarter of L2, or up to half of it for four panels. The paper keeps the kc x nr
    panel of B in L1; here it may take a quarter of L2 as well. It is read in order, which prefetching hides, and a
    longer kc updates C less often: measured on Zen 4 in GF/s, kc 256 and 512 gave 101 and 105 in float32 at n = 1024;
    kc 512, 1024 and 2048 gave 103, 107 and 112 at n = 2048, and 51, 54.5 and 55.5 in float64. A complex panel may take
    twice as much, for the same kc. Each block is cut evenly, so that the last is not a sliver.
    """
    itemsize, part_bytes = np.dtype(dtype).itemsize, components_and_bits(dtype)[1] // 8
    tile = register_tile(cpu, dtype, m, n, rows=rows or rows_to_try(cpu), written=Written(run, min(k, LEAST_KC)))
    kc = _even(k, max(LEAST_KC, cpu.l2.size // 4 // (part_bytes * tile.nr) // 8 * 8), 8)
    step_bytes = min(kc, k) * itemsize
    rows_of_a = max(2 * tile.mr, min(4 * tile.mr, cpu.l2.size // 2 // step_bytes), cpu.l2.size // 4 // step_bytes)
    mc = _even(m, rows_of_a, tile.mr)
    nc = min(_even(n, *_columns(cpu, tile.nr, step_bytes, m if m <= mc else 0, spread)), _even(n, n, tile.nr))
    # A block is more than one tile, so that every nest has the same loops and with them the same code.
    return Tiling(tile, max(mc, 2 * tile.mr), kc, max(nc, 2 * tile.nr))


def _columns(cpu: Cpu, nr: int, step_bytes: int, rows: int, spread: int) -> tuple[int, int]:
    """(nc, of what it should be a multiple). `rows`: of A if that is but one block, else 0.

    The block of B fills an eighth of L3, or up to a quarter for 32 tiles: A is packed again for each block. Measured on
    Zen 4 for kc 2048, blocks of 4 and 8 MB: 54.4 and 55.4 GF/s in float64 at n = 2048; for sums of 144, 61 and 59.

    Where A is one small block, a block of B is read once after it was packed, and had better be in L2 then: TCCG's 01
    to 11, with sums of 24 to 168 steps, took up to 12 % less time, 2 % in the mean, than with 4 MB. Blocks are of whole
    lines of B: where they ended inside of one, 01 took 5.4 ms in float32 instead of 4.8, and with single lines 5.5
    instead of 5.3 in float64.
    """
    most = max(min(cpu.l3.size // 8, MOST_OF_B), min(cpu.l3.size // 4, WIDE * nr * step_bytes)) // step_bytes
    whole = lcm(nr, spread)
    multiple = whole if whole * step_bytes <= cpu.l3.size // 4 else nr
    near = cpu.l2.size // step_bytes
    columns = min(most, near) if 0 < FEW_ROWS * rows <= near else most
    return max(2 * nr, multiple, columns), multiple


def _even(extent: int, block: int, multiple: int) -> int:
    """A block of at most about `block`, a multiple of `multiple`, that cuts `extent` into equal parts."""
    parts = -(-extent // block)
    size = -(-extent // parts)
    return max(multiple, -(-size // multiple) * multiple)
