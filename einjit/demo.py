"""`einjit demo`: the everyday equations, compiled, run, checked and timed beside NumPy."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import einjit

from .einsum import sizes_of
from .fallback import numpy_einsum
from .kernel import Kernel
from .parse import parse
from .path import plan

PAGE_WIDTH = 120  # where the output is not a terminal
SECONDS_PER_TIMING = 0.2
INTENSE = 8  # multiply-adds for each element that must be moved: above, arithmetic is the limit


@dataclass(frozen=True)
class Example:
    equation: str
    shapes: tuple[tuple[int, ...], ...]

    def operands(self, dtype: np.dtype) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [random_array(rng, shape, dtype) for shape in self.shapes]


@dataclass(frozen=True)
class Measured:
    """One row of the table; times in seconds, `work` in flops or bytes as `unit` says."""

    example: Example
    generated: str
    compiling: float
    running: float
    numpy: float
    work: int
    unit: str
    correct: bool


SIX = (16, 12, 16, 12, 16, 24)

EVERYDAY = (
    Example("ij->i", ((3000, 3000),)),
    Example("ij->j", ((3000, 3000),)),
    Example("ij->", ((3000, 3000),)),
    Example("ijklmn->n", (SIX,)),
    Example("ijklmn->", (SIX,)),
    Example("ij->ji", ((3000, 3000),)),
    Example("ik,jk->ij", ((1024, 1024), (1024, 1024))),
    Example("ij,jk->ik", ((1024, 1024), (1024, 1024))),
    Example("ij,ik->jk", ((1024, 1024), (1024, 1024))),
    Example("i,j->ij", ((3000,), (3000,))),
    Example("bij,bjk->bik", ((64, 128, 128), (64, 128, 128))),
    Example("bqhd,bkhd->bhqk", ((4, 256, 8, 64), (4, 256, 8, 64))),
    Example("ni,oij,nj->no", ((256, 128), (64, 128, 128), (256, 128))),
    Example("ii->", ((3000, 3000),)),
    Example("ii->i", ((3000, 3000),)),
    Example("ab,bc,cd,de->ae", ((400, 500), (500, 300), (300, 600), (600, 200))),
)


def run(dtype: np.dtype, scale: float = 1.0, examples: tuple[Example, ...] = EVERYDAY) -> bool:
    """Run the examples and print the table. True if every result was right."""
    console = Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)
    rows: list[Measured] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Refreshed by hand: a thread that redraws would disturb the timings.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=len(examples))
        for done, example in enumerate(examples):
            progress.update(task, completed=done, description=f"compiling {example.equation}", refresh=True)
            rows.append(measure(scaled(example, scale), dtype))
    console.print(table(rows, dtype))
    wrong = [row.example.equation for row in rows if not row.correct]
    verdict = f"wrong: {', '.join(wrong)}" if wrong else f"all {len(rows)} results agree with float64"
    console.print(verdict, markup=False, highlight=False)
    return not wrong


def measure(example: Example, dtype: np.dtype) -> Measured:
    """Compile the example, check its result, and time it and NumPy, both into memory that exists."""
    operands = example.operands(dtype)
    start = time.perf_counter()
    kernel = einjit.compile(example.equation, *operands)
    compiling = time.perf_counter() - start
    einsum = parse(example.equation, tuple(len(s) for s in example.shapes))
    sizes = sizes_of(einsum, example.shapes, example.equation)
    out = np.empty([sizes[c] for c in einsum.output], dtype)
    kernel(*operands, out=out)
    correct = agrees(out, example, operands, prod(n for c, n in sizes.items() if c not in einsum.output))
    # NumPy's faster way: its plain loops for one operand, BLAS where it can for more.
    optimize = len(operands) > 1
    work, unit = cost(einsum, sizes, operands, out)
    return Measured(
        example, generated(kernel), compiling,
        best_time(lambda: kernel(*operands, out=out)),
        best_time(lambda: numpy_einsum(example.equation, *operands, out=out, optimize=optimize)),
        work, unit, correct,
    )


def generated(kernel: Kernel) -> str:
    """Family and tiling; of several steps, only each one's register tile."""
    if len(kernel.steps) < 2:
        return f"{kernel.family}, {kernel.tiling}" if kernel.tiling else kernel.family
    tiles = (step.choice.tiling.partition(",")[0] for step in kernel.steps)
    return f"{kernel.family}, {'; '.join(dict.fromkeys(tiles))}"


def agrees(out: np.ndarray, example: Example, operands: list[np.ndarray], summed: int) -> bool:
    """Within the error that a sum of `summed` products, each at most 1 in size, may have in this dtype."""
    wide = [op.astype(np.result_type(out.dtype, np.float64)) for op in operands]
    expected = numpy_einsum(example.equation, *wide, optimize=len(operands) > 1)
    allowed = np.finfo(out.dtype).eps * (np.sqrt(summed) + 8) * np.maximum(1, np.abs(expected).max(initial=0))
    return bool(np.all(np.abs(out - expected) <= allowed))


def cost(einsum, sizes: dict[str, int], operands: list[np.ndarray], out: np.ndarray) -> tuple[int, str]:
    """The work to rate the time by: flops where arithmetic is the limit, else the bytes that must move."""
    flops = plan(einsum, sizes).flops
    elements = sum(prod({c: sizes[c] for c in term}.values()) for term in einsum.inputs) + out.size
    if flops >= INTENSE * elements:
        return flops, "GF/s"
    return elements * out.itemsize, "GB/s"


def best_time(call: Callable[[], object]) -> float:
    """The shortest of the calls that fit into SECONDS_PER_TIMING, after one to warm up."""
    call()
    best, spent = float("inf"), 0.0
    while spent < SECONDS_PER_TIMING:
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return best


def table(rows: list[Measured], dtype: np.dtype) -> Table:
    title = f"einjit {einjit.__version__} beside NumPy {np.__version__}, {dtype}"
    note = "the first compile includes the import of Numba; run, and NumPy's time, are the best of many"
    drawn = Table(title=title, caption=note, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    drawn.add_column("equation", no_wrap=True)
    for name in ("shapes", "generated"):
        drawn.add_column(name, overflow="fold")
    for name in ("compile", "run", "rate", "NumPy", ""):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        drawn.add_row(
            row.example.equation, " ".join("×".join(map(str, s)) for s in row.example.shapes),
            escape(row.generated), duration(row.compiling), duration(row.running),
            f"{row.work / row.running / 1e9:.1f} {row.unit}",
            duration(row.numpy), "ok" if row.correct else "[red]WRONG[/red]",
        )
    return drawn


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def scaled(example: Example, scale: float) -> Example:
    shapes = tuple(tuple(max(1, round(n * scale)) for n in shape) for shape in example.shapes)
    return Example(example.equation, shapes)


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Numbers no larger than 1 in size."""
    values = rng.uniform(-0.7, 0.7, shape)
    if dtype.kind == "c":
        values = values + 1j * rng.uniform(-0.7, 0.7, shape)
    return values.astype(dtype)
