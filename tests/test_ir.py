"""Loop nests: how they read, and what `verify` says of those that are none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from einjit.contraction import Layout, contraction
from einjit.errors import ScheduleError
from einjit.expr import product
from einjit.ir import Kind, Label, Loop, LoopNest, Pack, Tensor
from einjit.lower import lower
from einjit.parse import parse
from einjit.verify import verify

SERIAL, PARALLEL, UNROLLED, VECTOR = Kind.SERIAL, Kind.PARALLEL, Kind.UNROLLED, Kind.VECTOR

# The packed nest of a batch of matrix products, b[M, K] * c[K, N], small enough to write down.
B_LOOPS = (Loop("B", 2, PARALLEL), Loop("B", 1))
PACK_B = Pack("b", "N", "K", 4)
PACK_A = Pack("a", "M", "K", 2)
BLOCKS = (Loop("N", 8), Loop("K", 16))
INNER = (Loop("M", 6), PACK_A, Loop("N", 4), Loop("M", 2), Loop("K", 1))
TILE = (Loop("M", 1, UNROLLED), Loop("N", 1, VECTOR, 4))
PACKED = LoopNest(
    "Bmk,Bkn->Bmn",
    (Label("B", 5, False, ("j", "i")), Label("M", 12, False, ("m",)), Label("N", 20, False, ("n",)),
     Label("K", 32, True, ("k",))),
    Tensor("out", "float32", ("B", "M", "N"), "N"),
    (Tensor("a", "float32", ("B", "M", "K"), "K"), Tensor("b", "float32", ("B", "K", "N"), "N")),
    product(2), "add", "float32", (*B_LOOPS, *BLOCKS, PACK_B, *INNER, *TILE))


def naive(equation: str, **sizes: int) -> LoopNest:
    terms = equation.replace("->", ",").split(",")
    einsum = parse(equation, tuple(map(len, terms[:-1])))
    *inputs, out = (Layout.contiguous([sizes[label] for label in term], "float64") for term in terms)
    return lower(contraction(einsum, sizes, out, inputs))


# -- reading -----------------------------------------------------------------------------------------------

def test_a_naive_nest_has_the_summed_loops_inside():
    assert str(naive("ij,jk->ik", i=4, j=5, k=6)) == """\
for i in 0 : 4
  for k in 0 : 6
    for j in 0 : 5
      out[i, k] += a[i, j] * b[j, k]"""


def test_where_nothing_is_summed_the_output_is_set():
    assert str(naive("ij,j,j->ij", i=4, j=5)) == """\
for i in 0 : 4
  for j in 0 : 5
    out[i, j] = a[i, j] * b[j] * c[j]"""


def test_a_nest_without_a_label_is_one_update():
    assert str(naive("i,i->i", i=1)) == "out[] = a[] * b[]"


def test_a_packed_nest_reads_as_it_runs():
    assert str(PACKED) == """\
parallel for B0 in 0 : 5 step 2
  for B in B0 : B0 + 2
    for N0 in 0 : 20 step 8
      for K0 in 0 : 32 step 16
        pack b in panels of 4 N x K
          for M0 in 0 : 12 step 6
            pack a in panels of 2 M x K
              for N1 in N0 : N0 + 8 step 4
                for M1 in M0 : M0 + 6 step 2
                  for K in K0 : K0 + 16
                    unroll M in M1 : M1 + 2
                      vector N in N1 : N1 + 4  # 4 lanes
                        out[B, M, N] += a[B, M, K] * b[B, K, N]"""


def test_another_reduction_names_itself():
    nest = replace(naive("ij->i", i=4, j=5), reduce="max")
    assert str(nest).splitlines()[-1].strip() == "out[i] =max a[i, j]"


def test_variables_are_the_label_or_numbered_from_the_outside():
    assert [(loop.name, PACKED.variable(loop)) for loop in PACKED.loops] == [
        ("B/2", "B0"), ("B", "B"), ("N/8", "N0"), ("K/16", "K0"), ("M/6", "M0"), ("N/4", "N1"),
        ("M/2", "M1"), ("K", "K"), ("M", "M"), ("N", "N")]


def test_the_loops_of_a_label_come_from_the_outside_in():
    assert PACKED.loops_of("N") == (Loop("N", 8), Loop("N", 4), Loop("N", 1, VECTOR, 4))
    assert PACKED.loops_of("x") == ()
    assert PACKED.packs == (PACK_B, PACK_A)


def test_labels_and_tensors_are_found_by_name():
    assert PACKED.label("K").summed and PACKED.label("B").members == ("j", "i")
    assert [PACKED.tensor(t.name) for t in PACKED.tensors] == [PACKED.out, *PACKED.inputs]


def test_a_naive_nest_knows_where_elements_are_neighbours():
    nest = naive("ij,jk->ki", i=4, j=5, k=6)
    assert [(t.name, t.labels, t.unit) for t in nest.tensors] == [
        ("out", ("i", "k"), "i"), ("a", ("i", "j"), "j"), ("b", ("j", "k"), "k")]


# -- what verify refuses -----------------------------------------------------------------------------------

def test_a_legal_nest_is_handed_back():
    assert verify(PACKED) is PACKED


def around(*nodes) -> tuple:
    """Nodes of a nest with the batch's loops outside."""
    return (*B_LOOPS, *nodes)


