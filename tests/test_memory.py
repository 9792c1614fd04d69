"""Kernels touch the memory of their arrays and of their workspace, and nothing beside it.

Each array lies against a page that may not be touched, in a process of its own, which a stray access kills.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace
from functools import partial
from itertools import product
from math import prod

import numpy as np
import pytest

import einjit
from einjit import machine, parallel, program
from einjit.machine import Cache
from einjit.program import Scratch
from tests.equations import EVERYDAY, Case
from tests.reference import assert_close, reference
from tests.subprocesses import run_python

PACKED = Case("packed", "ij,jk->ik", ((53, 67), (67, 71)))
NAMES = ("row_sums", "column_sums", "transpose", "matmul", "outer", "scattered", "mttkrp")
CASES = [(case, ("rows", "apart")) for case in EVERYDAY if case.name in NAMES]
CASES.append((PACKED, ("rows", "columns", "apart", "backwards")))       # all of them are one kernel
# On a machine whose caches hold none of these.
PAST_CACHES = (Case("staged squares", "ijk->ikj", ((3, 65, 47),)), Case("staged rows", "ijk->jik", ((40, 9, 30),)),
               Case("streamed runs", "ijk->kji", ((64, 10, 40),)), Case("rows side by side", "ij,j->i", ((50, 40), (40,))))
CASES += [(case, ("rows", "apart", "backwards")) for case in PAST_CACHES]


def test_nothing_beside_an_array_is_touched():
    done = run_python("-m", "tests.test_memory")
    assert done.returncode == 0, f"ended at {done.stdout.splitlines()[-1:]}\n{done.stderr}"
    assert len(done.stdout.splitlines()) == sum(len(layouts) for _, layouts in CASES)


@pytest.mark.parametrize("at_end,offset", [(False, -1), (True, 8)])
def test_a_stray_access_would_be_seen(at_end, offset):
    done = run_python("-c", f"""if True:
        import ctypes
        from tests.test_memory import guarded
        ctypes.string_at(guarded(8, {at_end}).ctypes.data + {offset}, 1)
    """)
    assert done.returncode < 0


# -- what the process runs ---------------------------------------------------------------------------------

_mapped: list[mmap.mmap] = []


def guarded(nbytes: int, at_end: bool) -> np.ndarray:
    """Bytes that end where an untouchable page begins, or begin where one ends."""
    size = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + 2 * mmap.PAGESIZE)
    _mapped.append(memory)      # never unmapped: the pages around it stay locked
    raw = np.frombuffer(memory, np.uint8)
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for page in (0, size + mmap.PAGESIZE):
        assert mprotect(raw.ctypes.data + page, mmap.PAGESIZE, 0) == 0
    start = mmap.PAGESIZE + (size - nbytes if at_end else 0)
    return raw[start:start + nbytes]


def guarded_scratch(nbytes: int, at_end: bool) -> Scratch:
    """A workspace like that; new, and never given to another call."""
    memory = guarded(-(-nbytes // 8) * 8, at_end)
    return Scratch(memory, memory.view(np.int64))


def placed(values: np.ndarray, layout: str, at_end: bool) -> np.ndarray:
    """The same values in guarded memory."""
    step = 2 if layout == "apart" else 1
    shape = [step * (n - 1) + 1 for n in values.shape]
    flat = guarded(prod(shape) * values.itemsize, at_end).view(values.dtype)
    array = flat.reshape(shape, order="F" if layout == "columns" else "C")
    array = array[(slice(None, None, -1 if layout == "backwards" else step),) * values.ndim]
    array[...] = values
    return array


def main() -> None:
    program.SHARE_SECONDS, parallel.WAKE_SECONDS = 1e-12, 0.0       # threads share whatever can be
    program.STACK_WORKSPACE = 0         # no workspace on the stack, where nothing would guard it
    cpu = machine.detect()
    for case, layouts in CASES:
        here = replace(cpu, l3=Cache(4096, 16)) if case in PAST_CACHES else cpu
        machine.detect = lambda here=here: here
        operands = case.arrays()
        expected = reference(case.equation, *operands)
        for layout in layouts:
            print(case.name, layout, flush=True)
            for at_end, threads in product((True, False), (1, 3)):
                program.scratch = partial(guarded_scratch, at_end=at_end)
                inputs = [placed(op, layout, at_end) for op in operands]
                out = placed(np.zeros(expected.value.shape, expected.dtype), layout, at_end)
                with einjit.options(threads=threads):
                    kernel = einjit.compile(case.equation, *inputs)
                    assert_close(kernel(*inputs), expected)
                    assert_close(kernel(*inputs, out=out), expected)
                if case in PAST_CACHES and layout == "rows":
                    assert kernel.nest.staged or kernel.nest.streamed or kernel.nest.ahead


if __name__ == "__main__":
    main()
