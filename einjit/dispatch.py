"""The calls: `einsum`, `tensordot`, and what finds the plan for a call in well under a microsecond.

Three levels. Programs that answered an equation lately are tried in turn: their launchers compare the
arrays' layouts in machine code. Else the problem's full key is looked up. Else it is planned.
"""
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from typing import Any, Callable, Sequence

import numpy as np

from . import cache, planning
from .contraction import Layout
from .einsum import Einsum, sizes_of
from .errors import ArgumentError, DtypeError, EinjitError, OperandError
from .expr import Expr
from .fallback import hand_over, is_compiled_dtype
from .gpuarrays import any_on_device, shape_of
from .options import Options, current
from .parse import check_numpy_range, parse, parse_labels, split_sublists
from .planning import Problem, ProgramCall, ViewCall, plan_call
from .tokens import tokenize

PLANS = 4096            # plans kept, least recently used dropped first
RECENT = 4              # programs tried in turn for an equation
LARGE_RESULT = 1 << 16    # bytes from which on making an array costs more than to compare a shape
TINY_CALLS = 64         # tiny calls of one problem that NumPy answers before a kernel is compiled for it


@dataclass(frozen=True)
class _Recent:
    """A program that answers an equation without any cast, under these options. `first`: the shape of its first
    operand, where its result is so large that none is made before that is compared; else None."""

    options: Options
    count: int
    launch: Any
    empty: Callable[[], np.ndarray]
    scalar: bool
    first: tuple[int, ...] | None


# By the equation, or by it and the name of a dtype that was asked for.
_recent: dict[str | tuple[str, str], tuple[_Recent, ...]] = {}
_views: dict[str, ViewCall] = {}
_plans: OrderedDict[Problem, planning.Call] = OrderedDict()
_tiny: dict[Problem, int] = {}


@cache.on_clear
def forget() -> None:
    """Drop every plan."""
    _recent.clear()
    _views.clear()
    _plans.clear()
    _tiny.clear()


def einsum(*operands, out=None, optimize=None, dtype=None, order="K", casting="safe", stream=None):
    """Sum products of arrays over repeated labels, compiled: a drop-in for `numpy.einsum`.

    Called as `einsum("ij,jk->ik", a, b)`, or with lists of labels, `einsum(a, [0, 1], b, [1, 2], [0, 2])`.

    Parameters: `operands`, array-likes of any shape, strides and numeric dtype; `out`, an array of the
    result's shape to write to, which may overlap operands; `dtype`, the type to compute in (default:
    NumPy's promotion; float16 and ml_dtypes' bfloat16 are accumulated in float32); `order`, memory order of
    a new result ('C', 'F', 'A', 'K'); `casting`, as NumPy's; `optimize`, the contraction order for three
    operands and more: None (what does least work), False (one loop nest over all), True, a strategy of
    opt_einsum's, (strategy, memory limit), or a path. As in NumPy, an `optimize` that is given and true lets
    `out` have any dtype, and False refuses integer labels outside [0, 52).

    Returns an array, a scalar if the output has no labels, a view for a pure transpose or diagonal.

    Where the operands are in a GPU's memory (arrays of CuPy's, torch's, Numba's, or others that have
    `__cuda_array_interface__` or DLPack) the result is a new array there, of the first one's library, and the call
    returns while the device is still at work. `stream`: the one to work in, instead of that library's current one.

    Raises `einjit.errors.EquationError`, `ShapeError`, `OperandError` (each a ValueError), `DtypeError`,
    `ArgumentError` (each a TypeError), and of `optimize` `StrategyError` (a KeyError and a ValueError) and
    `PathError` (a RuntimeError).
    """
    plain = (order == "K" and casting == "safe" and optimize is None and stream is None
             and (dtype is None or type(dtype) is str))
    if plain and operands and type(operands[0]) is str:
        now = current()
        key = operands[0] if dtype is None else (operands[0], dtype)
        for r in _recent.get(key, ()):
            if r.count == len(operands) and r.options is now:
                if r.first is not None and out is None and getattr(operands[1], "shape", None) != r.first:
                    continue
                result = r.empty() if out is None else out
                if r.launch(result, *operands[1:]) is None:
                    return result[()] if r.scalar and out is None else result
        view = _views.get(key)
        if view is not None and out is None and len(operands) == 2:
            a = operands[1]
            if type(a) is np.ndarray and a.shape == view.shape:
                return view((a,), None)
    return _einsum(operands, out, optimize, dtype, order, casting, stream)


