"""Threads, processes on one cold cache, a forked child, Ctrl-C in the middle of a compile."""

from __future__ import annotations

import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import einjit
from tests.equations import Case
from tests.reference import assert_close, reference
from tests.subprocesses import finish, run_code, start_python

THREADS = 12

# Different code each: another dtype is always another kernel.
COLD = [
    Case("", "ab,bcx,xc->ax", ((8, 9), (9, 7, 5), (5, 7)), (dtype,) * 3)
    for dtype in ("float32", "int16", "complex64", "uint8")
]


@pytest.fixture(autouse=True)
def nothing_handed_over():
    with einjit.options(handover="unsupported"):
        yield


def in_threads(work) -> None:
    """Call work(n) in THREADS threads at the same moment; any exception fails the test."""
    barrier = threading.Barrier(THREADS)

    def start(n: int) -> None:
        barrier.wait(timeout=60)
        with einjit.options(handover="unsupported"):  # options may belong to a thread
            work(n)

    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(start, n) for n in range(THREADS)]:
            future.result(timeout=300)


def test_threads_compile_and_call_the_same_new_kernel():
    operands = Case("", "pq,qrs->spr", ((13, 17), (17, 5, 11)), ("int32", "int32")).arrays()
    expected = reference("pq,qrs->spr", *operands)
    in_threads(lambda n: assert_close(einjit.einsum("pq,qrs->spr", *operands), expected))


def test_threads_compile_and_call_different_new_kernels():
    def work(n: int) -> None:
        for case in COLD[n % len(COLD):] + COLD[: n % len(COLD)]:
            operands = case.arrays(seed=n)
            assert_close(einjit.einsum(case.equation, *operands), reference(case.equation, *operands))

    in_threads(work)


def test_threads_share_one_kernel_object():
    case = Case("", "ij,jk->ik", ((65, 70), (70, 51)), ("float32",) * 2)
    kernel = einjit.compile(case.equation, *case.arrays())

    def work(n: int) -> None:
        operands = case.arrays(seed=n)
        expected = reference(case.equation, *operands)
        for _ in range(20):
            assert_close(kernel(*operands), expected)

    in_threads(work)


def test_many_python_threads_over_kernels_that_use_threads_themselves():
    operands = Case("", "ij,jk->ik", ((300, 200), (200, 250)), ("float64",) * 2).arrays()
    expected = np.matmul(*operands)

    def work(n: int) -> None:
        with einjit.options(threads=2):
            for _ in range(5):
                got = einjit.einsum("ij,jk->ik", *operands)
                np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)

    in_threads(work)


SEVERAL_KERNELS = """
    import numpy as np, einjit
    rng = np.random.default_rng(0)
    with einjit.options(handover="unsupported"):
        for dtype in ("f4", "f8", "i8"):
            a, b = (rng.integers(-9, 9, s).astype(dtype) for s in ((20, 30), (30, 25)))
            assert (einjit.einsum("ij,jk->ik", a, b) == a @ b).all()
            assert (einjit.einsum("ij->j", a) == a.sum(axis=0)).all()
    print(einjit.stats().compiles, einjit.stats().disk_hits)
"""


def test_processes_share_one_cold_cache(cold_cache):
    for process in [start_python("-c", textwrap.dedent(SEVERAL_KERNELS)) for _ in range(4)]:
        done = finish(process)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
    compiles, disk_hits = map(int, run_code(SEVERAL_KERNELS).split())
    assert compiles == 0
    assert disk_hits >= 3


def test_a_forked_child_works():
    run_code("""
        import os, warnings, numpy as np, einjit
        warnings.simplefilter("ignore")  # newer Pythons warn of any fork in a process with threads
        einjit.options(handover="unsupported", threads=2)
        a = np.random.default_rng(0).random((300, 300))
        expected = a @ a
        def check():
            assert np.allclose(einjit.einsum("ij,jk->ik", a, a), expected)
        check()
        child = os.fork()
        if child == 0:
            try:
                check()  # a kernel that the parent has, and one that it has not
                b = np.arange(60).reshape(3, 4, 5)
                assert (einjit.einsum("abc->cb", b) == b.sum(axis=0).T).all()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        check()
    """, timeout=120)


def test_a_fork_from_a_thread_while_another_compiles():
    run_code("""
        import os, threading, warnings, numpy as np, einjit
        warnings.simplefilter("ignore")
        einjit.options(handover="unsupported")
        def compile_some():
            for dtype in ("f4", "f8", "i4", "c8"):
                a = np.ones((5, 6, 7), dtype)
                einjit.einsum("abc,cbd->da", a, np.ones((7, 6, 4), dtype))
        compiler = threading.Thread(target=compile_some)
        compiler.start()
        children = []
        while compiler.is_alive() and len(children) < 10:
            child = os.fork()
            if child == 0:
                a = np.ones((6, 6), "i2")
                os._exit(0 if (einjit.einsum("ij,jk->ki", a, a) == 6).all() else 1)
            children.append(child)
            compiler.join(0.2)
        assert children
        assert [os.waitpid(c, 0)[1] for c in children] == [0] * len(children)
        compiler.join()
    """, timeout=240)


def test_ctrl_c_during_a_compile_leaves_everything_usable(cold_cache):
    out = run_code("""
        import os, signal, threading, time, numpy as np, einjit
        einjit.options(handover="unsupported")
        einjit.einsum("i,i->", np.ones(3), np.ones(3))  # imports are over: what follows is compiling

        interrupted = 0
        for n, dtype in enumerate(["f4", "f8", "i4", "i8", "c8", "c16", "u2", "i1"]):
            a, b = np.ones((30, 40), dtype), np.ones((40, 20), dtype)
            timer = threading.Timer(0.02 + 0.03 * n, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            try:
                einjit.einsum("ij,jk->ik", a, b)
                timer.cancel()
                timer.join()
                time.sleep(0.01)
            except KeyboardInterrupt:
                interrupted += 1
            assert (einjit.einsum("ij,jk->ik", a, b) == 40).all(), dtype
        print(interrupted)
    """, timeout=240)
    assert int(out) >= 2  # else nothing was tested


def test_ctrl_c_while_the_compiler_is_imported(cold_cache):
    interrupted = 0
    for delay in (0.1, 0.3, 0.5):
        out = run_code(f"""
            import os, signal, sys, threading, time, numpy as np, einjit
            einjit.options(handover="unsupported")
            a = np.ones((3, 4))
            threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                einjit.einsum("ij,kj->ik", a, a)
                time.sleep(5)  # too late: it had compiled already
                raise SystemExit("no signal came")
            except KeyboardInterrupt:
                print("numba.core.typed_passes" in sys.modules)
            assert (einjit.einsum("ij,kj->ik", a, a) == 4).all()
        """, timeout=120)
        interrupted += out == "False\n"
    assert interrupted  # else every signal came after the import


def test_after_a_ctrl_c_other_threads_still_compile(cold_cache):
    run_code("""
        import os, signal, threading, numpy as np, einjit
        einjit.options(handover="unsupported")
        a, b = np.ones((30, 40), "c8"), np.ones((40, 20), "c8")
        results = []
        def other():
            with einjit.options(handover="unsupported"):
                results.append((einjit.einsum("ij,jk->ik", a, b) == 40).all())
        thread = threading.Thread(target=other)
        thread.start()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            while True:
                einjit.einsum("ij,jk->ik", a, b)
        except KeyboardInterrupt:
            pass
        thread.join(60)
        assert results == [True]
    """, timeout=120)
