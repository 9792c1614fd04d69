"""The compiler, a line a stage. Read this first.

    stage       from -> to                                   where
    parse       text, label lists -> Einsum                  parse.py (positions: tokens.py)
    plan        Einsum, sizes -> Plan of Steps               path.py: opt_einsum's order, or one nest (turning.py)
    contract    Step, layouts -> Contraction                 contraction.py: roles, strides, folding
    lower       Contraction -> LoopNest                      lower.py (nodes: ir.py; oracle: interp.py)
    choose      Contraction, Cpu -> Schedule                 schedule/choose.py: packed.py or direct.py (machine.py)
    apply       LoopNest, Schedule -> LoopNest               schedule/opts.py (what must hold: verify.py)
    emit        LoopNest -> Source (Numba, as text)          codegen/cpu.py, innermost.py
    compile     Source -> MachineCode                        codegen/build.py; tile.py, packing.py: vector code
    load        MachineCode -> LoadedCode                    memory, or the disk (cache.py), or compile
    bind        CompiledStep, layouts -> launcher            program.py (words: params.py; guard: launch.py;
                                                             threads: parallel.py, codegen/sharing.py)
    call        arrays -> result                             dispatch.py finds the plan; planning.py makes it

For a GPU, schedule/gpu.py chooses, codegen/cuda.py emits, codegen/gpubuild.py compiles (vector code: gputile.py,
gpuelement.py), gpucode.py loads; gpukernel.py walks the steps.

This file walks one step from `contract` to `load`; `planning.plan_call` walks the steps of a plan, and
`program.Program` runs them one after the other. Every value prints; `explaining.explain` shows them all.
"""
from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Mapping, Sequence

from . import cache, machine
from .codegen import build
from .codegen.cpu import emit, structure
from .codegen.source import Source
from .contraction import Contraction, Layout, contraction
from .einsum import Einsum
from .errors import EinjitError, ScheduleError
from .expr import Expr
from .fingerprint import kernel_key
from .forksafe import compile_lock, uninterrupted
from .ir import LoopNest
from .lower import lower
from .schedule.choice import Choice
from .schedule.choose import choose, normalised
from .schedule.opts import Schedule, apply
from .stats import count


@dataclass(frozen=True)
class CompiledStep:
    """One loop nest, from naive to machine code."""

    contraction: Contraction
    naive: LoopNest
    choice: Choice
    nest: LoopNest
    source: Source
    code: build.LoadedCode


def schedule_step(einsum: Einsum, sizes: Mapping[str, int], out: Layout, inputs: Sequence[Layout],
                  body: Expr | None = None, schedule: Schedule | None = None, accumulator: str = ""):
    """The stages that depend on layouts alone: (contraction, naive nest, choice, scheduled nest)."""
    c = contraction(einsum, sizes, out, inputs, body, accumulator)
    if schedule is None:
        c = normalised(c)
        choice = choose(c, machine.detect())
    else:
        choice = Choice(tuple(schedule), "user's schedule", f"{len(schedule)} transformations", "given by the caller")
    naive = lower(c)
    return c, naive, choice, apply(naive, choice.schedule)


def compile_step(einsum: Einsum, sizes: Mapping[str, int], out: Layout, inputs: Sequence[Layout],
                 body: Expr | None = None, schedule: Schedule | None = None, accumulator: str = "") -> CompiledStep:
    """Compile one step for operands of these layouts. Sizes are at least 1. `accumulator`: the dtype to compute
    in, if not the output's.

    Raises `ScheduleError` for a schedule that is not legal.
    """
    c, naive, choice, nest = schedule_step(einsum, sizes, out, inputs, body, schedule, accumulator)
    if nest.is_spread or nest.shares:
        raise ScheduleError("the schedule binds loops to a GPU, or shares operands there: compile with target='cuda'")
    source = source_of(nest)
    return CompiledStep(c, naive, choice, nest, source, machine_code(source))


MAX_SOURCES = 4096

_sources: dict[tuple, Source] = {}
_codes: dict[str, build.LoadedCode] = {}


@cache.on_clear
def _forget() -> None:
    _sources.clear()
    _codes.clear()


def source_of(nest: LoopNest) -> Source:
    """Generated source; emitted once for all nests that differ in extents and cache blocks only."""
    key = structure(nest)
    found = _sources.get(key)
    if found is None:
        found = _sources[key] = emit(nest)
        if len(_sources) > MAX_SOURCES:
            _sources.clear()
    return found


def is_compiled(source: Source) -> bool:
    """Whether the code is in memory already."""
    return source.entry in _codes


def machine_code(source: Source) -> build.LoadedCode:
    """The kernel's code: from memory, else from the disk cache, else compiled and put into both."""
    found = _codes.get(source.entry)
    if found is not None:
        return found
    with compile_lock:
        found = _codes.get(source.entry)
        if found is None:
            found = _codes[source.entry] = uninterrupted(partial(_obtained, source))
    return found


def _obtained(source: Source) -> build.LoadedCode:
    return _from_disk(source) or _compiled(source)


def _from_disk(source: Source) -> build.LoadedCode | None:
    entry = cache.default().get(kernel_key(source.text))
    if entry is None:
        return None
    try:
        loaded = build.load(build.MachineCode(entry.object_code, entry.meta["symbol"]))
    except (KeyError, ValueError, RuntimeError):
        return None
    count(disk_hits=1)
    return loaded


def _compiled(source: Source) -> build.LoadedCode:
    start = time.process_time()
    try:
        code = build.compile_source(source)
    except Exception as error:
        if isinstance(error, EinjitError):
            raise
        raise CompilerError(f"einjit could not compile the kernel {source.entry}: {error}. "
                            "Please report this with the equation, shapes and dtypes.") from None
    loaded = build.load(code)
    count(compiles=1, compile_seconds=time.process_time() - start)
    meta = {"symbol": code.symbol, "entry": source.entry}
    cache.default().put(kernel_key(source.text), cache.Entry(code.object_code, meta))
    return loaded


class CompilerError(EinjitError, RuntimeError):
    """The compiler failed on legal input: a defect of einjit's."""
