"""The board: memory on which threads put up work for each other, without the GIL (see `codegen.sharing`).

One block for the life of the process, at an address that machine code knows. It is never freed: helpers may
still look at it while the interpreter ends.
"""
from __future__ import annotations

import ctypes
import os
from typing import TypeVar

import numpy as np

Thing = TypeVar("Thing")

LINE = 64       # bytes of a cache line; threads must not write to lines that others need
PLACES = 8      # launches at a time that others can help with
HELPERS = 1024  # threads that can help

# A line for the number of helpers and how many of them are awake; one for each place; one for each helper.
SIZE, AWAKE = 0, 8
FIRST_PLACE = LINE
FIRST_HELPER = FIRST_PLACE + LINE * PLACES
BYTES = FIRST_HELPER + LINE * HELPERS

# A helper's words: whether it sleeps, the lock that it sleeps on, the system's number of its thread, and the core
# that it was forbidden when it was woken (-1: none).
ASLEEP, LOCK, THREAD, FORBIDDEN = 0, 8, 16, 24

# CPython's portable lock: it needs no GIL, and another thread than its holder may release it.
_new_lock = ctypes.pythonapi.PyThread_allocate_lock
_new_lock.restype = ctypes.c_void_p
_take_lock = ctypes.pythonapi.PyThread_acquire_lock
_take_lock.argtypes = [ctypes.c_void_p, ctypes.c_int]


def immortal(thing: Thing) -> Thing:
    """The same, never to be freed."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


_memory = immortal(np.zeros(BYTES + LINE, np.uint8))
_board = immortal(_memory[-_memory.ctypes.data % LINE:][:BYTES].view(np.int64))

ADDRESS = _board.ctypes.data


def helper_line(number: int) -> int:
    """Prepare a helper's line: its address. Raises `RuntimeError` where there can be no more."""
    line = (FIRST_HELPER + LINE * number) // 8
    if number == HELPERS:
        raise RuntimeError("there can be no more helpers")
    if not _board[line + LOCK // 8]:    # it has one where a thread could not be started
        lock = _new_lock()
        if not lock:
            raise RuntimeError("there can be no more helpers")
        _take_lock(lock, 0)
        _board[line + LOCK // 8] = lock
    return ADDRESS + 8 * line


def awake() -> int:
    """How many helpers watch the board or work."""
    return int(_board[AWAKE // 8])


def set_size(helpers: int) -> None:
    """So many helpers can be woken."""
    _board[SIZE // 8] = helpers


def _clear() -> None:
    """In a child there is only the thread that forked: nobody helps, and no launch is under way."""
    _board[:] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_clear)
