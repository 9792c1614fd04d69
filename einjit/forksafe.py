"""Make a fork safe while another thread compiles.

The child has only the thread that forked. A lock that another thread held stays locked in it for ever, and
its first compile would wait for that lock. So a fork first takes the locks that a compile holds, einjit's,
Numba's and llvmlite's, in the order in which a compile takes them; parent and child then release them.
"""

from __future__ import annotations

# Hooks that run before a fork run in reverse order of registration. A compile imports Numba, which takes
# logging's lock on the way; logging's hook takes it too. Ours must come first, so be registered later.
import gc
import logging  # noqa: F401
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any, TypeVar

Result = TypeVar("Result")

# One compile at a time. Hold it also around the first import of Numba and llvmlite.
compile_lock = threading.RLock()

# What the thread of `uninterrupted` holds: its caller may leave, and with it compile_lock, before it ends.
_import_lock = threading.RLock()

# Some compile may wait for the very thread that forks. A fork that never returned would then be worse than a
# child that cannot compile.
_PATIENCE_SECONDS = 60.0

_OTHERS = (
    # module, and the attributes that lead from it to a lock: private, so they may change at any release
    ("numba.core.compiler_lock", ("global_compiler_lock", "_lock")),
    ("llvmlite.binding.ffi", ("lib", "_lock", "_lock")),
)

_held = threading.local()  # .locks: what this thread took for the fork that it is making


def _locks() -> Iterator[Any]:
    """The locks of a compile, outermost first; of modules that are not imported there are none to take."""
    yield compile_lock
    yield _import_lock
    for module, path in _OTHERS:
        lock: Any = sys.modules.get(module)
        for name in path:
            lock = getattr(lock, name, None)
        if hasattr(lock, "acquire") and hasattr(lock, "release"):
            yield lock


def _before_fork() -> None:
    _held.locks = []
    for lock in _locks():
        if lock.acquire(timeout=_PATIENCE_SECONDS):
            _held.locks.append(lock)


def _after_fork() -> None:
    while _held.locks:
        _held.locks.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def uninterrupted(function: Callable[[], Result]) -> Result:
    """Call `function` where Ctrl-C cannot stop it half-way: for imports, which would stay half done, and for
    compiling, which would leave Numba's registries broken and LLVM's objects owned twice.

    It runs in a thread of its own; a KeyboardInterrupt reaches the waiting caller, and `function` goes on. A
    fork waits until it has ended, and so does the next call.

    No garbage is searched for meanwhile: a finalizer that runs in that thread, and calls einsum, would wait for
    the lock of the caller, who waits for the thread. Nor would it be cheap: Numba makes so many objects that
    Python would search all that the process holds several times, 0.1 s for every third kernel, which takes 0.3 s.
    """
    raised: list[BaseException] = []
    result: list[Result] = []

    def work() -> None:
        collects = False
        try:
            with _import_lock:
                collects = gc.isenabled()
                gc.disable()
                result.append(function())
        except BaseException as error:
            raised.append(error)
        finally:
            # No object is made between these two, so no garbage is searched for before the caller goes on.
            if collects:
                enable()
            release()

    # Not Thread.join: interrupted, it takes the thread for ended (CPython 3.11's _wait_for_tstate_lock).
    ended = threading.Lock()
    ended.acquire()
    enable, release = gc.enable, ended.release
    # In the caller's context: its options hold for what is done here.
    thread = threading.Thread(target=copy_context().run, args=(work,), name="einjit-compile")
    try:
        thread.start()
    except RuntimeError:        # no more threads to be had, or the interpreter is ending
        return function()
    # In short waits: a signal that comes just before a wait begins does not end it.
    while not ended.acquire(timeout=0.1):
        pass
    if raised:
        raise raised[0]
    return result[0]
