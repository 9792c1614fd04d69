"""`compile` and `Kernel`: a handle on a compiled equation, for calling and for looking into."""
from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Sequence

import numpy as np

from .codegen import build
from .compiler import CompiledStep
from .contraction import Layout
from .dispatch import hashable, plain, run
from .errors import ArgumentError, DtypeError, EinjitError, OperandError
from .expr import Expr
from .fallback import is_compiled_dtype
from .forksafe import uninterrupted
from .gpuarrays import is_device_array, layout_of
from .handle import Handle
from .options import current
from .parse import parse_for
from .planning import Problem, ProgramCall, check_optimize, plan_call
from .schedule.opts import Schedule
from .tokens import tokenize

if TYPE_CHECKING:
    from .gpukernel import GpuKernel


class Kernel(Handle):
    """A compiled equation for operands of fixed shapes and dtypes. Call it: `k(x, y)` or `k(x, y, out=z)`.

    Arrays laid out as they were at compile time go straight to machine code; other strides are planned once
    more, and reuse the code where it allows. Raises `OperandError` for other shapes, `DtypeError` for other
    dtypes.

    Attributes: `equation`, `shapes`, `dtypes`; `plan` and `steps` (each with its contraction, naive nest,
    schedule, nest and source); for the last step `nest`, `schedule`, `source`, `llvm`, `asm`; `family` and
    `tiling` in words; `explain()` for all of it. Where some size is 0 there are no steps, and all of them are
    empty.
    """

    def __init__(self, problem: Problem, call, optimize: object):
        self._problem, self._call, self._optimize = problem, call, optimize
        self.equation = problem.text
        self.shapes = problem.shapes
        self.dtypes = tuple(t.dtype for t in problem.inputs)
        # With no element to compute there is no program.
        program = call.program if isinstance(call, ProgramCall) and call.direct else None
        self._launch = program.run if program else None
        if program:
            self._empty, self._scalar = program.empty, not program.shape

    def __call__(self, *operands, out=None):
        """The result for these operands: a new array (a scalar if the output has no labels), or `out`."""
        if self._launch is not None and len(operands) == len(self.shapes):
            result = self._empty() if out is None else out
            if self._launch(result, *operands) is None:
                return result[()] if self._scalar and out is None else result
        return self._slow(operands, out)

    def _slow(self, operands, out):
        arrays = [plain(x) for x in operands]
        text = self.equation
        if len(arrays) != len(self.shapes):
            raise OperandError(
                f"this kernel takes {len(self.shapes)} operands and got {len(arrays)}", text=text,
                at=tokenize(text).operands_span(len(arrays)), shapes=[a.shape for a in arrays],
                fix="pass one array for each term")
        for i, (a, shape, dtype) in enumerate(zip(arrays, self.shapes, self.dtypes)):
            if a.shape != shape:
                raise other_than_compiled(OperandError, "shape", arrays, i, a.shape, shape, text)
            if a.dtype.name != dtype:
                raise other_than_compiled(DtypeError, "dtype", arrays, i, a.dtype, dtype, text)
        if isinstance(self._call, ProgramCall) and out is None and self._fits(arrays):
            result = self._call(arrays, None)
            return result if result.ndim else result[()]
        p = self._problem
        result = run(text, p.einsum, arrays, out, self._optimize, p.body)
        # Where einsum gives a view, a kernel gives a new array.
        shared = out is None and any(np.may_share_memory(result, a) for a in arrays)
        return result.copy() if shared else result

    def _fits(self, arrays) -> bool:
        return all(Layout.of(a) == t for a, t in zip(arrays, self._problem.inputs))

    @property
    def plan(self):
        """The order in which operands are contracted, or None where there is no element to compute."""
        return self._call.plan if isinstance(self._call, ProgramCall) else None

    @property
    def steps(self) -> tuple[CompiledStep, ...]:
        """The compiled loop nests, in the order in which they run."""
        return self._call.steps if isinstance(self._call, ProgramCall) else ()

    @property
    def llvm(self) -> str:
        """LLVM's optimised IR of the last step."""
        return uninterrupted(partial(build.llvm_of, self.steps[-1].source)) if self.steps else ""

    @property
    def asm(self) -> str:
        """The machine code of the last step, as assembly."""
        return uninterrupted(partial(build.asm_of, self.steps[-1].source)) if self.steps else ""

    def __repr__(self) -> str:
        shapes = ", ".join(map(str, self.shapes))
        made = ", ".join(filter(None, (self.family, self.tiling)))
        return f"<einjit.Kernel {self.equation} for {shapes}: {made}>"


