"""Calls with arrays on a GPU: `einsum`, a function of `jit`'s, a `GpuKernel`. Where they run, and what answers them."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from . import cache, gpulaunch, planning
from .codegen.gpubuild import CudaUnavailable
from .contraction import Layout
from .dispatch import call_options, check_array, hashable, parsed_call, plain
from .einsum import Einsum, sizes_of, symbol
from .errors import DtypeError, EinjitError, OperandError
from .expr import Expr
from .fallback import is_compiled_dtype
from .gpuarrays import DeviceArray, device_said, is_device_array, read
from .gpudriver import Driver, driver
from .gpukernel import GpuKernel, compile_for_gpu, has_kernels
from .gpulaunch import Place
from .gpulibraries import is_known, library_of, stream_handle
from .kernel import check_dtypes, other_than_compiled
from .options import current
from .planning import Problem
from .stats import count
from .tokens import tokenize

KERNELS = 1024          # kept, least recently used dropped first

_kernels: OrderedDict[tuple, GpuKernel] = OrderedDict()


@cache.on_clear
def _forget() -> None:
    _kernels.clear()


def answer(equation, lists, operands: Sequence, out, optimize, dtype, order, casting, stream, body: Expr | None = None):
    """`einsum` of arrays on a device, on that device. `lists`: of labels, where there is no equation. Raises what
    `einsum` does, and `CudaUnavailable` without Numba-CUDA or a driver."""
    text = _text_of(equation, lists)
    place = _place(operands, out, stream, text)
    arrays, target = _read_all(operands, out, place, text)
    shapes = tuple(a.shape for a in arrays)
    try:
        text, parsed = parsed_call(equation, lists, arrays, optimize)
    except EinjitError as error:
        raise error.with_parts(shapes=shapes) from None
    planning.check_optimize(optimize, text, shapes)
    dtype, order, casting = call_options(dtype, order, casting, text, shapes)
    if dtype is not None and not is_compiled_dtype(dtype):
        raise DtypeError(f"dtype={dtype} has no kernels", text=text, at=tokenize(text).output_span, shapes=shapes,
                         fix="pass one that has, such as 'float32'")
    problem = Problem(text, parsed, tuple(a.layout for a in arrays), target and target.layout, dtype and dtype.name,
                      order, casting, hashable(optimize), body, current())
    return _run(problem, arrays, target, out, place)


def call_kernel(kernel: GpuKernel, operands: Sequence, out, stream):
    """What a kernel that was compiled for shapes and dtypes gives for arrays of these."""
    text = kernel.equation
    if len(operands) != len(kernel.shapes):
        raise OperandError(
            f"this kernel takes {len(kernel.shapes)} operands and got {len(operands)}", text=text,
            at=tokenize(text).operands_span(len(operands)), fix="pass one array for each term")
    place = _place(operands, out, stream, text)
    arrays, target = _read_all(operands, out, place, text)
    for i, (a, shape, dtype) in enumerate(zip(arrays, kernel.shapes, kernel.dtypes)):
        if a.shape != shape:
            raise other_than_compiled(OperandError, "shape", arrays, i, a.shape, shape, text)
        if a.layout.dtype != dtype:
            raise other_than_compiled(DtypeError, "dtype", arrays, i, a.layout.dtype, dtype, text)
    _check_capability(kernel, place)
    layout = target.layout if target else None
    problem = replace(kernel.problem, inputs=tuple(a.layout for a in arrays), out=layout)
    return _run(problem, arrays, target, out, place, kernel)


def transferred(equation: str, operands: Sequence, out, body: Expr | None):
    """A call with arrays in host memory: they go to the device, and the result back, if there is none on it yet. Raises
    what `answer` does."""
    there = next((x for x in (*operands, out) if is_device_array(x)), None)
    host, library = driver(), library_of(there)
    device = None if there is None else _device(there, host)
    device = host.current_device() if device is None else device
    # Row-major: torch takes no strides below 0.
    arrays = [x if is_device_array(x) else np.asarray(plain(x), order="C") for x in operands]
    shapes = [tuple(a.shape) for a in arrays]
    check_dtypes([a.dtype for a in arrays if type(a) is np.ndarray], equation, shapes, fix="convert the operand")
    with host.on(device):
        stream = library.current_stream(device)
        moved = [library.from_host(a, device, stream) if type(a) is np.ndarray else a for a in arrays]
        if there is not None:
            return answer(equation, None, moved, out, None, None, "K", "safe", None, body)
        check_array(out, equation, shapes)
        target = None
        if out is not None:
            target = library.empty(Layout.contiguous(out.shape, out.dtype.name), device, stream)
        result = library.to_host(answer(equation, None, moved, target, None, None, "K", "safe", None, body))
    if out is None:
        return result if result.ndim else result[()]
    out[...] = result
    return out


# -- where a call runs -----------------------------------------------------------------------------------

def _place(operands: Sequence, out, stream, text: str | None) -> Place:
    """Raises `OperandError` unless all arrays are on one device, `ArgumentError` for a stream that is none."""
    _check_on_device(operands, out, text)
    host = driver()
    device = None
    for i, x in enumerate(operands):
        own = _device(x, host)
        if device is not None and own is not None and own != device:
            raise OperandError(f"operand {i} is on device {own}, and those before it on device {device}",
                               fix=f"copy it to device {device} first", **_under(text, i))
        device = own if device is None else device
    own = None if out is None else _device(out, host)
    if device is not None and own is not None and own != device:
        raise OperandError(f"out is on device {own}, and the operands are on device {device}",
                           fix=f"pass an out on device {device}", **_under(text, None))
    device = device if device is not None else own if own is not None else host.current_device()
    library = library_of(next((x for x in operands if is_known(x)), None))
    if stream is None:
        return Place(host, library, device, library.current_stream(device), True)
    return Place(host, library, device, stream_handle(stream), False)


def _check_on_device(operands: Sequence, out, text: str | None) -> None:
    there = [is_device_array(x) for x in operands]
    if not all(there):
        i = there.index(False)
        moving = library_of(next((x for x in (*operands, out) if is_device_array(x)), None)).moving
        others = f"operand {there.index(True)} is" if any(there) else "out is"
        raise OperandError(f"operand {i} is in host memory, and {others} on a GPU",
                           fix=f"copy it there first: {moving}", **_under(text, i))
    if out is not None and not is_device_array(out):
        raise OperandError("out is in host memory, and the operands are on a GPU",
                           fix="pass an array on the same device", **_under(text, None))


def _device(x, host: Driver) -> int | None:
    said = device_said(x)
    if said is not None:
        return said
    interface = getattr(x, "__cuda_array_interface__", None) or {}
    pointer = int((interface.get("data") or (0,))[0] or 0)
    return host.device_of(pointer) if pointer else None


def _check_capability(kernel: GpuKernel, place: Place) -> None:
    compiled, here = kernel.device.cc, place.driver.capability(place.device)
    if compiled[0] != here[0] or compiled[1] > here[1]:
        raise OperandError(f"this kernel is for compute capability {compiled}, and device {place.device} has {here}",
                           text=kernel.equation, fix=f"compile it with cc={here}")


def _read_all(operands, out, place: Place, text: str | None) -> tuple[list[DeviceArray], DeviceArray | None]:
    arrays = [_read(x, i, place, text) for i, x in enumerate(operands)]
    if out is None:
        return arrays, None
    target = _read(out, None, place, text)
    shapes = [a.shape for a in arrays]
    if target.read_only:
        raise OperandError("out is read-only", shapes=shapes, fix="pass an array that can be written to",
                           **_under(text, None))
    if 0 not in target.shape and gpulaunch.overlaps_itself(target.layout):
        raise OperandError("elements of out share memory, so that threads would write over each other's", shapes=shapes,
                           fix="pass an out whose elements lie apart", **_under(text, None))
    return arrays, target


def _read(x, operand: int | None, place: Place, text: str | None) -> DeviceArray:
    """An operand, or with None `out`."""
    library, name = library_of(x), "out" if operand is None else f"operand {operand}"
    same = place.current and library is place.library        # what it wrote is in the stream already
    try:
        x = library.checked(x, name)
        return read(x, name, place.stream, None if same else library.producer(place.device), is_known(x))
    except EinjitError as error:
        raise error.with_parts(**_under(text, operand)) from None


def _text_of(equation, lists) -> str | None:
    """The equation for messages of what is found before it is parsed."""
    if lists is not None:
        return None
    return equation.decode("latin-1") if isinstance(equation, bytes) else str(equation)


def _under(text: str | None, operand: int | None) -> dict:
    """An equation and the span of an operand in it, or of the output."""
    try:
        written = tokenize(text) if text is not None else None
        at = written and (written.output_span if operand is None else written.operand_span(operand))
    except (EinjitError, IndexError):
        at = None           # what is wrong with the equation is for the parser to say
    return {"text": text, "at": at} if at else {}


# -- what answers it -------------------------------------------------------------------------------------

def _run(problem: Problem, arrays: Sequence[DeviceArray], target: DeviceArray | None, out, place: Place,
         like: GpuKernel | None = None):
    beside = target is not None and any(gpulaunch.overlap(target, a) for a in arrays)
    if beside:      # what is read must not be written over: first into an array of its own
        problem = replace(problem, out=Layout.contiguous(target.shape, target.layout.dtype))
    kernel = like if like and like.problem == problem else _kernel_for(problem, place, like)
    with place.driver.on(place.device):
        if target is not None and not beside and (kernel.steps or gpulaunch.is_dense(target.layout)):
            gpulaunch.run(kernel, arrays, target, place)
            return out
        fresh = place.new(_result_layout(kernel, problem))
        gpulaunch.run(kernel, arrays, fresh, place)
        if target is None:
            return fresh.keep
        copy = _kernel_for(_copying(fresh.layout, target.layout), place, None)
        gpulaunch.run(copy, [fresh], target, place)
        return out


def _result_layout(kernel: GpuKernel, problem: Problem) -> Layout:
    if kernel.steps:
        return kernel.steps[-1].out
    shape = planning.result_shape(problem, sizes_of(problem.einsum, problem.shapes, problem.text))
    return Layout.contiguous(shape, planning.types_of(problem).result)


def _capability(place: Place) -> tuple[int, int]:
    cc = place.driver.capability(place.device)
    if not has_kernels(cc):
        raise CudaUnavailable(f"device {place.device} has compute capability {cc}, for which there are no kernels",
                              fix="run this on a device of (7, 5) to (9, 0)")
    return cc


def _copying(source: Layout, target: Layout) -> Problem:
    labels = tuple(map(symbol, range(len(source.shape))))
    einsum = Einsum((labels,), labels)
    return Problem(str(einsum), einsum, (source,), target, None, "C", "unsafe", None, None, current())


def _kernel_for(problem: Problem, place: Place, like: GpuKernel | None) -> GpuKernel:
    """The kernel of a problem, with the schedule and for the compute capability of `like`, if that is given."""
    schedule = like.given_schedule if like else None
    cc = like.device.cc if like else _capability(place)
    key = problem, cc, schedule
    found = _kernels.get(key)
    if found is None:
        found = compile_for_gpu(problem, cc, problem.optimize, schedule)
        count(planned=1)
    _kernels[key] = found
    try:
        _kernels.move_to_end(key)
        while len(_kernels) > KERNELS:
            _kernels.popitem(last=False)
    except KeyError:
        pass        # another thread has just dropped it, or all
    return found
