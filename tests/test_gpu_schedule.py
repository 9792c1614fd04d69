"""Nests for a GPU: what the policy makes, what they mean (no Numba-CUDA is needed), and which are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import einjit
from einjit import machine
from einjit.codegen import cuda
from einjit.codegen.cudatiled import TiledEmitter
from einjit.errors import ScheduleError
from einjit.expr import Binary, Operand
from einjit.interp import interpret
from einjit.lower import lower
from einjit.schedule import Bind, Fuse, Parallel, Reorder, Share, Split, Unroll, apply
from einjit.schedule.choose import normalised
from einjit.schedule.gpu import choose_for_gpu
from einjit.verify import verify_spread
from tests.equations import DTYPES, Case
from tests.reference import assert_close, reference
from tests.strategies import lay_out
from tests.test_interp import SMALL, made

A100 = machine.gpu((8, 0))
PRODUCTS = (Case("edges", "ij,jk->ik", ((17, 18), (18, 19))), Case("batch", "bij,bkj->bik", ((2, 16, 17), (2, 17, 17))),
            Case("fused", "aibj,bjck->aick", ((4, 5, 3, 7), (3, 7, 5, 4))))


def scheduled(case: Case, operands, layout: str = "c"):
    c, out = made(case, operands, layout)
    c = normalised(c)
    return c, verify_spread(apply(lower(c), choose_for_gpu(c, A100).schedule)), out


@pytest.mark.parametrize("case", [*SMALL, *PRODUCTS], ids=lambda case: case.name)
def test_the_policys_nests_mean_what_the_equation_says(case):
    operands = case.arrays()
    c, nest, out = scheduled(case, operands)
    interpret(nest, c, out, [operands[i] for i in c.operands])
    assert_close(out, reference(case.equation, *operands))
    assert (case not in PRODUCTS) or nest.shares


@pytest.mark.parametrize("layout, out_layout", [("fortran", "transposed"), ("negative", "sliced"), ("broadcast", "c")])
def test_products_of_other_layouts(layout, out_layout):
    case = PRODUCTS[0]
    operands = [lay_out(x, layout) for x in case.arrays("int64")]
    c, nest, out = scheduled(case, operands, out_layout)
    interpret(nest, c, out, [operands[i] for i in c.operands])
    assert_close(out, reference(case.equation, *operands))


def test_a_tiled_nest_reads_as_it_runs():
    case = Case("", "ij,jk->ik", ((2048, 2048), (2048, 2048)))
    _, nest, _ = scheduled(case, [np.broadcast_to(np.float32(1), shape) * 1 for shape in case.shapes])
    assert str(nest) == """\
block M0 in 0 : 2048 step 128
  block N0 in 0 : 2048 step 128
    for K0 in 0 : 2048 step 8
      share a as M x K
        share b as N x K
          unroll M1 in M0 : M0 + 128 step 64
            unroll N1 in N0 : N0 + 128 step 64
              thread M2 in M1 : M1 + 64 step 4
                thread N2 in N1 : N1 + 64 step 4
                  unroll K in K0 : K0 + 8
                    unroll M in M2 : M2 + 4
                      unroll N in N2 : N2 + 4
                        out[M, N] += a[M, K] * b[N, K]"""


def test_tensor_cores_read_as_they_run():
    case = Case("", "ij,jk->ik", ((64, 4096), (4096, 64)))
    operands = [np.zeros(shape, np.float16) for shape in case.shapes]
    c, _ = made(case, operands)
    nest = apply(lower(c := replace(c, accumulator="float32")), choose_for_gpu(c, A100).schedule)
    assert str(verify_spread(nest)) == """\
block K0 in 0 : 4096 step 512
  block M0 in 0 : 64 step 128
    block N0 in 0 : 64 step 128
      for K1 in K0 : K0 + 512 step 32
        share a as M x K
          share b as N x K
            thread M1 in M0 : M0 + 128 step 64
              thread N1 in N0 : N0 + 128 step 32
                unroll K2 in K1 : K1 + 32 step 16
                  unroll M2 in M1 : M1 + 64 step 16
                    unroll N2 in N1 : N1 + 32 step 8
                      tensor core M in M2 : M2 + 16
                        tensor core N in N2 : N2 + 8
                          tensor core K in K2 : K2 + 16
                            out[M, N] += a[M, K] * b[N, K]"""


def test_an_element_a_thread_reads_as_it_runs():
    case = Case("", "ijk->ik", ((9, 31, 10),))
    _, nest, _ = scheduled(case, case.arrays())
    assert str(nest) == """\
block O0 in 0 : 90 step 256
  thread O in O0 : O0 + 256
    for j in 0 : 31
      out[O] += a[j, O]"""


def test_sums_in_parts_read_as_they_run():
    case = Case("", "ij->i", ((3, 100000),))
    _, nest, _ = scheduled(case, [np.broadcast_to(1.0, shape) * 1 for shape in case.shapes])
    assert str(nest) == """\
