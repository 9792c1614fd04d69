"""Source -> machine code: Numba compiles the kernel, the object code is kept, a private engine loads it.

Numba types and lowers the source; LLVM optimises it, once. What is cached and called is the plain
object code: it loads in a millisecond without Numba (whose import and first use cost half a second), and
an engine of its own can be freed, which Numba's cannot.

Nothing here may be interrupted half-way: callers run it through `forksafe.uninterrupted`.
"""
from __future__ import annotations

import linecache
from dataclasses import dataclass
from functools import cache
from typing import Any

from .source import Source


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
    module, symbol = _optimised(source)
    return MachineCode(target_machine().emit_object(module), symbol)


def llvm_of(source: Source) -> str:
    """The optimised LLVM IR of a kernel, as text."""
    return str(_optimised(source)[0])


def asm_of(source: Source, machine=None) -> str:
    """The assembly of a kernel, as text. `machine`: an LLVM target machine, of whatever kind; this one if None."""
    machine = machine or target_machine()
    return machine.emit_assembly(_optimised(source, machine)[0])


def load(code: MachineCode) -> LoadedCode:
    """Put machine code into memory. Raises `ValueError` where it lacks its symbol."""
    import llvmlite.binding as llvm

    # An engine owns its target machine, and frees it.
    machine = _new_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_code))
    engine.finalize_object()
    address = engine.get_function_address(code.symbol)
    if not address:
        raise ValueError(f"the object code has no symbol {code.symbol}")
    return LoadedCode(address, engine)


def _optimised(source: Source, machine=None):
    """(LLVM module, symbol): lowered by Numba, optimised here."""
    machine = machine or target_machine()
    module, symbol = _lowered(source)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    _run_passes(module, machine)
    return module, symbol


def _lowered(source: Source):
    """(LLVM module, symbol), as Numba lowers the source.

    Numba would run LLVM's whole pipeline twice, vectorise and unroll loops that are as they should be, and
    load the code into an engine that is never freed. Its compiler takes a library to put the code in, so we
    give it one that does nothing more.
    """
    _prepare_numba()
    from numba.core import compiler, types
    from numba.core.registry import cpu_target

    function = python_function(source)
    context = cpu_target.target_context
    library = _plain_library()(context.codegen(), source.entry)
    flags = compiler.Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    flags.nrt = False
    result = compiler.compile_extra(cpu_target.typing_context, context, function, (types.int64, types.int64),
                                    types.void, flags, {}, library=library)
    return library._final_module, result.fndesc.llvm_func_name


@cache
def _prepare_numba() -> None:
    """Import what a compilation needs, and let Numba collect its own implementations."""
    from numba.core.registry import cpu_target

    from . import memory, packing, patches, tile  # noqa: F401

    cpu_target.target_context.refresh()
    cpu_target.typing_context.refresh()


def python_function(source: Source):
    """The kernel as a plain Python function."""
    filename = f"<einjit {source.entry}>"
    linecache.cache[filename] = (len(source.text), None, source.text.splitlines(True), filename)
    namespace = {"__name__": "einjit.kernels"}
    exec(compile(source.text, filename, "exec"), namespace)
    return namespace[source.entry].py_func


@cache
def _plain_library():
    from numba.core.codegen import JITCodeLibrary

    class PlainLibrary(JITCodeLibrary):
        """Holds the module as Numba lowered it."""

        def _optimize_functions(self, ll_module):
            ll_module.data_layout = self._codegen._data_layout

    return PlainLibrary


def _run_passes(module, machine) -> None:
    """LLVM's standard pipeline, less what would make more versions of the loops."""
    import llvmlite.binding as llvm

    tuning = llvm.create_pipeline_tuning_options(speed_level=1)
    tuning.loop_vectorization = tuning.slp_vectorization = False
    tuning.loop_unrolling = tuning.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    module.verify()


@cache
def target_machine():
    """The target machine that code is emitted with."""
    return _new_target_machine()


def _new_target_machine():
    """LLVM's description of this machine."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=scheduled_as(llvm.get_host_cpu_name()), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True)


# Intel's processors with AVX-512 before Sapphire Rapids. LLVM's models of them start the tile's loads so early
# that registers run out: 2 spills and some 30 moves for every 24 multiply-adds.
_RUN_OUT = ("skylake-avx512", "cascadelake", "cooperlake", "cannonlake", "icelake-client", "icelake-server",
            "tigerlake", "rocketlake")


def scheduled_as(cpu: str) -> str:
    """The processor for whose pipeline code is arranged on `cpu`; which instructions there are, features say."""
    return "sapphirerapids" if cpu in _RUN_OUT else cpu
