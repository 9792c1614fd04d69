"""Bugs that random testing found, each as small as it gets."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest

import einjit
from einjit import dispatch, planning
from einjit.errors import BodyError, DtypeError, OperandError, ScheduleError
from einjit.schedule import Fuse, Pack, Parallel, Reorder, Split, Unroll, Vectorize
from tests.subprocesses import run_code


@pytest.fixture(autouse=True)
def nothing_handed_over():
    with einjit.options(handover="unsupported"):
        yield


# -- calls -----------------------------------------------------------------------------------------------

def test_a_call_into_a_wider_out_does_not_widen_the_next_result():
    a, b = np.ones((5, 7), "f4"), np.ones((7, 6), "f4")
    einjit.einsum("xy,yz->xz", a, b, out=np.empty((5, 6)))
    assert einjit.einsum("xy,yz->xz", a, b).dtype == np.float32


def test_a_view_without_dimensions_is_a_scalar_each_time():
    assert [type(einjit.einsum("->", np.array(3.0))) for _ in range(3)] == [np.float64] * 3


@pytest.mark.parametrize("limit", [float("inf"), float("nan"), -1])
def test_memory_limits_that_limit_nothing(limit):
    a = np.ones((2, 2))
    assert einjit.einsum("ij,jk,kl->il", a, a, a, optimize=("greedy", limit)).tolist() == [[4, 4], [4, 4]]


def test_a_path_may_hold_integers_of_numpy():
    a = np.ones((2, 2))
    assert einjit.einsum("ij,jk->ik", a, a, optimize=[(np.int64(0), np.int32(1))]).tolist() == [[2, 2], [2, 2]]


def test_no_shape_is_negative():
    with pytest.raises(OperandError, match=r"operand 0 is \(-3,\), neither an array nor a shape"):
        einjit.compile("i->", (-3,))


@pytest.mark.parametrize("equation,shape", [("ijk->ik", (9, 8, 7)), ("ijk->kji", (4, 5, 6))])
def test_an_output_whose_elements_share_memory(equation, shape):
    """Its strides are all 0, of which the policy looked for the smallest that is not."""
    a = np.arange(float(np.prod(shape))).reshape(shape)
    expected = np.einsum(equation, a)
    out = np.lib.stride_tricks.as_strided(np.zeros(1), expected.shape, (0,) * expected.ndim)
    assert einjit.einsum(equation, a, out=out) is out
    assert (out == expected.ravel()[-1]).all()


class Forgetful(OrderedDict):
    """As when another thread clears all plans just after this one has found its own."""

    def get(self, key, default=None):
        found = super().get(key, default)
        self.clear()
        return found


def test_plans_may_be_dropped_while_they_are_looked_up(monkeypatch):
    monkeypatch.setattr(dispatch, "_plans", Forgetful())
    a = np.ones((2, 3))
    for _ in range(3):
        assert einjit.einsum("ij->j", a, order="C").tolist() == [2, 2, 2]


def test_out_may_lie_over_the_diagonal_that_it_gets():
    memory = np.arange(700)
    square = np.lib.stride_tricks.as_strided(memory, (17, 17), (34 * 8, 2 * 8))
    diagonal = square.diagonal().copy()
    einjit.einsum("ii->i", square, out=memory[33:50])
    assert memory[33:50].tolist() == diagonal.tolist()


def test_a_view_of_swapped_bytes_is_a_view_each_time():
    a = np.arange(6, dtype=">f8").reshape(2, 3)
    for _ in range(2):
        view = einjit.einsum("yx->xy", a)
        assert np.shares_memory(view, a) and view.dtype == a.dtype


@pytest.mark.parametrize("layout", [slice(None), slice(None, None, -1)])
def test_a_kernel_gives_a_new_array_for_other_strides_too(layout):
    kernel, a = einjit.compile("ij->ji", (2, 3)), np.arange(6.0).reshape(2, 3)
    result = kernel(a[layout])
    assert result.tolist() == a[layout].T.tolist()
    assert not np.shares_memory(result, a)


# -- schedules -------------------------------------------------------------------------------------------

def test_a_fused_sum_around_the_tile_fills_its_offsets():
    a, b = np.arange(100.0).reshape(5, 5, 4), np.arange(12.0).reshape(4, 3)
    schedule = (Fuse(("j", "k"), "g"), Split("i", 2), Reorder(("i/2", "g", "i")), Vectorize("i", 2))
    kernel = einjit.compile("iij,jx->i", a, b, schedule=schedule)
    np.testing.assert_array_equal(kernel(a, b), np.einsum("iij,jx->i", a, b))


@pytest.mark.parametrize("mark", [Unroll("f"), Vectorize("f", 4)])
def test_an_inner_block_that_is_not_whole_tiles_is_refused(mark):
    """It wrote behind the end of the output."""
    schedule = (Fuse(("i", "j"), "f"), Split("f", 20), Split("f", 10), Split("f", 4),
                Reorder(("k", "f/20", "f/10", "f/4", "f")), mark)
    with pytest.raises(ScheduleError, match="blocks of 10 f are not whole register tiles of 4: only the outermost"):
        einjit.compile("abk,bak->ba", (5, 10, 6), (10, 5, 6), schedule=schedule)


def test_a_schedule_is_of_one_nest_over_all_operands():
    equation, shapes = ",".join(["ij"] * 17) + "->i", [(6, 3)] * 17
    kernel = einjit.compile(equation, *shapes, schedule=(Split("i", 4), Parallel("i")))
    assert len(kernel.steps) == 1
    assert kernel(*[np.full((6, 3), 2.0)] * 17).tolist() == [3 * 2.0**17] * 6
    with pytest.raises(OperandError, match="one loop nest takes at most 62 operands, not 63"):
        einjit.compile(",".join(["i"] * 63) + "->i", *[(6,)] * 63, schedule=())


def test_panels_are_walked_in_registers_or_not_at_all():
    """Where lanes are summed the loop over a panel's steps stays outside the tile, which read the first each time."""
    a, b = np.ones((30, 20)), np.ones((20, 3))
    schedule = (Split("i", 16), Split("i", 4), Split("j", 8), Reorder(("k", "i/16", "j/8", "i/4", "j", "i")),
                Vectorize("i", 4), Pack("a", "j/8", "i", "j"))
    with pytest.raises(ScheduleError, match="only where its lanes are kept apart; i is vectorised and summed"):
        einjit.compile("ij,jk->", a, b, schedule=schedule)


