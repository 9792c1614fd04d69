"""What einjit needs beside the operands and the result: packed blocks that fit a cache, and little that is kept.

Each figure is of a fresh process, which this module is as well: `python -m tests.test_footprint NAME`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice, permutations, product
from pathlib import Path
from string import ascii_letters

import numpy as np
import pytest

import einjit
from einjit import compiler, dispatch
from tests.subprocesses import run_python

MIB = 2**20
LARGE = 64              # MiB that the largest operand, or the output, of every contraction has at least
ALLOWED = 16.0          # MiB for blocks that are packed: the caches of one core, not an operand
A_KERNEL = 0.5          # MiB that a compiled kernel may keep
TINY = 40               # the extents of kernels that are compiled only
CORNER = {1: 300, 2: 300, 3: 40, 4: 40}     # by rank: the extents that a contraction is warmed up with

NEEDS_PROC = pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")


@dataclass(frozen=True)
class Contraction:
    """`strided`: the operands' elements lie two apart. `dtype`: what is computed in, where it is asked for."""

    name: str
    equation: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    dtype: str | None = None
    strided: bool = False

    def operands(self) -> list[np.ndarray]:
        return [self._operand(shape, dtype) for shape, dtype in zip(self.shapes, self.dtypes)]

    def _operand(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        if self.strided:
            return np.ones((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]
        return np.ones(shape, dtype)

    def output(self, operands: list[np.ndarray]) -> np.ndarray:
        """Of ones, for zeros are memory that is not there yet."""
        inputs, output = self.equation.split("->")
        sizes = {label: n for term, op in zip(inputs.split(","), operands) for label, n in zip(term, op.shape)}
        return np.ones([sizes[label] for label in output], self.dtype or np.result_type(*operands))


CONTRACTIONS = {c.name: c for c in (
    Contraction("tensor", "aebf,dfce->abcd", ((64, 64, 32, 128), (32, 128, 64, 64)), ("float32",) * 2),
    Contraction("matmul, transposed", "ji,kj->ki", ((4096, 2048), (256, 4096)), ("float64",) * 2),
    Contraction("matmul, strided", "ij,jk->ik", ((4096, 4096), (4096, 128)), ("float32",) * 2, strided=True),
    Contraction("mixed", "ij,jk->ik", ((4096, 4096), (4096, 128)), ("float32", "float64")),
    Contraction("complex", "ij,kj->ki", ((4096, 2048), (64, 2048)), ("complex64",) * 2),
    Contraction("half", "ij,jk->ik", ((8192, 4096), (4096, 64)), ("float16",) * 2),
    Contraction("exact", "ij,jk->ik", ((8192, 8192), (8192, 16)), ("int8",) * 2, dtype="int64"),
    Contraction("batch", "ibj,jbk->bik", ((512, 64, 512), (512, 64, 64)), ("float32",) * 2),
    Contraction("outer", "ij,k->kji", ((64, 512), (512,)), ("float32",) * 2),
    Contraction("sum", "ijk->j", ((256, 256, 256),), ("float32",)),
    Contraction("matvec", "ji,j->i", ((4096, 4096), (4096,)), ("float32",) * 2),
    Contraction("transpose", "ijk->kji", ((256, 256, 256),), ("float32",)),
)}
COPIED = "tensor"       # BLAS needs both operands of this one transposed in memory

# Kernels of many kinds: nothing that one compiles serves another.
EQUATIONS = ("ij,jk->ik", "bij,bjk->bik", "ij->i", "ij->j", "ij->ji", "i,j->ij", "ij,ij->ij", "ij,j->i")
KERNELS = 24


@NEEDS_PROC
def test_no_operand_is_copied():
    found = figures_of("calls", "einjit", *CONTRACTIONS)
    assert min(figure["largest"] for figure in found.values()) >= LARGE
    assert {name: figure["growth"] for name, figure in found.items() if figure["growth"] >= ALLOWED} == {}
    assert {name for name, figure in found.items() if figure["compiles"]} == set()


@NEEDS_PROC
def test_a_copy_of_an_operand_would_be_seen():
    assert figures_of("calls", "numpy", COPIED)[COPIED]["growth"] > LARGE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_compiled_kernel_keeps_half_a_megabyte_at_most():
    figures = figures_of("kernels")
    assert figures["kernels"] >= KERNELS
    assert figures["growth"] / figures["kernels"] < A_KERNEL


def test_plans_are_bounded():
    figures = figures_of("plans")
    assert figures["problems"] > figures["bound"]
    for table, entries in figures["entries"].items():
        assert 0 < entries <= figures["bound"], table
    assert figures["sources"] < 20      # they are of so many shapes, and of few kinds


def test_sources_are_bounded(monkeypatch):
    monkeypatch.setattr(compiler, "MAX_SOURCES", 2)
    monkeypatch.setattr(compiler, "_sources", {})
    for equation in EQUATIONS[2:]:
        shapes = [(TINY,) * len(term) for term in equation.split("->")[0].split(",")]
        einjit.compile(equation, *shapes)
        assert len(compiler._sources) <= 2


def figures_of(*arguments: str) -> dict:
    """What a process of its own finds, on one thread, so that the workspace is one."""
    done = run_python("-m", "tests.test_footprint", *arguments, EINJIT_THREADS="1", EINJIT_HANDOVER="unsupported")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# -- what the process runs ---------------------------------------------------------------------------------

def peak_growth(call: Callable[[], object]) -> float:
    """MiB by which the most memory that the process held during `call` exceeds what it held before."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")       # the peak starts from here
    before = peak()
    call()
    return peak() - before


def peak() -> float:
    """MiB, of this process alone: getrusage's figure would include the parent's before the start."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def resident() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / MIB


def of_calls(library: str, *names: str) -> dict:
    return {name: of_a_call(library, CONTRACTIONS[name]) for name in names}


def of_a_call(library: str, case: Contraction) -> dict:
    """The growth over one call with an `out`, after another on a corner of the same operands."""
    operands = case.operands()
    corner = [x[(slice(CORNER[x.ndim]),) * x.ndim] for x in operands]
    out, small = case.output(operands), case.output(corner)
    call, options = (einjit.einsum, {"dtype": case.dtype}) if library == "einjit" else (np.einsum, {"optimize": True})
    call(case.equation, *corner, out=small, **options)
    if library == "einjit" and case.dtype is None:      # the whole may have a kernel of its own
        einjit.compile(case.equation, *operands)
    loaded = codes_loaded()
    growth = peak_growth(lambda: call(case.equation, *operands, out=out, **options))
    return {"growth": growth, "largest": max(x.nbytes for x in (*operands, out)) / MIB,
            "compiles": codes_loaded() - loaded}


def codes_loaded() -> int:
    return einjit.stats().compiles + einjit.stats().disk_hits


def of_kernels() -> dict:
    """The growth over compiling many, after one of each equation has been."""
    with einjit.options(disk_cache=False):
        kept = list(compiled(("float32",)))
        compiles, before = einjit.stats().compiles, resident()
        kept += compiled(("float64", "int32", "complex64"))
        growth = resident() - before
    return {"growth": growth, "kernels": einjit.stats().compiles - compiles}


def compiled(dtypes: Iterable[str]) -> Iterable[einjit.Kernel]:
    for dtype, equation in product(dtypes, EQUATIONS):
        terms = equation.split("->")[0].split(",")
        yield einjit.compile(equation, *((TINY,) * len(term) for term in terms), dtype=dtype)


def of_plans() -> dict:
    """The tables of plans, after more problems and more equations than they hold."""
    problems = dispatch.PLANS + dispatch.PLANS // 8
    rows, columns = np.ones((1, problems + 1)), np.ones((problems + 1, 1))
    for n, (i, j, k) in enumerate(islice(permutations(ascii_letters, 3), problems), 1):
        einjit.einsum(f"{i}{j},{j}{k}->{i}{k}", rows[:, :n], columns[:n])
        einjit.einsum(f"{i}{j}->{j}{i}", rows[:, :n])
    tables = {"plans": dispatch._plans, "recent": dispatch._recent, "views": dispatch._views}
    return {"problems": problems, "bound": dispatch.PLANS, "sources": len(compiler._sources),
            "entries": {name: len(table) for name, table in tables.items()}}


TASKS = {"calls": of_calls, "kernels": of_kernels, "plans": of_plans}

if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    print(json.dumps(TASKS[task](*arguments)))
