"""The launcher's code in LLVM IR: checks arrays against a record, and calls a kernel with their addresses.

The record, int64 words: the kernel's address, its parameter block, the number of arrays, the number of shares
(0: one, with the GIL held), the address of NumPy's array type; then for each array the dtype object (0: take
the address, check nothing), the number of dimensions, the flags that must be set, the first and the end byte
that it touches (from its data pointer), its place among the kernel's pointers, its shape and its strides.

With two shares and more, the second word is the address of `sharing.RUN`. Behind the arrays stand the bytes of a
share's table, and then for each share its parameter block, and where its output and its workspace lie in the last
array (output 0: the launch's own). That array begins with a line of which the first word says how many helpers may
join; the tables of the shares follow.

The layout of a NumPy array object is part of NumPy's C ABI: data, nd, dimensions, strides, base, descr and
flags, in this order, behind the object header.
"""
from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from .irloops import counted
from .sharing import call_kernel
from .vectors import I8, I32, I64, LINE

SYMBOL = "einjit_launch"

_HEADER_WORDS = 5
_ENTRY_WORDS = 6
_HEAD = object.__basicsize__
_DATA, _ND, _DIMS, _STRIDES, _DESCR, _FLAGS = (_HEAD + x for x in (0, 8, 16, 24, 40, 48))
_TYPE = _HEAD - 8       # the type ends an object's header


def launcher_module(triple: str, max_arrays: int, stack_workspace: int) -> ir.Module:
    """A module with one function, `PyObject *einjit_launch(self, args, count)`; `self` is an array that holds
    a record. Kernels that need no more than `stack_workspace` bytes get them from its stack."""
    module = ir.Module("einjit_launch")
    module.triple = triple
    _Launcher(module).emit(max_arrays, stack_workspace)
    return module


@dataclass(frozen=True)
class _Entry:
    """The words of one array's entry in the record."""

    descr: ir.Value
    nd: ir.Value
    flags: ir.Value
    low: ir.Value
    high: ir.Value
    slot: ir.Value
    shape: ir.Value     # address of the first extent