def _einsum(arguments, out, optimize, dtype, order, casting, stream):
    if not arguments:
        raise OperandError("no equation and no operands", fix='call einsum("ij,jk->ik", a, b)')
    operands, lists = _split(arguments)
    others = [x for x in (*operands, out) if type(x) is not np.ndarray and x is not None]
    if others and any_on_device(others):
        from .gpucall import answer

        return answer(arguments[0], lists, operands, out, optimize, dtype, order, casting, stream)
    if stream is not None:
        raise ArgumentError("stream is for arrays on a GPU, and these are in host memory", fix="leave stream out")
    if others and _is_foreign(others):
        return hand_over("foreign array", arguments, out, **_given(optimize, dtype, order, casting))
    arrays = [_exact(x) for x in operands]
    shapes = tuple(a.shape for a in arrays)
    try:
        text, parsed = parsed_call(arguments[0], lists, arrays, optimize)
    except EinjitError as error:
        raise error.with_parts(shapes=shapes) from None
    planning.check_optimize(optimize, text, shapes)
    dtype, order, casting = call_options(dtype, order, casting, text, shapes)
    unsupported = _unsupported(arrays, out, dtype)
    if unsupported:
        check_array(out, text, shapes)
        problem = _problem(text, parsed, arrays, out, optimize, None, None, order, casting)
        planning.result_shape(problem, sizes_of(parsed, shapes, text))
        return _by_numpy(unsupported, problem, operands, out, optimize, dtype)
    return run(text, parsed, arrays, out, optimize, None, dtype and dtype.name, order, casting)


def _split(arguments) -> tuple[list, tuple | None]:
    """The operands, and the lists of labels where there is no equation."""
    if isinstance(arguments[0], (str, bytes)):
        return list(arguments[1:]), None
    operands, *lists = split_sublists(arguments)
    return operands, tuple(lists)


def parsed_call(equation, lists, arrays, optimize) -> tuple[str, Einsum]:
    """The equation's text, or one that stands for the lists, and what it means."""
    ndims = tuple(a.ndim for a in arrays)
    if lists is None:
        text = equation.decode("latin-1") if isinstance(equation, bytes) else str(equation)
        return text, parse(text, ndims)
    if optimize is False:
        check_numpy_range(*lists)
    return parse_labels(*lists, ndims)


def _given(optimize, dtype, order, casting) -> dict:
    """The keywords that were given, for arrays of libraries that do not know them all."""
    given = {"optimize": optimize, "dtype": dtype, "order": None if order == "K" else order,
             "casting": None if casting == "safe" else casting}
    return {name: value for name, value in given.items() if value is not None}


def _by_numpy(reason: str, p: Problem, operands, out, optimize, dtype):
    """NumPy's answer to a problem."""
    if optimize is not None and not isinstance(optimize, bool):
        # NumPy knows few of the strategies, but takes the path that one of them found.
        steps = planning.plan_of(p, sizes_of(p.einsum, p.shapes, p.text), optimize).steps
        optimize = ["einsum_path", *(step.operands for step in steps)]
    return hand_over(reason, (str(p.einsum.canonical()), *operands), out, optimize=optimize or False,
                     dtype=dtype, order=p.order, casting=p.casting)


def run(text: str, parsed: Einsum, arrays: Sequence[np.ndarray], out, optimize, body: Expr | None,
        dtype: str | None = None, order: str = "K", casting: str = "safe"):
    """Answer a problem whose operands are exact arrays of compiled dtypes, in any byte order."""
    check_array(out, text, [a.shape for a in arrays])
    target = _plain_out(out)
    given, arrays = arrays, [_native(a) for a in arrays]
    problem = _problem(text, parsed, arrays, target, optimize, body, dtype, order, casting)
    call = _plans.get(problem)
    if call is None:
        if body is None and _wait_is_long(problem):
            return _by_numpy("tiny", problem, arrays, out, optimize, dtype)
        call = _planned(problem, optimize)
    else:
        _used(problem)
        _remember(problem, call)
    operands = given if isinstance(call, ViewCall) else arrays      # a view is of the caller's own memory
    result = call(operands, target) if _may_write(target) else NotImplemented
    if result is NotImplemented:
        compute = dtype or planning.types_of(problem).compute
        fresh = run(text, parsed, arrays, None, optimize, body, compute, order, "unsafe")
        # A view may lie over `out`, and NumPy's assignment is wrong where two strides overlap in one dimension.
        np.copyto(target, np.array(fresh), casting="unsafe")
        result = target
    if out is not None:
        return _written(out, target)
    return result if result.ndim else result[()]


def _problem(text, parsed, arrays, out, optimize, body, dtype, order, casting) -> Problem:
    layout = None if out is None else Layout.of(out)
    return Problem(text, parsed, tuple(map(Layout.of, arrays)), layout, dtype, order, casting,
                   hashable(optimize), body, current())


