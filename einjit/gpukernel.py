"""Compiled equations for a GPU: a plan's steps as kernels for one architecture, to be looked into without a device."""
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod

import numpy as np

from .codegen import cuda, gpubuild
from .codegen.cudaemitter import Access, part_loop, parts_of
from .codegen.gpubuild import CudaUnavailable, GpuCode, Resources, Signature
from .codegen.source import Source, Word
from .contraction import Contraction, Dimension, Layout, contraction
from .einsum import sizes_of
from .errors import ArgumentError, DtypeError
from .expr import product
from .forksafe import uninterrupted
from .gpucode import gpu_code
from .handle import Handle
from .ir import Kind, LoopNest
from .lower import lower
from .machine import Gpu, compute_capabilities, gpu
from .path import Plan, one_nest
from .planning import Problem, Types, fresh_layout, loses_kind, memory_order, plan_of, result_shape, types_of
from .schedule.choice import Choice, by_stride
from .schedule.choose import normalised
from .schedule.gpu import choose_for_gpu
from .schedule.opts import Schedule, apply
from .tokens import tokenize
from .verify import threads_of, verify_spread

PART = "part"               # the dimension of partial results
_SMALL_INTEGERS = {"int8": "int32", "int16": "int32", "uint8": "uint32", "uint16": "uint32"}


@dataclass(frozen=True)
class Launch:
    """How a kernel is started: blocks of the grid, threads of a block, and its words."""

    grid: int
    block: int
    words: tuple[int, ...]


@dataclass(frozen=True)
class GpuStep:
    """One loop nest, from naive to machine code. `access`: what the code takes for granted; `operands`: as in the plan;
    `out`: the layout of its result."""

    contraction: Contraction
    naive: LoopNest
    choice: Choice
    nest: LoopNest
    access: Access
    source: Source
    signature: Signature
    code: GpuCode
    launch: Launch
    operands: tuple[int, ...]
    out: Layout

    @cached_property
    def words(self) -> tuple[np.generic, ...]:
        """The launch's words as the kernel takes them."""
        types = gpubuild.word_types(self.source, self.signature)
        return tuple(np.dtype(t).type(value % (1 << 64)) for t, value in zip(types, self.launch.words))

    @cached_property
    def boundaries(self) -> tuple[int, ...]:
        """For the output and each input, what its pointer must be a multiple of for this code."""
        return cuda.boundaries(self.nest, self.access)


class GpuKernel(Handle):
    """An equation compiled for operands of fixed shapes and dtypes, for one kind of GPU. Call it with arrays on a
    device: `k(x, y)`, or `k(x, y, out=z, stream=s)`.

    Other strides than those it was compiled for are planned once more, and reuse the code where it allows. Raises
    `OperandError` for other shapes, `DtypeError` for other dtypes, `CudaUnavailable` where there is no driver.

    Attributes: `equation`, `shapes`, `dtypes`, `device` (what the policy took it for), `plan`, `steps`; of the last
    step `nest`, `schedule`, `source`, `ptx`, `sass`, `resources`; `family` and `tiling` in words; `explain()` for all.
    Where some size is 0 there are no steps.
    """

    def __init__(self, problem: Problem, device: Gpu, plan: Plan | None, steps: tuple[GpuStep, ...],
                 schedule: Schedule | None = None):
        self.problem, self.given_schedule = problem, schedule
        self.equation, self.shapes = problem.text, problem.shapes
        self.dtypes = tuple(t.dtype for t in problem.inputs)
        self.device, self.plan, self.steps = device, plan, steps

    def __call__(self, *operands, out=None, stream=None):
        """The result for these operands: a new array of the first one's library, or `out`. `stream`: the one to work
        in, instead of that library's current one. Returns while the device is still at work."""
        from .gpucall import call_kernel

        return call_kernel(self, operands, out, stream)

    @cached_property
    def unaligned(self) -> GpuKernel:
        """The same for pointers that are multiples of an element's size only; compiled when it is needed."""
        return compile_for_gpu(self.problem, self.device.cc, self.problem.optimize, self.given_schedule, aligned=False)

    @cached_property
    def ptx(self) -> str:
        """NVIDIA's portable assembly of the last step."""
        return uninterrupted(partial(gpubuild.ptx_of, *self._last)) if self.steps else ""

    @cached_property
    def sass(self) -> str:
        """The machine code of the last step, as assembly."""
        return gpubuild.sass_of(self.steps[-1].code) if self.steps else ""

    @property
    def resources(self) -> Resources | None:
        """Registers, spills and shared memory of the last step."""
        return self.steps[-1].code.resources if self.steps else None

    @property
    def _last(self) -> tuple[Source, Signature]:
        return self.steps[-1].source, self.steps[-1].signature

    def __repr__(self) -> str:
        shapes = ", ".join(map(str, self.shapes))
        made = ", ".join(filter(None, (self.family, self.tiling)))
        return f"<einjit.GpuKernel {self.equation} for {shapes} on {self.device.arch}: {made}>"


