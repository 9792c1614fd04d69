"""Occupancy and roofline, against values worked out by hand."""

from __future__ import annotations

import pytest

from einjit.machine import gpu
from einjit.occupancy import occupancy, roofline

T4, A100, RTX_3090, RTX_4090, H100 = map(gpu, ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0)))


@pytest.mark.parametrize("device, threads, registers, shared, blocks, warps, by", [
    # 125 registers x 32 threads are 4000, in units of 256: 4096. A quarter's 16384 are enough for 4 warps, all for 16.
    (A100, 256, 125, 16896, 2, 8, "registers"),
    (A100, 256, 128, 0, 2, 8, "registers"),
    (A100, 256, 129, 0, 1, 8, "registers"),         # 4352: 3 warps a quarter, 12 in all
    (A100, 64, 33, 0, 24, 2, "registers"),          # 1056, that is 1280: 12 warps a quarter
    (A100, 32, 96, 0, 20, 1, "registers"),          # 3072: 5 warps a quarter; of all 65536 it would be 21
    (A100, 256, 16, 0, 8, 8, "warps"),              # 64 warps; the registers would do for 128
    (A100, 300, 16, 0, 6, 10, "warps"),             # 10 warps, the last of which is half empty: 64 / 10
    (A100, 32, 16, 0, 32, 1, "slots for blocks"),
    (A100, 64, 32, 8192, 18, 2, "shared memory"),   # and 1024 of the system's: 9216 of 167936
    (A100, 64, 32, 7296, 20, 2, "shared memory"),   # 8320
    (A100, 64, 32, 7297, 19, 2, "shared memory"),   # in units of 128: 8448
    (H100, 64, 32, 34816, 6, 2, "shared memory"),   # 35840 of 233472
    (H100, 256, 114, 34816, 2, 8, "registers"),     # 3648, that is 3840: 4 warps a quarter
    (T4, 64, 32, 9362, 6, 2, "shared memory"),      # in units of 256, and nothing of the system's: 9472 of 65536
    (T4, 64, 32, 0, 16, 2, "warps and slots for blocks"),
    (RTX_3090, 32, 32, 0, 16, 1, "slots for blocks"),
    (RTX_4090, 32, 32, 0, 24, 1, "slots for blocks"),
    (RTX_4090, 1024, 64, 0, 1, 32, "registers and warps"),      # 2048: 8 warps a quarter, 32 in all; 48 / 32
    (A100, 1024, 255, 0, 0, 32, "registers"),       # such a block cannot start
])
def test_blocks_of_a_multiprocessor(device, threads, registers, shared, blocks, warps, by):
    found = occupancy(device, threads, registers, shared)
    assert (found.blocks, found.warps) == (blocks, warps)
    assert found.share == blocks * warps / device.warps
    assert f"limited by {by} (" in str(found)


def test_occupancy_reads_as_text():
    assert str(occupancy(A100, 256, 125, 16896)) == (
        "2 blocks of 8 warps a multiprocessor, 25% of its 64 warps\n"
        "limited by registers (blocks by registers 2, shared memory 9, warps 8, slots for blocks 32)")


@pytest.mark.parametrize("device, dtype, products, sums, moved, flops, seconds, bound", [
    (A100, "float32", 10 ** 12, 10 ** 12, 10 ** 9, 2e12, 2 / 19.5, "compute"),
    (A100, "float32", 10 ** 9, 0, 10 ** 9, 1e9, 1 / 1555, "memory"),
    (A100, "float16", 10 ** 12, 10 ** 12, 10 ** 9, 2e12, 2 / 19.5, "compute"),
    (A100, "float64", 10 ** 12, 10 ** 12, 10 ** 9, 2e12, 2 / 9.7, "compute"),
    (A100, "complex64", 10 ** 12, 10 ** 12, 10 ** 9, 8e12, 8 / 19.5, "compute"),     # 4 and 2 of real numbers; 2
    (H100, "complex128", 10 ** 12, 10 ** 12, 10 ** 9, 8e12, 8 / 33.5, "compute"),
    (A100, "int64", 10 ** 12, 10 ** 12, 1555, 2e12, 1e-9, "memory"),
])
def test_least_times(device, dtype, products, sums, moved, flops, seconds, bound):
    found = roofline(device, dtype, products, sums, moved)
    assert found.flops == flops
    assert found.seconds == pytest.approx(seconds)
    assert found.bound == bound


def test_rooflines_read_as_text():
    assert str(roofline(A100, "float32", 10 ** 10, 10 ** 10, 10 ** 8)) == (
        "bound by compute: at least 1.03 ms on A100\n"
        "2e+10 flops at 19.5 Tflop/s take 1.03 ms; 1e+08 bytes at 1555 GB/s take 64.3 us")
    assert str(roofline(H100, "int32", 10 ** 10, 10 ** 10, 10 ** 8)) == (
        "bound by memory: at least 29.9 us on H100\n"
        "the table has no rate for this dtype; 1e+08 bytes at 3350 GB/s take 29.9 us")
