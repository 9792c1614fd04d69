"""From labels and layouts to dimensions: roles, folding, diagonals, strides."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from einjit.contraction import Contraction, Layout, Role, contraction
from einjit.einsum import sizes_of
from einjit.expr import Binary, Operand
from einjit.parse import parse


def made(equation: str, *operands, out: np.ndarray | None = None, body=None) -> Contraction:
    """The contraction of arrays (or of row-major float64 arrays of these shapes) into `out`, or into a
    row-major array."""
    arrays = [np.zeros(x) if isinstance(x, tuple) else x for x in operands]
    einsum = parse(equation, tuple(a.ndim for a in arrays))
    sizes = sizes_of(einsum, [a.shape for a in arrays], equation)
    if out is None:
        out = np.zeros([sizes[label] for label in einsum.output])
    return contraction(einsum, sizes, Layout.of(out), [Layout.of(a) for a in arrays], body)


def roles(c: Contraction) -> dict[str, Role]:
    return {"".join(d.labels): c.role(d) for d in c.dimensions}


def folded(c: Contraction) -> list[tuple[str, int]]:
    return [("".join(d.labels), d.extent) for d in c.dimensions]


# -- roles -----------------------------------------------------------------------------------------------

def test_roles_follow_from_membership():
    c = made("bijx,bjky->bik", (2, 3, 4, 5), (2, 4, 6, 7))
    assert roles(c) == {
        "b": Role.BATCH, "i": Role.M, "k": Role.N, "j": Role.K, "x": Role.SUM_A, "y": Role.SUM_B}


def test_a_label_that_no_operand_moves_along_is_only_kept():
    whole = np.broadcast_to(np.zeros((1, 3)), (4, 3))
    assert roles(made("ij,j->ij", whole, (3,))) == {"i": Role.KEPT, "j": Role.BATCH}


def test_a_size_of_one_that_stretches_is_no_membership():
    assert roles(made("ij,ij->ij", (1, 5), (4, 1))) == {"i": Role.N, "j": Role.M}
    assert roles(made("ij,jk->ik", (4, 1), (5, 6)))["j"] is Role.SUM_B


@pytest.mark.parametrize("equation,shapes", [("ij->i", ((3, 4),)), ("ij,ij,j->i", ((3, 4), (3, 4), (4,)))])
def test_with_one_operand_or_many_labels_are_kept_or_summed(equation, shapes):
    assert roles(made(equation, *shapes)) == {"i": Role.KEPT, "j": Role.SUMMED}


def test_a_group_is_all_dimensions_of_a_role():
    c = made("acbd,dbea->ec", (5, 7, 4, 6), (6, 4, 9, 5))
    assert ["".join(d.labels) for d in c.group(Role.K)] == ["a", "b", "d"]
    assert [d.labels for d in c.group(Role.M)] == [("c",)]
    assert [d.labels for d in c.group(Role.N)] == [("e",)]
    assert c.group(Role.BATCH) == ()


def test_members_of_the_output_are_what_is_not_summed():
    c = made("bij,bjk->bik", (2, 3, 4), (2, 4, 5))
    assert ["".join(d.labels) for d in c.members(0)] == ["b", "i", "k"]
    assert ["".join(d.labels) for d in c.members(2)] == ["b", "j", "k"]
    assert c.work == 2 * 3 * 4 * 5


# -- folding ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("equation,shapes,expected", [
    ("ij,ij->ij", ((3, 4), (3, 4)), [("ij", 12)]),
    ("ijk->", ((2, 3, 4),), [("ijk", 24)]),
    ("abij,jk->abik", ((2, 3, 4, 5), (5, 6)), [("abi", 24), ("j", 5), ("k", 6)]),
    ("bqhd,bkhd->bhqk", ((2, 9, 3, 16), (2, 5, 3, 16)), [("b", 2), ("q", 9), ("h", 3), ("d", 16), ("k", 5)]),
    ("abc,abd->cd", ((2, 3, 4), (2, 3, 5)), [("ab", 6), ("c", 4), ("d", 5)]),
], ids=lambda x: x if isinstance(x, str) else "")
def test_neighbours_that_lie_together_everywhere_are_one_dimension(equation, shapes, expected):
    assert folded(made(equation, *shapes)) == expected


def test_a_folded_dimension_moves_like_its_fastest_label():
    (ij,) = made("ij->ij", (3, 4)).dimensions
    assert (ij.name, ij.labels, ij.extent, ij.summed, ij.strides) == ("i", ("i", "j"), 12, False, (8, 8))


def test_what_lies_apart_in_one_tensor_is_not_folded():
    assert folded(made("ij,ij->ij", (3, 4), (3, 4), out=np.zeros((3, 5))[:, :4])) == [("i", 3), ("j", 4)]
    assert folded(made("ij,ij->ij", (3, 4), np.zeros((4, 3)).T)) == [("i", 3), ("j", 4)]
    assert folded(made("ij->ij", np.zeros((6, 4))[::2])) == [("i", 3), ("j", 4)]


def test_labels_that_only_one_operand_has_are_folded_and_shared_ones_beside_them_are_not():
    # i and j lie together in a and in the output, but b moves along j alone.
    assert folded(made("ij,j->ij", (3, 4), (4,))) == [("i", 3), ("j", 4)]
    assert folded(made("ij,k->ijk", (3, 4), (5,))) == [("ij", 12), ("k", 5)]


def test_kept_and_summed_labels_are_not_folded():
    assert folded(made("ij->i", (3, 4))) == [("i", 3), ("j", 4)]
    # Not even where the output stands still along the kept one.
    assert folded(made("ij->i", (3, 4), out=np.broadcast_to(np.zeros(()), (3,)))) == [("i", 3), ("j", 4)]


def test_memory_order_decides_and_not_the_order_of_labels():
    fortran = np.zeros((3, 4), order="F")
    assert folded(made("ij->", fortran)) == [("ji", 12)]
    assert folded(made("ij->ij", fortran, out=np.zeros((3, 4), order="F"))) == [("ji", 12)]


def test_reversed_axes_are_folded_where_all_are_reversed():
    backwards = np.zeros((3, 4))[::-1, ::-1]
    c = made("ij->", backwards)
    assert folded(c) == [("ij", 12)] and c.dimensions[0].strides[1] == -8
    assert folded(made("ij->", np.zeros((3, 4))[::-1])) == [("i", 3), ("j", 4)]


def test_overlapping_windows_are_not_folded():
    assert folded(made("ij->", as_strided(np.zeros(9), (3, 4), (8, 8)))) == [("i", 3), ("j", 4)]


def test_axes_that_a_broadcast_array_stands_still_on_are_folded():
    still = np.broadcast_to(np.zeros(()), (3, 4))
    c = made("ij->", still)
    assert folded(c) == [("ij", 12)] and c.dimensions[0].strides == (0, 0)
    # One that moves and one that does not lie apart, whichever is the faster.
    assert folded(made("ij->", np.broadcast_to(np.zeros(4), (3, 4)))) == [("i", 3), ("j", 4)]
    assert folded(made("ij->", np.broadcast_to(np.zeros((3, 1)), (3, 4)))) == [("i", 3), ("j", 4)]


def test_sizes_of_one_are_no_dimensions():
    assert folded(made("ij,jk->ik", (1, 5), (5, 1))) == [("j", 5)]
    assert made("ij,jk->ik", (1, 1), (1, 1)).dimensions == ()
    # They are not in the way of folding either, whatever their strides.
    assert folded(made("ijk->", as_strided(np.zeros(12), (3, 1, 4), (32, 1000, 8)))) == [("ik", 12)]


def test_many_dimensions_have_names_of_their_own():
    shape = (2,) * 20
    c = made("abcdefghijklmnopqrst->tsrqponmlkjihgfedcba", shape)
    names = [d.name for d in c.dimensions]
    assert names[:3] == ["i", "j", "k"] and names[18:] == ["i1", "j1"] and len(set(names)) == 20


# -- diagonals -------------------------------------------------------------------------------------------

def test_a_repeated_label_moves_along_all_its_axes():
    (i,) = made("iii->i", (4, 4, 4)).dimensions
    assert i.strides == (8, 8 * (16 + 4 + 1))


def test_a_diagonal_in_one_operand_only():
    c = made("iij,jkk->ik", (5, 5, 6), (6, 4, 4))
    assert {"".join(d.labels): d.strides for d in c.dimensions} == {
        "i": (8 * 4, 8 * (30 + 6), 0), "j": (0, 8, 8 * 16), "k": (8, 0, 8 * (4 + 1))}


def test_two_diagonals_can_lie_together():
    # Behind the first diagonal's step of 16 + 16 bytes lie just two steps of the second.
    a = as_strided(np.zeros(64), (3, 3, 2, 2), (16, 16, 8, 8))
    assert folded(made("iijj->", a)) == [("ij", 6)]


def test_a_diagonal_that_stands_still_as_a_whole_does_not_move():
    opposite = as_strided(np.zeros(64)[32:], (4, 4), (8, -8))
    assert roles(made("ii,i->i", opposite, (4,))) == {"i": Role.N}


# -- contiguity and exchange -----------------------------------------------------------------------------

def test_the_unit_dimension_is_where_elements_are_neighbours():
    c = made("ij,jk->ki", np.zeros((4, 5), "f4"), np.zeros((5, 6)), out=np.zeros((6, 4)))
    labels = {d.name: d.labels for d in c.dimensions}
    assert [labels[c.unit(t)] for t in range(3)] == [("i",), ("j",), ("k",)]


def test_nothing_is_contiguous_in_every_other_element():
    c = made("i,i->i", np.zeros(8)[::2], np.zeros(4)[::-1])
    assert [c.unit(t) for t in range(3)] == ["i", "", ""]


def test_exchanging_the_operands():
    c = made("ijx,jk->ik", (4, 5, 2), np.zeros((5, 6), "f4"))
    s = c.swapped()
    assert s.operands == (1, 0) and s.dtypes == ("float64", "float32", "float64")
    assert roles(s) == {"i": Role.N, "j": Role.K, "x": Role.SUM_B, "k": Role.M}
    for before, after in zip(c.dimensions, s.dimensions):
        out, a, b = before.strides
        assert after.strides == (out, b, a)
    assert s.swapped() == c


def test_the_body_is_the_product_unless_one_is_given():
    assert made("i,i->i", (3,), (3,)).body == Binary("mul", Operand(0), Operand(1))
    body = Binary("sub", Operand(0), Operand(1))
    assert made("i,i->i", (3,), (3,), body=body).body == body


# -- in words --------------------------------------------------------------------------------------------

def test_a_contraction_reads_line_by_line():
    assert str(made("bijx,bjk->bik", np.zeros((2, 3, 4, 5), "f4"), (2, 4, 6))) == """\
ijkl,ikm->ijm  in float64
  i = b: batch, extent 2, byte strides: out 144, a 240, b 192
  j = i: M, extent 3, byte strides: out 48, a 80
  k = j: K, extent 4, byte strides: a 20, b 48
  l = x: sum of a, extent 5, byte strides: a 4
  m = k: N, extent 6, byte strides: out 8, b 8"""


def test_its_equation_names_dimensions_in_the_order_of_memory():
    assert made("ij,jk->ki", (4, 5), np.zeros((6, 5)).T).equation == "ij,kj->ki"
    assert made("ij,ij->", (4, 5), (4, 5)).equation == "i,i->"
    assert made("->", ()).equation == "->"


def test_tensors_have_letters_and_beyond_eight_numbers():
    c = made(",".join("i" * 10) + "->i", *[(3,)] * 10)
    assert c.tensor_names == ("out", *"abcdefgh", "x8", "x9")


# -- layouts ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 5), (1, 4), (4, 1)])
@pytest.mark.parametrize("dtype", ["bool", "float32", "complex128"])
def test_a_contiguous_layout_is_numpys(shape, dtype):
    assert Layout.contiguous(shape, dtype) == Layout.of(np.zeros(shape, dtype))