def compile_for_gpu(problem: Problem, cc: tuple[int, int] | None, optimize: object,
                    schedule: Schedule | None, aligned: bool = True) -> GpuKernel:
    """Compile a problem for a compute capability; None is that of the device at hand. `aligned`: pointers are multiples
    of what is read and written at once.

    Raises `ArgumentError` for a capability that there are no kernels for, and for None where there is no device;
    `DtypeError` for casts that lose kind, such as of complex numbers to real ones.
    """
    device = gpu(_checked(_capability_here() if cc is None else cc))
    sizes = sizes_of(problem.einsum, problem.shapes, problem.text)
    shape, types = result_shape(problem, sizes), types_of(problem)
    if 0 in sizes.values():
        return GpuKernel(problem, device, None, (), schedule)
    compute = _SMALL_INTEGERS.get(types.compute, types.compute)
    _check_casts(problem, types)
    whole = problem.body is not None or schedule is not None        # one nest, which no order may take apart
    plan = one_nest(problem.einsum, sizes) if whole else plan_of(problem, sizes, optimize)
    inputs, steps = list(problem.inputs), []
    for position, step in enumerate(plan.steps):
        operands = [inputs[i] for i in step.operands]
        inputs = [t for i, t in enumerate(inputs) if i not in step.operands]
        last = position == len(plan.steps) - 1
        out = Layout.contiguous([sizes[x] for x in step.einsum.output], compute)
        if last:
            out = problem.out or fresh_layout(shape, types.result, memory_order(problem))
        step_sizes = {x: sizes[x] for x in step.einsum.labels}
        c = contraction(step.einsum, step_sizes, out, operands, problem.body if last else None, compute)
        step = replace(compile_contraction(c, device, schedule, out, aligned), operands=step.operands)
        steps.append(step)
        if parts_of(step.nest) > 1:
            rest = compile_contraction(sum_of_parts(step, c), device, None, out, aligned)
            steps.append(replace(rest, operands=(len(inputs),)))
        inputs.append(out)
    return GpuKernel(problem, device, plan, tuple(steps), schedule)


def _check_casts(p: Problem, types: Types) -> None:
    """Kernels for GPUs convert as they read and write, but drop no imaginary parts and no fractions."""
    for i, t in enumerate(p.inputs):
        if _is_no_cast(t.dtype, types.compute):
            raise DtypeError(
                f"operand {i} has dtype {t.dtype}, which kernels for a GPU do not convert to {types.compute}",
                text=p.text, at=tokenize(p.text).operand_span(i), shapes=p.shapes, fix="convert the operand first")
    if _is_no_cast(types.compute, types.result):
        raise DtypeError(
            f"the result has dtype {types.compute}, which kernels for a GPU do not convert to out's {types.result}",
            text=p.text, at=tokenize(p.text).output_span, shapes=p.shapes, fix=f"pass an out of dtype {types.compute}")


def _is_no_cast(source: str, target: str) -> bool:
    """Whether kernels cannot convert so. Whether a number is 0 they can say of all but complex ones."""
    truth = target == "bool" and np.dtype(source).kind != "c"
    return loses_kind(source, target) and not truth


def _capability_here() -> tuple[int, int]:
    from .gpudriver import driver

    try:
        here = driver()
        return here.capability(here.current_device())
    except CudaUnavailable as missing:
        raise ArgumentError(f"cc is not given, and there is no device to take it from ({missing.sentence})",
                            fix="pass the compute capability to compile for, such as cc=(8, 0)") from None


def has_kernels(cc: tuple[int, int]) -> bool:
    """Whether there are kernels for a compute capability."""
    return compute_capabilities()[0] <= cc < (10, 0)


