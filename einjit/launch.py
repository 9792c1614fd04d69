"""The launcher: from Python arrays to a kernel's raw pointers in under a tenth of a microsecond.

A launcher is a C function of the running interpreter (METH_FASTCALL), emitted once with llvmlite. Its
`self` is a record of int64 words that says which arrays it takes: for each one the dtype object, the
shape, the strides and the flags. Arrays that differ in anything are refused by returning NotImplemented
(the caller then takes the slow path), so that a kernel never sees memory it was not planned for. It
gathers the data pointers, releases the GIL where the work is worth it, and calls the kernel, or shares the
work with helpers. Its code is in `codegen/launcher.py` and `codegen/sharing.py`.
"""
from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Callable, Sequence

import numpy as np

from . import board
from .board import LINE
from .contraction import Layout
from .forksafe import compile_lock, uninterrupted

WRITEABLE = 0x0400
STACK_WORKSPACE = 16384     # bytes that the launcher lends a kernel from its own stack
MAX_ARRAYS = 64
MAX_OPERANDS = MAX_ARRAYS - 2      # beside them, the output and the workspace
MAX_SHARES = 1 << 15               # of a launch: 16 bits count them


@dataclass(frozen=True)
class Share:
    """A part of a launch, for one thread: its parameter block, and where it has its output and its workspace, in
    bytes from the start of the launch's memory (output 0: it writes to the launch's own)."""

    params: np.ndarray
    out: int
    workspace: int


def record(kernel: int, params: np.ndarray, layouts: Sequence[Layout], slots: Sequence[int],
           release_gil: bool, workspace: bool) -> np.ndarray:
    """The words of a launcher for arrays of these layouts, output first; `codegen.launcher` reads them.

    Array i becomes the kernel's pointer slots[i]. `workspace` adds one last array of which only the address
    is taken.
    """
    return np.array(_head(kernel, params.ctypes.data, int(release_gil), layouts, slots, workspace), dtype=np.int64)


def shared_record(kernel: int, shares: Sequence[Share], layouts: Sequence[Layout], slots: Sequence[int]) -> np.ndarray:
    """The words of a launcher that runs two shares or more, with the help of other threads. Its last array is
    memory for all of them: first `tables_bytes`, then what the shares say. Its first word is the
    number of helpers that may join."""
    words = _head(kernel, sharing().run, len(shares), layouts, slots, workspace=True)
    words.append(_table_bytes(len(layouts)))
    for share in shares:
        words += [share.params.ctypes.data, share.out, share.workspace]
    return np.array(words, dtype=np.int64)


def tables_bytes(shares: int, layouts: int) -> int:
    """Bytes that a shared launch needs at the start of its memory."""
    return LINE + shares * _table_bytes(layouts)


def _table_bytes(layouts: int) -> int:
    """Of a share's table, in whole lines: its parameter block, the arrays, the workspace."""
    return -(-8 * (layouts + 2) // LINE) * LINE


def _head(kernel: int, params: int, shares: int, layouts, slots, workspace: bool) -> list[int]:
    words = [kernel, params, len(layouts) + workspace, shares, id(np.ndarray)]
    for i, layout in enumerate(layouts):
        low, high = byte_bounds(layout)
        words += [id(np.dtype(layout.dtype)), len(layout.shape), WRITEABLE if i == 0 else 0, low, high, slots[i]]
        words += [*layout.shape, *layout.strides]
    if workspace:
        words += [0, 0, 0, 0, 0, len(layouts)]
    return words


def byte_bounds(layout: Layout) -> tuple[int, int]:
    """First and end byte that an array touches, counted from its data pointer."""
    itemsize = np.dtype(layout.dtype).itemsize
    if 0 in layout.shape:
        return 0, 0
    spans = [(n - 1) * s for n, s in zip(layout.shape, layout.strides)]
    return sum(min(x, 0) for x in spans), sum(max(x, 0) for x in spans) + itemsize


def launcher(words: np.ndarray, keep: Any):
    """The C function for a record: callable (output, *inputs[, workspace]) -> None, or NotImplemented where
    an array does not fit. It keeps `words` and `keep` (what the words point to) alive."""
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
    # The third argument is meant for the function's module, and takes any object.
    with compile_lock:
        method = _once(_method)
    return new(ctypes.addressof(method), words, keep)


def _once(function: Callable):
    """What it returns, cached; with compile_lock held."""
    return function() if function.cache_info().currsize else uninterrupted(function)


class _MethodDef(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]


_PYTHON_SYMBOLS = ("PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef", "PyThread_acquire_lock",
                   "PyThread_release_lock")


@cache
def _method() -> _MethodDef:
    from .codegen.launcher import SYMBOL, launcher_module

    code = _load(partial(launcher_module, max_arrays=MAX_ARRAYS, stack_workspace=STACK_WORKSPACE), SYMBOL)
    METH_FASTCALL = 0x0080
    return _MethodDef(b"launch", code.address, METH_FASTCALL, None)


@dataclass(frozen=True)
class Sharing:
    """Machine code for launches that threads share, see `codegen.sharing`: the address of `RUN`, `SERVE`, `WATCH`."""

    run: int
    serve: Callable[[int, int, int], None]
    watch: Callable[[int], None]


def sharing() -> Sharing:
    with compile_lock:
        return _once(_sharing)


@cache
def _sharing() -> Sharing:
    import llvmlite.binding as llvm

    from .codegen.sharing import RUN, SERVE, WATCH, YIELD, sharing_module

    give_way = ctypes.windll.kernel32.SwitchToThread if os.name == "nt" else ctypes.CDLL(None).sched_yield
    llvm.add_symbol(YIELD, ctypes.cast(give_way, ctypes.c_void_p).value)
    affinity = hasattr(os, "sched_setaffinity")
    code = _load(partial(sharing_module, board=board.ADDRESS, affinity=affinity), RUN)
    serve, watch = (ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)(code.engine.get_function_address(name))
                    for name, count in ((SERVE, 3), (WATCH, 1)))
    return Sharing(code.address, serve, watch)


def _load(module: Callable, symbol: str):
    """The loaded code of `module(triple=)`: for ever, because threads may be in it while the interpreter ends."""
    import llvmlite.binding as llvm

    from .codegen.build import MachineCode, load, target_machine

    for name in _PYTHON_SYMBOLS:
        llvm.add_symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value)
    machine = target_machine()
    parsed = llvm.parse_assembly(str(module(triple=machine.triple)))
    parsed.verify()
    return board.immortal(load(MachineCode(machine.emit_object(parsed), symbol)))