def other_than_compiled(kind: type[EinjitError], what: str, arrays, operand: int, got, compiled,
                        text: str) -> EinjitError:
    """The error that an operand's shape or dtype is another than the kernel's."""
    return kind(
        f"operand {operand} has {what} {got}, and this kernel was compiled for {compiled}", text=text,
        at=tokenize(text).operand_span(operand), shapes=[a.shape for a in arrays],
        fix=f"compile another kernel, or call einjit.einsum, which takes any {what}")


def compile(equation: str, *operands, dtype=None, schedule: Schedule | None = None, optimize: object = None,
            body: Expr | None = None, target: str = "cpu", cc: tuple[int, int] | None = None) -> Kernel | GpuKernel:
    """Compile an equation for operands of given shapes: `compile("ij,jk->ik", (512, 256), (256, 128))`.

    Operands are arrays, whose layouts and dtypes are taken, or shapes, for row-major arrays of `dtype` (one
    for all or one for each; default float64). `schedule`: transformations from `einjit.schedule`, instead of
    the policy's; all operands are then one loop nest. With `target="cuda"` the result is a `GpuKernel` for compute
    capability `cc`, such as (8, 0), which needs no GPU; None is that of the GPU at hand. Raises the errors of `einsum`,
    `ScheduleError` for a schedule that is not legal, and `DtypeError` for a dtype that has no kernels.
    """
    if target not in ("cpu", "cuda"):
        raise ArgumentError(f"target is {target!r}", fix="pass target='cpu' or target='cuda'")
    dtypes = _dtypes(dtype, len(operands), equation)
    layouts = tuple(_layout(x, d, i, equation) for i, (x, d) in enumerate(zip(operands, dtypes)))
    shapes = tuple(t.shape for t in layouts)
    parsed = parse_for(equation, shapes)
    check_dtypes([t.dtype for t in layouts], equation, shapes,
                 fix="call einjit.einsum, which hands such operands to NumPy")
    check_optimize(optimize, equation, shapes)
    problem = Problem(equation, parsed, layouts, None, None, "C", "safe", None, body, current())
    if target == "cuda":
        from .gpukernel import compile_for_gpu      # most programs compile for none

        return compile_for_gpu(replace(problem, optimize=hashable(optimize)), cc, optimize, schedule)
    return Kernel(problem, plan_call(problem, optimize, schedule, always=True), optimize)


def check_dtypes(dtypes: Sequence[object], equation: str, shapes, fix: str) -> None:
    """Raise `DtypeError` for an operand's dtype that has no kernels."""
    for i, dtype in enumerate(dtypes):
        if not is_compiled_dtype(np.dtype(dtype)):
            raise DtypeError(f"operand {i} has dtype {dtype}, for which there are no kernels", text=equation,
                             at=tokenize(equation).operand_span(i), shapes=shapes, fix=fix)


def _dtypes(dtype, count: int, equation: str) -> Sequence:
    if isinstance(dtype, (list, tuple)):
        if len(dtype) != count:
            raise OperandError(f"{len(dtype)} dtypes for {count} operands", text=equation,
                               at=tokenize(equation).operands_span(),
                               fix="give one dtype, or one for each operand")
        return dtype
    return [dtype] * count


def _layout(operand, dtype, place: int, equation: str) -> Layout:
    if isinstance(operand, np.ndarray):
        return Layout.of(operand)
    if is_device_array(operand):
        from .gpulibraries import library_of

        try:
            return layout_of(library_of(operand).checked(operand, f"operand {place}"), f"operand {place}")
        except EinjitError as error:
            raise error.with_parts(text=equation, at=tokenize(equation).operand_span(place)) from None
    if isinstance(operand, (tuple, list)) and all(isinstance(n, (int, np.integer)) and n >= 0 for n in operand):
        return Layout.contiguous([int(n) for n in operand], _dtype_name(dtype or "float64", place, equation))
    raise OperandError(f"operand {place} is {operand!r}, neither an array nor a shape", text=equation,
                       at=tokenize(equation).operand_span(place),
                       fix="pass arrays, or shapes such as (512, 256)")


def _dtype_name(dtype, place: int, equation: str) -> str:
    try:
        return np.dtype(dtype).name
    except TypeError:
        raise DtypeError(f"dtype {dtype!r} for operand {place} is not a dtype", text=equation,
                         at=tokenize(equation).operand_span(place),
                         fix="pass a NumPy dtype or its name, such as 'float32'") from None
