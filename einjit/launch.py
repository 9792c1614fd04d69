"""The launcher: from Python arrays to a kernel's raw pointers in under a tenth of a microsecond.

A launcher is a C function of the running interpreter (METH_FASTCALL), emitted once with llvmlite. Its
`self` is a record of int64 words that says which arrays it takes: for each one the dtype object, the
shape, the strides and the flags. Arrays that differ in anything are refused by returning NotImplemented
(the caller then takes the slow path), so that a kernel never sees memory it was not planned for. It
gathers the data pointers, releases the GIL where the work is worth it, and calls the kernel.

The layout of a NumPy array object is part of NumPy's C ABI: data, nd, dimensions, strides, base, descr
and flags, in this order, behind the object header.
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

_HEADER = ("kernel", "params", "arrays", "release_gil", "array_type")


def record(kernel: int, params: np.ndarray, layouts: Sequence[Layout], slots: Sequence[int],
           release_gil: bool, workspace: bool) -> np.ndarray:
    """The words of a launcher for arrays of these layouts, output first; array i becomes the kernel's
    pointer slots[i]. `workspace` adds one last array of which only the address is taken. With kernel 0
    the launcher only checks its arrays."""
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


class _MethodDef(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]


@cache
def _method() -> tuple[_MethodDef, Any]:
    import llvmlite.binding as llvm

    from .codegen.build import MachineCode, load, target_machine

    for name in _PYTHON_SYMBOLS:
        llvm.add_symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value)
    machine = target_machine()
    module = llvm.parse_assembly(str(_module(machine.triple)))
    module.verify()
    loaded = load(MachineCode(machine.emit_object(module), "einjit_launch"))
    METH_FASTCALL = 0x0080
    return _MethodDef(b"launch", loaded.address, METH_FASTCALL, None), loaded


_PYTHON_SYMBOLS = ("PyEval_SaveThread", "PyEval_RestoreThread", "Py_IncRef")


def _module(triple: str):
    """The launcher in LLVM IR."""
    from llvmlite import ir

    i32, i64, pointer = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()
    module = ir.Module("einjit_launch")
    module.triple = triple
    save = ir.Function(module, ir.FunctionType(i64, []), "PyEval_SaveThread")
    restore = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64]), "PyEval_RestoreThread")
    incref = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64]), "Py_IncRef")
    launch = ir.Function(module, ir.FunctionType(i64, [i64, i64, i64]), "einjit_launch")
    self, args, count = launch.args
    b = ir.IRBuilder(launch.append_basic_block("entry"))
    refuse = launch.append_basic_block("refuse")

    def load(address, offset=0, typ=i64):
        if offset:
            address = b.add(address, i64(offset))
        return b.load(b.inttoptr(address, typ.as_pointer()))

    def require(condition):
        accepted = launch.append_basic_block("accepted")
        b.cbranch(condition, accepted, refuse)
        b.position_at_end(accepted)

    def loop(stop, carried, body):
        from .codegen.irloops import counted
        return counted(b, i64(0), stop, 1, carried, lambda _, i, values: body(i, values))

    head = object.__basicsize__
    data, nd, dims, strides, descr, flags = (head + x for x in (0, 8, 16, 24, 40, 48))
    pointers = b.alloca(ir.ArrayType(i64, MAX_ARRAYS))
    stack = b.alloca(ir.ArrayType(ir.IntType(8), STACK_WORKSPACE))
    stack.align = 64
    pointers, stack = b.ptrtoint(pointers, i64), b.ptrtoint(stack, i64)
    header = load(self, data)
    kernel, params, arrays, release_gil, array_type = (load(header, 8 * i) for i in range(len(_HEADER)))
    require(b.icmp_signed("==", count, arrays))

    def array(i, values):
        entry, out_low, out_high = values
        obj = load(b.add(args, b.mul(i, i64(8))))
        require(b.icmp_unsigned("==", load(obj, head - 8), array_type))   # its type ends an object's header
        address = load(obj, data)
        b.store(address, b.inttoptr(b.add(pointers, b.mul(load(entry, 40), i64(8))), i64.as_pointer()))
        want_descr, want_nd, want_flags = load(entry), load(entry, 8), load(entry, 16)
        low, high = b.add(address, load(entry, 24)), b.add(address, load(entry, 32))
        checked = b.icmp_unsigned("!=", want_descr, i64(0))
        require(b.or_(b.not_(checked), b.icmp_unsigned("==", load(obj, descr), want_descr)))
        require(b.or_(b.not_(checked), b.icmp_unsigned("==", b.sext(load(obj, nd, i32), i64), want_nd)))
        have_flags = b.sext(load(obj, flags, i32), i64)
        require(b.icmp_unsigned("==", b.and_(have_flags, want_flags), want_flags))
        is_out = b.icmp_unsigned("==", i, i64(0))
        apart = b.or_(b.icmp_unsigned(">=", low, out_high), b.icmp_unsigned("<=", high, out_low))
        require(b.or_(b.or_(is_out, apart), b.not_(checked)))
        shape, steps, want = load(obj, dims), load(obj, strides), b.add(entry, i64(48))

        def axis(k, _):
            at = b.mul(k, i64(8))
            require(b.icmp_signed("==", load(b.add(shape, at)), load(b.add(want, at))))
            behind = b.add(want, b.mul(want_nd, i64(8)))
            require(b.icmp_signed("==", load(b.add(steps, at)), load(b.add(behind, at))))
            return []

        loop(want_nd, [], axis)
        entry = b.add(want, b.mul(want_nd, i64(16)))
        return [entry, b.select(is_out, low, out_low), b.select(is_out, high, out_high)]

    loop(arrays, [b.add(header, i64(8 * len(_HEADER))), i64(0), i64(0)], array)
    behind = b.add(pointers, b.mul(arrays, i64(8)))
    b.store(stack, b.inttoptr(behind, i64.as_pointer()))
    function = b.inttoptr(kernel, ir.FunctionType(i32, [pointer, pointer, i64, i64]).as_pointer())
    result, exception = (b.bitcast(b.alloca(i64), pointer) for _ in range(2))

    def run():
        b.call(function, [result, exception, pointers, params])

    with b.if_then(b.icmp_unsigned("!=", kernel, i64(0))):
        with b.if_else(b.icmp_unsigned("!=", release_gil, i64(0))) as (then, otherwise):
            with then:
                state = b.call(save, [])
                run()
                b.call(restore, [state])
            with otherwise:
                run()
    none = i64(id(None))
    b.call(incref, [none])
    b.ret(none)
    b.position_at_end(refuse)
    not_implemented = i64(id(NotImplemented))
    b.call(incref, [not_implemented])
    b.ret(not_implemented)
    return module
