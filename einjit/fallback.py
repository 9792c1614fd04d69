"""NumPy's own einsum, bound once: people replace `np.einsum` by ours, and we must not call ourselves."""
from __future__ import annotations

import numpy as np

from .stats import hand_over as count_handed_over

numpy_einsum = np.einsum

# Kind and itemsize of the element types that kernels are compiled for.
_COMPILED = {
    ("b", 1), ("f", 2), ("f", 4), ("f", 8), ("c", 8), ("c", 16),
    *((kind, size) for kind in "iu" for size in (1, 2, 4, 8)),
}


def is_compiled_dtype(dtype: np.dtype) -> bool:
    """Whether kernels exist for this element type, in either byte order."""
    return (dtype.kind, dtype.itemsize) in _COMPILED or is_bfloat16(dtype)


def is_bfloat16(dtype: np.dtype) -> bool:
    """Whether this is the type that ml_dtypes adds to NumPy. NumPy finds it by name once that is imported, as it
    is wherever an array of it is; NumPy's own einsum refuses it."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def hand_over(reason: str, arguments, out, **keywords):
    """The call as NumPy would have done it, counted under `reason`."""
    count_handed_over(reason)
    if out is not None:
        keywords["out"] = out
    return numpy_einsum(*arguments, **keywords)
