"""What compiling and starting cost. Every figure comes from fresh processes with a cache folder of their own.

This module is also the program that those processes run: `python -m bench.latency TASK`, which prints JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DTYPES = ("float32", "float64")

# (figure, equation, shapes): one kernel of each kind, none so small that NumPy would answer.
KERNELS = (
    ("matmul", "ij,jk->ik", ((512, 512), (512, 512))),
    ("CCSD(T) contraction", "aged,cbfg->fedcba", ((24, 24, 24, 24), (20, 20, 20, 24))),
    ("batched matmul", "bij,bjk->bik", ((256, 32, 32), (256, 32, 32))),
    ("row sums", "ij->i", ((1000, 1000),)),
    ("column sums", "ij->j", ((1000, 1000),)),
    ("bilinear form", "i,ij,j->", ((1000,), (1000, 1000), (1000,))),
)
OTHER_SHAPES = ((504, 496), (496, 500))  # a matmul like the first of KERNELS, which needs no new code

FIRST_RESULT = """
import numpy as np, einjit
a = np.ones((512, 512), np.float32)
assert einjit.einsum("ij,jk->ik", a, a)[0, 0] == 512
"""
NUMPY_RESULT = FIRST_RESULT.replace("einjit.einsum", "np.einsum").replace(", einjit", "")


@dataclass(frozen=True)
class Figure:
    """`seconds` of wall time; `cpu` of all threads of the process, None where it was not asked for."""

    name: str
    seconds: float
    cpu: float | None


def measure(repeats: int = 5) -> list[Figure]:
    """All figures, each the least of `repeats` runs (of two, where a run takes seconds)."""
    few = min(repeats, 2)
    return [*_compiling(few), *_starting(min(repeats, 3)), *_importing(repeats), *_tccg(few)]


# -- figures ---------------------------------------------------------------------------------------------

def _compiling(repeats: int) -> list[Figure]:
    """First compile in a warm process; the same from the disk; a new shape."""
    first: list[list[Figure]] = []
    again: list[list[Figure]] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="einjit-bench-") as cache:
            first.append(_run_task("kernels", cache))
            again.append(_run_task("kernels", cache))
    *compiled, shape = _least(first)
    *loaded, _ = _least(again)
    return [*_named("first compile: ", compiled), *_named("from disk: ", loaded), shape]


def _starting(repeats: int) -> list[Figure]:
    """A fresh process to its first result, the interpreter's start included."""
    cold, warm, numpy = [], [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="einjit-bench-") as cache:
            cold.append(_process("first result in a fresh process, empty cache", FIRST_RESULT, cache))
            warm.append(_process("first result in a fresh process, warm cache", FIRST_RESULT, cache))
            numpy.append(_process("the same with np.einsum alone", NUMPY_RESULT, cache))
    return [_quickest(cold), _quickest(warm), _quickest(numpy)]


def _importing(repeats: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="einjit-bench-") as cache:
        return _least([_run_task("import", cache) for _ in range(repeats)])


def _tccg(repeats: int) -> list[Figure]:
    """All 48 contractions of TCCG from an empty cache, by shape alone."""
    found = []
    for dtype in DTYPES:
        runs = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory(prefix="einjit-bench-") as cache:
                runs.append(_run_task(f"tccg:{dtype}", cache))
        found += _least(runs)
    return found


def _named(prefix: str, figures: Sequence[Figure]) -> list[Figure]:
    return [Figure(prefix + figure.name, figure.seconds, figure.cpu) for figure in figures]


def _least(runs: Sequence[Sequence[Figure]]) -> list[Figure]:
    return [_quickest(same) for same in zip(*runs, strict=True)]


def _quickest(figures: Sequence[Figure]) -> Figure:
    cpu = [figure.cpu for figure in figures if figure.cpu is not None]
    return Figure(figures[0].name, min(figure.seconds for figure in figures), min(cpu, default=None))


# -- processes -------------------------------------------------------------------------------------------

def _environment(cache: str) -> dict[str, str]:
    """This process's, with a cache of its own; bytecode is kept, as an installation would have it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    return {**kept, "PYTHONPATH": path, "EINJIT_CACHE_DIR": cache, "EINJIT_HANDOVER": "unsupported"}


def _run_task(task: str, cache: str) -> list[Figure]:
    done = subprocess.run([sys.executable, "-m", "bench.latency", task], env=_environment(cache), text=True,
                          capture_output=True)
    if done.returncode:
        raise RuntimeError(f"the latency task {task} failed:\n{done.stderr}")
    return [Figure(**figure) for figure in json.loads(done.stdout)]


def _process(name: str, code: str, cache: str) -> Figure:
    """What a whole process takes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=_environment(cache), check=True)
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Figure(name, took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


# -- tasks, each in a process of its own -----------------------------------------------------------------

class Stopwatch:
    """Wall and CPU time of a `with` block, as a figure."""

    def __init__(self, name: str, into: list[Figure]) -> None:
        self.name, self.into = name, into

    def __enter__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self.into.append(Figure(self.name, time.perf_counter() - self.wall, time.process_time() - self.cpu))


def _warm_up() -> None:
    """Import Numba and have it compile something that shares no code with what is timed."""
    import einjit

    with einjit.options(disk_cache=False):
        einjit.compile("i,i->i", (1000,), (1000,), dtype="int32")


def task_kernels() -> list[Figure]:
    import einjit

    _warm_up()
    figures: list[Figure] = []
    for dtype in DTYPES:
        for name, equation, shapes in KERNELS:
            with Stopwatch(f"{name} {dtype}", figures):
                einjit.compile(equation, *shapes, dtype=dtype)
    compiles = einjit.stats().compiles
    with Stopwatch(f"a new shape that needs no new code: matmul {DTYPES[0]}", figures):
        einjit.compile(KERNELS[0][1], *OTHER_SHAPES, dtype=DTYPES[0])
    if einjit.stats().compiles != compiles:
        figures[-1] = Figure(figures[-1].name + " (needed new code)", figures[-1].seconds, figures[-1].cpu)
    return figures


def task_tccg(dtype: str) -> list[Figure]:
    import einjit

    from .suites import SUITES

    _warm_up()
    figures: list[Figure] = []
    before = einjit.stats().compiles
    for case in SUITES["tccg"].cases(dtype):
        with Stopwatch(case.name, figures):
            einjit.compile(case.equation, *case.shapes, dtype=dtype)
    compiled = einjit.stats().compiles - before
    longest = max(figures, key=lambda figure: figure.cpu)
    return [
        Figure(f"all {len(figures)} of TCCG {dtype} ({compiled} kernels), empty cache",
               sum(f.seconds for f in figures), sum(f.cpu for f in figures)),
        Figure(f"the longest of them {dtype}", longest.seconds, longest.cpu),
    ]


def task_import() -> list[Figure]:
    figures: list[Figure] = []
    with Stopwatch("import numpy", figures):
        import numpy  # noqa: F401
    with Stopwatch("import einjit, after numpy", figures):
        import einjit  # noqa: F401
    return figures


if __name__ == "__main__":
    task, _, argument = sys.argv[1].partition(":")
    TASKS = {"kernels": task_kernels, "tccg": task_tccg, "import": task_import}
    print(json.dumps([asdict(figure) for figure in TASKS[task](*filter(None, [argument]))]))
