"""The memory of large results: used again when nobody can see it any more, and not a moment earlier."""

from __future__ import annotations

import gc
import itertools
import os
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import einjit
from einjit import results
from einjit.contraction import Layout
from einjit.results import LEAST, Blocks, allocator

MIB = 1 << 20
SIDE = 512              # a matrix of float64 of 2 MiB


@pytest.fixture(autouse=True)
def nothing_kept():
    results.clear()
    yield
    results.clear()


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def product(**keywords) -> np.ndarray:
    return einjit.einsum("i,j->ij", np.arange(SIDE, dtype="f8"), np.ones(SIDE), **keywords)


@pytest.mark.parametrize("call", [product, einjit.compile("ij->ji", np.ones((SIDE, SIDE))).__call__],
                         ids=["einsum", "kernel"])
def test_a_result_lies_where_the_last_one_lay(call):
    operands = [] if call is product else [np.ones((SIDE, SIDE))]
    call(*operands)     # planned
    first = call(*operands)
    where = address(first)
    assert where % results.LINE == 0
    assert address(call(*operands)) != where
    del first
    results_now = call(*operands), call(*operands)
    assert where in map(address, results_now)


@pytest.mark.parametrize("hold", [
    lambda a: a, lambda a: a[3:5], lambda a: a.T, memoryview, lambda a: a.view("u1"), np.from_dlpack,
    lambda a: iter(a), lambda a: np.broadcast_to(a, (2, *a.shape)), lambda a: a[1:][1:].reshape(-1)[5:],
    lambda a: a.ctypes.data_as, lambda a: np.frombuffer(a), lambda a: np.asarray(memoryview(a)),
], ids=["it", "slice", "transpose", "memoryview", "other dtype", "dlpack", "iterator", "broadcast", "view of a view",
        "ctypes", "frombuffer", "through a memoryview"])
def test_whatever_sees_a_result_keeps_its_memory(hold):
    product()           # planned
    result = product()
    where, held = address(result), hold(result)
    del result
    later = [product() for _ in range(3)]
    assert where not in map(address, later)
    del held
    later.append(product())
    assert address(later[-1]) == where


def test_whoever_lists_all_objects_only_keeps_memory():
    product()           # planned
    ours = [x for x in gc.get_objects() if type(x).__module__ == results.__name__]
    listed = gc.get_referents(*ours, *map(vars, ours))
    assert any(x is b.memory for b in results._blocks._blocks for x in listed)
    made = [product() for _ in range(3)]
    assert len(set(map(address, made))) == 3


@pytest.mark.parametrize("call", [product, einjit.compile("ij->ji", (SIDE, SIDE))], ids=["einsum", "kernel"])
def test_a_result_may_be_frozen_with_all_its_bases(call):
    operands = [] if call is product else [np.ones((SIDE, SIDE))]
    for _ in range(4):
        array = call(*operands)
        assert array.flags.writeable
        while array is not None:
            array.flags.writeable, array = False, array.base


