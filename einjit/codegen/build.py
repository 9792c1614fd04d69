"""Source -> machine code: Numba compiles the kernel, the object code is kept, a private engine loads it.

Numba types and lowers the source and LLVM optimises it, once. What is cached and called is the plain
object code: it loads in a millisecond without Numba (whose import and first use cost half a second), and
an engine of its own can be freed, which Numba's cannot.
"""
from __future__ import annotations

import linecache
from dataclasses import dataclass
from typing import Any

from .cpu import Source


@dataclass(frozen=True)
class MachineCode:
    """Relocatable object code of one kernel and the symbol of its entry."""

    object_code: bytes
    symbol: str


@dataclass(frozen=True)
class LoadedCode:
    """Machine code in memory, for as long as this value lives."""

    address: int
    engine: Any


def compile_source(source: Source) -> MachineCode:
    """Compile a kernel with Numba for this machine."""
    library, symbol = _numba_library(source)
    return MachineCode(_target_machine().emit_object(library._final_module), symbol)


def llvm_of(source: Source) -> str:
    """The optimised LLVM IR of a kernel, as text."""
    return str(_numba_library(source)[0]._final_module)


def asm_of(source: Source) -> str:
    """The assembly of a kernel, as text."""
    return _target_machine().emit_assembly(_numba_library(source)[0]._final_module)


def load(code: MachineCode) -> LoadedCode:
    """Put machine code into memory. Raises `ValueError` where it lacks its symbol."""
    import llvmlite.binding as llvm

    _target_machine()
    module = llvm.parse_assembly("")
    engine = llvm.create_mcjit_compiler(module, _target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_code))
    engine.finalize_object()
    address = engine.get_function_address(code.symbol)
    if not address:
        raise ValueError(f"the object code has no symbol {code.symbol}")
    return LoadedCode(address, engine)


def _numba_library(source: Source):
    from numba import njit
    from numba.core import types

    filename = f"<einjit {source.entry}>"
    linecache.cache[filename] = (len(source.text), None, source.text.splitlines(True), filename)
    namespace = {"__name__": "einjit.kernels"}
    exec(compile(source.text, filename, "exec"), namespace)
    signature = types.void(types.int64, types.int64)
    function = njit(signature, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(
        namespace[source.entry].py_func)
    result = function.overloads[function.signatures[0]]
    return result.library, result.fndesc.llvm_func_name


_machine: Any = None


def _target_machine():
    """LLVM's description of this machine, made once."""
    global _machine
    if _machine is None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_default_triple()
        _machine = target.create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True)
    return _machine
