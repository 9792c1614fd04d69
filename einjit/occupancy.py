"""What a GPU's table says of a kernel before it runs: how many blocks a multiprocessor holds, and the least time.

Occupancy follows NVIDIA's rules (CUDA C++ Programming Guide, "Hardware Multithreading"; cuda_occupancy.h of the CUDA
toolkit); the least time is the roofline's (Williams, Waterman and Patterson 2009).
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .machine import Gpu
from .verify import WARP

QUARTERS = 4                    # of a multiprocessor: each has warps and registers of its own
REGISTERS_AT_ONCE = 256         # registers are given to warps in multiples of it


@dataclass(frozen=True)
class Occupancy:
    """Of one multiprocessor. `warps`: of a block; `slots`: warps that it holds at most; `limits`: by what there is
    only so much of, how many blocks that is enough for."""

    warps: int
    slots: int
    limits: tuple[tuple[str, int], ...]

    @property
    def blocks(self) -> int:
        """How many it holds."""
        return min(count for _, count in self.limits)

    @property
    def share(self) -> float:
        """The part of the slots that is taken."""
        return self.blocks * self.warps / self.slots

    def __str__(self) -> str:
        by = " and ".join(what for what, count in self.limits if count == self.blocks)
        limits = ", ".join(f"{what} {count}" for what, count in self.limits)
        taken = f"{self.share:.0%} of its {self.slots} warps"
        return (f"{self.blocks} block{'s' * (self.blocks != 1)} of {self.warps} warps a multiprocessor, {taken}\n"
                f"limited by {by} (blocks by {limits})")


def occupancy(gpu: Gpu, threads: int, registers: int, shared: int) -> Occupancy:
    """Of blocks of so many threads with so many registers each, and bytes of shared memory a block."""
    warps = -(-threads // WARP)
    of_a_warp = _up(registers * WARP, REGISTERS_AT_ONCE)
    with_registers = gpu.registers // QUARTERS // of_a_warp * QUARTERS
    reserved, unit = (1024, 128) if gpu.cc >= (8, 0) else (0, 256)      # the system's part of each block's memory
    with_shared = gpu.shared // max(unit, _up(shared + reserved, unit))
    return Occupancy(warps, gpu.warps, (("registers", with_registers // warps), ("shared memory", with_shared),
                                        ("warps", gpu.warps // warps), ("slots for blocks", gpu.blocks)))


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


@dataclass(frozen=True)
class Roofline:
    """The least time that a device needs. `flops`, `bytes`: what there is to do; `rate`, `bandwidth`: of these, a
    second. A rate of 0 is not known."""

    device: str
    flops: float
    bytes: float
    rate: float
    bandwidth: float

    @property
    def computing(self) -> float:
        return self.flops / self.rate if self.rate else 0.0

    @property
    def moving(self) -> float:
        return self.bytes / self.bandwidth

    @property
    def seconds(self) -> float:
        return max(self.computing, self.moving)

    @property
    def bound(self) -> str:
        """What takes longer."""
        return "compute" if self.computing > self.moving else "memory"

    def __str__(self) -> str:
        computing = (f"{self.flops:.4g} flops at {self.rate / 1e12:.4g} Tflop/s take {_spelled(self.computing)}"
                     if self.rate else "the table has no rate for this dtype")
        return (f"bound by {self.bound}: at least {_spelled(self.seconds)} on {self.device}\n"
                f"{computing}; {self.bytes:.4g} bytes at {self.bandwidth / 1e9:.4g} GB/s take {_spelled(self.moving)}")


def _spelled(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def roofline(gpu: Gpu, dtype: str, products: int, sums: int, moved: int) -> Roofline:
    """Of so many multiplications and additions in a dtype, and bytes that must move. Complex ones are several of real
    numbers; nothing is said of integers."""
    dtype = np.dtype(dtype)
    flops = 6 * products + 2 * sums if dtype.kind == "c" else products + sums
    wide = dtype.itemsize // (2 if dtype.kind == "c" else 1) > 4
    rate = 0.0 if dtype.kind not in "fc" else gpu.flops64 if wide else gpu.flops32
    return Roofline(gpu.name, flops, moved, rate, gpu.bandwidth)