class _Launcher:
    def __init__(self, module: ir.Module):
        void = ir.VoidType()
        self.save = ir.Function(module, ir.FunctionType(I64, []), "PyEval_SaveThread")
        self.restore = ir.Function(module, ir.FunctionType(void, [I64]), "PyEval_RestoreThread")
        self.incref = ir.Function(module, ir.FunctionType(void, [I64]), "Py_IncRef")
        self.function = ir.Function(module, ir.FunctionType(I64, [I64, I64, I64]), SYMBOL)
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.refuse = self.function.append_basic_block("refuse")

    def emit(self, max_arrays: int, stack_workspace: int) -> None:
        b = self.builder
        record_array, args, count = self.function.args
        self.pointers = b.ptrtoint(b.alloca(ir.ArrayType(I64, max_arrays + 1)), I64)     # and the stack's workspace
        stack = b.alloca(ir.ArrayType(I8, stack_workspace))
        stack.align = 64
        record = self.load(record_array, _DATA)
        kernel, params, arrays, shares, self.array_type = (self.load(record, 8 * i) for i in range(_HEADER_WORDS))
        self.require(b.icmp_signed("==", count, arrays))
        first = [b.add(record, I64(8 * _HEADER_WORDS)), I64(0), I64(0)]
        end, *_ = counted(b, I64(0), arrays, 1, first, lambda _, i, carried: self.array(args, i, *carried))
        self.store(b.ptrtoint(stack, I64), b.add(self.pointers, b.mul(arrays, I64(8))))
        with b.if_else(b.icmp_unsigned(">", shares, I64(1))) as (several, one):
            with several:
                self.share(kernel, params, arrays, shares, end)
            with one:
                self.call(kernel, params, shares)
        self.answer(None)
        b.position_at_end(self.refuse)
        self.answer(NotImplemented)

    def load(self, address: ir.Value, offset: int = 0, typ: ir.Type = I64) -> ir.Value:
        if offset:
            address = self.builder.add(address, I64(offset))
        return self.builder.load(self.builder.inttoptr(address, typ.as_pointer()))

    def store(self, value: ir.Value, address: ir.Value) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()))

    def require(self, condition: ir.Value) -> None:
        accepted = self.function.append_basic_block("accepted")
        self.builder.cbranch(condition, accepted, self.refuse)
        self.builder.position_at_end(accepted)

    def answer(self, singleton) -> None:
        value = I64(id(singleton))
        self.builder.call(self.incref, [value])
        self.builder.ret(value)

    def array(self, args, i, at, out_low, out_high) -> list[ir.Value]:
        """Check argument i against the entry at `at`; returns the next entry and the output's bounds."""
        b = self.builder
        entry = _Entry(*(self.load(at, 8 * k) for k in range(_ENTRY_WORDS)), b.add(at, I64(8 * _ENTRY_WORDS)))
        obj = self.load(b.add(args, b.mul(i, I64(8))))
        self.require(b.icmp_unsigned("==", self.load(obj, _TYPE), self.array_type))
        address = self.load(obj, _DATA)
        self.store(address, b.add(self.pointers, b.mul(entry.slot, I64(8))))
        unchecked = b.icmp_unsigned("==", entry.descr, I64(0))
        self.check_object(obj, entry, unchecked)
        is_out = b.icmp_unsigned("==", i, I64(0))
        low, high = b.add(address, entry.low), b.add(address, entry.high)
        apart = b.or_(b.icmp_unsigned(">=", low, out_high), b.icmp_unsigned("<=", high, out_low))
        self.require(b.or_(b.or_(is_out, unchecked), apart))
        self.check_axes(obj, entry)
        next_entry = b.add(entry.shape, b.mul(entry.nd, I64(16)))
        return [next_entry, b.select(is_out, low, out_low), b.select(is_out, high, out_high)]

    def check_object(self, obj: ir.Value, entry: _Entry, unchecked: ir.Value) -> None:
        """The dtype, the number of dimensions, the flags."""
        b = self.builder
        self.require(b.or_(unchecked, b.icmp_unsigned("==", self.load(obj, _DESCR), entry.descr)))
        nd = b.sext(self.load(obj, _ND, I32), I64)
        self.require(b.or_(unchecked, b.icmp_unsigned("==", nd, entry.nd)))
        flags = b.sext(self.load(obj, _FLAGS, I32), I64)
        self.require(b.icmp_unsigned("==", b.and_(flags, entry.flags), entry.flags))

    def check_axes(self, obj: ir.Value, entry: _Entry) -> None:
        """The shape and the strides."""
        b = self.builder
        shape, strides = self.load(obj, _DIMS), self.load(obj, _STRIDES)
        wanted_strides = b.add(entry.shape, b.mul(entry.nd, I64(8)))

        def axis(b, k, carried):
            at = b.mul(k, I64(8))
            for have, want in ((shape, entry.shape), (strides, wanted_strides)):
                self.require(b.icmp_signed("==", self.load(b.add(have, at)), self.load(b.add(want, at))))
            return []

        counted(b, I64(0), entry.nd, 1, [], axis)

    def call(self, kernel: ir.Value, params: ir.Value, release_gil: ir.Value) -> None:
        b = self.builder
        with b.if_else(b.icmp_unsigned("!=", release_gil, I64(0))) as (then, otherwise):
            with then:
                state = b.call(self.save, [])
                call_kernel(b, kernel, self.pointers, params)
                b.call(self.restore, [state])
            with otherwise:
                call_kernel(b, kernel, self.pointers, params)

    def share(self, kernel: ir.Value, run: ir.Value, arrays: ir.Value, shares: ir.Value, words: ir.Value) -> None:
        """Write the tables of the shares that `words` describes, and run them by the function at `run`."""
        b = self.builder
        last = b.sub(arrays, I64(1))
        memory = self.load(b.add(self.pointers, b.mul(last, I64(8))))
        tables = b.add(memory, I64(LINE))
        bytes_each, words = self.load(words), b.add(words, I64(8))

        def write(b, i, _):
            params, out, workspace = (self.load(b.add(words, b.mul(i, I64(24))), 8 * k) for k in range(3))
            table = b.add(tables, b.mul(i, bytes_each))
            pointers = b.add(table, I64(8))
            self.store(params, table)
            counted(b, I64(1), last, 1, [], lambda b, k, _: self.copy(b.mul(k, I64(8)), pointers))
            own = b.icmp_unsigned("!=", out, I64(0))
            self.store(b.select(own, b.add(memory, out), self.load(self.pointers)), pointers)
            self.store(b.add(memory, workspace), b.add(pointers, b.mul(last, I64(8))))
            return []

        counted(b, I64(0), shares, 1, [], write)
        state = b.call(self.save, [])
        function = b.inttoptr(run, ir.FunctionType(ir.VoidType(), [I64] * 5).as_pointer())
        b.call(function, [kernel, tables, bytes_each, shares, self.load(memory)])
        b.call(self.restore, [state])

    def copy(self, at: ir.Value, pointers: ir.Value) -> list:
        """Copy a pointer of the launch to a share's."""
        b = self.builder
        self.store(self.load(b.add(self.pointers, at)), b.add(pointers, at))
        return []
