"""The libraries that are timed: each turns a case into a call that computes it.

A call returns a new result as that library makes it (which may be a transposed view of it), except where the
case has an `out`. There it must write into that array; a library that cannot is asked for a new result laid
out in order.
"""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from math import prod

import numpy as np

from .cases import Case

Call = Callable[[], object]
LOOP_LIMIT = 10**9  # points of one loop over three or more operands, some seconds in NumPy
_numpy_einsum = np.einsum
_numpy_c_einsum = np._core.multiarray.c_einsum if hasattr(np, "_core") else np.core.multiarray.c_einsum


class TooSlow(Exception):
    """The peer could compute the case, and would take minutes."""


class Peer(ABC):
    """Constructing one imports its library, and raises ImportError where that is missing. `compiles`: whether the
    first call of a case takes longer than the others."""

    name: str
    package: str
    compiles = False

    def __init__(self, threads: int) -> None:  # noqa: B027 - some have nothing to do
        """Pin the library to `threads` threads, beyond what the environment did before its import."""

    @abstractmethod
    def prepare(self, case: Case, operands: list[np.ndarray], out: np.ndarray | None) -> Call:
        """Everything that need not be paid for on each call is done here."""

    @property
    def version(self) -> str:
        return importlib.metadata.version(self.package)


class NumPy(Peer):
    """`optimize=True`, which finds the order anew on every call, as NumPy does."""

    name, package = "numpy", "numpy"
    options = {"optimize": True}
    einsum = staticmethod(_numpy_einsum)

    def __init__(self, threads: int) -> None:
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:
            return  # the environment variables have done it
        threadpool_limits(threads)

    def prepare(self, case, operands, out):
        refuse_long_loops(case, bool(self.options))
        einsum, equation, options = self.einsum, case.equation, self.options
        if case.result:     # NumPy's `dtype=` is forgotten by `optimize=True`
            return lambda: einsum(equation, *(x.astype(case.result) for x in operands), out=out, **options)
        if out is not None:
            return lambda: einsum(equation, *operands, out=out, **options)
        return lambda: einsum(equation, *operands, **options)


def refuse_long_loops(case: Case, optimize: bool) -> None:
    """Raise TooSlow where NumPy would run one long loop over three or more operands.

    It does so with `optimize=True` too, where a pairwise order needs a larger intermediate than NumPy allows.
    """
    stand_ins = (np.broadcast_to(0, shape) for shape in case.shapes)
    path = np.einsum_path(case.equation, *stand_ins, optimize=optimize)[0]
    terms = list(case.terms)
    for step in path[1:]:
        taken = [terms.pop(i) for i in sorted(step, reverse=True)]
        labels = set("".join(taken))
        points = prod(case.sizes[label] for label in labels)
        if len(taken) > 2 and points > LOOP_LIMIT:
            raise TooSlow(f"NumPy runs one loop of {points:.1e} points over {len(taken)} operands")
        terms.append("".join(labels & set("".join([*terms, case.output]))))


class NumPyPlain(NumPy):
    """`np.einsum` as most people call it: one loop, no BLAS."""

    name, options = "np.einsum", {}


class NumPyC(NumPy):
    """The C function below `np.einsum`."""

    name, options = "c_einsum", {}
    einsum = staticmethod(_numpy_c_einsum)


class OptEinsum(Peer):
    """An expression, compiled once, on NumPy's arrays."""

    name, package = "opt_einsum", "opt_einsum"

    def __init__(self, threads: int) -> None:
        import opt_einsum

        self.library = opt_einsum
        NumPy(threads)

    def prepare(self, case, operands, out):
        expression = self.library.contract_expression(case.equation, *case.shapes)
        if out is not None:
            return lambda: expression(*operands, out=out)
        return lambda: expression(*operands)


class Torch(Peer):
    """`torch.einsum` on tensors that share the operands' memory."""

    name, package = "torch", "torch"

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.library = torch

    def prepare(self, case, operands, out):
        einsum, equation = self.library.einsum, case.equation
        tensors = [self.library.from_numpy(x) for x in operands]
        if case.result:
            wide = getattr(self.library, case.result)
            return lambda: einsum(equation, *(x.to(wide) for x in tensors))
        if out is not None:
            target = self.library.from_numpy(out)
            return lambda: target.copy_(einsum(equation, *tensors))
        return lambda: einsum(equation, *tensors)


class Jax(Peer):
    """Jitted for the case, operands on the device before; its arrays cannot be written into."""

    name, package, compiles = "jax", "jax", True

    def __init__(self, threads: int) -> None:
        import jax

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", True)
        self.library = jax

    def prepare(self, case, operands, out):
        numpy, equation = self.library.numpy, case.equation
        arrays = [self.library.device_put(x) for x in operands]
        jitted = self.library.jit(lambda *xs: numpy.einsum(equation, *(x.astype(case.result_dtype) for x in xs)))
        return lambda: jitted(*arrays).block_until_ready()


class Tblis(Peer):
    """TBLIS through pytblis."""

    name, package = "pytblis", "pytblis"

    def __init__(self, threads: int) -> None:
        import pytblis

        pytblis.set_num_threads(threads)
        self.library = pytblis

    def prepare(self, case, operands, out):
        refuse_long_loops(case, optimize=True)  # it takes NumPy's order, and NumPy's loop where that is one
        einsum, equation = self.library.einsum, case.equation
        if out is not None:
            return lambda: einsum(equation, *operands, out=out)
        return lambda: einsum(equation, *operands)


class Einjit(Peer):
    """`einjit.einsum`; nothing that can be compiled is handed to NumPy."""

    name, package, compiles = "einjit", "einjit", True

    def __init__(self, threads: int) -> None:
        import einjit

        einjit.options(threads=threads, handover="unsupported")
        self.library = einjit

    @property
    def version(self) -> str:
        return self.library.__version__  # a checkout need not be installed

    def prepare(self, case, operands, out):
        einsum, equation = self.library.einsum, case.equation
        if case.result:
            return lambda: einsum(equation, *operands, out=out, dtype=case.result)
        if out is not None:
            return lambda: einsum(equation, *operands, out=out)
        return lambda: einsum(equation, *operands)


class EinjitHandle(Einjit):
    """A compiled kernel that is kept, always writing into an array that exists."""

    name = "einjit.compile"

    def prepare(self, case, operands, out):
        kernel = self.library.compile(case.equation, *operands)
        target = case.new_output() if out is None else out
        return lambda: kernel(*operands, out=target)


class EinjitAlone(Einjit):
    """The same call on one thread, whatever the others may use."""

    name = "einjit.alone"

    def prepare(self, case, operands, out):
        context = copy_context()
        context.run(self._enter_one_thread)
        return partial(context.run, super().prepare(case, operands, out))

    def _enter_one_thread(self) -> None:
        self.library.options(threads=1).__enter__()


PEERS = {peer.name: peer for peer in (
    Einjit, EinjitHandle, EinjitAlone, NumPy, NumPyPlain, NumPyC, OptEinsum, Torch, Jax, Tblis)}


def load(names: Sequence[str], threads: int) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that are there, by name, and for each of the others the reason."""
    found: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            found[name] = PEERS[name](threads)
        except ImportError as error:
            missing[name] = str(error)
    return found, missing
