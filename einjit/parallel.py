"""Helpers: threads that take shares of launches from the board (`codegen.sharing`).

A helper watches the board for a while after its last share, so that calls which follow one another find it
awake: it begins within a microsecond. Then it sleeps. It runs no Python and never takes the GIL. A process
that cannot start threads has no helpers, and is only slower.
"""
from __future__ import annotations

import os
import threading
import time
from functools import cache

from . import board
from .launch import sharing
from .options import current

WATCH_SECONDS = 1e-3    # how long a helper without work stays awake; libgomp's wait about as long
WAKE_SECONDS = 2e-4     # work, in one call or in calls that follow one another, for which helpers are woken: to wake
                        # one takes up to 70 us of the caller's time, and it begins with cold caches

_lock = threading.Lock()
_started = 0            # helpers that there are
_last_launch = 0.0      # when it was
_work = 0.0             # of it and those just before it, by the estimates


def invite(wanted: int, seconds: float) -> int:
    """How many helpers may join a launch that could use `wanted`: as far as the option `threads` allows, and none
    where all sleep and the launch is not worth waking them for. Starts those that are missing.

    `seconds`: an estimate for one thread. Threads that call at once may mix up their counts; then a helper is
    woken too early or too late.
    """
    global _last_launch, _work
    now = time.perf_counter()
    _work = seconds if now - _last_launch > WATCH_SECONDS else _work + seconds
    _last_launch = now
    allowed = current().threads - 1
    if allowed < 1 or (_work < WAKE_SECONDS and not board.awake()):
        return 0
    if allowed > wanted:
        allowed = wanted
    if _started < allowed:
        _start(allowed)
    return allowed


def _start(size: int) -> None:
    """Not by two at once: another thread goes on without those that are missing, and so does a finalizer or a signal
    handler that runs in the midst of this."""
    global _started
    lock = _lock
    if not lock.acquire(blocking=False):
        return
    try:
        while _started < size:
            number = _started
            _started += 1           # before the start, which Ctrl-C may end early: no two helpers share a line
            try:
                line = board.helper_line(number)
                threading.Thread(target=_help, args=(line,), name=f"einjit-{_started}", daemon=True).start()
            except RuntimeError:    # no more threads to be had, or the interpreter is ending
                _started = number
                return
            board.set_size(_started)
    finally:
        lock.release()


def _help(line: int) -> None:
    """The life of a helper; it ends with the process."""
    sharing().serve(line, threading.get_native_id(), _pauses())


@cache
def _pauses() -> int:
    """How often a helper looks at the board in `WATCH_SECONDS`."""
    pauses, seconds = 500, []
    for _ in range(3):
        start = time.perf_counter()
        sharing().watch(pauses)
        seconds.append(time.perf_counter() - start)
    return max(1000, int(pauses * WATCH_SECONDS / min(seconds)))   # at the least: it may have worked meanwhile


def _after_fork_in_child() -> None:
    """A child has none of its parent's threads, and perhaps a lock that one of them held."""
    global _lock, _started
    _lock, _started = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
