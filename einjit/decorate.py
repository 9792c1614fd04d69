"""`jit`: an equation over a Python function, compiled for whatever arrays it is called with."""
from __future__ import annotations

import functools
from typing import Callable


from . import dispatch
from .errors import OperandError
from .kernel import Kernel, check_dtypes, compile
from .parse import parse_for


class EinsumFunction:
    """What `jit` returns: call it with arrays, and with `out=` if there is a place for the result.

    `body`: the element expression, or None for the product of the operands. `compile(*operands)` gives the
    `Kernel` for operands or shapes.
    """

    def __init__(self, equation: str, function: Callable, body):
        functools.update_wrapper(self, function)
        self.equation, self.body = equation, body

    def __call__(self, *operands, out=None):
        if self.body is None:
            return dispatch.einsum(self.equation, *operands, out=out)
        arrays = [dispatch.plain(x) for x in operands]
        shapes = [a.shape for a in arrays]
        parsed = parse_for(self.equation, shapes)
        check_dtypes([a.dtype for a in arrays], self.equation, shapes, fix="convert the operand")
        return dispatch.run(self.equation, parsed, arrays, out, None, self.body)

    def compile(self, *operands, dtype=None, schedule=None) -> Kernel:
        """The kernel for operands (arrays or shapes)."""
        return compile(self.equation, *operands, dtype=dtype, schedule=schedule, body=self.body)

    def __repr__(self) -> str:
        return f"<einjit.jit {self.equation!r}: {getattr(self, '__name__', '?')}>"


def jit(equation: str) -> Callable[[Callable], EinsumFunction]:
    """Compile a function as an einsum.

        @einjit.jit("ik,jk->ij")
        def sqdist(a, b): return (a - b) ** 2

    A body of `...` is the product of the arguments; any other body is a scalar expression of one element of
    each, and is summed over the labels that the output does not have. Each argument is an operand.

    Raises `EquationError` for an equation or a body that cannot be compiled, `OperandError` where the
    function's parameters do not match the equation's terms.
    """
    if not isinstance(equation, str):
        raise OperandError(f"jit needs an equation, not {equation!r}", fix='write @einjit.jit("ij,jk->ik")')

    def decorate(function: Callable) -> EinsumFunction:
        from .body import body_of

        terms = len(equation.partition("->")[0].split(","))
        return EinsumFunction(equation, function, body_of(function, terms))

    return decorate
