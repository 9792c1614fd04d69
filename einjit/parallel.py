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
WAKE_SECONDS = 5e-4     # a launch wakes helpers if one thread would take so long: to wake one takes 10 to 70 us of
                        # the caller's time, and it begins with cold caches

_lock = threading.Lock()
_started = 0            # helpers that there are
_last_launch = 0.0


def invite(wanted: int, seconds: float) -> int:
    """The word by which a launch says who may help: how many helpers may join, no more than `wanted` and than the
    option `threads` leaves, and in bit 16 whether to wake those that sleep. Starts helpers that are missing.

    `seconds`: an estimate for one thread. Where that is too short to wake anybody for, helpers are woken if
    the launch before was so short ago that they would be awake, had it woken them: others will follow.
    """
    global _last_launch
    allowed = current().threads - 1
    if allowed > wanted:
        allowed = wanted
    if _started < allowed:
        _start(allowed)
    now = time.perf_counter()
    wake = seconds >= WAKE_SECONDS or now - _last_launch < WATCH_SECONDS
    _last_launch = now
    return allowed + (wake << 16)


def _start(size: int) -> None:
    global _started
    with _lock:
        while _started < size:
            try:
                line = board.helper_line(_started)
                threading.Thread(target=_help, args=(line,), name=f"einjit-{_started + 1}", daemon=True).start()
            except RuntimeError:    # no more threads to be had, or the interpreter is ending
                return
            _started += 1
            board.set_size(_started)


def _help(line: int) -> None:
    """The life of a helper; it ends with the process."""
    sharing().serve(line, _pauses())


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
