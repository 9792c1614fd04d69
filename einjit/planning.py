"""From a problem (equation, layouts, options) to what answers it: a program, a view, zeros, or NumPy.

`plan_call` is the slow path of every call, walked once a problem; the callable that it returns is kept.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Callable, Mapping, Sequence

import numpy as np

from . import machine
from .compiler import CompiledStep, compile_step, is_compiled, schedule_step, source_of
from .codegen.innermost import keeps_partial_results
from .contraction import Layout
from .einsum import Einsum, sizes_of
from .errors import DtypeError, EinjitError, OperandError
from .expr import Expr, evaluate, is_complex_arithmetic, working_dtype
from .fallback import is_bfloat16
from .launch import MAX_OPERANDS
from .options import Options
from .path import Plan, check, one_nest, plan
from .program import BoundStep, Program, ProgramStep
from .results import allocator
from .schedule.opts import Schedule
from .stats import count
from .tokens import tokenize
from .turning import with_turned_operands

_KIND_RANK = "buifc"


@dataclass(frozen=True)
class Problem:
    """Everything that a plan depends on. `text` is the equation as the caller wrote it, for messages.

    `out`: the layout of the array to write to, or None for a fresh one in memory order `order` ('C', 'F', 'A'
    or 'K'). `dtype`: the type to compute in, or None for NumPy's promotion.
    """

    text: str
    einsum: Einsum
    inputs: tuple[Layout, ...]
    out: Layout | None
    dtype: str | None
    order: str
    casting: str
    optimize: object
    body: Expr | None
    options: Options

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(t.shape for t in self.inputs)


@dataclass(frozen=True)
class Types:
    """The dtypes of a problem: of the result, and of the kernel that computes it."""

    result: str
    compute: str


Call = Callable[[Sequence[np.ndarray], "np.ndarray | None"], object]


def types_of(p: Problem) -> Types:
    """NumPy's promotion and casting rules, with float16 and bfloat16 computed in float32.

    Raises `DtypeError` where an operand or `out` may not be cast under `p.casting`.
    """
    dtypes = [np.dtype(t.dtype) for t in p.inputs]
    if p.dtype is not None:
        common = np.dtype(p.dtype)
    elif p.body is not None:
        return _types_of_body(p, dtypes)
    else:
        common = _promoted(p, [*dtypes, *([np.dtype(p.out.dtype)] if p.out and p.optimize in (None, False) else [])])
    for i, d in enumerate(dtypes):
        if not np.can_cast(d, common, p.casting):
            raise DtypeError(
                f"operand {i} has dtype {d} and cannot be cast to {common} under the rule '{p.casting}'",
                text=p.text, at=tokenize(p.text).operand_span(i), shapes=p.shapes,
                fix="pass casting='unsafe', or convert the operand")
    _check_out(p, common)
    return Types(p.out.dtype if p.out else common.name, _accumulator(common))


def _promoted(p: Problem, dtypes: list[np.dtype]) -> np.dtype:
    try:
        return np.result_type(*dtypes)
    except TypeError:       # bfloat16 has no common type with most integers, or with float16
        names = ", ".join(map(str, dict.fromkeys(dtypes)))
        raise DtypeError(f"{names} have no common dtype", text=p.text, at=tokenize(p.text).operands_span(),
                         shapes=p.shapes, fix="pass dtype=, and casting='unsafe' with it") from None


def _types_of_body(p: Problem, dtypes: list[np.dtype]) -> Types:
    """A scalar body is computed in a dtype that all its operations can be done in."""
    try:
        with np.errstate(all="ignore"):     # of ones: their values mean nothing
            result = np.asarray(evaluate(p.body, [np.ones((), d)[()] for d in dtypes])).dtype
            # NumPy has no common type for bfloat16 and Python's integers, which constants are.
            compute = working_dtype(p.body, [_accumulator(d) for d in dtypes])
    except (TypeError, OverflowError) as error:
        names = ", ".join(map(str, dtypes))
        raise DtypeError(f"'{p.body}' is not defined for {names}: {error}", text=p.text, shapes=p.shapes,
                         at=tokenize(p.text).operands_span(), fix="convert the operands") from None
    if compute.kind == "c" and not is_complex_arithmetic(p.body):
        written = tokenize(p.text)
        raise DtypeError(f"'{p.body}' is not defined for complex numbers", text=p.text, shapes=p.shapes,
                         at=[written.operand_span(i) for i, d in enumerate(dtypes) if d.kind == "c"],
                         fix="use + - * / alone, or real operands")
    _check_out(p, result)
    return Types(p.out.dtype if p.out else result.name, _accumulator(compute))


def computed_in(p: Problem, sizes: Mapping[str, int]) -> Types:
    """`types_of`, with products of integers in the size that vectors multiply best, where the result is the same.

    64 bits become 32 where no sum can outgrow them: twice the lanes, and half the bytes in panels. Measured on Zen 4,
    64 x 64 x 64 of int8 into int64 took 14 us in 64 bits and 7.5 in 32. 8 bits become 16, which wrap to the same 8:
    no vector unit multiplies bytes. 512 x 512 x 512 ran at 105 GF/s in 8 bits, 192 in 16.
    """
    types = types_of(p)
    inputs = [np.dtype(t.dtype) for t in p.inputs]
    if p.body is not None or len(inputs) < 2 or any(d.kind not in "biu" for d in inputs):
        return types
    if types.compute == types.result and types.compute in _WIDENED:
        return replace(types, compute=_WIDENED[types.compute])
    if types.compute not in ("int64", "uint64"):
        return types
    largest = prod(sizes[x] for x in p.einsum.summed) * prod(_most(d) for d in inputs)
    return replace(types, compute="int32") if largest <= np.iinfo(np.int32).max else types


_WIDENED = {"int8": "int16", "uint8": "uint16"}


def _most(dtype: np.dtype) -> int:
    """The largest absolute value of a bool or an integer."""
    return 1 if dtype.kind == "b" else max(np.iinfo(dtype).max, -int(np.iinfo(dtype).min))


def _accumulator(dtype: np.dtype) -> str:
    return "float32" if dtype == np.float16 or is_bfloat16(dtype) else dtype.name


def _stored(types: Types) -> str:
    """The dtype that the last kernel should write: the result's, where it can convert to that as it stores."""
    if np.dtype(types.compute).kind in "iu" and np.dtype(types.result).kind in "iu":
        return types.result         # partial results in it wrap as the last does
    narrow = _accumulator(np.dtype(types.result)) == types.compute
    return types.result if narrow and (types.result != "float16" or machine.detect().half) else types.compute


