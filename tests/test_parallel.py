"""Shares and helpers: who runs what, under many callers, after forks, without threads, at exit."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import textwrap
import threading
import time

import numpy as np
import pytest

import einjit
from einjit import board, parallel, program
from einjit.codegen import sharing
from einjit.contraction import Layout
from einjit.launch import Share, launcher, shared_record, tables_bytes
from einjit.options import available_threads, options
from tests.subprocesses import needs_fork, run_code, run_python

LONG = 15  # seconds; nothing here takes so long unless it hangs

KERNEL = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

class Launch:
    """A launch of `count` shares for an output and an input; its kernel is `task(share's number, pointers)`."""

    def __init__(self, count, task, outs=None):
        self.out, self.a = np.zeros(3), np.ones(3)
        numbers = [np.array([i]) for i in range(count)]
        self.first = first = tables_bytes(count, 2)
        shares = [Share(n, outs[i] if outs else 0, first + 64 * i) for i, n in enumerate(numbers)]

        def kernel(result, exception, pointers, params) -> int:
            task(ctypes.c_int64.from_address(params).value, [ctypes.c_int64.from_address(pointers + 8 * k).value
                                                             for k in range(3)])
            return 0

        self.kernel = KERNEL(kernel)
        words = shared_record(ctypes.cast(self.kernel, ctypes.c_void_p).value, shares,
                              [Layout.of(x) for x in (self.out, self.a)], (0, 1))
        self.launcher = launcher(words, keep=(numbers, self.kernel))
        self.memory = np.zeros((first + 64 * count) // 8, np.int64)

    def run(self, helpers: int):
        self.memory[0] = helpers
        return self.launcher(self.out, self.a, self.memory)


def invitation(helpers: int) -> int:
    """For so many helpers; they are started."""
    with options(threads=helpers + 1):
        return parallel.invite(helpers, 1.0)


def in_threads(count):
    """For each of `count` shares the thread that ran it, where none ends before all have begun."""
    barrier, ran = threading.Barrier(count), {}

    def task(number, pointers):
        barrier.wait(LONG)
        ran[number] = threading.get_ident()

    Launch(count, task).run(invitation(count - 1))
    return ran


def wait_until(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


# -- shares ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("count", [2, 3, 40])
@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_every_share_runs_once_with_pointers_of_its_own(count, helpers):
    calls = []
    outs = [0 if i % 2 else 5000 + 8 * i for i in range(count)]
    launched = Launch(count, lambda number, pointers: calls.append((number, pointers)), outs)
    assert launched.run(invitation(helpers)) is None
    start = launched.memory.ctypes.data
    assert sorted(calls) == [
        (i, [start + outs[i] if outs[i] else launched.out.ctypes.data, launched.a.ctypes.data,
             start + launched.first + 64 * i]) for i in range(count)]


def test_nothing_runs_where_an_array_does_not_fit():
    calls = []
    launched = Launch(3, lambda *call: calls.append(call))
    launched.a = np.ones(4)
    assert launched.run(invitation(2)) is NotImplemented
    launched.a = launched.out
    assert launched.run(invitation(2)) is NotImplemented
    assert calls == []


def test_the_first_share_is_the_callers_where_no_helper_is_quicker():
    ran = []
    Launch(5, lambda number, _: ran.append((number, threading.get_ident()))).run(0)
    assert ran == [(i, threading.get_ident()) for i in range(5)]


# -- helpers -----------------------------------------------------------------------------------------------

def test_shares_run_at_once():
    for count in (4, 2, 6):
        ran = in_threads(count)
        assert len(set(ran.values())) == count
        assert threading.get_ident() in ran.values()


def test_helpers_that_sleep_are_woken():
    for _ in range(3):
        in_threads(4)
        wait_until(lambda: board.awake() == 0)


def test_those_who_work_are_awake():
    awake, barrier = [], threading.Barrier(3)

    def task(number, pointers):
        barrier.wait(LONG)
        awake.append(board.awake())
        barrier.wait(LONG)

    Launch(3, task).run(invitation(2))
    assert min(awake) >= 2


def test_no_more_helpers_than_invited():
    in_threads(6)
    for helpers in (1, 2):
        lock, running, most = threading.Lock(), [0], [0]

        def task(number, pointers):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.002)
            with lock:
                running[0] -= 1

        Launch(20, task).run(helpers)
        assert most == [helpers + 1]


def test_what_no_helper_is_free_for_the_caller_does():
    busy_from, release = threading.Barrier(4), threading.Event()

    def occupy(number, pointers):
        busy_from.wait(LONG)
        release.wait(LONG)

    busy = threading.Thread(target=lambda: Launch(3, occupy).run(invitation(2)), daemon=True)
    busy.start()
    busy_from.wait(LONG)
    try:
        for _ in range(100):
            ran = []
            Launch(4, lambda number, _: ran.append(threading.get_ident())).run(2)
            assert len(ran) == 4
    finally:
        release.set()
        busy.join(LONG)
    assert not busy.is_alive()


def test_more_callers_at_once_than_the_board_has_places():
    callers = board.PLACES + 3
    inside, counts = threading.Barrier(callers), [0] * callers

    def call(mine):
        def task(number, pointers):
            if number == 0:
                inside.wait(LONG)
            counts[mine] += 1

        for _ in range(30):
            Launch(3, task).run(1)

    threads = [threading.Thread(target=call, args=(mine,), daemon=True) for mine in range(callers)]
    invitation(1)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    # A helper may hold a share 0 while its caller goes on, so that the barrier sees every launch.
    assert counts == [90] * callers


def test_nobody_is_woken_for_a_launch_that_has_no_place():
    in_threads(4)
    wait_until(lambda: board.awake() == 0)
    taken = [ctypes.c_int64.from_address(board.ADDRESS + board.FIRST_PLACE + board.LINE * i + sharing._TAKEN)
             for i in range(board.PLACES)]
    ran, woken = [], []

    def task(number, pointers):
        ran.append(threading.get_ident())
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:        # who was woken watches for a millisecond
            woken.append(board.awake())

    for word in taken:
        word.value = 1
    try:
        Launch(3, task).run(3)
    finally:
        for word in taken:
            word.value = 0
    assert ran == [threading.get_ident()] * 3 and not any(woken)


def test_many_threads_compute_at_once(always_shared):
    rng = np.random.default_rng(1)
    work = [rng.uniform(size=(n, n)) for n in (30, 61, 64, 100)]
    wrong = []

    def call(mine):
        with options(threads=4):
            for i in range(150):
                x = work[(i + mine) % 4]
                if not np.allclose(einjit.einsum("ij,jk->ik", x, x), x @ x):
                    wrong.append((mine, i))
                if not np.allclose(einjit.einsum("ij->j", x), x.sum(0)):
                    wrong.append((mine, i, "sum"))

    threads = [threading.Thread(target=call, args=(mine,), daemon=True) for mine in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == [] and not any(thread.is_alive() for thread in threads)


# -- invitations -------------------------------------------------------------------------------------------

def test_an_invitation_says_how_many_may_join_and_starts_them():
    with options(threads=3):
        assert parallel.invite(5, 1.0) == 2
        assert parallel.invite(1, 1.0) == 1
    with options(threads=1):
        assert parallel.invite(5, 1.0) == 0
    with options(threads=9):
        parallel.invite(8, 1.0)
    assert sum(thread.name.startswith("einjit-") for thread in threading.enumerate()) >= 8


def test_helpers_are_woken_when_there_has_been_enough_work_without_a_pause(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(parallel.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(parallel, "_last_launch", 0.0)
    helpers = [0]
    monkeypatch.setattr(board, "awake", lambda: helpers[0])
    short, pause = 0.4 * parallel.WAKE_SECONDS, 1.1 * parallel.WATCH_SECONDS

    def invited(after: float, seconds: float) -> int:
        clock[0] += after
        return parallel.invite(1, seconds)

    with options(threads=2):
        assert [invited(0.5 * pause, short) for _ in range(5)] == [0, 0, 1, 1, 1]
        assert [invited(pause, short) for _ in range(5)] == [0] * 5
        assert invited(pause, parallel.WAKE_SECONDS) == 1
        assert invited(0.5 * pause, short) == 1         # they are awake still
        helpers[0] = 1      # a long launch has begun long ago, and just ended
        assert invited(5 * pause, short) == 1


def test_without_helpers_no_share_packs_for_itself(monkeypatch):
    """One thread alone runs the whole problem at once: the shares would each do what need be done once only."""
    monkeypatch.setattr(program, "SHARE_SECONDS", 1e-9)
    x = np.random.default_rng(0).uniform(size=(50, 60))
    with options(threads=4):
        bound = einjit.compile("ij,kj->ik", x, x)._call.program.steps[0].bound
    invited = []
    monkeypatch.setattr(parallel, "invite", lambda wanted, seconds: invited.append(wanted) or 0)
    monkeypatch.setattr(bound, "launch", None)
    out = np.empty((50, 50))
    bound.run(out, x, x)
    np.testing.assert_allclose(out, x @ x.T)
    assert invited == [3] and bound.threads == 4 and bound._alone.threads == 1


def test_without_threads_it_is_only_slower(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with options(threads=300):
        assert parallel.invite(299, 1.0) == 299
    ran = []
    Launch(4, lambda number, _: ran.append(number)).run(299)
    assert sorted(ran) == [0, 1, 2, 3]


def test_threads_that_cannot_be_started_leave_no_locks_behind(monkeypatch):
    made, new_lock = [], board._new_lock
    monkeypatch.setattr(board, "_new_lock", lambda: made.append(new_lock()) or made[-1])

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(3):
        invitation(parallel._started + 1)
    with pytest.raises(RuntimeError):
        board.helper_line(board.HELPERS)
    assert len(made) <= 1


def test_a_call_amid_the_start_of_helpers_goes_on_without_them(monkeypatch):
    """As a finalizer or a signal handler makes it: it must not wait for the lock that this thread holds."""
    start, nested = threading.Thread.start, []

    def start_and_call(self):
        nested.append(invitation(parallel._started + 5))
        start(self)

    before = parallel._started
    monkeypatch.setattr(threading.Thread, "start", start_and_call)
    caller = threading.Thread(target=lambda: parallel._start(before + 2), daemon=True)
    start(caller)
    caller.join(LONG)
    assert not caller.is_alive() and len(nested) == 2 and parallel._started == before + 2


def test_ctrl_c_while_a_helper_starts_gives_its_line_to_no_other(monkeypatch):
    lines, helper_line = [], board.helper_line
    monkeypatch.setattr(board, "helper_line", lambda number: lines.append(number) or helper_line(number))
    start = threading.Thread.start

    def interrupted(self):
        start(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            invitation(parallel._started + 1)
    invitation(parallel._started + 1)
    assert len(lines) == len(set(lines)) == 2
    in_threads(4)


@pytest.mark.skipif(available_threads() < 2 or not hasattr(os, "sched_setaffinity"), reason="needs two cores")
def test_a_helper_is_not_let_onto_cores_that_it_was_kept_from():
    here = os.sched_getaffinity(0)
    mine, *others = sorted(here)
    in_threads(2)
    helpers = [t.native_id for t in threading.enumerate() if re.fullmatch(r"einjit-\d+", t.name)]
    for helper in helpers:
        os.sched_setaffinity(helper, others)
    os.sched_setaffinity(0, {mine})
    try:
        for _ in range(3):
            wait_until(lambda: board.awake() == 0)
            in_threads(2)
        wait_until(lambda: board.awake() == 0)
        assert {tuple(os.sched_getaffinity(helper)) for helper in helpers} == {tuple(others)}
    finally:
        for thread in (0, *helpers):
            os.sched_setaffinity(thread, here)


def test_shared_sums_warn_of_nothing(always_shared):
    """Which call is shared is a matter of time; that must not decide whether NumPy warns."""
    x = np.zeros(200_000)
    x[0], x[-1] = np.inf, -np.inf
    y = np.zeros(200_000)
    y[0] = y[-1] = 1.5e308
    with options(threads=4), np.errstate(all="raise"):
        assert np.isnan(einjit.einsum("i->", x)) and np.isinf(einjit.einsum("i->", y))


def test_there_can_be_no_more_helpers_than_the_board_has_lines():
    with pytest.raises(RuntimeError, match="no more helpers"):
        board.helper_line(board.HELPERS)


# -- Ctrl-C, forks, exit -----------------------------------------------------------------------------------

def test_ctrl_c_is_raised_when_every_share_has_ended():
    ended = []
    meet = threading.Barrier(2)

    def task(number, pointers):
        meet.wait(LONG)
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.1)     # by then the main thread waits, in machine code
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            ended.append(True)

    launched = Launch(2, task)
    invited = invitation(1)
    with pytest.raises(KeyboardInterrupt):
        launched.run(invited)
        time.sleep(LONG)
    assert ended == [True]
    in_threads(2)


SHARED = """
    import os, threading, time
    import numpy as np, einjit
    from einjit import board, parallel, program
    program.SHARE_SECONDS, parallel.WAKE_SECONDS = 1e-9, 0.0
    einjit.options(threads=3)
    x = np.random.default_rng(0).uniform(size=(200, 200))

    def right():
        return all(np.allclose(einjit.einsum("ij,jk->ik", x, x), x @ x) for _ in range(20))
