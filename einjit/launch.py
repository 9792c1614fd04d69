"""The launcher: from Python arrays to a kernel's raw pointers in under a tenth of a microsecond.

A launcher is a C function of the running interpreter (METH_FASTCALL), emitted once with llvmlite. Its
`self` is a record of int64 words that says which arrays it takes: for each one the dtype object, the
shape, the strides and the flags. Arrays that differ in anything are refused by returning NotImplemented
(the caller then takes the slow path), so that a kernel never sees memory it was not planned for. It
gathers the data pointers, releases the GIL where the work is worth it, and calls the kernel. Its code is in
`codegen/launcher.py`.
"""
from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Sequence

import numpy as np

from .contraction import Layout
from .forksafe import compile_lock, uninterrupted

WRITEABLE = 0x0400
STACK_WORKSPACE = 16384     # bytes that the launcher lends a kernel from its own stack
MAX_ARRAYS = 64
MAX_OPERANDS = MAX_ARRAYS - 2      # beside them, the output and the workspace


def record(kernel: int, params: np.ndarray, layouts: Sequence[Layout], slots: Sequence[int],
           release_gil: bool, workspace: bool) -> np.ndarray:
    """The words of a launcher for arrays of these layouts, output first; `codegen.launcher` reads them.

    Array i becomes the kernel's pointer slots[i]. `workspace` adds one last array of which only the address
    is taken. With kernel 0 the launcher only checks its arrays.
    """
    words = [kernel, params.ctypes.data, len(layouts) + workspace, int(release_gil), id(np.ndarray)]
    for i, layout in enumerate(layouts):
        low, high = byte_bounds(layout)
        words += [id(np.dtype(layout.dtype)), len(layout.shape), WRITEABLE if i == 0 else 0, low, high, slots[i]]
        words += [*layout.shape, *layout.strides]
    if workspace:
        words += [0, 0, 0, 0, 0, len(layouts)]
    return np.array(words, dtype=np.int64)


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
        method, _ = _method() if _method.cache_info().currsize else uninterrupted(_method)
    return new(ctypes.addressof(method), words, keep)


_PYTHON_SYMBOLS = ("PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef")


class _MethodDef(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]


@cache
def _method() -> tuple[_MethodDef, Any]:
    import llvmlite.binding as llvm

    from .codegen.build import MachineCode, load, target_machine
    from .codegen.launcher import SYMBOL, launcher_module

    for name in _PYTHON_SYMBOLS:
        llvm.add_symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value)
    machine = target_machine()
    module = llvm.parse_assembly(str(launcher_module(machine.triple, MAX_ARRAYS, STACK_WORKSPACE)))
    module.verify()
    loaded = load(MachineCode(machine.emit_object(module), SYMBOL))
    METH_FASTCALL = 0x0080
    return _MethodDef(b"launch", loaded.address, METH_FASTCALL, None), loaded