def _target(p: Problem, shape: tuple[int, ...], dtype: str, order: str | tuple[int, ...]) -> Layout:
    """What a kernel that writes `dtype` writes to: `out`, or a new array."""
    return p.out if p.out and p.out.dtype == dtype else fresh_layout(shape, dtype, order)


def _check_out(p: Problem, common: np.dtype) -> None:
    # NumPy's optimised path copies into `out` whatever its dtype.
    lenient = p.optimize not in (None, False) and p.casting == "safe"
    if p.out and not lenient and not np.can_cast(common, p.out.dtype, p.casting):
        refused = f"cannot be cast to out's {p.out.dtype} under the rule '{p.casting}'"
        raise DtypeError(
            f"the result has dtype {common} and {refused}", text=p.text,
            at=tokenize(p.text).output_span, shapes=p.shapes,
            fix="pass casting='same_kind' or 'unsafe', or an out of the result's dtype")


def result_shape(p: Problem, sizes: dict[str, int]) -> tuple[int, ...]:
    """Shape of the result; raises `OperandError` where `out` has another one."""
    shape = tuple(sizes[label] for label in p.einsum.output)
    if p.out and p.out.shape != shape:
        raise OperandError(
            f"out has shape {p.out.shape}, and the result has shape {shape}", text=p.text,
            at=tokenize(p.text).output_span, shapes=p.shapes, fix=f"pass an out of shape {shape}")
    return shape