def test_squares_over_an_edge_are_masked_where_the_lanes_are_summed_block_by_block():
    """Whole lines were read past the end of the operand, and the last row got what was there."""
    whole = np.full((54, 12), np.nan, np.float32)
    a = whole[:, :9].T
    a[...] = np.arange(9)[:, None]
    schedule = (Split("i", 4), Split("j", 4), Reorder(("i/4", "j/4", "i", "j")), Unroll("i"), Vectorize("j", 4))
    assert einjit.compile("ij->i", a, schedule=schedule)(a).tolist() == [54.0 * i for i in range(9)]


# -- bodies ----------------------------------------------------------------------------------------------

@einjit.jit(",".join(["i"] * 18) + "->")
def alternating(a, b, c, d, e, f, g, h, i, j, k, m, n, p, q, r, s, t):
    return a - b + c - d + e - f + g - h + i - j + k - m + n - p + q - r + s - t


def test_a_body_of_many_operands_is_one_nest():
    operands = [np.arange(4.0) * x for x in range(18)]
    assert alternating(*operands) == -9 * 6


@einjit.jit("i,i->i")
def quotient(a, b):
    return a / b


@pytest.mark.parametrize("dtype,tiny,huge", [("complex64", 1e-25, 1e25), ("complex128", 1e-200, 1e200)])
def test_complex_division_as_numpy_does_it(dtype, tiny, huge):
    a = np.array([1 + 1j, tiny, 2, 3j, 1 + 1j, -1, 2, 1, 0], dtype)
    b = np.array([tiny, tiny + tiny * 1j, huge * 1j, huge, np.inf, 3 + 4j, 4 - 3j, 0, 0], dtype)
    with np.errstate(all="ignore"):
        expected = a / b
    np.testing.assert_allclose(quotient(a, b), expected, rtol=1e-6)


@einjit.jit("i,i->i")
def cancelled(a, b):
    return (a + b) - a


@einjit.jit("i,i->i")
def distributed(a, b):
    return a * b + a * (1 - b)


def test_a_body_is_computed_in_the_order_that_it_is_written_in():
    """LLVM, if let, makes b of the first and a of the second, also where there is an infinity or a NaN."""
    a = np.array([np.inf, np.nan, 1e308, 1e16, 1e-300])
    b = np.array([1, 1, 1e308, 1, 1e308])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(cancelled(a, b), (a + b) - a)
        np.testing.assert_array_equal(distributed(a, b), a * b + a * (1 - b))


