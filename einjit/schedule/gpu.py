"""Schedule policy for GPUs: which family a contraction gets on a device, and why (`gpuproducts.py`, `gpusums.py`).

* tensor: products of float16 or bfloat16 whose runs are whole vectors, on tensor cores, summed in float32;
* tiled: products with M, N and K. Blocks of both operands lie in shared memory, each thread holds a register tile
  (Volkov and Demmel 2008; the arrangement in halves is CUTLASS's);
* reduced: sums that are long, or read along the dimension in which an operand is contiguous. The threads of a block
  share a sum, and blocks its parts where there are too few sums to fill the device; parts are added in a fixed order;
* turned: maps of operands that are contiguous along another dimension than the output is. Squares of them pass
  through shared memory, to be read along their rows and written along the output's (Ruetsch and Micikevicius 2009);
* element: everything else. One thread an element of the output, neighbours in the output on neighbouring threads.
"""
from __future__ import annotations

from ..contraction import Contraction
from ..machine import Gpu
from .choice import Choice
from .gpuproducts import suits_tensor_cores, tensor, tiled, tiling_pays
from .gpusums import element, reduced, sharing_sums_pays, turned, turned_along


def choose_for_gpu(c: Contraction, gpu: Gpu, aligned: bool = True) -> Choice:
    """The policy's schedule for `c`, which `normalised` has been applied to. `aligned`: pointers are multiples of what
    tensor cores read at once."""
    if aligned and suits_tensor_cores(c, gpu):
        return tensor(c, gpu)
    if tiling_pays(c):
        return tiled(c, gpu)
    if sharing_sums_pays(c, gpu):
        return reduced(c, gpu)
    return turned(c) if turned_along(c) else element(c)
