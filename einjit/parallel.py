"""Run pieces of a kernel at once: the calling thread and a pool of persistent threads.

Whatever the pool is busy with, a call gets on: pieces that no thread has begun, the caller does itself. So
any number of threads may call at once, a piece may call again, and a pool without threads (after a fork, at
interpreter exit, where threads cannot be started) is only slower.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from .options import current

Task = Callable[[], None]


class _Job:
    """The tasks of one call. Threads that help take them from the front, one at a time."""

    __slots__ = ("tasks", "places", "running", "waiting", "done", "error", "lock")

    def __init__(self, tasks: Sequence[Task], helpers: int) -> None:
        self.tasks = deque(tasks)
        self.places = helpers  # how many threads more may help
        self.running = 0  # tasks that helpers have begun and not ended
        self.waiting = False  # the caller waits, or is about to, for running == 0
        self.error: BaseException | None = None
        self.lock = threading.Lock()  # over the five above
        self.done = threading.Lock()
        self.done.acquire()

    def help(self) -> None:
        """A helper's part: take tasks until there are none."""
        with self.lock:
            if not self.tasks or not self.places:
                return
            self.places -= 1
        while True:
            error = None
            with self.lock:
                if not self.tasks:
                    return
                task = self.tasks.popleft()
                self.running += 1
            try:
                task()
            except BaseException as caught:  # the caller raises it
                error = caught
            del task  # whatever it holds is the caller's again before the caller goes on
            with self.lock:
                self.running -= 1
                if error is not None:
                    self.error = self.error or error
                    self.tasks.clear()
                if self.waiting and self.running == 0:
                    self.waiting = False
                    self.done.release()

    def work(self, first: Task) -> None:
        """The caller's part: the first task, and those that no helper has taken."""
        first()
        while True:
            with self.lock:
                if not self.tasks:
                    return
                task = self.tasks.popleft()
            task()

    def close(self) -> None:
        """Drop what nobody has begun and wait for the rest. May be interrupted, and called again."""
        with self.lock:
            self.tasks.clear()
            if self.running == 0:
                return
            self.waiting = True
        self.done.acquire()


class _Pool:
    """Daemon threads that sleep until there is a call, and then look for one that they can help."""

    def __init__(self) -> None:
        self.open: dict[_Job, None] = {}  # the calls in progress, in order
        self.calls: SimpleQueue[None] = SimpleQueue()  # an item makes one thread look, once, through `open`
        self.lock = threading.Lock()
        self.size = 0

    def grow(self, size: int) -> None:
        with self.lock:
            while self.size < size:
                name = f"einjit-{self.size + 1}"
                try:
                    threading.Thread(target=_serve, args=(self,), name=name, daemon=True).start()
                except RuntimeError:  # no more threads to be had, or the interpreter is ending
                    return
                self.size += 1

    def call(self, job: _Job, helpers: int) -> None:
        """Ask so many threads for help. Those that are busy may come too late, which is harmless."""
        if self.size < helpers:
            self.grow(helpers)
        self.open[job] = None
        # When as many looks are due as there are threads, more would not bring more help, but pile up.
        for _ in range(min(helpers, self.size - self.calls.qsize())):
            self.calls.put(None)

    def look(self) -> None:
        for job in tuple(self.open):
            job.help()


def _serve(pool: _Pool) -> None:
    """The life of a thread of the pool."""
    _thread.helps = True
    while True:
        pool.calls.get()
        pool.look()


_pool = _Pool()
_thread = threading.local()  # .helps: this thread belongs to the pool


def _after_fork_in_child() -> None:
    """A child has none of its parent's threads, and perhaps locks that one of them held."""
    global _pool, _thread
    _pool = _Pool()
    _thread = threading.local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def run(tasks: Sequence[Task]) -> None:
    """Call every task, the first one in this thread, the others in the pool's threads where it has some free.

    Returns when all have ended. No more threads than the option `threads` take part, this one included; the
    pool grows as far as that needs, and stays. A thread that has ended a task takes the next. Tasks that
    release the GIL run at once. Called from a thread of the pool, it runs them one after another. A task
    must not fork.

    Raises what a task raised; tasks not begun by then are dropped, and those begun are waited for, after
    KeyboardInterrupt too, because they write into the caller's memory.
    """
    helpers = min(len(tasks), current().threads) - 1
    if helpers < 1 or getattr(_thread, "helps", False):
        for task in tasks:
            task()
        return
    job = _Job(tasks[1:], helpers)
    pool = _pool
    interrupt = None
    try:
        pool.call(job, helpers)
        job.work(tasks[0])
    except BaseException as caught:
        interrupt = caught
    while True:
        try:
            pool.open.pop(job, None)
            job.close()
            break
        except BaseException as caught:  # Ctrl-C while waiting: first wait, then raise it
            interrupt = interrupt or caught
    error = interrupt or job.error
    if error is not None:
        try:
            raise error
        finally:
            del error, interrupt, job  # else its traceback, by way of this frame, would keep it alive