def test_a_block_serves_results_a_little_smaller():
    blocks, size = Blocks(), 8 * MIB
    first = address(blocks.take(size, limit=64 * MIB)[0])
    for wanted, again in [(size, True), (size * 8 // 9 + 1, True), (size // 2, False), (size + 1, False)]:
        assert (address(blocks.take(wanted, 64 * MIB)[0]) == first) == again, wanted


def test_what_is_kept_is_limited():
    blocks = Blocks()
    tracemalloc.start()
    try:
        for size in range(1, 13):
            blocks.take(size * MIB, limit=20 * MIB)
            assert tracemalloc.get_traced_memory()[0] < 21 * MIB
        assert tracemalloc.get_traced_memory()[0] > 11 * MIB
        held = blocks.take(9 * MIB, limit=4 * MIB)[0]       # more than may be kept: forgotten at once
        assert tracemalloc.get_traced_memory()[0] < 10 * MIB
        del held
        assert tracemalloc.get_traced_memory()[0] < 1 * MIB
    finally:
        tracemalloc.stop()


def test_the_block_handed_out_longest_ago_is_forgotten_first():
    blocks = Blocks()
    old, new = (address(blocks.take(size * MIB, limit=5 * MIB)[0]) for size in (1, 2))
    assert address(blocks.take(1 * MIB, 5 * MIB)[0]) == old
    blocks.take(4 * MIB, 5 * MIB)                               # 2 MiB were handed out before 1 MiB was again
    assert address(blocks.take(1 * MIB, 5 * MIB)[0]) == old
    assert new not in {address(b.memory) for b in blocks._blocks}


def test_the_block_used_last_is_taken_first():
    blocks = Blocks()
    held = [blocks.take(MIB, limit=8 * MIB)[0] for _ in range(3)]
    last = address(held[2])
    del held
    assert address(blocks.take(MIB, 8 * MIB)[0]) == last


def test_the_list_is_short():
    blocks = Blocks()
    held = [blocks.take(MIB, limit=1 << 30)[0] for _ in range(results.MOST + 3)]
    assert [b.memory is m for b, m in zip(blocks._blocks, held[3:], strict=True)] == [True] * results.MOST


def test_nothing_is_kept_where_that_is_wanted():
    with einjit.options(result_memory=0):
        assert product().flags.owndata
    with einjit.options(result_memory=SIDE * SIDE * 8 - 1):
        assert product().flags.owndata
    assert not product().flags.owndata
    assert len(results._blocks._blocks) == 1
    einjit.cache.clear()
    assert not results._blocks._blocks


def test_small_results_have_memory_of_their_own():
    assert einjit.einsum("i,j->ij", np.ones(SIDE // 2), np.ones(SIDE // 2 - 1)).nbytes < LEAST
    assert not results._blocks._blocks


@pytest.mark.parametrize("extents", [(3, 4, 5), (60, 70, 80)], ids=["own memory", "a block"])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (2, 0, 1), (1, 2, 0)])
def test_a_result_lies_in_the_order_of_its_axes(axes, extents):
    wanted = np.empty([extents[a] for a in axes]).transpose(np.argsort(axes))
    made = allocator(Layout.of(wanted), kept=1 << 30)
    assert (made().shape, made().strides, made().dtype) == (wanted.shape, wanted.strides, wanted.dtype)
    assert made() is not made()


def test_the_steps_of_a_chain_use_it_for_what_is_between_them():
    a = np.random.default_rng(0).random((SIDE, SIDE))
    kernel = einjit.compile("ij,jk,kl->il", a, a, a)
    out = np.empty((SIDE, SIDE))
    kernel(a, a, a, out=out)
    assert len(results._blocks._blocks) == 1
    between = address(results._blocks._blocks[0].memory)
    kernel(a, a, a, out=out)
    assert [address(b.memory) for b in results._blocks._blocks] == [between]
    np.testing.assert_allclose(out, a @ a @ a)


def test_it_never_waits():
    """A finalizer may call einsum while a block is being taken, and a fork may copy the lock while it is held."""
    blocks = Blocks()
    with blocks._busy:
        assert len(blocks.take(MIB, 8 * MIB)[0]) > MIB and not blocks._blocks
        blocks.clear()
    blocks.take(MIB, 8 * MIB)
    assert len(blocks._blocks) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_child_uses_memory_again_whoever_held_the_lock():
    product()           # planned
    results.clear()
    with results._blocks._busy:
        child = os.fork()
        if child == 0:
            try:
                product()
            finally:
                os._exit(len(results._blocks._blocks))
    assert os.waitpid(child, 0)[1] >> 8 == 1


def test_whoever_comes_in_between_gets_other_memory():
    """Between any two instructions a signal's handler or a finalizer may call einsum, or another thread."""

    def interrupted(at: int) -> list[np.ndarray]:
        """The result of a call, and that of another made in the midst of it."""
        made, events = [], itertools.count(1)

        def trace(frame, event, _):
            if frame.f_code.co_filename != results.__file__ or made:
                return None
            frame.f_trace_opcodes = True        # Python 3.12 shows lines alone
            if next(events) == at:
                made.append(product())
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            result = product()
        finally:
            sys.settrace(before)
        return [*made, result]

    product()       # planned, and a block that is free
    for at in itertools.count(1):
        found = interrupted(at)
        if len(found) == 1:
            break
        assert not np.shares_memory(*found), at
        del found
    assert at > 10


def test_no_two_threads_get_the_same_memory():
    wrong = []

    def work(number: int):
        x = np.full(SIDE, float(number))
        for _ in range(60):
            result = einjit.einsum("i,j->ij", x, x)
            if not (result == number * number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 7)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
