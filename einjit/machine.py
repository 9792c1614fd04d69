"""What the schedule policies know of a processor: a CPU's vector unit and caches, a GPU's multiprocessors."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from .forksafe import compile_lock, uninterrupted


@dataclass(frozen=True)
class Cache:
    """One level: bytes in all, associativity, bytes a line."""

    size: int
    ways: int
    line: int = 64


@dataclass(frozen=True)
class Cpu:
    """`vector_bits`: widest vector; `registers`: how many of them; `fma_bits`: bits of multiply-adds that
    start each cycle (ports x width); `fma_latency`: cycles. `half`: float16 can be loaded and converted."""

    name: str
    vector_bits: int
    registers: int
    fma_bits: int
    fma_latency: int
    l1: Cache
    l2: Cache
    l3: Cache
    half: bool = True

    def lanes(self, bits: int) -> int:
        """Elements a vector; at most 32, for masks of more cost more than they save."""
        return max(1, min(32, self.vector_bits // bits))


# name            vector_bits  registers  fma_bits  latency  L1 (KB, ways)  L2              L3
_TABLE = {
    "generic":      (128,       16,        256,      4,       (32, 8),       (256, 8),       (2048, 16)),
    "avx2":         (256,       16,        512,      4,       (32, 8),       (256, 8),       (8192, 16)),
    "znver4":       (512,       32,        512,      4,       (32, 8),       (1024, 8),      (16384, 16)),
    "avx512":       (512,       32,        1024,     4,       (32, 8),       (1024, 16),     (8192, 11)),
    "neon":         (128,       32,        256,      4,       (64, 4),       (512, 8),       (8192, 16)),
}


def table_entry(row: str, name: str = "") -> Cpu:
    """The machine of one row of the table, under its own name or another."""
    bits, registers, fma_bits, latency, *caches = _TABLE[row]
    return Cpu(name or row, bits, registers, fma_bits, latency, *(Cache(kb * 1024, ways) for kb, ways in caches))


@cache
def detect() -> Cpu:
    """This machine: vector unit by its features, cache sizes from the system where it tells them."""
    with compile_lock:      # neither a fork nor Ctrl-C may leave the import half done
        uninterrupted(lambda: import_module("llvmlite.binding"))
        import llvmlite.binding as llvm

        name, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features()
    cpu = table_entry(_row(name, features), name)
    sizes = dict(_system_caches())
    return Cpu(cpu.name, cpu.vector_bits, cpu.registers, cpu.fma_bits, cpu.fma_latency,
               sizes.get(1, cpu.l1), sizes.get(2, cpu.l2), sizes.get(3, cpu.l3),
               half=any(features.get(x) for x in ("f16c", "avx512f", "fullfp16", "neon")))


def _row(name: str, features) -> str:
    if features.get("avx512f"):
        return "znver4" if name == "znver4" else "avx512"
    if features.get("avx2"):
        return "avx2"
    return "neon" if features.get("neon") else "generic"


def _system_caches(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")):
    """(level, cache) of every data cache that Linux describes."""
    for index in sorted(root.glob("index*")):
        try:
            kind, level, size, ways = (
                (index / part).read_text().strip() for part in ("type", "level", "size", "ways_of_associativity"))
            if kind != "Instruction":
                yield int(level), Cache(int(size.rstrip("K")) * 1024, max(1, int(ways)))
        except (OSError, ValueError):
            continue


@dataclass(frozen=True)
class Gpu:
    """`sms`: multiprocessors; of each `registers` (of 32 bits), `shared` memory in bytes, `warps` and `blocks` that it
    can hold. `flops32`, `flops64`: multiply-adds count two, a second; `bandwidth`: bytes a second."""

    name: str
    cc: tuple[int, int]
    sms: int
    registers: int
    shared: int
    warps: int
    blocks: int
    flops32: float
    flops64: float
    bandwidth: float

    @property
    def arch(self) -> str:
        return f"sm_{self.cc[0]}{self.cc[1]}"


# One device for each compute capability: CUDA C++ Programming Guide, table of technical specifications, and NVIDIA's
# data sheets (T4, A100 40 GB, RTX 3090, RTX 4090, H100 SXM).
# cc         name         SMs  registers  shared KB  warps  blocks  f32 TF/s  f64 TF/s  GB/s
_GPUS = {
    (7, 5): ("T4",        40,  65536,     64,        32,    16,     8.1,      0.25,     320),
    (8, 0): ("A100",      108, 65536,     164,       64,    32,     19.5,     9.7,      1555),
    (8, 6): ("RTX 3090",  82,  65536,     100,       48,    16,     35.6,     0.56,     936),
    (8, 9): ("RTX 4090",  128, 65536,     100,       48,    24,     82.6,     1.29,     1008),
    (9, 0): ("H100",      132, 65536,     228,       64,    32,     66.9,     33.5,     3350),
}


def compute_capabilities() -> tuple[tuple[int, int], ...]:
    """Those that there are kernels for."""
    return tuple(_GPUS)


def gpu(cc: tuple[int, int]) -> Gpu:
    """The device of the table for a compute capability; of one between two rows, the lower one's."""
    row = max(known for known in _GPUS if known <= cc)
    name, sms, registers, shared, warps, blocks, flops32, flops64, bandwidth = _GPUS[row]
    return Gpu(name, cc, sms, registers, shared * 1024, warps, blocks, flops32 * 1e12, flops64 * 1e12, bandwidth * 1e9)
