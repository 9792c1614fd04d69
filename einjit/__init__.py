"""einjit: an einsum equation goes in, a compiled Numba function comes out."""
from __future__ import annotations

# Nothing here imports Numba, llvmlite or opt_einsum: they come with the first kernel.
from . import cache, errors
from .decorate import jit
from .dispatch import einsum, tensordot
from .explaining import explain
from .kernel import compile
from .options import options
from .stats import stats

__version__ = "0.1.0"

__all__ = ["cache", "compile", "einsum", "errors", "explain", "jit", "options", "stats", "tensordot"]
