"""The thread pool under many callers, nesting, errors, Ctrl-C, fork and exit; and forks during a compile."""

from __future__ import annotations

import _thread
import gc
import os
import signal
import textwrap
import threading
import time
import weakref

import pytest

from einjit import parallel
from einjit.options import options
from einjit.parallel import run
from tests.subprocesses import run_code, run_python

LONG = 15  # seconds; nothing here takes so long unless it hangs

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")


@pytest.fixture(autouse=True)
def four_threads():
    with options(threads=4):
        yield


def met_by(number):
    """`number` tasks that end only if all of them run at once."""
    barrier = threading.Barrier(number)
    return [lambda: barrier.wait(LONG) for _ in range(number)]


def test_tasks_run_at_once():
    run(met_by(4))


def test_help_comes_also_right_after_calls_that_needed_none():
    """Threads that are still to wake for earlier calls, already over, must help this one."""
    for _ in range(300):
        for _ in range(5):
            run([lambda: None] * 4)
        run(met_by(4))


def test_first_task_runs_in_the_calling_thread_and_every_task_once():
    ran = []
    run([lambda n=n: ran.append((n, threading.get_ident())) for n in range(40)])
    assert sorted(n for n, _ in ran) == list(range(40))
    assert dict(ran)[0] == threading.get_ident()


def test_one_task_and_none():
    ran = []
    run([lambda: ran.append(1)])
    run([])
    assert ran == [1]


def test_no_more_threads_than_the_option_allows():
    with options(threads=2):
        idents = set()
        run([lambda: (time.sleep(0.001), idents.add(threading.get_ident())) for _ in range(30)])
        assert len(idents) <= 2
    with options(threads=1):
        run([lambda: idents.add(threading.get_ident()) for _ in range(30)])
        idents.clear()
        run([lambda: idents.add(threading.get_ident()) for _ in range(30)])
        assert idents == {threading.get_ident()}


def test_pool_grows_to_what_is_needed_and_stays(monkeypatch):
    monkeypatch.setattr(parallel, "_pool", parallel._Pool())
    assert parallel._pool.size == 0
    run(met_by(2))
    assert parallel._pool.size == 1
    for _ in range(5):
        run(met_by(4))
    assert parallel._pool.size == 3


