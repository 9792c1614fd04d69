"""Which products are packed, and what is on the lanes of those that are not."""

from __future__ import annotations

import pytest

from einjit import machine
from einjit.contraction import Layout, contraction
from einjit.einsum import sizes_of
from einjit.parse import parse_for
from einjit.schedule.choose import choose, normalised
from einjit.schedule.opts import Ahead, Fuse, Pack, Reorder

ZNVER4 = machine.table_entry("znver4")


def choice(equation: str, *shapes, dtype="float32", dtypes=None):
    einsum = parse_for(equation, shapes)
    sizes = sizes_of(einsum, shapes, equation)
    inputs = [Layout.contiguous(shape, d) for shape, d in zip(shapes, dtypes or [dtype] * len(shapes))]
    out = Layout.contiguous([sizes[label] for label in einsum.output], dtype)
    c = normalised(contraction(einsum, sizes, out, inputs))
    chosen = choose(c, ZNVER4)
    fused = {opt.name: opt.labels for opt in chosen.schedule if isinstance(opt, Fuse)}
    lanes = "".join(c.dimension(fused["V"][0]).labels) if "V" in fused else ""
    return chosen, lanes


@pytest.mark.parametrize("equation, shapes, lanes", [
    ("ij,jk->ik", ((64, 64), (64, 64)), "k"),               # small
    ("ij,jk->ik", ((256, 256), (256, 256)), "k"),
    ("ij,jk->ik", ((1000, 1000), (1000, 64)), "k"),         # b stays in L2
    ("ij,jk->ik", ((64, 1000), (1000, 1000)), "k"),         # few rows use b
    ("ij,jk->ki", ((64, 64), (64, 64)), ""),                # neither the rows of b nor those of a are written
    ("bij,bjk->bik", ((9, 64, 64), (9, 64, 64)), "k"),
    ("ij,jk->ik", ((256, 1000), (1000, 1000)), ""),
    ("ij,kj->ik", ((1000, 1000), (4, 1000)), "j"),          # a few long dot products
    ("ij,kj->ik", ((2000, 200), (4, 200)), "j"),
    ("ij,kj->ik", ((2000, 64), (64, 64)), ""),              # short ones
    ("ij,kj->ik", ((2000, 200), (64, 200)), ""),            # vectors enough in b
    ("ij,kj->ik", ((256, 256), (256, 256)), ""),
    ("ijl,jkl->ik", ((64, 9, 8), (9, 64, 8)), ""),          # more than a dimension of K
])
def test_what_is_packed_and_what_is_on_the_lanes_otherwise(equation, shapes, lanes):
    chosen, found = choice(equation, *shapes)
    assert (chosen.family == "packed contraction", found) == (not lanes, lanes)


def test_what_must_be_converted_is_packed():
    shapes = (64, 64), (64, 64)
    assert choice("ij,jk->ik", *shapes, dtypes=("float16", "float16"))[0].family == "packed contraction"
    assert choice("ij,jk->ik", *shapes, dtype="complex64")[0].family == "packed contraction"


@pytest.mark.parametrize("shapes, packs", [
    (((1000, 1000), (64, 1000)), "b"), (((300, 300), (300, 300)), "b"), (((300, 300), (600, 300)), "ba"),
])
def test_a_is_packed_where_it_is_read_often(shapes, packs):
    chosen, _ = choice("ij,kj->ik", *shapes)
    assert "".join(opt.tensor for opt in chosen.schedule if isinstance(opt, Pack)) == packs


def test_as_many_panels_are_filled_at_a_time_as_l1_has_ways():
    chosen, _ = choice("ij,kj->ik", (300, 300), (600, 300))
    assert {opt.abreast for opt in chosen.schedule if isinstance(opt, Pack)} == {ZNVER4.l1.ways}


def loops(chosen) -> tuple[str, ...]:
    return next(opt.order for opt in chosen.schedule if isinstance(opt, Reorder))


def over_tiles(packed) -> str:
    """The labels of the loops over register tiles, from the outside in."""
    return "".join(name[0] for name in loops(packed) if name[:2] in ("M/", "N/"))[-2:]


def test_rows_are_written_whole_where_the_rest_stays_near():
    near, _ = choice("ij,jk->ik", (300, 64), (64, 64))
    assert loops(near)[:2] == ("U/8", "V/32")
    far, _ = choice("ij,jk->ik", (60, 1000), (1000, 1000))
    assert loops(far)[:2] == ("V/32", "U/12")
    for depth in (4, 64):
        packed, _ = choice("ij,kj->ik", (2000, depth), (2000, depth))
        assert over_tiles(packed) == "MN"
    long_sum, _ = choice("ij,kj->ik", (2000, 1000), (2000, 1000))
    short_rows, _ = choice("aged,cbfg->fedcba", (24, 24, 12, 24), (20, 16, 12, 24))
    for packed in long_sum, short_rows:
        assert over_tiles(packed) == "NM"


@pytest.mark.parametrize("m, k, rows", [(300, 256, 8), (300, 257, 12), (64, 257, 8)])
def test_more_rows_at_once_where_they_read_vectors_that_l1_does_not_hold(m, k, rows):
    chosen, _ = choice("ij,jk->ik", (m, k), (k, 64))
    assert f"U/{rows}" in loops(chosen)


@pytest.mark.parametrize("equation, shapes, rows", [
    ("ji,jk->ik", ((2000, 2000), (2000, 64)), 12),
    ("ji,jk->ik", ((2000, 2000), (2000, 600)), 8),          # a is packed
    ("ji,jk->ik", ((200, 400), (200, 200)), 8),             # a stays in L2
    ("ij,jk->ki", ((2000, 2000), (2000, 64)), 8),
])
def test_more_rows_at_once_of_what_is_read_from_memory_a_few_at_a_step(equation, shapes, rows):
    chosen, _ = choice(equation, *shapes, dtype="float64")
    assert {f"M/{rows}", f"U/{rows}"} & set(loops(chosen))


def test_short_rows_of_the_output_are_followed_by_those_of_b():
    # Into e d c b a, of which a is short; packing reads e, which is the slowest there and contiguous in b.
    chosen, _ = choice("dabfe,fc->edcba", (20, 24, 20, 20, 24), (20, 24))
    d, a, b, e = "ijkm"
    assert next(opt.labels for opt in chosen.schedule if isinstance(opt, Fuse) and opt.name == "N") == (d, b, e, a)


@pytest.mark.parametrize("equation, shapes, ahead", [
    ("ij,jk->ik", ((4, 2000), (2000, 2000)), "V/48"), ("ij,jk->ik", ((64, 1000), (1000, 1000)), "V/32"),
    ("pi,ijkl->pjkl", ((32, 32), (32, 32, 32, 32)), "V/32"),
    ("ij,jk->ik", ((64, 64), (64, 64)), ""), ("ij,jk->ik", ((1000, 1000), (1000, 64)), "")])    # b stays in L2
def test_short_pieces_of_b_from_beyond_l2_are_asked_for(equation, shapes, ahead):
    chosen, _ = choice(equation, *shapes)
    assert [opt.at for opt in chosen.schedule if isinstance(opt, Ahead)] == [ahead] * bool(ahead)
