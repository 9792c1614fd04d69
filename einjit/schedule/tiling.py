"""Block sizes from a model of the machine, for packed contractions and for the register tile."""
from __future__ import annotations

from dataclasses import dataclass
from math import gcd

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


def tiling(cpu: Cpu, dtype: str, m: int, n: int, k: int, run: int, rows: tuple[int, ...] = ()) -> Tiling:
    """Blocks after Low, Igual, Smith and Quintana-Orti (TOMS 2016), section 4, then balanced. `run`: columns of
    the output that lie together.

    The mc x kc block of A fills a quarter of L2, the kc x nc block of B an eighth of L3. The paper keeps the
    kc x nr panel of B in L1; here it may take an eighth of L2. It is read in order, which prefetching
    hides, and a longer kc updates C less often: measured on Zen 4 at n = 1024, kc 96, 256 and 512 gave 94,
    101 and 105 GF/s in float32; at n = 2048, 512 and 1024 gave 103 and 107. A complex panel may take twice as
    much, for the same kc. Each block is cut evenly, so that the last is not a sliver. `rows`: the mr to try, if not
    the usual ones.
    """
    itemsize, part_bytes = np.dtype(dtype).itemsize, components_and_bits(dtype)[1] // 8
    tile = register_tile(cpu, dtype, m, n, rows=rows or rows_to_try(cpu), written=Written(run, min(k, LEAST_KC)))
    kc = _even(k, max(LEAST_KC, cpu.l2.size // 8 // (part_bytes * tile.nr) // 8 * 8), 8)
    kc_bound = min(kc, k)
    mc = _even(m, max(2 * tile.mr, cpu.l2.size // 4 // (kc_bound * itemsize)), tile.mr)
    nc = _even(n, max(2 * tile.nr, min(cpu.l3.size // 8, 4 << 20) // (kc_bound * itemsize)), tile.nr)
    # A block is more than one tile, so that every nest has the same loops and with them the same code.
    return Tiling(tile, max(mc, 2 * tile.mr), kc, max(nc, 2 * tile.nr))


def _even(extent: int, block: int, multiple: int) -> int:
    """A block of at most about `block`, a multiple of `multiple`, that cuts `extent` into equal parts."""
    parts = -(-extent // block)
    size = -(-extent // parts)
    return max(multiple, -(-size // multiple) * multiple)
