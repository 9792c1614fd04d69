"""PTX on the CPU: what a kernel computes, and whether it may, without a GPU.

    kernel = parse(ptx)
    report = launch(kernel, grid=4, block=128, args=[a, b, out, np.int32(n)])

The arrays hold the results then. A kernel that races, leaves its arrays or reads what nobody wrote raises one of the
errors; the report tells bank conflicts and sectors of memory.
"""

from .errors import DivergentBarrier, DivergentWarp, Endless, Misaligned, OutOfBounds, PtxError, Race, \
    Uninitialised, UnsupportedPtx
from .execute import Placed, Report, launch
from .parse import parse
from .syntax import Kernel
from .traffic import Traffic

__all__ = [
    "DivergentBarrier", "DivergentWarp", "Endless", "Kernel", "Misaligned", "OutOfBounds", "Placed", "PtxError", "Race",
    "Report", "Traffic", "Uninitialised", "UnsupportedPtx", "launch", "parse",
]
