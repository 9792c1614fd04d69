"""The machine: what it is, and what it can do, measured in the run that uses the figures."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

PACKAGES = ("numpy", "numba", "llvmlite", "opt_einsum", "torch", "jax", "jaxlib", "pytblis")
STEPS = 200_000  # of the multiply-add loop, a call
PEAK_SECONDS = 0.1  # for each variant
ACCUMULATORS = (8, 10, 12, 16, 24)
LLVM_NAMES = {"float32": "float", "float64": "double"}
# What others compute in.
FLOATS = {"float16": "float32", "bfloat16": "float32", "complex64": "float32", "complex128": "float64"}
SMALLEST_STREAM = 64 * 2**20  # bytes of one array of the bandwidth kernels, if the cache is small
WRITES_LITTLE = 0.1  # below this share of writes, reading is what limits


@dataclass(frozen=True)
class Peaks:
    """Of `threads` cores together: flops a second by dtype; bytes a second of `a = b + 3 c` (three arrays, as
    STREAM counts them) and of a sum."""

    threads: int
    flops: dict[str, float]
    triad: float
    read: float

    def limit(self, flops: int, moved: int, writes: float, dtype: str) -> tuple[str, float]:
        """What bounds such a case here, "FMA", "triad" or "read", and the seconds it takes at least."""
        kind, bandwidth = ("read", self.read) if writes < WRITES_LITTLE else ("triad", self.triad)
        peak = self.flops.get(FLOATS.get(dtype, dtype))
        arithmetic, memory = flops / peak if peak else 0.0, moved / bandwidth
        return ("FMA", arithmetic) if arithmetic > memory else (kind, memory)


def measure_peaks(threads: int = 1) -> Peaks:
    return Peaks(threads, {dtype: fma_peak(dtype, threads) for dtype in LLVM_NAMES}, *bandwidths(threads))


# -- multiply-adds ---------------------------------------------------------------------------------------

def fma_peak(dtype: str, threads: int) -> float:
    """Flops a second of vector multiply-adds in registers: the best width and number of accumulators."""
    best = 0.0
    for bits in vector_widths():
        lanes = bits // (np.dtype(dtype).itemsize * 8)
        for accumulators in ACCUMULATORS:
            engine, loop = _compile_fma(dtype, lanes, accumulators)
            numbers = [np.full(2 * lanes, 0.5, dtype) for _ in range(threads)]
            seconds = _best_time([partial(loop, STEPS, own.ctypes.data) for own in numbers])
            best = max(best, threads * 2.0 * STEPS * accumulators * lanes / seconds)
            del engine  # it owns the code
    return best


def vector_widths() -> list[int]:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    known = {"avx512f": 512, "avx2": 256, "sse2": 128, "neon": 128}
    return [bits for name, bits in known.items() if features.get(name)] or [128]


def fma_source(dtype: str, lanes: int, accumulators: int) -> str:
    """LLVM IR of `for i in range(n): a0 = fma(a0, x, x); a1 = ...`: reads x, stores the sum behind it."""
    vector = f"<{lanes} x {LLVM_NAMES[dtype]}>"
    name = f"llvm.fma.v{lanes}f{np.dtype(dtype).itemsize * 8}"
    each = range(accumulators)
    # Each starts elsewhere, or the chains would be one and the same.
    starts = "\n".join(f"  %y{i} = fmul {vector} %x, {_splat(dtype, lanes, 1.0 / (i + 2))}" for i in each)
    phis = "\n".join(f"  %a{i} = phi {vector} [ %y{i}, %entry ], [ %b{i}, %loop ]" for i in each)
    factors = f"{vector} %x, {vector} %x"
    fmas = "\n".join(f"  %b{i} = call {vector} @{name}({vector} %a{i}, {factors})" for i in each)
    sums = "\n".join(f"  %s{i + 1} = fadd {vector} %s{i}, %b{i}" for i in each)
    return f"""