def check_optimize(optimize: object, text: str, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise `ArgumentError` or `StrategyError` for an `optimize` that no equation can be planned with."""
    try:
        check(optimize)
    except EinjitError as error:
        raise _under_operands(error, text, shapes) from None


def plan_of(p: Problem, sizes: dict[str, int], optimize: object) -> Plan:
    """The contraction order. Raises what `check_optimize` does, `PathError` for a path that does not fit."""
    try:
        return plan(p.einsum, sizes, optimize)
    except EinjitError as error:
        raise _under_operands(error, p.text, p.shapes) from None


def _one_nest(p: Problem, sizes: dict[str, int]) -> Plan:
    """All operands at once, however many."""
    if len(p.inputs) > MAX_OPERANDS:
        raise OperandError(f"one loop nest takes at most {MAX_OPERANDS} operands, not {len(p.inputs)}", text=p.text,
                           at=tokenize(p.text).operands_span(), shapes=p.shapes)
    return one_nest(p.einsum, sizes)


def _under_operands(error: EinjitError, text: str, shapes: Sequence[tuple[int, ...]]) -> EinjitError:
    return error.with_parts(text=text, at=tokenize(text).operands_span(), shapes=shapes)


# -- answers that need no kernel -------------------------------------------------------------------------

@dataclass(frozen=True)
class ViewCall:
    """One operand and nothing summed: the result is a view, writeable if the operand is."""

    shape: tuple[int, ...]
    term: tuple[str, ...]
    output: tuple[str, ...]
    axes: tuple[int, ...]

    def __call__(self, operands, out):
        (a,) = operands
        return a.transpose(self.axes) if len(self.axes) == len(self.term) else self._diagonal(a)

    def _diagonal(self, a: np.ndarray) -> np.ndarray:
        view, term = a, list(self.term)
        for label in self.output:
            while term.count(label) > 1:
                first = term.index(label)
                second = term.index(label, first + 1)
                view = view.diagonal(0, first, second)
                term = [x for i, x in enumerate(term) if i not in (first, second)] + [label]
        view = view.transpose([term.index(label) for label in self.output])
        if a.flags.writeable:
            view.flags.writeable = True     # NumPy makes diagonals read-only
        return view


@dataclass(frozen=True)
class EmptyCall:
    """Some size is 0: an empty result, or sums of nothing."""

    shape: tuple[int, ...]
    dtype: str

    def __call__(self, operands, out):
        if out is None:
            return np.zeros(self.shape, self.dtype)
        out[...] = 0
        return out


# -- programs --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class ProgramCall:
    """A program with NumPy's casts around it. `cast[i]`: the dtype to convert operand i to beforehand, for
    casts that lose kind (complex to real, float to integer), or ''."""

    program: Program
    casts: tuple[str, ...]
    result: str
    steps: tuple[CompiledStep, ...]
    plan: Plan

    @property
    def direct(self) -> bool:
        """Whether the program alone is the whole call."""
        return not any(self.casts) and self.program.dtype.name == self.result

    def __call__(self, operands, out):
        """Returns NotImplemented where `out` shares memory with an operand or with itself."""
        operands = [a.astype(cast, order="C") if cast else a for a, cast in zip(operands, self.casts)]
        if self.program.dtype.name == self.result:
            return self.program(operands, out)
        wide = self.program(operands)
        if out is None:
            with np.errstate(over="ignore"):
                return wide.astype(self.result)
        np.copyto(out, wide, casting="unsafe")
        return out


def plan_call(p: Problem, optimize: object, schedule: Schedule | None = None, always: bool = False) -> Call:
    """What answers `p`. Compiles what is missing. `always`: a program even where a view would do."""
    sizes = sizes_of(p.einsum, p.shapes, p.text)
    shape, types = result_shape(p, sizes), computed_in(p, sizes)
    order = memory_order(p)
    view = None if always else _view(p, shape, types)
    if view is not None:
        return view
    if 0 in sizes.values():
        return EmptyCall(shape, types.result)
    return _program_call(p, sizes, shape, types, order, optimize, schedule)


def memory_order(p: Problem) -> str | tuple[int, ...]:
    """'C', 'F', or the axes of the result from the slowest to the fastest, by NumPy's rules."""
    if p.order in "CF":
        return p.order
    if p.order == "A":
        fortran = all(_is_contiguous(t, reverse=False) for t in p.inputs)
        rows = all(_is_contiguous(t, reverse=True) for t in p.inputs)
        return "F" if fortran and not rows else "C"
    axes = _axes_like_inputs(p)
    if axes == tuple(range(len(axes))) or _batch_would_be_fastest(p, axes):
        return "C"
    return "F" if axes == tuple(range(len(axes)))[::-1] else axes


def _axes_like_inputs(p: Problem) -> tuple[int, ...]:
    """Order 'K': the result's axes in the order in which the inputs' strides fall.

    The insertion sort of NumPy's iterator: axes that no input has both of are not compared, and where inputs
    disagree row-major order wins.
    """
    labels = (*p.einsum.output, *p.einsum.summed)
    strides = {label: [sum(s for axis, s, n in zip(term, t.strides, t.shape) if axis == label and n != 1)
                       for term, t in zip(p.einsum.inputs, p.inputs)] for label in labels}
    fastest_first: list[str] = []
    for label in reversed(labels):
        at = len(fastest_first)
        for place in reversed(range(len(fastest_first))):
            pairs = [(abs(x), abs(y)) for x, y in zip(strides[fastest_first[place]], strides[label]) if x and y]
            if not pairs:
                continue
            if not all(x > y for x, y in pairs):
                break
            at = place
        fastest_first.insert(at, label)
    return tuple(p.einsum.output.index(x) for x in reversed(fastest_first) if x in p.einsum.output)


def _batch_would_be_fastest(p: Problem, axes: Sequence[int]) -> bool:
    """Whether order 'K' would put the elements of each product of a batch apart, where order 'C' does not.

    `np.einsum` does so for attention (bqhd,bkhd->bhqk has h fastest), one element a store; with `optimize` it
    hands such products to BLAS, whose results lie together.
    """
    if not p.einsum.summed or len(p.inputs) < 2:
        return False
    batch = [sum(label in term for term in p.einsum.inputs) == len(p.inputs) for label in p.einsum.output]
    return batch[axes[-1]] and not batch[-1]


def _is_contiguous(t: Layout, reverse: bool) -> bool:
    step = np.dtype(t.dtype).itemsize
    axes = list(zip(t.shape, t.strides))
    for extent, stride in reversed(axes) if reverse else axes:
        if extent != 1 and stride != step:
            return False
        step *= extent
    return True


def _view(p: Problem, shape: tuple[int, ...], types: Types) -> ViewCall | None:
    """The view that `p` asks for, if it does."""
    if p.out or len(p.inputs) != 1 or p.body is not None or p.einsum.summed or types.result != p.inputs[0].dtype:
        return None
    (layout,), (term,) = p.inputs, p.einsum.inputs
    strides = tuple(sum(s for axis, s in zip(term, layout.strides) if axis == label) for label in p.einsum.output)
    wanted = p.order in "AK" or _is_contiguous(Layout(shape, strides, layout.dtype), reverse=p.order == "C")
    axes = tuple(term.index(label) for label in p.einsum.output)
    return ViewCall(layout.shape, term, p.einsum.output, axes) if wanted else None


def _program_call(p: Problem, sizes, shape, types: Types, order, optimize, schedule) -> ProgramCall:
    casts = tuple(_cast_before(t.dtype, types.compute) for t in p.inputs)
    inputs = [Layout.contiguous(t.shape, cast) if cast else t for t, cast in zip(p.inputs, casts)]
    steps, compiled = [], []
    # opt_einsum orders products; a scalar body is one nest, which no order may take apart.
    planned = plan_of(p, sizes, optimize) if p.body is None and schedule is None else _one_nest(p, sizes)
    if p.body is None and schedule is None and (optimize is None or optimize is True):
        planned = with_turned_operands(planned, inputs, _target(p, shape, _stored(types), order), types.compute)
    for position, step in enumerate(planned.steps):
        operands = [inputs[i] for i in step.operands]
        inputs = [t for i, t in enumerate(inputs) if i not in step.operands]
        last = position == len(planned.steps) - 1
        step_sizes = {label: sizes[label] for label in step.einsum.labels}
        body = p.body if last else None
        result = Layout.contiguous([sizes[label] for label in step.einsum.output], types.compute)
        if last:
            result = _target(p, shape, _stored(types), order)
            if _would_round_twice(step.einsum, step_sizes, result, operands, body, schedule, types.compute):
                result = _target(p, shape, types.compute, order)
        c = compile_step(step.einsum, step_sizes, result, operands, body, schedule, types.compute)
        compiled.append(c)
        fresh = fresh_layout(result.shape, result.dtype, order) if last else result
        steps.append(ProgramStep(step.operands, BoundStep(c, result, operands, p.options.threads),
                                 allocator(fresh, p.options.result_memory)))
        inputs.append(result)
    count(planned=1)
    return ProgramCall(Program(steps), casts, types.result, tuple(compiled), planned)


def _would_round_twice(einsum: Einsum, sizes, out: Layout, inputs, body, schedule, accumulator: str) -> bool:
    """Whether partial results would be rounded to the dtype of `out`, because they are kept there."""
    if out.dtype == accumulator or np.dtype(out.dtype).kind in "iu":
        return False        # integers come back as they were
    *_, nest = schedule_step(einsum, sizes, out, inputs, body, schedule, accumulator)
    return keeps_partial_results(nest)


def _cast_before(source: str, target: str) -> str:
    return target if loses_kind(source, target) or (source == "float16" and not machine.detect().half) else ""


def loses_kind(source: str, target: str) -> bool:
    """Whether a cast leaves something out that numbers of another kind do not have."""
    s, t = (np.dtype("float16") if is_bfloat16(d) else d for d in (np.dtype(source), np.dtype(target)))
    return _KIND_RANK.index(s.kind) > _KIND_RANK.index(t.kind) and s.kind + t.kind not in ("ui", "iu")


def fresh_layout(shape, dtype: str, order: str | tuple[int, ...]) -> Layout:
    axes = order if isinstance(order, tuple) else tuple(range(len(shape)))[::1 if order == "C" else -1]
    slowest_first = Layout.contiguous([shape[axis] for axis in axes], dtype)
    strides = tuple(slowest_first.strides[axes.index(i)] for i in range(len(shape)))
    return Layout(tuple(shape), strides, dtype)


def is_tiny(p: Problem, limit: int = 4096) -> bool:
    """Whether all the work of a problem is a few microseconds, done one way or another."""
    sizes = sizes_of(p.einsum, p.shapes, p.text)
    return prod(sizes.values()) * len(p.inputs) <= limit


def needs_compiler(p: Problem) -> bool:
    """Whether the (single-step) problem would have to wait for Numba: its code is not in memory."""
    sizes = sizes_of(p.einsum, p.shapes, p.text)
    if 0 in sizes.values():
        return False
    types = computed_in(p, sizes)
    shape = result_shape(p, sizes)
    out = _target(p, shape, _stored(types), "C")
    if _would_round_twice(p.einsum, sizes, out, p.inputs, p.body, None, types.compute):
        out = _target(p, shape, types.compute, "C")
    *_, nest = schedule_step(p.einsum, sizes, out, p.inputs, p.body, accumulator=types.compute)
    return not is_compiled(source_of(nest))