def _used(problem: Problem) -> None:
    """Note that a plan was needed, and drop those that were not for the longest."""
    try:
        _plans.move_to_end(problem)
        while len(_plans) > PLANS:
            _plans.popitem(last=False)
    except KeyError:
        pass        # another thread has just dropped it, or all


def _planned(problem: Problem, optimize) -> planning.Call:
    call = _plans[problem] = plan_call(problem, optimize)
    _used(problem)
    _remember(problem, call)
    return call


def _remember(problem: Problem, call: planning.Call) -> None:
    """Put a plan where `einsum` finds it at once, if nothing has to be cast around it: with the last few of its
    equation."""
    plain = problem.order == "K" and problem.casting == "safe" and problem.optimize is None
    if problem.body is not None or not plain:
        return
    if isinstance(call, ViewCall) and call.output and problem.dtype is None:
        _views[problem.text] = call
    elif isinstance(call, ProgramCall) and call.direct and _is_promoted(call.program.dtype, problem):
        program = call.program
        large = prod(program.shape) * program.dtype.itemsize > LARGE_RESULT
        entry = _Recent(problem.options, len(problem.inputs) + 1, program.run, program.empty, not program.shape,
                        problem.inputs[0].shape if large else None)
        key = problem.text if problem.dtype is None else (problem.text, problem.dtype)
        others = [r for r in _recent.get(key, ()) if r.launch is not entry.launch]
        _recent[key] = (entry, *others[:RECENT - 1])
    for table in (_recent, _views):
        if len(table) > PLANS:
            table.clear()


def _is_promoted(dtype: np.dtype, problem: Problem) -> bool:
    """Whether this is the result's dtype without an `out` too, whose dtype takes part in the promotion."""
    return problem.out is None or dtype == (problem.dtype or np.result_type(*(t.dtype for t in problem.inputs)))


def _wait_is_long(problem: Problem) -> bool:
    """Whether NumPy should answer this tiny call, since its kernel would have to be compiled first."""
    if problem.options.handover != "tiny" or not planning.is_tiny(problem):
        return False
    if "bfloat16" in (problem.dtype, *(t.dtype for t in (problem.out, *problem.inputs) if t)):
        return False        # NumPy's einsum refuses it
    calls = _tiny.get(problem, 0)
    if calls == 0 and not planning.needs_compiler(problem):
        return False
    if len(_tiny) > PLANS:
        _tiny.clear()
    _tiny[problem] = calls + 1
    return calls < TINY_CALLS


# -- arguments -------------------------------------------------------------------------------------------

def _is_foreign(operands) -> bool:
    """Whether some operand is another library's array, which answers for itself through NumPy's protocol."""
    return any(not isinstance(x, np.ndarray) and hasattr(type(x), "__array_function__") for x in operands)


def plain(x) -> np.ndarray:
    """An exact ndarray with one of NumPy's own native dtype objects; no copy unless bytes must be swapped."""
    return _native(_exact(x))


def _exact(x) -> np.ndarray:
    a = np.asarray(x)
    return a if type(a) is np.ndarray else a.view(np.ndarray)


def _native(a: np.ndarray) -> np.ndarray:
    if not a.dtype.isnative:
        a = a.astype(a.dtype.newbyteorder("="))
    return _with_own_dtype(a)


def _with_own_dtype(a: np.ndarray) -> np.ndarray:
    """C's long and long long are one type of two names: kernels know one of each."""
    if is_compiled_dtype(a.dtype) and a.dtype is not np.dtype(a.dtype.name):
        return a.view(a.dtype.name)
    return a


def check_array(out, text: str, shapes) -> None:
    """Raise an error if `out` is no array that can be written to, or None."""
    if out is not None and not isinstance(out, np.ndarray):
        raise DtypeError(f"out is a {type(out).__name__}, not an array", **_at_output(text, shapes),
                         fix="pass a NumPy array of the result's shape")
    if out is not None and not out.flags.writeable:
        raise OperandError("out is read-only", **_at_output(text, shapes),
                           fix="pass an array that can be written to")


def _at_output(text: str, shapes) -> dict:
    return {"text": text, "at": tokenize(text).output_span, "shapes": shapes}


def _plain_out(out) -> np.ndarray | None:
    if out is None:
        return None
    if not out.dtype.isnative:
        return np.empty(out.shape, out.dtype.newbyteorder("="))
    return _with_own_dtype(out.view(np.ndarray) if type(out) is not np.ndarray else out)


def _written(out, target):
    if target is not out and target.dtype != out.dtype:
        out[...] = target
    return out


