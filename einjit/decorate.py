"""`jit`: an equation over a Python function, compiled for whatever arrays it is called with."""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Callable

from . import dispatch
from .errors import ArgumentError, EinjitError, OperandError
from .gpuarrays import any_on_device, is_device_array
from .kernel import Kernel, check_dtypes, compile
from .parse import parse_for
from .tokens import tokenize

if TYPE_CHECKING:
    from .gpukernel import GpuKernel


class EinsumFunction:
    """What `jit` returns: call it with arrays, and with `out=` if there is a place for the result.

    `body`: the element expression, or None for the product of the operands. `compile(*operands)` gives the
    `Kernel` for operands or shapes. `target`: "cuda" takes arrays on a GPU alone, or with `transfer` those in host
    memory too, which it copies there.
    """

    def __init__(self, equation: str, function: Callable, body, target: str = "cpu", transfer: bool = False):
        functools.update_wrapper(self, function)
        self.equation, self.body, self.target, self.transfer = equation, body, target, transfer

    def __call__(self, *operands, out=None, stream=None):
        if self.target == "cuda" or any_on_device((*operands, out)):
            return self._on_device(operands, out, stream)
        if self.body is None:
            return dispatch.einsum(self.equation, *operands, out=out, stream=stream)
        _refuse_stream(stream)
        arrays = [dispatch.plain(x) for x in operands]
        shapes = [a.shape for a in arrays]
        parsed = parse_for(self.equation, shapes)
        check_dtypes([a.dtype for a in arrays], self.equation, shapes, fix="convert the operand")
        return dispatch.run(self.equation, parsed, arrays, out, None, self.body)

    def _on_device(self, operands, out, stream):
        from .gpucall import answer, transferred

        if self.target == "cuda":
            host = [i for i, x in enumerate(operands) if not is_device_array(x)]
            if self.transfer and (host or out is not None and not is_device_array(out)):
                _refuse_stream(stream)
                return transferred(self.equation, operands, out, self.body)
            if len(host) == len(operands) and host:
                raise OperandError(
                    "operand 0 is in host memory, and this function runs on a GPU", text=self.equation,
                    at=_operand_span(self.equation), fix="pass arrays on a GPU, or transfer=True to jit for copies")
        return answer(self.equation, None, operands, out, None, None, "K", "safe", stream, self.body)

    def compile(self, *operands, dtype=None, schedule=None, cc: tuple[int, int] | None = None) -> Kernel | GpuKernel:
        """The kernel for operands (arrays or shapes); on a GPU for compute capability `cc`."""
        return compile(self.equation, *operands, dtype=dtype, schedule=schedule, body=self.body, target=self.target,
                       cc=cc)

    def __repr__(self) -> str:
        return f"<einjit.jit {self.equation!r}: {getattr(self, '__name__', '?')}>"


def _refuse_stream(stream) -> None:
    if stream is not None:
        raise ArgumentError("stream is for arrays on a GPU, and these are in host memory", fix="leave stream out")


def _operand_span(equation: str):
    try:
        return tokenize(equation).operand_span(0)
    except EinjitError:
        return None         # what is wrong with the equation is for the parser to say


def jit(equation: str, target: str = "cpu", transfer: bool = False) -> Callable[[Callable], EinsumFunction]:
    """Compile a function as an einsum.

        @einjit.jit("ik,jk->ij")
        def sqdist(a, b): return (a - b) ** 2

    A body of `...` is the product of the arguments; any other body is a scalar expression of one element of
    each, and is summed over the labels that the output does not have. Each argument is an operand.

    Arrays on a GPU are computed there. `target="cuda"` refuses others, unless `transfer` is true: it then copies them
    there, and the result back if none of them was there.

    Raises `EquationError` for an equation or a body that cannot be compiled, `OperandError` where the
    function's parameters do not match the equation's terms.
    """
    if not isinstance(equation, str):
        raise OperandError(f"jit needs an equation, not {equation!r}", fix='write @einjit.jit("ij,jk->ik")')

    if target not in ("cpu", "cuda"):
        raise ArgumentError(f"target is {target!r}", fix="pass target='cpu' or target='cuda'")

    def decorate(function: Callable) -> EinsumFunction:
        from .body import body_of

        terms = len(equation.partition("->")[0].split(","))
        return EinsumFunction(equation, function, body_of(function, terms), target, transfer)

    return decorate