"""


@needs_fork
def test_a_forked_child_has_helpers_of_its_own():
    code = SHARED + """
    assert right()
    stop = threading.Event()

    def work():                            # the parent's helpers and places are busy when it forks
        while not stop.is_set():
            einjit.einsum("ij,jk->ik", x, x)

    busy = threading.Thread(target=work, daemon=True)
    busy.start()
    for _ in range(5):
        child = os.fork()
        if child == 0:
            assert parallel._started == 0
            assert right() and parallel._started == 2
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if right() else 1)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stop.set()
    busy.join(30)
    assert right()
    print("parent and child")
    """
    assert "parent and child" in run_code(code, timeout=4 * LONG)


def test_the_interpreter_ends_while_helpers_watch_sleep_or_work():
    code = SHARED + """
    import atexit
    atexit.register(lambda: print("late", right()))
    assert right()
    if {sleep}:
        time.sleep(0.01)
    if {work}:
        def work():
            while True:
                einjit.einsum("ij,jk->ik", x, x)
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.05)
    """
    for sleep, work in ((False, False), (True, False), (False, True)):
        text = textwrap.dedent(code.format(sleep=sleep, work=work))
        done = run_python("-c", text, timeout=4 * LONG)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "late True", "")


def test_light_import():
    code = """
        import sys, einjit.parallel, einjit.forksafe, einjit.cache
        print([name for name in ("numba", "llvmlite") if name in sys.modules])
    """
    assert run_code(code).strip() == "[]"
