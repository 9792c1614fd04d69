"""How a packed contraction is tiled and walked, by the order in which its output lies."""

from __future__ import annotations

import pytest

from einjit.schedule.opts import Fuse, Parallel, Split
from tests.test_unpacked import choice, loops

# Into f e d c b a, of which a is on the lanes and b on the rows (TCCG 38).
ALTERNATING = "bgfe,cadg->fedcba"


def sizes(equation: str, **extents: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(extents.get(label, 12) for label in term) for term in equation.split("->")[0].split(","))


def fused(chosen, name: str) -> str:
    return "".join(next(opt.labels for opt in chosen.schedule if isinstance(opt, Fuse) and opt.name == name))


@pytest.mark.parametrize("dtype, a, g, tile", [
    ("float32", 24, 24, "8x24 tile (3 x 8 lanes)"),         # columns lie together in 24, which are three half vectors
    ("float64", 24, 24, "8x24 tile (3 x 8 lanes)"),         # and three whole ones
    ("float32", 32, 24, "8x32 tile (2 x 16 lanes)"),
    ("float32", 24, 960, "8x32 tile (2 x 16 lanes)"),       # long sums: the output is rarely written
])
def test_a_tile_ends_where_a_short_run_of_columns_does(dtype, a, g, tile):
    chosen, _ = choice(ALTERNATING, *sizes(ALTERNATING, a=a, g=g), dtype=dtype)
    assert chosen.tiling.startswith(tile)


def test_columns_lie_together_over_dimensions_that_are_apart_in_b():
    # Rows of a and b, 24 x 12 columns, are nine tiles of 32.
    equation = "cged,agfb->fedcba"
    chosen, _ = choice(equation, *sizes(equation, a=24, g=24))
    assert chosen.tiling.startswith("8x32 tile (2 x 16 lanes)")


def test_rows_that_go_on_where_short_columns_end_come_next():
    b, fe = "i", "k"
    chosen, _ = choice(ALTERNATING, *sizes(ALTERNATING, a=24, g=24))
    assert fused(chosen, "M") == fe + b     # though e is contiguous in the first operand
    assert loops(chosen).index("N/24") < loops(chosen).index("M/8")


def test_rows_are_read_as_they_lie_where_columns_lie_together_in_long_runs():
    c, ed, equation = "i", "k", "cged,bafg->fedcba"
    chosen, _ = choice(equation, *sizes(equation, a=24, g=24))
    assert fused(chosen, "M") == c + ed
    assert loops(chosen).index("M/8") < loops(chosen).index("N/32")


@pytest.mark.parametrize("m, n, last", [
    (20, 20, "j"),      # a is read as it lies: b alone is packed, and contiguous along j
    (20, 800, "k"),     # a is packed too, and contiguous along k
    (6000, 20, "k"),    # a comes from memory
], ids=["in L2", "packed", "from memory"])
def test_which_operand_the_order_of_the_sum_serves(m, n, last):
    chosen, _ = choice("ijk,lkj->il", (m, 25, 20), (n, 20, 25), dtype="float64")
    assert fused(chosen, "K")[-1] == last


def test_rows_are_read_as_they_lie_where_the_output_is_no_larger_than_they_are():
    chosen, _ = choice(ALTERNATING, *sizes(ALTERNATING, a=24, g=2400))
    assert fused(chosen, "M") == "ik"


@pytest.mark.parametrize("equation, block", [
    ("adb,cd->cba", 2 * 16 * 168),      # a pair of lines of b, whose elements are 168 columns apart
    ("abd,cd->cba", 1504),              # columns are in lines of their own: as many as L2 holds
])
def test_blocks_are_of_whole_lines_of_b(equation, block):
    chosen, _ = choice(equation, *sizes(equation, a=168, b=168, c=24, d=168))
    assert next(opt.step for opt in chosen.schedule if isinstance(opt, Split) and opt.label == "N") == block


@pytest.mark.parametrize("equation, shapes, dtype, shared", [
    ("ij,jk->ik", ((200, 2000), (2000, 160)), "float32", "K"),
    ("ij,jk->ik", ((400, 2000), (2000, 300)), "float32", "M"),      # a short sum: adding up would cost more
    ("ij,jk->ik", ((300, 2000), (2000, 400)), "float32", "N"),
    ("ij,jk->ik", ((600, 9000), (9000, 600)), "float32", "N"),      # not every thread can have such an output
    ("bij,bjk->bik", ((8, 90, 2000), (8, 2000, 90)), "float64", "B"),   # whole products
    ("bij,bjk->bik", ((3, 90, 2000), (3, 2000, 90)), "float64", "K"),
])
def test_what_threads_share(equation, shapes, dtype, shared):
    chosen, _ = choice(equation, *shapes, dtype=dtype)
    assert chosen.family == "packed contraction"
    assert [opt.label for opt in chosen.schedule if isinstance(opt, Parallel)] == [shared]