declare {vector} @{name}({vector}, {vector}, {vector})
define void @loop(i64 %n, ptr %numbers) {{
entry:
  %x = load {vector}, ptr %numbers, align 4
{starts}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{phis}
{fmas}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
  %s0 = fsub {vector} %x, %x
{sums}
  %sink = getelementptr {vector}, ptr %numbers, i64 1
  store {vector} %s{accumulators}, ptr %sink, align 4
  ret void
}}
"""


def _splat(dtype: str, lanes: int, value: float) -> str:
    """A constant vector; as hexadecimal bits of a double, which LLVM takes for every float type."""
    bits = np.float64(np.dtype(dtype).type(value)).view(np.uint64)
    element = f"{LLVM_NAMES[dtype]} 0x{int(bits):016X}"
    return f"<{', '.join([element] * lanes)}>"


def _compile_fma(dtype: str, lanes: int, accumulators: int):
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3)
    module = llvm.parse_assembly(fma_source(dtype, lanes, accumulators))
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)
    return engine, prototype(engine.get_function_address("loop"))


# -- bandwidth -------------------------------------------------------------------------------------------

def bandwidths(threads: int) -> tuple[float, float]:
    """Bytes a second of a triad and of a sum, on arrays that no cache holds."""
    from numba import njit

    @njit("void(f4[::1], f4[::1], f4[::1])", nogil=True)
    def triad(a, b, c):
        for i in range(a.size):
            a[i] = b[i] + np.float32(3) * c[i]

    # Integers may be added in any order, so LLVM vectorises and interleaves this without leave.
    @njit("i8(i8[::1])", nogil=True)
    def add(a):
        total = 0
        for i in range(a.size):
            total += a[i]
        return total

    size = max(SMALLEST_STREAM, 4 * last_cache()) // 4 // threads
    parts = [[np.ones(size, np.float32) for _ in range(3)] for _ in range(threads)]
    triad_seconds = _best_time([partial(triad, *arrays) for arrays in parts])
    sum_seconds = _best_time([partial(add, arrays[0].view(np.int64)) for arrays in parts])
    moved = size * 4 * threads
    return 3 * moved / triad_seconds, moved / sum_seconds


def last_cache() -> int:
    """Bytes of the largest cache, 32 MiB where the system does not tell."""
    return max((size for _, size in caches()), default=32 * 2**20)


def _best_time(calls: list[Callable[[], object]]) -> float:
    """The shortest time for all calls, each in a thread of its own; tried for PEAK_SECONDS."""
    best, stop = float("inf"), time.perf_counter() + PEAK_SECONDS
    while time.perf_counter() < stop or best == float("inf"):
        barrier = threading.Barrier(len(calls))
        spans: list[tuple[float, float]] = []

        def run(call: Callable[[], object], barrier=barrier, spans=spans) -> None:
            barrier.wait()
            start = time.perf_counter()
            call()
            spans.append((start, time.perf_counter()))

        workers = [threading.Thread(target=run, args=(call,)) for call in calls[1:]]
        for worker in workers:
            worker.start()
        run(calls[0])
        for worker in workers:
            worker.join()
        best = min(best, max(end for _, end in spans) - min(start for start, _ in spans))
    return best


# -- description -----------------------------------------------------------------------------------------

def describe() -> dict[str, object]:
    """What a reader of the results must know: processor, caches, versions, BLAS, commit."""
    import llvmlite.binding as llvm

    return {
        "cpu": _cpu_model(), "llvm_cpu": llvm.get_host_cpu_name(), "cores": os.cpu_count(),
        "caches": dict(caches()), "system": platform.platform(),
        "python": platform.python_version(), "versions": _versions(), "blas": _blas(), "commit": _commit(),
    }


def caches(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> list[tuple[str, int]]:
    """(name, bytes) of the caches that Linux describes."""
    found = []
    for index in sorted(root.glob("index*")):
        try:
            kind, level, size = ((index / part).read_text().strip() for part in ("type", "level", "size"))
        except OSError:
            continue
        letter = {"Data": "d", "Instruction": "i"}.get(kind, "")
        found.append((f"L{level}{letter}", int(size.rstrip("K")) * 1024))
    return found


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    fields = dict(part.split(":", 1) for part in text.splitlines() if ":" in part)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family')}, model {fields.get('model')})"


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _blas() -> list[str]:
    """Each BLAS that is loaded, with the kernels it chose."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return ["unknown: threadpoolctl is not installed"]
    return [f"{info['internal_api']} {info.get('version')}, {info.get('architecture', 'kernels unknown')}, "
            f"{info['num_threads']} threads" for info in threadpool_info() if info["user_api"] == "blas"]


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True,
                              check=True).stdout.strip()

    try:
        changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "--short=12", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
