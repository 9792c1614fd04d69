"""Source -> PTX and machine code for a GPU. No device and no driver is needed.

Numba compiles a kernel to LLVM IR for the linker, NVIDIA's linker optimises that and assembles it; what is loaded on a
device is its result, the cubin.
"""
from __future__ import annotations

import re
import shutil
import site
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import EinjitError
from .build import python_function
from .source import Source



class CudaUnavailable(EinjitError, RuntimeError):
    """What is needed to compile for a GPU, or to run there, is not installed."""


@dataclass(frozen=True)
class Resources:
    """Of a kernel: registers a thread; bytes of stack and of spills a thread; bytes of shared memory a block."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int

    def __str__(self) -> str:
        spilled = self.spill_stores + self.spill_loads
        return (f"{self.registers} registers, {self.stack} bytes of stack, {spilled} bytes spilled, {self.shared} "
                "bytes of shared memory")


@dataclass(frozen=True)
class Signature:
    """What a kernel is compiled for besides its text: its `pointers` come first, its words follow, of which positions
    are of type `integer`; `threads` of a block; and the compute capability."""

    pointers: int
    integer: str
    threads: int
    cc: tuple[int, int]

    @property
    def arch(self) -> str:
        return f"sm_{self.cc[0]}{self.cc[1]}"


@dataclass(frozen=True)
class GpuCode:
    """Machine code of one kernel, and the symbol of its entry."""

    symbol: str
    cubin: bytes
    resources: Resources


def compile_source(source: Source, signature: Signature) -> GpuCode:
    """Compile a kernel with Numba-CUDA. Raises `CudaUnavailable` where that is missing."""
    cuda, types = numba_cuda()
    function, arguments = python_function(source), _arguments(types, source, signature)
    ir, _ = cuda.compile(function, arguments, device=False, abi="numba", output="ltoir", **_options(signature))
    cubin, log = _linked(ir, signature.arch)
    symbol = re.search(rb"\.text\.(\w+)", cubin)[1].decode()
    return GpuCode(symbol, cubin, _resources(log))


def ptx_of(source: Source, signature: Signature) -> str:
    """The portable assembly of a kernel, as text."""
    cuda, types = numba_cuda()
    function, arguments = python_function(source), _arguments(types, source, signature)
    return cuda.compile_ptx(function, arguments, **_options(signature))[0]


def sass_of(code: GpuCode) -> str:
    """The machine code, as text. Raises `CudaUnavailable` without NVIDIA's disassembler."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.cubin)
        file.flush()
        return subprocess.run([_tool("nvdisasm"), "-c", file.name], capture_output=True, text=True, check=True).stdout


def compiler_version() -> str:
    """Of the packages that make the machine code. Raises `CudaUnavailable` where they are missing."""
    numba_cuda()
    from importlib import metadata

    names = ("numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink", "cuda-core")
    found = {d.metadata["Name"].lower(): d.version for d in metadata.distributions() if d.metadata["Name"]}
    return " ".join(f"{name}={found.get(name, '')}" for name in names)


def _arguments(types, source: Source, signature: Signature):
    words = [getattr(types, name) for name in word_types(source, signature)]
    return types.void(*[types.uint64] * signature.pointers, *words)


def word_types(source: Source, signature: Signature) -> tuple[str, ...]:
    """Of each word that a kernel takes: bytes are in 64 bits, positions in its integers."""
    return tuple("uint64" if word.what in ("stride", "part") else signature.integer for word in source.words)


def _options(signature: Signature) -> dict:
    return {"cc": signature.cc, "launch_bounds": (signature.threads, 2)}


def numba_cuda():
    """Numba-CUDA's module and its types: the package of its own, for Numba's built-in `cuda` lacks what we use."""
    try:
        import numba_cuda  # noqa: F401
        from numba import cuda
        from numba.cuda import types
    except ImportError:
        raise CudaUnavailable("CUDA kernels need Numba-CUDA, which is not installed",
                              fix="pip install 'einjit[cuda]'") from None
    return cuda, types


def _linked(ir: bytes, arch: str) -> tuple[bytes, str]:
    """The machine code, and what the assembler says of it."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=arch, link_time_optimization=True, ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ltoir(ir, name="kernel"), options=options)
    cubin = linker.link("cubin").code
    return bytes(cubin), linker.get_info_log()


def _resources(log: str) -> Resources:
    def numbers(pattern: str) -> tuple[int, ...]:
        found = re.search(pattern, log)
        return tuple(map(int, found.groups())) if found else (0,) * re.compile(pattern).groups

    stack, stores, loads = numbers(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
    return Resources(*numbers(r"Used (\d+) registers"), stack, stores, loads, *numbers(r"(\d+) bytes smem"))


def _tool(name: str) -> str:
    """A program of NVIDIA's: on the path, or inside of its wheels."""
    wheels = [path for folder in site.getsitepackages() for path in Path(folder).glob(f"nvidia/*/bin/{name}")]
    found = shutil.which(name) or next(map(str, wheels), None)
    if not found:
        raise CudaUnavailable(f"there is no {name}", fix="pip install 'einjit[cuda]'")
    return found