def _may_write(target: np.ndarray | None) -> bool:
    """Whether every element of `out` has memory of its own."""
    if target is None or target.size <= 1:
        return True
    reach = target.itemsize
    for stride, extent in sorted((abs(s), n) for s, n in zip(target.strides, target.shape) if n > 1):
        if stride < reach:
            return False
        reach = stride * (extent - 1) + reach
    return True


def call_options(dtype, order, casting, text: str, shapes) -> tuple[np.dtype | None, str, str]:
    """The keywords of a call that are checked against a list. Raises `DtypeError`, `OperandError`, `ArgumentError`."""
    return _dtype(dtype, text, shapes), _order(order, text, shapes), _casting(casting, text, shapes)


def _dtype(dtype, text: str, shapes) -> np.dtype | None:
    try:
        return None if dtype is None else np.dtype(dtype)
    except TypeError:
        raise DtypeError(f"dtype={dtype!r} is not a dtype", **_at_output(text, shapes),
                         fix="pass a NumPy dtype or its name, such as 'float32'") from None


def _order(order, text: str, shapes) -> str:
    order = "K" if order is None else order.upper() if isinstance(order, str) else order
    return _choice("order", order, ("C", "F", "A", "K"), text, shapes)


def _casting(casting, text: str, shapes) -> str:
    # NumPy's casts know 'same_value' too since 2.4; its einsum does not.
    return _choice("casting", casting, ("no", "equiv", "safe", "same_kind", "unsafe"), text, shapes)


def _choice(name: str, value, choices: tuple[str, ...], text: str, shapes) -> str:
    if value in choices:
        return value
    kind = OperandError if isinstance(value, str) else ArgumentError
    *most, last = map(repr, choices)
    raise kind(f"{name}={value!r} is not known", **_at_output(text, shapes),
               fix=f"pass {', '.join(most)} or {last}")


def _unsupported(arrays, out, dtype: np.dtype | None) -> str:
    """The reason why NumPy must answer, or ''."""
    dtypes = [a.dtype for a in arrays] + ([out.dtype] if isinstance(out, np.ndarray) else [])
    if dtype is not None:
        dtypes.append(dtype)
    other = [d for d in dtypes if not is_compiled_dtype(d)]
    return f"dtype {other[0]}" if other else ""


def hashable(optimize):
    """An `optimize` for the key of a plan."""
    if isinstance(optimize, (list, tuple)):
        return tuple(hashable(x) for x in optimize)
    return optimize


# -- tensordot -------------------------------------------------------------------------------------------

def tensordot(a, b, axes=2):
    """`numpy.tensordot`, compiled: sum products over axes of `a` and `b`, on a GPU if they are there.

    `axes`: a number n (the last n axes of `a` and the first n of `b`), or (axes of `a`, axes of `b`).
    Returns an array whose axes are the others of `a`, then of `b`. Raises `OperandError` (a ValueError).
    """
    on_device = any_on_device((a, b))
    if not on_device:
        if _is_foreign((a, b)):
            return np.tensordot(a, b, axes)
        a, b = np.asarray(a), np.asarray(b)
    shapes = tuple(x.shape if isinstance(x, np.ndarray) else shape_of(x) for x in (a, b))
    left, right = _contracted(axes, shapes)
    names_a, names_b = (list(range(len(shape))) for shape in shapes)
    names_b = [len(names_a) + x for x in names_b]
    for x, y in zip(left, right):
        if shapes[0][x] != shapes[1][y]:
            raise OperandError(f"axis {x} of a has size {shapes[0][x]} and axis {y} of b has size {shapes[1][y]}",
                               shapes=shapes)
        names_b[y] = x
    output = [x for x in names_a if x not in left] + [x for x in names_b if x >= len(names_a)]
    result = einsum(a, names_a, b, names_b, output)
    return result if on_device else np.asarray(result)


def _contracted(axes, shapes) -> tuple[list[int], list[int]]:
    try:
        left, right = axes
    except TypeError:
        left, right = list(range(-axes, 0)), list(range(axes))
    left, right = ([int(x) for x in np.atleast_1d(side)] for side in (left, right))
    if len(left) != len(right):
        raise OperandError(f"{len(left)} axes of a and {len(right)} axes of b cannot be paired", shapes=shapes)
    for side, shape, name in zip((left, right), shapes, "ab"):
        for x in side:
            if not -len(shape) <= x < len(shape):
                raise OperandError(f"{name} has no axis {x}", shapes=shapes)
    left, right = ([x % len(shape) for x in side] for side, shape in zip((left, right), shapes))
    if len(set(left)) != len(left) or len(set(right)) != len(right):
        raise OperandError("an axis is contracted twice", shapes=shapes)
    return left, right