@einjit.jit("i->i")
def root(a):
    return a**0.5


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "float16", "float32", "float64"])
def test_a_power_of_a_half_has_the_dtype_of_numpys(dtype):
    a = np.array([0, 1, 2, 100], dtype)
    assert root(a).dtype == (a**0.5).dtype
    np.testing.assert_allclose(root(a), a**0.5, rtol=1e-3 if dtype == "float16" else 1e-6)


@einjit.jit("i->i")
def pole(a):
    return 1 / (a - 1)


def test_no_warning_about_values_that_are_not_there():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pole(np.array([2.0, 3.0])).tolist() == [1.0, 0.5]


@einjit.jit("i->")
def difference(a):
    return a - 300


@pytest.mark.parametrize("dtype,reason", [("int8", "Python integer 300 out of bounds for int8"),
                                          ("uint8", "Python integer 300 out of bounds for uint8")])
def test_what_numpy_refuses_in_a_body_is_refused_with_the_equation(dtype, reason):
    with pytest.raises(DtypeError) as refusal:
        difference(np.ones(3, dtype))
    assert str(refusal.value) == (f"'a - 300' is not defined for {dtype}: {reason}\n  i->\n  ^\n"
                                  "  shapes: (3,)\n  fix: convert the operands")


def test_a_body_that_is_too_deep_is_refused(tmp_path):
    source = tmp_path / "deep.py"
    for terms in (150, 900):        # deeper than Python parses nested calls, and than we recurse
        source.write_text(f"def deep(a): return {' + '.join(['a'] * terms)}\n")
        namespace = {}
        exec(compile(source.read_text(), source, "exec"), namespace)
        with pytest.raises(BodyError, match="operations more than 100 deep in one another"):
            einjit.jit("i->")(namespace["deep"])


# -- interrupts ------------------------------------------------------------------------------------------

def test_a_ctrl_c_does_not_reach_numba(cold_cache):
    """It could end a generator of Numba's for good, and with it all compiling in the process."""
    run_code("""
        import os, signal, time, numpy as np, einjit
        from numba.core import compiler
        einjit.options(handover="unsupported")
        compile_extra, ended = compiler.compile_extra, []

        def interrupted(*args, **keywords):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            ended.append(compile_extra(*args, **keywords))
            return ended[-1]

        compiler.compile_extra = interrupted
        try:
            einjit.einsum("ij,kj->ik", np.ones((3, 4)), np.ones((5, 4)))
            raise SystemExit("no signal came")
        except KeyboardInterrupt:
            compiler.compile_extra = compile_extra
        assert einjit.einsum("i->", np.ones(3)) == 3
        assert len(ended) == 1
    """)


def test_a_tiny_call_that_numpy_answers_is_scheduled_once(monkeypatch):
    """Whether its kernel exists was asked again on each of the calls until it is compiled, at 0.7 ms a call."""
    asked = []
    monkeypatch.setattr(planning, "needs_compiler", lambda problem: asked.append(problem) or True)
    a = np.arange(35).reshape(5, 7)
    with einjit.options(handover="tiny"):
        for _ in range(5):
            np.testing.assert_array_equal(einjit.einsum("xy,xy->y", a, a), (a * a).sum(axis=0))
    assert len(asked) == 1


def test_a_layout_used_again_is_found_at_once():
    """Only the last few layouts of an equation are; one that had fallen out was looked up the long way for good."""
    with einjit.options(handover="unsupported"):
        squares = [np.ones((n, n)) for n in range(2, 12)]
        for a in (*squares, squares[0]):
            einjit.einsum("ij,jk->ik", a, a)
        first, *others = dispatch._recent["ij,jk->ik"]
        assert first.empty().shape == (2, 2) and len(others) == dispatch.RECENT - 1
        for _ in range(3):      # what the quick path refuses is not put there twice
            a = squares[0].copy()
            einjit.einsum("ij,jk->ik", a, a, out=a)
        assert len({r.launch for r in dispatch._recent["ij,jk->ik"]}) == len(dispatch._recent["ij,jk->ik"])


def test_no_large_result_is_made_for_a_small_operand():
    """Programs that were used last are tried in turn; each made its result before it looked at the operands."""
    made = []
    with einjit.options(handover="unsupported"):
        large = np.ones((300, 300))
        einjit.einsum("ij->ij", large, out=np.empty_like(large))
        (entry, *_) = dispatch._recent["ij->ij"]
        dispatch._recent["ij->ij"] = (replace(entry, empty=lambda: made.append(1) or entry.empty()),)
        assert einjit.einsum("ij->ij", np.ones((4, 4))).shape == (4, 4) and not made
        assert einjit.einsum("ij->ij", large).shape == (300, 300) and made