REFUSED = [
    ("no loop", (*BLOCKS, *INNER, *TILE), "label B has no loop"),
    ("no innermost loop", (Loop("B", 2), *BLOCKS, *INNER, *TILE), "label B has no loop of step 1"),
    ("steps grow", around(Loop("M", 2), Loop("M", 6), Loop("M", 1), Loop("N", 1), Loop("K", 1)),
     "the loops of M do not go from larger to smaller steps (they have [2, 6, 1]): "
     "a block must be entered before what lies in it"),
    ("a step twice", around(Loop("M", 1), Loop("M", 1), Loop("N", 1), Loop("K", 1)),
     "the loops of M do not go from larger to smaller steps (they have [1, 1]): "
     "a block must be entered before what lies in it"),
    ("a loop inside the tile", around(Loop("M", 2), Loop("M", 1, UNROLLED), Loop("N", 1), Loop("K", 1)),
     "unrolled and vectorised loops must be the innermost ones, with nothing between them"),
    ("two vectors", around(Loop("M", 4), Loop("N", 4), Loop("K", 1), Loop("M", 1, VECTOR, 4), TILE[1]),
     "only one loop can be vectorised"),
    ("a fused label that is whole", (Loop("N", 1), Loop("M", 1), Loop("K", 1), Loop("B", 1, UNROLLED)),
     "loop B walks a table of offsets, which a loop over blocks must fill: split it first"),
    ("lanes", around(Loop("N", 6), Loop("M", 1), Loop("K", 1), Loop("N", 1, VECTOR, 4)),
     "4 lanes do not divide the block of 6 N"),
    ("a rest inside", around(Loop("M", 8), Loop("M", 3), Loop("M", 2), Loop("N", 1), Loop("K", 1), TILE[0]),
     "blocks of 3 M are not whole register tiles of 2: only the outermost block may leave a rest"),
    ("the output", around(Pack("out", "N", "K", 4), *BLOCKS, *INNER, *TILE), "the output cannot be packed"),
    ("a label of another", around(*BLOCKS, Pack("b", "M", "K", 2), *INNER, *TILE), "b does not have label M"),
    ("no block of the serial label", around(Loop("N", 8), PACK_B, Loop("K", 16), *INNER, *TILE),
     "pack b must stand inside a loop over blocks of K: split it first"),
    ("two blocks inside", around(Loop("N", 16), Loop("K", 16), PACK_B, Loop("N", 8), *INNER, *TILE),
     "inside the pack of b, label N must have loops of steps [4, 1] only"),
    ("another width", around(*BLOCKS, replace(PACK_B, width=8), *INNER, *TILE),
     "inside the pack of b, label N must have loops of steps [8, 1] only"),
    ("blocks of the serial label inside", around(*BLOCKS, PACK_B, Loop("K", 8), *INNER, *TILE),
     "inside the pack of b, label K must have loops of steps [1] only"),
    ("another label inside", (Loop("B", 2), *BLOCKS, PACK_B, Loop("B", 1), *INNER, *TILE),
     "pack b must stand inside every loop of B"),
    ("a plain panel",
     around(*BLOCKS, Loop("M", 6), PACK_A, Loop("N", 4), Loop("M", 2), Loop("M", 1), Loop("K", 1), TILE[1]),
     "the panel label M must be unrolled or vectorised"),
    ("a kept serial label",
     around(Loop("K", 1), Loop("M", 6), Loop("N", 4), Pack("c", "M", "N", 2), Loop("M", 2), Loop("N", 1),
            TILE[0]),
     "a pack's serial label must be a summed one with a plain loop; N is not"),
    ("a parallel serial label",
     (Loop("B", 1), *BLOCKS, PACK_B, Loop("M", 6), Loop("N", 4), Loop("M", 2), Loop("K", 1, PARALLEL), *TILE),
     "a pack's serial label must be a summed one with a plain loop; K is not"),
    ("the serial loop further out",
     around(*BLOCKS, PACK_B, Loop("M", 6), Loop("K", 1), Loop("N", 4), Loop("M", 2), *TILE),
     "the loop of K must be the one just outside the register tile"),
    ("packed twice", around(*BLOCKS, PACK_B, PACK_B, *INNER, *TILE), "b is packed twice"),
    ("parallel inside", (Loop("B", 2), Loop("B", 1, PARALLEL), Loop("M", 1), Loop("N", 1), Loop("K", 1)),
     "loop B cannot be parallel: only the outermost loop of a label can"),
    ("two parallel loops", around(Loop("M", 1, PARALLEL), Loop("N", 1), Loop("K", 1)),
     "only one loop can be parallel"),
]


@pytest.mark.parametrize("nodes,reason", [(nodes, reason) for _, nodes, reason in REFUSED],
                         ids=[name for name, _, _ in REFUSED])
def test_what_is_not_a_nest_is_refused(nodes, reason):
    # A third operand, with two kept labels, for what only such a one can do wrong.
    both = Tensor("c", "float32", ("M", "N"), "N")
    nest = replace(PACKED, inputs=(*PACKED.inputs, both), nodes=nodes)
    with pytest.raises(ScheduleError) as refusal:
        verify(nest)
    assert str(refusal.value) == reason