block R0 in 0 : 100000 step 2304
  block O in 0 : 3
    for R1 in R0 : R0 + 2304 step 256
      thread R in R1 : R1 + 256
        out[O] += a[R, O]"""


def test_a_turned_map_reads_as_it_runs():
    case = Case("", "ij->ji", ((37, 70),))
    _, nest, _ = scheduled(case, case.arrays())
    assert str(nest) == """\
block U0 in 0 : 70 step 32
  block V0 in 0 : 37 step 32
    share a as U x V
      unroll U1 in U0 : U0 + 32 step 8
        thread U in U1 : U1 + 8
          thread V in V0 : V0 + 32
            out[U, V] = a[U, V]"""


@pytest.mark.parametrize("m, n, batch, dtype, tile", [
    (2048, 2048, 1, "float32", "128x128x8 block, 8x8 a thread"),
    (256, 256, 1, "float32", "64x64x16 block, 4x4 a thread"),       # four large tiles would leave most idle
    (256, 256, 64, "float32", "128x128x8 block, 8x8 a thread"),
    (2048, 2048, 1, "float64", "64x64x16 block, 4x4 a thread"),
    (2048, 2048, 1, "complex128", "32x64x8 block, 2x4 a thread"),
])
def test_tiles_fill_the_device(m, n, batch, dtype, tile):
    from einjit.schedule.gpuproducts import block_tile

    assert str(block_tile(dtype, m, n, batch, A100)) == tile


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - {"bool", "float16"}))
def test_panels_fit_and_are_filled_evenly(dtype):
    case = Case("", "ij,jk->ik", ((300, 200), (200, 300)))
    if np.dtype(dtype).itemsize < 4:
        return      # computed in 32 bits
    c, nest, _ = scheduled(case, case.arrays(dtype))
    tiled = TiledEmitter(nest, cuda.access(nest, c))
    assert 2 * tiled.stage <= 48 * 1024
    for panel in tiled.panels.values():
        assert panel.passes * panel.threads * panel.fragment == panel.size * panel.depth
        assert panel.row_bytes % 16 == 0


SPLIT = (Split("i", 32), Reorder(("i/32", "i", "k", "j")))


@pytest.mark.parametrize("schedule, reason", [
    ((Bind("q", "block"),), "there is no loop q"),
    ((Bind("i", "warp"),), "a loop is bound to 'block', 'thread' or 'tensor core', not to 'warp'"),
    ((Bind("i", "block"), Bind("i", "thread")), "loop i is block already"),
    ((Bind("i", "block"),), "loop k is bound to nothing: each element of the output must belong to a block, a thread "
                            "or the register tile"),
    ((Bind("j", "thread"), Bind("i", "block"), Bind("k", "block")),
     "loop j must stand in a block of j: split it first"),
    ((Reorder(("j", "i", "k")), Bind("j", "block"), Bind("i", "block"), Bind("k", "block")),
     "loop j cannot be spread over blocks: j is summed, and only parts of a sum that threads or operands share can be"),
    ((Bind("i", "thread"), Bind("k", "block")), "loop i must stand in a block of i: split it first"),
    ((Reorder(("i", "j", "k")), Bind("i", "block"), Bind("k", "block")),
     "loop k cannot be spread over blocks: only outermost loops can"),
    ((*SPLIT, Bind("i/32", "block"), Bind("i", "thread"), Parallel("k")), "loop k is parallel for, which no GPU knows"),
    ((Split("i", 2048), Reorder(("i/2048", "k", "i", "j")), Bind("i/2048", "block"), Bind("k", "block"),
      Bind("i", "thread")), "2048 threads a block are more than 1024"),
    ((Share("q", "j", "i", "j"),), "there is no input q"),
    ((*SPLIT, Bind("i/32", "block"), Bind("i", "thread"), Share("a", "i/32", "i", "j")),
     "loop k is bound to nothing: each element of the output must belong to a block, a thread or the register tile"),
    ((Split("i", 32), Reorder(("i/32", "k", "i", "j")), Bind("i/32", "block"), Bind("k", "block"), Bind("i", "thread"),
      Share("a", "k", "i", "j")), "a must be shared inside a loop over blocks of j"),
    ((Split("i", 32), Split("j", 8), Reorder(("i/32", "k", "j/8", "i", "j")), Bind("i/32", "block"), Bind("k", "block"),
      Bind("i", "thread"), Share("a", "j/8", "i", "j")), "b must be shared too"),
    ((Unroll("i", 8),), "there is no loop i/8"),
])
def test_what_no_gpu_can_run_is_refused(schedule, reason):
    case = Case("", "ij,jk->ik", ((33, 47), (47, 29)))
    c, _ = made(case, case.arrays())
    with pytest.raises(ScheduleError) as caught:
        verify_spread(apply(lower(c), schedule))
    assert str(caught.value).endswith(reason)


def test_a_gpus_schedule_is_none_for_a_cpu():
    with pytest.raises(ScheduleError) as caught:
        einjit.compile("ij->i", (64, 5), schedule=(Split("i", 32), Bind("i/32", "block"), Bind("i", "thread")))
    assert str(caught.value) == ("the schedule binds loops to a GPU, or shares operands there: compile with "
                                 "target='cuda'")


# -- schedules that are legal, and of a form that no kernel has ---------------------------------------------

TILE = (Split("i", 64), Split("i", 4), Split("k", 64), Split("k", 4), Split("j", 16),
        Reorder(("i/64", "k/64", "j/16", "i/4", "k/4", "j", "i", "k")), Bind("i/64", "block"), Bind("k/64", "block"),
        Bind("i/4", "thread"), Bind("k/4", "thread"), Unroll("j"), Unroll("i"), Unroll("k"))
SHARES = (Share("b", "j/16", "k", "j"), Share("a", "j/16", "i", "j"))
EVEN = "threads cannot fill"


def access_and_emit(schedule, body=None, dtype="float32", equation="ij,jk->ik", shapes=((128, 64), (64, 128))):
    case = Case("", equation, shapes)
    c, _ = made(case, case.arrays(dtype), body=body)
    nest = verify_spread(apply(lower(c), schedule))
    return cuda.emit(nest, cuda.access(nest, c))


def test_the_tile_by_hand_is_a_kernel():
    assert "multiply_add" in access_and_emit((*TILE, *SHARES)).text


def changed(**replaced: int):
    """The tile with other blocks."""
    sizes = {"block": 64, "fragment": 4, "deep": 16, **replaced}
    i, f, j = sizes["block"], sizes["fragment"], sizes["deep"]
    return (Split("i", i), Split("i", f), Split("k", i), Split("k", f), Split("j", j),
            Reorder((f"i/{i}", f"k/{i}", f"j/{j}", f"i/{f}", f"k/{f}", "j", "i", "k")), Bind(f"i/{i}", "block"),
            Bind(f"k/{i}", "block"), Bind(f"i/{f}", "thread"), Bind(f"k/{f}", "thread"), Unroll("j"), Unroll("i"),
            Unroll("k"), Share("b", f"j/{j}", "k", "j"), Share("a", f"j/{j}", "i", "j"))


@pytest.mark.parametrize("arguments, reason", [
    ({"schedule": (*TILE, *SHARES), "body": Binary("sub", Operand(0), Operand(1))},
     "tiles of shared operands compute sums of products alone, and this body is a - b"),
    ({"schedule": changed(fragment=8)}, "a tile of products has rows and columns"),     # of 32 bytes
    ({"schedule": changed(deep=12)}, EVEN),
    ({"schedule": changed(block=96)}, EVEN),
    ({"schedule": changed(), "dtype": "int16"}, "a tile of products has rows and columns"),
    ({"schedule": (Split("i", 32), Split("j", 8), Reorder(("i/32", "k", "j/8", "i", "j")), Bind("i/32", "block"),
                   Bind("k", "block"), Bind("i", "thread"), Unroll("j"), Share("a", "j/8", "i", "j")),
      "equation": "ij,jk->ik"}, "b must be shared too"),
    ({"schedule": (Fuse(("i", "k"), "f"), Split("j", 32), Reorder(("j/32", "j", "f")), Bind("j/32", "block"),
                   Bind("j", "thread")), "equation": "jik->i", "shapes": ((5, 40, 6),)}, "f is fused and summed"),
    ({"schedule": (Split("j", 8), Split("i", 3), Reorder(("i/3", "j/8", "j", "i")), Bind("i/3", "block"),
                   Bind("j", "thread"), Bind("i", "thread")), "equation": "ij->i", "shapes": ((40, 64),)},
     "threads share the sum of j where"),       # 24 threads are no warp
], ids=str)
def test_forms_that_no_kernel_has_are_refused(arguments, reason):
    with pytest.raises(ScheduleError) as caught:
        access_and_emit(**arguments)
    assert reason in str(caught.value)


@pytest.mark.parametrize("schedule, reason", [
    ((Split("j", 100), Split("j", 8), Split("i", 32), Reorder(("j/100", "i/32", "k", "j/8", "i", "j")),
      Bind("j/100", "block"), Bind("i/32", "block"), Bind("k", "block"), Bind("i", "thread"), Bind("j", "thread")),
     "blocks of 8 j do not divide those of 100"),
])
def test_parts_are_whole_blocks(schedule, reason):
    with pytest.raises(ScheduleError) as caught:
        access_and_emit(schedule, shapes=((64, 300), (300, 5)))
    assert str(caught.value).endswith(reason)


def test_blocks_take_one_sum_apart():
    schedule = (Split("i", 64), Split("i", 8), Split("j", 64), Split("j", 8),
                Reorder(("i/64", "j/64", "i/8", "j/8", "i", "j")), Bind("i/64", "block"), Bind("j/64", "block"),
                Bind("i", "thread"), Bind("j", "thread"))
    with pytest.raises(ScheduleError) as caught:
        access_and_emit(schedule, equation="ij,ji->", shapes=((200, 200), (200, 200)))
    assert str(caught.value).endswith("parts of one sum alone can be spread over blocks, not those of i/64, j/64")
