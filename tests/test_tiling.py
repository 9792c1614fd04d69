"""Register tiles and cache blocks: what fits, what divides, and what the model prefers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einjit.contraction import Layout, contraction
from einjit.ir import Kind, LoopNest, edge_rows, edge_vectors
from einjit.lower import lower
from einjit.machine import Cache, Cpu, table_entry
from einjit.params import tile_width
from einjit.parse import parse
from einjit.schedule import apply
from einjit.schedule.choose import choose, normalised
from einjit.schedule.tiling import RegisterTile, Tiling, register_tile, tiling
from tests.equations import DTYPES

ROWS = ("generic", "avx2", "znver4", "avx512", "neon")
COMPUTED = tuple(d for d in DTYPES if d != "float16")     # float16 is computed in float32

extents = st.one_of(st.integers(1, 70), st.integers(1, 20_000))
dtypes = st.sampled_from(COMPUTED)
kib = st.integers(0, 2**15).map(lambda n: Cache(n * 1024, 8))


@st.composite
def machines(draw) -> Cpu:
    """One of the table, or one that nobody has built."""
    if draw(st.booleans()):
        return table_entry(draw(st.sampled_from(ROWS)))
    return Cpu("any", vector_bits=draw(st.sampled_from([128, 256, 512])),
               registers=draw(st.sampled_from([16, 32])),
               fma_bits=draw(st.sampled_from([128, 512, 1024])), fma_latency=draw(st.integers(2, 6)),
               l1=draw(kib), l2=draw(kib), l3=draw(kib))


def components(dtype: str) -> int:
    return 2 if np.dtype(dtype).kind == "c" else 1


def bits(dtype: str) -> int:
    return 8 * np.dtype(dtype).itemsize // components(dtype)


def registers(tile: RegisterTile, dtype: str) -> int:
    """All sums, a row of b, and one element of a."""
    return components(dtype) * (tile.mr * tile.vectors + tile.vectors + 1)


# -- register tiles ----------------------------------------------------------------------------------------

@settings(max_examples=100)
@given(machines(), dtypes, extents, extents, st.sampled_from([(12, 8, 4), (6, 4, 2), (12, 8, 4, 3, 2, 1)]))
def test_a_tile_fits_the_registers(cpu, dtype, m, n, rows):
    tile = register_tile(cpu, dtype, m, n, rows)
    assert registers(tile, dtype) <= cpu.registers
    assert tile.lanes * bits(dtype) <= cpu.vector_bits and tile.lanes >= 2
    assert tile.mr in rows and tile.vectors >= 1


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("equation", [
    "ij,jk->ik", "ij,kj->ki", "ij,j->i", "ij->i", "ij->j", "ij->ji", "i,j->ij", "ijk,ijk->ij", "ijk,kj->"])
def test_sums_that_a_schedule_keeps_at_once_fit_the_registers(row, equation):
    cpu = table_entry(row)
    for dtype, i, k, j in product(["int8", "float32", "float64"], [3, 4, 40], [1, 3, 40], [5, 60, 5000]):
        nest = scheduled(equation, {"i": i, "j": j, "k": k}, dtype, cpu)
        assert sums(nest) < cpu.registers, (dtype, i, k, j)
        assert all(loop.lanes * bits(dtype) <= cpu.vector_bits for loop in nest.loops)


def scheduled(equation: str, sizes: dict[str, int], dtype: str, cpu: Cpu) -> LoopNest:
    terms = equation.replace("->", ",").split(",")
    *inputs, out = (Layout.contiguous([sizes[label] for label in term], dtype) for term in terms)
    c = normalised(contraction(parse(equation, tuple(map(len, terms[:-1]))), sizes, out, inputs))
    return apply(lower(c), choose(c, cpu).schedule)


def sums(nest: LoopNest) -> int:
    """Vectors of sums that the register tile keeps."""
    total = 1
    for loop in nest.loops:
        width = tile_width(nest, loop.label) if loop.step == 1 else 1
        if loop.kind is Kind.VECTOR:
            total *= width // loop.lanes
        elif loop.kind is Kind.UNROLLED and not nest.label(loop.label).summed:
            total *= width
    return total


@pytest.mark.parametrize("row,dtype,mr,vectors,lanes", [
    ("generic", "float32", 6, 2, 4), ("avx2", "float32", 6, 2, 8), ("avx2", "float64", 6, 2, 4),
    ("znver4", "float32", 12, 2, 16), ("avx512", "float64", 12, 2, 8), ("neon", "float64", 12, 2, 2),
    ("avx2", "complex64", 2, 2, 8),
])
def test_large_products_get_the_common_tile(row, dtype, mr, vectors, lanes):
    rows = (12, 8, 4) if table_entry(row).registers >= 32 else (6, 4, 2)
    assert register_tile(table_entry(row), dtype, 5000, 5000, rows) == RegisterTile(mr, vectors, lanes)


@pytest.mark.parametrize("row,larger", [
    ("generic", "avx2"), ("avx2", "znver4"), ("generic", "neon"), ("neon", "avx512")])
def test_a_larger_machine_gets_a_tile_that_is_no_smaller(row, larger):
    for dtype in COMPUTED:
        small, large = (tiling(table_entry(x), dtype, 9000, 9000, 900, 9000).tile for x in (row, larger))
        assert large.mr * large.nr >= small.mr * small.nr


@pytest.mark.parametrize("m", [1, 2, 3, 4, 8, 12])
def test_few_rows_get_a_tile_of_just_so_many(m):
    assert register_tile(table_entry("znver4"), "float32", m, 4096, (12, 8, 4, 3, 2, 1)).mr == m


def test_short_rows_get_half_vectors():
    cpu = table_entry("avx512")
    assert register_tile(cpu, "float32", 500, 8, (12, 8, 4)).lanes == 8
    assert register_tile(cpu, "float32", 500, 500, (12, 8, 4)).lanes == 16


def test_one_row_takes_several_vectors_though_some_lanes_are_wasted():
    # 40 columns are 5 vectors of 8: one at a time would wait for the latency of each multiply-add.
    assert register_tile(table_entry("znver4"), "float64", 1, 40, (12, 4, 2, 1)) == RegisterTile(1, 3, 8)


def test_another_tile_must_be_better_by_a_sixth():
    # 14 tiles of 12 rows do 168 rows of work, 20 of 8 do the 160: too little for a kernel of its own.
    assert register_tile(table_entry("znver4"), "float32", 160, 4096, (12, 8, 4)).mr == 12
    # Here one of 12 does 12 rows, and one of 8 does 8.
    assert register_tile(table_entry("znver4"), "float32", 8, 4096, (12, 8, 4)).mr == 8


def test_half_a_tile_is_paid_for_an_edge_that_needs_no_more():
    znver4 = table_entry("znver4")
    # 18 rows are 12 and half as many: 18, where 8 rows take three tiles or two and a half.
    assert register_tile(znver4, "float32", 18, 4096, (12, 8, 4)).mr == 12
    # 100 columns are 7 vectors of 16: three tiles of two, and half of one.
    assert register_tile(znver4, "complex64", 64, 100, (8, 12, 4)) == RegisterTile(4, 2, 16)


@pytest.mark.parametrize("m, n", [(4, 4096), (4096, 16), (6, 16)])
def test_no_tile_is_so_large_that_half_of_it_would_do(m, n):
    tile = register_tile(table_entry("znver4"), "float32", m, n, (12, 8, 4))
    assert m > edge_rows(tile.mr) and n > edge_vectors(tile.vectors) * tile.lanes


# -- cache blocks ------------------------------------------------------------------------------------------

@settings(max_examples=100)
@given(machines(), dtypes, extents, extents, extents)
def test_blocks_are_whole_tiles(cpu, dtype, m, n, k):
    t = tiling(cpu, dtype, m, n, k, n)
    assert t.mc % t.tile.mr == 0 and t.mc >= 2 * t.tile.mr
    assert t.nc % t.tile.nr == 0 and t.nc >= 2 * t.tile.nr
    assert t.kc % 8 == 0 and t.kc >= 8


@settings(max_examples=100)
@given(machines(), dtypes, extents, extents, extents)
def test_extents_are_cut_evenly(cpu, dtype, m, n, k):
    t = tiling(cpu, dtype, m, n, k, n)
    for extent, block, unit in ((m, t.mc, t.tile.mr), (n, t.nc, t.tile.nr), (k, t.kc, 8)):
        parts = -(-extent // block)
        # No smaller block of whole tiles gives as few parts.
        assert parts == 1 or block <= 2 * unit or parts * (block - unit) < extent


@settings(max_examples=100)
@given(machines(), dtypes, extents, extents, extents)
def test_blocks_fit_the_caches(cpu, dtype, m, n, k):
    t, itemsize = tiling(cpu, dtype, m, n, k, n), np.dtype(dtype).itemsize
    depth = min(t.kc, k)
    # A block may be one tile larger than what it is given, from rounding.
    if t.mc > 2 * t.tile.mr:
        room = cpu.l2.size // (2 if t.mc <= 4 * t.tile.mr else 4)
        assert (t.mc - t.tile.mr) * depth * itemsize < room
    if t.nc > 2 * t.tile.nr:
        narrow = t.nc <= 32 * t.tile.nr
        room = cpu.l3.size // 4 if narrow else min(cpu.l3.size // 8, 4 << 20)
        assert (t.nc - t.tile.nr) * depth * itemsize < room
    panel = (t.kc - 8) * t.tile.nr * itemsize
    assert t.kc <= 256 or panel < cpu.l2.size // (2 if dtype.startswith("complex") else 4)


def test_a_has_four_panels_where_they_fit_half_of_l2():
    cpu = table_entry("znver4")
    t = tiling(cpu, "float64", 2048, 2048, 2048, 2048)
    assert (t.mc, t.kc, t.tile.mr) == (32, 2048, 8)
    t = tiling(cpu, "complex128", 2048, 2048, 2048, 2048)       # of twice the bytes
    assert (t.mc, t.kc, t.tile.mr) == (16, 2048, 4)


@pytest.mark.parametrize("m, k, room", [
    (24, 144, "l2"), (55, 144, "l2"),
    (57, 144, "l3"),            # 16 times as many columns are more than L2 holds
    (1000, 24, "l3"),           # a is many blocks, and b read for each
], ids=str)
def test_a_block_of_b_that_is_read_once_fits_l2(m, k, room):
    cpu = table_entry("znver4")
    t = tiling(cpu, "float64", m, 10_000_000, k, 10_000_000)
    assert 0 <= t.nc * k * 8 - {"l2": cpu.l2.size, "l3": cpu.l3.size // 8}[room] < 16 * k * 8


def test_a_block_of_b_has_32_tiles_where_they_fit_a_quarter_of_l3():
    cpu = table_entry("znver4")
    assert tiling(cpu, "float64", 2048, 20_480, 1000, 20_480).nc == 512       # 4 MB: 16 tiles would be 2 MB
    assert tiling(cpu, "float64", 2048, 20_480, 2048, 20_480).nc == 256


@pytest.mark.parametrize("spread, nc", [
    (1, 912), (16, 912), (1152, 1152), (400, 1200), (480, 960), (3600, 3600), (3648, 912),
])
def test_a_block_of_b_is_of_whole_lines_where_they_fit_l3(spread, nc):
    t = tiling(table_entry("znver4"), "float64", 24, 144 * 144, 144, 144 * 144, spread=spread)
    assert t.nc == nc


def test_a_block_of_whole_lines_is_no_wider_than_b():
    assert tiling(table_entry("znver4"), "float64", 24, 1000, 144, 1000, spread=1152).nc == 1008


def test_a_larger_cache_gives_larger_blocks():
    small = Cpu("", 512, 32, 512, 4, Cache(32 << 10, 8), Cache(256 << 10, 8), Cache(2 << 20, 16))
    large = Cpu("", 512, 32, 512, 4, Cache(32 << 10, 8), Cache(2 << 20, 8), Cache(32 << 20, 16))
    one, other = (tiling(cpu, "float32", 10_000, 10_000, 10_000, 10_000) for cpu in (small, large))
    assert one.tile == other.tile
    assert one.kc < other.kc
    assert one.mc * one.kc < other.mc * other.kc
    assert one.nc * one.kc < other.nc * other.kc


# -- in words ----------------------------------------------------------------------------------------------

def test_a_tiling_reads_as_one_line():
    assert str(Tiling(RegisterTile(12, 2, 16), 132, 504, 1024)) == \
        "12x32 tile (2 x 16 lanes), mc 132, kc 504, nc 1024"


def test_lanes_are_limited_by_what_masks_cost():
    assert [table_entry("znver4").lanes(n) for n in (64, 32, 16, 8)] == [8, 16, 32, 32]
    assert table_entry("generic").lanes(64) == 2