def _checked(cc) -> tuple[int, int]:
    if isinstance(cc, tuple) and len(cc) == 2 and all(isinstance(x, int) for x in cc) and has_kernels(cc):
        return cc
    names = ", ".join(map(str, compute_capabilities()))
    raise ArgumentError(f"cc is {cc!r}, which is no compute capability that there are kernels for",
                        fix=f"pass one from {names}, such as cc=(8, 0)")


def compile_contraction(c: Contraction, device: Gpu, schedule: Schedule | None, out: Layout,
                        aligned: bool = True) -> GpuStep:
    """One step, through the stages of `compiler.py`. `aligned`: pointers are multiples of what fragments take."""
    if schedule is None:
        c = normalised(c)
        choice = choose_for_gpu(c, device, aligned)
    else:
        choice = Choice(tuple(schedule), "user's schedule", f"{len(schedule)} transformations", "given by the caller")
    naive = lower(c)
    nest = verify_spread(apply(naive, choice.schedule))
    if parts_of(nest) > 1:
        c, out = with_parts(c, parts_of(nest))
        naive = lower(c)
        nest = apply(naive, choice.schedule)
    taken = cuda.access(nest, c)
    if not aligned:
        taken = cuda.unaligned(nest, taken)
    coded = _coded(nest, c, taken, device.cc)
    return GpuStep(contraction=c, naive=naive, choice=choice, nest=nest, operands=(), out=out, **coded)


def _coded(nest: LoopNest, c: Contraction, taken: Access, cc: tuple[int, int]) -> dict:
    """The fields of a step that follow from its nest and from what is taken for granted of layouts."""
    source = cuda.emit(nest, taken)
    threads = threads_of(nest)
    signature = Signature(len(nest.tensors), "uint64" if taken.wide else "uint32", threads, cc)
    grid = prod(_blocks(nest, loop.label) for loop in nest.loops if loop.kind is Kind.BLOCK)
    words = tuple(_value(word, nest, c) for word in source.words)
    return {"access": taken, "source": source, "signature": signature, "code": gpu_code(source, signature),
            "launch": Launch(grid, threads, words)}


def with_parts(c: Contraction, parts: int) -> tuple[Contraction, Layout]:
    """The contraction into a fresh array of that many partial results, and the array's layout: parts x elements, which
    lie as the output's do, in the dtype of the sums."""
    itemsize, step, dimensions = np.dtype(c.accumulator).itemsize, np.dtype(c.accumulator).itemsize, []
    for d in by_stride(c, c.dimensions, 0)[::-1]:
        dimensions.append(d if d.summed else replace(d, strides=(step, *d.strides[1:])))
        step *= 1 if d.summed else d.extent
    fresh = tuple(next(new for new in dimensions if new.name == d.name) for d in c.dimensions)
    layout = Layout.contiguous((parts, step // itemsize), c.accumulator)
    return replace(c, dimensions=fresh, dtypes=(c.accumulator, *c.dtypes[1:])), layout


def sum_of_parts(step: GpuStep, c: Contraction) -> Contraction:
    """What is left to do: partial results added up, into the output of the contraction that was taken apart."""
    kept = tuple(replace(d, strides=(d.strides[0], step.contraction.dimension(d.name).strides[0]))
                 for d in c.dimensions if not d.summed)
    part = Dimension(PART, (PART,), step.out.shape[0], True, (0, step.out.strides[0]))
    return Contraction((*kept, part), (c.dtypes[0], c.accumulator), (0,), product(1), c.accumulator)


def _blocks(nest: LoopNest, label: str) -> int:
    return -(-nest.label(label).extent // nest.loops_of(label)[0].step)


def _value(word: Word, nest: LoopNest, c: Contraction) -> int:
    match word.what:
        case "count":
            return nest.label(word.label).extent
        case "blocks":
            return _blocks(nest, word.label)
        case "size":
            return c.dimension(word.label).extent
        case "chunk":
            return part_loop(nest).step
        case "part":
            return prod(d.extent for d in c.dimensions if not d.summed) * np.dtype(c.dtypes[0]).itemsize
        case "stride":
            return c.dimension(word.label).strides[c.tensor_names.index(word.tensor)]
    raise TypeError(f"unknown word {word!r}")