def test_many_threads_call_at_once():
    counts = [0] * 8

    def call(mine):
        lock = threading.Lock()

        def add():
            with lock:
                counts[mine] += 1

        with options(threads=4):
            for _ in range(200):
                run([add] * 4)

    callers = [threading.Thread(target=call, args=(mine,), daemon=True) for mine in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(LONG)
    assert counts == [800] * 8


def test_caller_does_everything_when_the_pool_is_busy():
    release = threading.Event()
    run(met_by(4))
    busy = threading.Thread(target=lambda: run_with(4, [lambda: release.wait(LONG)] * 4), daemon=True)
    busy.start()
    try:
        wait_until(lambda: parallel._pool.calls.qsize() == 0)
        for _ in range(100):
            ran = []
            run([lambda: ran.append(threading.get_ident())] * 4)  # returns although no helper is free
            assert len(ran) == 4
        assert parallel._pool.calls.qsize() <= parallel._pool.size  # what nobody fetches does not pile up
        assert len(parallel._pool.open) == 1
    finally:
        release.set()
        busy.join(LONG)
    assert not busy.is_alive()


def run_with(threads, tasks):
    with options(threads=threads):
        run(tasks)


def wait_until(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_nested_calls():
    done = []
    barrier = threading.Barrier(4)

    def outer():
        barrier.wait(LONG)  # one in each thread, so that three of them are the pool's
        thread = threading.get_ident()
        idents = set()
        run([lambda: idents.add(threading.get_ident())] * 3)
        done.append(idents == {thread} or thread == caller)

    caller = threading.get_ident()
    run([outer] * 4)
    assert done == [True] * 4


@pytest.mark.parametrize("place", [0, 1, 3])
def test_exception_is_raised_after_the_others_ended(place):
    ended = []
    barrier = threading.Barrier(4)

    def task(number):
        barrier.wait(LONG)
        if number == place:
            raise ZeroDivisionError(f"task {number}")
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(ZeroDivisionError, match=f"task {place}"):
        run([lambda n=n: task(n) for n in range(4)])
    assert sorted(ended) == [n for n in range(4) if n != place]
    run(met_by(4))


def test_exception_when_serial():
    def fail():
        raise ZeroDivisionError

    ran = []
    with options(threads=1), pytest.raises(ZeroDivisionError):
        run([fail, lambda: ran.append(1)])
    assert ran == []


def test_nothing_is_kept_alive():
    class Buffer:
        pass

    def call(fail):
        buffer = Buffer()

        def task(b=buffer):
            if fail:
                raise ValueError

        try:
            run([task] * 4)
        except ValueError:
            pass
        return weakref.ref(buffer)

    gc.disable()  # what only the collector would free counts as kept
    try:
        for fail in (False, True):
            dead = call(fail)
            wait_until(lambda: dead() is None)
    finally:
        gc.enable()


def test_pool_without_threads_is_only_slower(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(parallel, "_pool", parallel._Pool())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    ran = []
    run([lambda n=n: ran.append(n) for n in range(4)])
    assert ran == [0, 1, 2, 3]


@pytest.mark.parametrize("where", ["task", "wait"])
def test_interrupt_waits_for_what_has_begun(where):
    """Ctrl-C in the caller's own task, or while it waits for the others."""
    barrier = threading.Barrier(2)
    ended = []

    def mine():
        barrier.wait(LONG)
        if where == "task":
            _thread.interrupt_main()
            time.sleep(LONG)

    def other():
        barrier.wait(LONG)
        time.sleep(0.1)
        if where == "wait":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        ended.append(True)

    with options(threads=2), pytest.raises(KeyboardInterrupt):
        run([mine, other])
    assert ended == [True]
    run(met_by(4))


def test_interrupts_at_random_moments():
    """Ctrl-C again and again: every call ends, and the pool works on."""
    code = """
        import os, random, signal, threading, time
        from einjit.options import options
        from einjit.parallel import run
        options(threads=3)
        begun, ended, interrupts = [], [], 0
        random.seed(1)
        over = threading.Event()
        ready = threading.Event()

        def interrupt():
            for _ in range(150):
                ready.wait()
                time.sleep(random.random() * 1e-3)
                os.kill(os.getpid(), signal.SIGINT)
                ready.clear()
            over.set()

        def task():
            if threading.current_thread() is not threading.main_thread():
                begun.append(1)
                time.sleep(2e-4)
                ended.append(1)

        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        while not over.is_set():
            try:
                ready.set()
                while True:
                    run([lambda: time.sleep(1e-4)] + [task] * 5)
            except KeyboardInterrupt:
                interrupts += 1
                if len(begun) != len(ended):
                    print("not waited for")
            if over.is_set():
                break
        barrier = threading.Barrier(3)
        run([lambda: barrier.wait(30)] * 3)
        print("interrupts", interrupts)
    """
    text = run_code(code, timeout=LONG)
    assert "not waited for" not in text
    assert int(text.split()[-1]) > 100


@needs_fork
def test_forked_child_has_a_pool_of_its_own():
    code = """
        import os, threading
        from einjit.options import options
        from einjit import parallel
        options(threads=3)

        def together():
            barrier = threading.Barrier(3)
            parallel.run([lambda: barrier.wait(30)] * 3)

        together()
        release = threading.Event()
        busy = threading.Thread(target=lambda: parallel.run([lambda: release.wait(30)] * 3), daemon=True)
        busy.start()                       # the parent's pool is busy, and stays so in the parent
        with parallel._pool.lock:          # and a lock of it is held
            child = os.fork()
        if child == 0:
            assert parallel._pool.size == 0
            together()
            grandchild = os.fork()
            if grandchild == 0:
                together()
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        release.set()
        busy.join(30)
        together()
        print("parent and child")
    """
    assert "parent and child" in run_code(code, timeout=LONG)


@needs_fork
def test_fork_in_a_thread_of_the_pool():
    """The child's only thread was the pool's; there it is the main one, and may use the pool."""
    code = """
        import os, threading
        from einjit.options import options
        from einjit.parallel import run
        options(threads=2)
        meet = threading.Barrier(2)

        def fork():
            meet.wait(30)
            if threading.current_thread() is threading.main_thread():
                return
            child = os.fork()
            if child == 0:
                barrier = threading.Barrier(2)
                run([lambda: barrier.wait(30)] * 2)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

        run([fork] * 2)
        print("done")
    """
    assert "done" in run_code(code, timeout=LONG)


def test_interpreter_ends_while_the_pool_waits_or_works():
    code = """
        import atexit, threading, time
        from einjit.options import options
        from einjit.parallel import run
        options(threads=3)
        late = []
        atexit.register(lambda: (run([lambda: late.append(1)] * 3), print("late", len(late))))
        run([lambda: None] * 3)
        begun = threading.Event()
        threading.Thread(target=lambda: run([begun.set, lambda: time.sleep(60), lambda: time.sleep(60)]),
                         daemon=True).start()
        begun.wait(30)
    """
    done = run_python("-c", textwrap.dedent(code), timeout=30)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "late 3", "")


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


def test_light_import():
    code = """
        import sys, einjit.parallel, einjit.forksafe, einjit.cache
        print([name for name in ("numba", "llvmlite") if name in sys.modules])
    """
    assert run_code(code).strip() == "[]"
