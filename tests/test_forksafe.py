"""Forks while another thread compiles: the child finds the locks free."""

from __future__ import annotations

import gc
from contextlib import nullcontext

import pytest

from einjit.forksafe import uninterrupted
from tests.subprocesses import needs_fork, run_code

LONG = 15  # seconds; nothing here takes so long unless it hangs

FORK_WHILE_COMPILING = """
    import os, sys, threading, time
    {imports}
    held, release = threading.Event(), threading.Event()

    def compile():
        with {lock}:
            held.set()
            release.wait(30)

    threading.Thread(target=compile, daemon=True).start()
    held.wait(30)
    threading.Timer(0.2, release.set).start()
    start = time.monotonic()
    child = os.fork()                      # waits until the compile has ended
    if child == 0:
        import signal
        signal.alarm(20)                   # a deadlock kills the child
        {use}
        os._exit(0)
    assert release.is_set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    {use}
    print("free in both")
"""


@needs_fork
@pytest.mark.parametrize("imports, lock", [
    ("from einjit.forksafe import compile_lock", "compile_lock"),
    ("import einjit.forksafe, numba; from numba.core.compiler_lock import global_compiler_lock",
     "global_compiler_lock"),
    ("import einjit.forksafe, llvmlite.binding as llvm", "llvm.ffi.lib._lock"),
])
def test_fork_waits_for_a_compile(imports, lock):
    use = f"""with {lock}: pass"""
    code = FORK_WHILE_COMPILING.format(imports=imports, lock=lock, use=use)
    assert "free in both" in run_code(code, timeout=LONG)


@needs_fork
def test_fork_by_the_thread_that_compiles():
    code = """
        import os, threading
        from einjit.forksafe import compile_lock
        with compile_lock:
            child = os.fork()
        if child == 0:
            taken = []
            thread = threading.Thread(target=lambda: taken.append(compile_lock.acquire(timeout=20)))
            thread.start(); thread.join()
            os._exit(0 if taken == [True] else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run_code(code, timeout=LONG).strip() == "0"


@needs_fork
def test_fork_waits_for_an_import_that_ctrl_c_left_behind():
    code = """
        import os, signal, threading, warnings
        from einjit import forksafe
        warnings.simplefilter("ignore")        # newer Pythons warn of any fork in a process with threads
        modules = threading.Lock()             # as an import's: held in the child for ever
        begun, release = threading.Event(), threading.Event()

        def slow_import():
            with modules:
                begun.set()
                release.wait(30)

        def ctrl_c():
            begun.wait(30)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=ctrl_c).start()
        try:
            with forksafe.compile_lock:
                forksafe.uninterrupted(slow_import)
        except KeyboardInterrupt:
            threading.Timer(0.2, release.set).start()
        assert not release.is_set()
        child = os.fork()                      # waits until the import has ended
        if child == 0:
            os._exit(0 if modules.acquire(timeout=20) else 1)
        assert release.is_set()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        forksafe.uninterrupted(lambda: print("free in both"))
    """
    assert "free in both" in run_code(code, timeout=LONG)


@needs_fork
def test_fork_survives_other_releases_of_numba_and_llvmlite():
    """Private names may go; a fork then takes the locks it finds."""
    code = """
        import os, sys, types
        sys.modules["numba.core.compiler_lock"] = types.ModuleType("numba.core.compiler_lock")
        sys.modules["llvmlite.binding.ffi"] = types.SimpleNamespace(lib=types.SimpleNamespace(_lock=3))
        from einjit import forksafe
        assert list(forksafe._locks()) == [forksafe.compile_lock, forksafe._import_lock]
        child = os.fork()
        if child == 0:
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run_code(code, timeout=LONG).strip() == "0"


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("error", [None, RuntimeError], ids=str)
def test_no_garbage_is_searched_for_while_a_kernel_compiles(enabled, error):
    seen, before = [], gc.isenabled()

    def compiling():
        seen.append(gc.isenabled())
        if error:
            raise error

    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(error) if error else nullcontext():
            uninterrupted(compiling)
        assert seen == [False] and gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_no_finalizer_runs_in_the_thread_that_compiles():
    """One that calls einsum would wait there for a lock of the caller, who waits for the thread."""
    code = """
        import gc, threading
        from einjit.forksafe import compile_lock, uninterrupted

        class Finalized:
            def __del__(self):
                free = compile_lock.acquire(timeout=5)
                got.append(free)
                if free:
                    compile_lock.release()

        def make_garbage():
            for _ in range(100):
                cycle = Finalized()
                cycle.itself = cycle

        got = []
        gc.set_threshold(1)
        with compile_lock:
            uninterrupted(make_garbage)
        for thread in threading.enumerate():
            if thread.name == "einjit-compile":
                thread.join()
        assert gc.isenabled()
        gc.collect()
        assert got == [True] * 100
        print("no wait")
    """
    assert run_code(code, timeout=4 * LONG).strip() == "no wait"
